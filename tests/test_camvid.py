"""The CamVid validation split, end to end: every input format, both runtimes, and a script that knows nothing of us."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import segment
from tests import independent
from tests.datasets import FORMATS, Item, read_rows
from tests.serving import shared

CARD = "unet-camvid-onnx-0001"
EXACT = {"runtime": "onnxruntime", "precision": "f32"}
FEW = 3

pytestmark = pytest.mark.shared


def run(output: Path, **job: Any) -> segment.RunReport:
    weights = str(shared("models/unet32-camvid.onnx"))
    return segment.run(segment.Job(**{"model": CARD, "weights": weights, "output": str(output), **job}))


def pairs_of(limit: int | None) -> list[tuple[Path, Path]]:
    folders = [shared(f"camvid/{name}/0016E5_07959.png").parent for name in ("images", "labels")]
    return independent.pairs_of(*folders, limit)


def camvid(limit: int | None = None) -> list[Item]:
    pairs = pairs_of(limit)
    return [Item(image.name, image.read_bytes(), label.read_bytes()) for image, label in pairs]


def count_alone(limit: int | None = None) -> NDArray[np.int64]:
    model = independent.load_model(shared("models/unet32-camvid.onnx"), threads=2)
    return independent.count(model, pairs_of(limit))


def counts(report: segment.RunReport) -> NDArray[np.int64]:
    """Rows and columns of the twelve classes; nothing is void in CamVid."""
    matrix = report.total.confusion.counts
    assert matrix.shape == (13, 12)
    assert not matrix[12].any()
    return matrix[:12]


def by_stem(output: Path) -> dict[str, Any]:
    kept = ("width", "height", "status", "error", "mask", "confusion", "pixel_accuracy", "miou")
    return {row["stem"]: {name: row[name] for name in kept} for row in read_rows(output)}


@pytest.fixture(scope="module")
def few_alone() -> NDArray[np.int64]:
    return count_alone(FEW)


class Few(dict[str, Path]):
    """The outputs of the first images by input format, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        self[name] = self.folder / f"{name}-out"
        run(self[name], **FORMATS[name](self.folder / name, camvid(FEW)), **EXACT, engine="local")
        return self[name]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Few:
    return Few(tmp_path_factory.mktemp("camvid"))


@pytest.mark.parametrize("name", FORMATS)
def test_counts_are_those_of_the_independent_script(name: str, few: Few, few_alone: NDArray[np.int64]) -> None:
    from segment.output.ledger import Ledger
    from segment.report.aggregate import load_report
    from segment.store.client import Store
    from segment.store.urls import to_url

    report = load_report(Ledger(Store(), to_url(str(few[name]))))
    assert report.complete
    assert (report.total.images, report.total.errors, report.total.scored) == (FEW, 0, FEW)
    assert counts(report).sum() == FEW * 480 * 368
    np.testing.assert_array_equal(counts(report), few_alone)
    assert report.miou() == pytest.approx(independent.miou_omz(few_alone), abs=1e-12)
    assert report.card.metric.convention == "omz"


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "files"])
def test_every_format_gives_the_same_masks(name: str, few: Few) -> None:
    assert by_stem(few[name]) == by_stem(few["files"])


def test_formats_are_cut_in_several_shards(few: Few) -> None:
    assert {name: len(list((few[name] / "stats").iterdir())) for name in FORMATS} == {
        "files": 1, "tars": 3, "parquet": 2, "list": 1
    }  # fmt: skip


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_gives_the_same_masks(few: Few, tmp_path: Path) -> None:
    theirs = few["tars"]
    run(tmp_path, input=str(few.folder / "tars"), **EXACT, engine="ray")
    ours = {path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "masks").rglob("*.parquet")}
    assert ours == {path.relative_to(theirs): path.read_bytes() for path in (theirs / "masks").rglob("*.parquet")}


def test_independent_script_imports_nothing_of_ours() -> None:
    source = Path(independent.__file__).read_text(encoding="utf-8")
    assert not [line for line in source.splitlines() if line.startswith(("import segment", "from segment"))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_101_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = camvid()
    assert len(items) == 101
    alone = count_alone()
    mious = {"independent": independent.miou_omz(alone)}
    inputs = {name: write(tmp_path / name, items) for name, write in FORMATS.items()}
    for name, job in inputs.items():
        report = run(tmp_path / f"{name}-out", **job, **EXACT, engine="local")
        assert (report.total.images, report.total.errors) == (101, 0)
        np.testing.assert_array_equal(counts(report), alone, err_msg=name)
        mious[f"onnxruntime f32, {name}"] = report.miou() or 0.0
    assert mious["onnxruntime f32, files"] == pytest.approx(mious["independent"], abs=1e-12)

    from segment.models.sessions import capabilities

    for precision, points in (("f32", 0.05), ("bf16", 0.3)):
        if precision == "bf16" and "openvino:cpu:bf16" not in capabilities():
            continue
        output = tmp_path / f"openvino-{precision}"
        found = run(output, **inputs["files"], runtime="openvino", precision=precision, engine="local")
        assert abs((found.miou() or 0.0) - mious["independent"]) * 100 < points, precision
        mious[f"openvino {precision}"] = found.miou() or 0.0
    with capsys.disabled():
        print("\n" + "\n".join(f"{100 * value:9.4f} % mIoU, {name}" for name, value in mious.items()))
