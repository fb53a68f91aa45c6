"""The intervals of the 101 labelled images of CamVid, against a bootstrap that is written anew here as a plain loop."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import segment as api
from segment.metrics.bootstrap import Bootstrap
from segment.models.card import load_card
from tests.runs import Place
from tests.serving import shared
from tests.written_runs import Made, read_template, write_run

pytestmark = pytest.mark.shared

NAMES = load_card("unet-camvid-onnx-0001").classes.names
IGNORED = 11  # 'Unlabeled'
RESAMPLES, SEED = 1000, 7


@pytest.fixture(scope="module")
def frames() -> list[Made]:
    """Each image is predicted as the label of the one before: what moves is wrong."""
    folder = shared("camvid/labels/0016E5_07959.png").parent
    files = sorted(folder.glob("*.png"))
    assert len(files) == 101
    labels = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)[::2, ::2] for file in files]
    pairs = zip(files, [labels[-1], *labels], labels, strict=False)
    return [Made(file.name, np.ascontiguousarray(one), np.ascontiguousarray(label)) for file, one, label in pairs]


@pytest.fixture(scope="module")
def output(frames: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Place(tmp_path_factory.mktemp("camvid"))
    place.add("a.png", 1)
    place.run()
    classes: dict[str, Any] = {"names": NAMES, "palette": [(n, n, n) for n in range(len(NAMES))], "ignore": [IGNORED]}
    return write_run(place.images.parent / "frames", read_template(place.output), {"s": frames}, 8, classes)


@pytest.fixture(scope="module")
def matrices(frames: list[Made]) -> list[NDArray[np.int64]]:
    """Pixels by label and prediction, of each image."""
    found = []
    for frame in frames:
        assert frame.label is not None
        counts = np.zeros((len(NAMES), len(NAMES)), np.int64)
        np.add.at(counts, (frame.label, frame.mask), 1)
        found.append(counts)
    return found


def iou_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU in %, as Open Model Zoo counts it: ignored labels and predictions are left out."""
    kept = counts[:IGNORED, :IGNORED]
    found = np.full(IGNORED, np.nan)
    for index in range(IGNORED):
        union = kept[index].sum() + kept[:, index].sum() - kept[index, index]
        if union and kept[index].sum():
            found[index] = 100 * kept[index, index] / union
    return found


def resampled(matrices: list[NDArray[np.int64]], times: NDArray[Any]) -> list[NDArray[np.float64]]:
    """IoUs of the resamples that draw each image so many times."""
    found = []
    for drawn in times:
        total = np.zeros_like(matrices[0])
        for counts, number in zip(matrices, drawn, strict=True):
            total += int(number) * counts
        found.append(iou_of(total))
    return found


def test_the_intervals_are_those_of_a_plain_loop(output: Path, matrices: list[NDArray[np.int64]]) -> None:
    found = api.score(output, resamples=RESAMPLES, seed=SEED).overall
    assert found.units == 101
    assert 100 * (found.miou or 0) == pytest.approx(np.nanmean(iou_of(sum(matrices))), abs=1e-9)  # type: ignore[arg-type]
    ious = resampled(matrices, Bootstrap(RESAMPLES, SEED).draws(np.arange(101)).T)
    mious = [np.nanmean(iou) for iou in ious]
    interval = found.intervals["miou"]
    assert interval is not None
    assert [100 * interval.low, 100 * interval.high] == pytest.approx(np.percentile(mious, [2.5, 97.5]), abs=1e-9)
    for index in range(IGNORED):
        bounds, column = found.class_intervals[index], np.array(ious)[:, index]
        assert bounds is not None
        wanted = np.nanpercentile(column, [2.5, 97.5])
        assert [100 * bounds.low, 100 * bounds.high] == pytest.approx(wanted, abs=1e-9)


def test_they_are_those_of_the_textbook(output: Path, matrices: list[NDArray[np.int64]]) -> None:
    """101 images drawn of 101, as Efron has it: but for chance the bounds are the same, of 3,000 resamples each."""
    bounds = api.score(output, resamples=3000, seed=SEED).overall.intervals["miou"]
    assert bounds is not None
    drawn = np.random.default_rng(1).multinomial(101, np.full(101, 1 / 101), 3000)
    stacked = np.stack(matrices).reshape(101, -1)
    mious = [np.nanmean(iou_of(total.reshape(matrices[0].shape))) for total in drawn @ stacked]
    low, high = np.percentile(mious, [2.5, 97.5])
    assert 100 * bounds.low == pytest.approx(low, abs=0.12 * (high - low))
    assert 100 * bounds.high == pytest.approx(high, abs=0.12 * (high - low))
