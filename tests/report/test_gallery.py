"""Which images the report shows: one of each cluster of near-duplicates, the worst of each class, typical ones."""

from pathlib import Path

import numpy as np
import pytest

from segment.metrics import Confusion
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of
from segment.report.aggregate import load_report
from segment.report.exhibits import Exhibit, Group
from segment.report.gallery import candidates, gallery
from segment.report.notable import Notable, read_notable
from segment.report.rows import id_of, read_scores
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.runs import CARD, Place, png, scene

CLUSTERS, FRAMES = 5, 6


def video(folder: Path) -> Place:
    """A run of five sequences of six frames: the same scene with a little noise. The worst frames are of one."""
    place = Place(folder)
    for sequence in range(CLUSTERS):
        pixels, mask = scene(sequence)
        for frame in range(FRAMES):
            noise = np.random.default_rng(frame).integers(0, 6, pixels.shape, dtype=np.uint8)
            label = mask.copy()
            label[: 4 * (CLUSTERS - sequence) + frame // 2] += 1
            label[label > 2] = 0
            place.write(
                f"{sequence}-{frame}.png", png(np.where(pixels > 128, pixels - noise, pixels + noise)), png(label)
            )
    place.run(part_size=8)
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return video(tmp_path_factory.mktemp("video"))


def shown(place: Place) -> tuple[list[Group], Notable, Ledger]:
    ledger = Ledger(Store(), f"file://{place.output}")
    task, plan = task_and_plan(ledger)
    report = load_report(ledger)
    numbers = numbers_of(plan, report.parts)
    notable = read_notable(ledger, plan, report.card, report.total.confusion, numbers)
    return gallery(ledger, read_scores(ledger, plan, report.parts), task, notable), notable, ledger


def test_no_group_shows_two_frames_of_a_sequence(place: Place) -> None:
    groups, _, _ = shown(place)
    titles = [group.title for group in groups]
    assert titles[0] == "Worst"
    assert titles[-1] == "Best"
    for group in groups:
        sequences = [item.id.partition("-")[0] for item in group.exhibits]
        assert len(set(sequences)) == len(sequences), group.title
    first = [item.id.partition("-")[0] for item in groups[0].exhibits]
    assert len(first) == 4
    ids = [item.id for group in groups for item in group.exhibits]
    assert len(set(ids)) == len(ids)  # no image twice
    mious = [miou_of(item) for group in groups for item in group.exhibits]
    assert mious[0] == min(mious)


def miou_of(item: Exhibit) -> float:
    return next(float(text.split()[1]) for _, text in item.phrases if text.startswith("mIoU "))


def test_a_single_sequence_still_has_an_image_of_each_kind(tmp_path: Path) -> None:
    place = Place(tmp_path)
    pixels, mask = scene(1)
    for frame in range(16):
        label = mask.copy()
        label[:frame] = (label[:frame] + 1) % 3
        place.write(f"{frame:02}.png", png(pixels), png(label))
    place.run()
    groups, _, _ = shown(place)
    found = {group.title: [item.id for item in group.exhibits] for group in groups}
    assert found["Worst"] == ["15.png"]
    assert found["Best"] == ["00.png"]


def test_a_long_video_does_not_hide_the_next_worst_scenes() -> None:
    ranking = np.concatenate([np.arange(1000, 1600), np.arange(2000, 2600), np.arange(600)])
    found = candidates(ranking, 32)
    assert found[:32] == list(range(1000, 1032))
    assert found[32:43] == list(range(1082, 1600, 51))
    assert found[43] == 2000
    assert len(found) == 43 + 12 + 9  # of the last 600 images 9: there are no more than twice 32
    assert candidates(np.arange(5), 32) == [0, 1, 2, 3, 4]


def test_the_worst_of_each_class_says_so(place: Place) -> None:
    groups, notable, ledger = shown(place)
    rows = {row["id"]: row for row in read_all(place)}
    for index, ranked in notable.worst.items():
        lowest = min(iou for row in rows.values() if (iou := class_iou(row, index)) is not None)
        assert ranked[0][0] == pytest.approx(lowest)
        assert class_iou(rows[id_of(ledger, ranked[0][1])], index) == pytest.approx(lowest)
    assert set(notable.worst) == {0, 1, 2}  # 3 is ignored
    phrases = [phrase for group in groups for item in group.exhibits for phrase in item.phrases]
    remarks = [text for kind, text in phrases if kind == "remark"]
    assert any(remark.startswith("lowest IoU of ") for remark in remarks)


def test_typical_images_are_those_nearest_to_the_whole_run(place: Place) -> None:
    _, notable, ledger = shown(place)
    rows = read_all(place)
    total = np.sum([counts_of(row).astype(float) for row in rows], axis=0)
    total /= total.sum()
    distance = {row["id"]: float(np.abs(counts_of(row) / counts_of(row).sum() - total).sum()) for row in rows}
    ranked = sorted(distance.values())[:32]
    assert [distance[id_of(ledger, row)] for row in notable.typical] == pytest.approx(ranked)


def read_all(place: Place) -> list[dict[str, object]]:
    from tests.runs import read_rows

    return read_rows(place.output)


def counts_of(row: dict[str, object]) -> np.ndarray:
    cells = row["confusion"]
    assert isinstance(cells, dict)
    flat = np.zeros((len(CARD.classes) + 1) * len(CARD.classes), np.int64)
    flat[cells["cell"]] = cells["count"]
    return flat


def class_iou(row: dict[str, object], index: int) -> float | None:
    """IoU of a class in an image by Open Model Zoo's convention; None if it has less than 0.1 % of the labels."""
    counts = Confusion(counts_of(row).reshape(-1, len(CARD.classes))).counts[:3, :3]
    right, labelled = counts[index, index], counts[index].sum()
    if labelled < 0.001 * counts.sum() or not labelled:
        return None
    return float(right / (labelled + counts[:, index].sum() - right))
