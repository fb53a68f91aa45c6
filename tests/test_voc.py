"""DeepLabV3 on real PASCAL VOC images: our mIoU is that of a script that uses none of our code."""

import ast
from pathlib import Path

import numpy as np
import pytest

from jobs import voc, voc_independent

QUICK = 57  # every 57th image: three of them
CASES = [("int8", "stretch"), *(("dm05-int8", resize) for resize in voc_independent.RESIZES)]  # all: see below


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    if not (shared / "voc" / "images").is_dir():
        pytest.skip(f"REAL FILES MISSING: {shared / 'voc'} (set SEGMENT_SHARED)")
    return shared


def agrees(line: voc.Line, points: float) -> None:
    assert 100 * abs(line.ours - line.independent) < points, line
    assert line.low < line.ours < line.high


@pytest.mark.shared
@pytest.mark.parametrize(("model", "resize"), CASES)
def test_a_few_images_score_as_the_independent_script_says(model: str, resize: str, real: Path) -> None:
    agrees(voc.measure(real, model, resize, step=QUICK), points=0.1)


@pytest.mark.shared
def test_scores_are_enlarged_nearly_as_well_as_to_the_source_size(real: Path) -> None:
    agrees(voc.measure(real, "scores-65x65", "pad", step=QUICK), points=0.1)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("model", "resize", "miou"),
    [
        ("int8", "stretch", 73.37),
        ("int8", "letterbox", 75.13),
        ("int8", "pad", 76.22),
        ("dm05-int8", "stretch", 69.78),
        ("dm05-int8", "letterbox", 71.65),
        ("dm05-int8", "pad", 71.17),
        ("scores-65x65", "stretch", 74.78),
        ("scores-65x65", "letterbox", 75.58),
        ("scores-65x65", "pad", 75.18),
        ("scores-257", "stretch", 62.75),
        ("scores-257", "letterbox", 60.83),
    ],
)
def test_all_images_score_as_the_independent_script_says(model: str, resize: str, miou: float, real: Path) -> None:
    line = voc.measure(real, model, resize, threads=2)
    agrees(line, points=0.1)
    # Another independent script's figures; kernels of other CPUs choose other classes for some border pixels.
    assert abs(100 * line.ours - miou) < 0.5
    if line.published is not None:
        assert line.low < line.published < line.high


def test_the_independent_script_uses_none_of_our_code() -> None:
    tree = ast.parse(Path(voc_independent.__file__).read_text(encoding="utf-8"))
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in found if name and name.split(".")[0] in ("segment", "tests", "jobs")]


def test_the_interval_is_a_bootstrap_over_images() -> None:
    """Two classes; of a hundred images half are all right and half all wrong, so that the mIoU is about a third."""
    right, wrong = np.zeros((2, 21, 21), np.int64)
    right[0, 0] = right[1, 1] = wrong[0, 1] = wrong[1, 0] = 10
    matrices = np.stack([right, wrong] * 50)
    low, high = voc.interval(matrices)
    assert voc_independent.miou_of(matrices.sum(axis=0)) == pytest.approx(1 / 3)
    assert 0.2 < low < 1 / 3 < high < 0.5
    assert voc.interval(np.stack([right] * 5)) == (1.0, 1.0)


def test_the_table_has_a_line_a_measure() -> None:
    line = voc.Line("int8", "pad", 0.7616, 0.76155, 0.7, 0.78, 0.7426)
    assert voc.as_markdown([line], 170).splitlines()[-1] == ("| int8 | pad | 76.16 | 70.0 to 78.0 | 76.16 | 74.26 |")
