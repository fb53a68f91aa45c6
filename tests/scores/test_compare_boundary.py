"""`segment compare` of runs with `--boundary`: against a plain loop, in every form; and where it cannot be compared."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

import segment
from segment.metrics import BoundaryCounts, boundary_counts
from segment.metrics.bootstrap import Bootstrap
from segment.report.comparison.comparison_formats import print_comparison, to_csv, to_json, to_markdown
from segment.report.comparison.comparison_notes import all_notes
from segment.scores.boundaries import REFUSED
from segment.scores.paired import PairedBoundaries
from tests.runs import CARD, Place
from tests.written_runs import Made, read_template, write_run

FRACTION, NUMBER, SIZE = 0.06, 12, (20, 26)
NAMES = CARD.classes.names
Masks = NDArray[np.uint8]
Write = Callable[..., Path]


def blocks(seed: int) -> Masks:
    """Masks of blocks of a few pixels, of all classes."""
    small = np.random.default_rng(seed).integers(0, 4, (NUMBER, 4, 2))
    return np.kron(small, np.ones((1, 5, 13), int)).astype(np.uint8)


LABELS = blocks(0)
LABELS[:, 0] = 255
ONES, OTHERS = np.roll(blocks(0), 1, axis=2), np.where(blocks(1) < 1, 0, blocks(0)).astype(np.uint8)


def made(masks: Masks, labels: Masks = LABELS, order: slice = slice(None)) -> list[Made]:
    images = [Made(f"{n:02}.png", mask, label) for n, (mask, label) in enumerate(zip(masks, labels, strict=True))]
    images[3] = Made("03.png", masks[3])  # without a label
    return images[order]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    place = Place(tmp_path_factory.mktemp("boundaries"))
    place.add("a.png", 1)
    place.run()
    template = read_template(place.output)
    written: list[Path] = []

    def run(images: list[Made], boundary: float | None = FRACTION, **changes: Any) -> Path:
        contract = template["contract"] | ({} if boundary is None else {"boundary": boundary})
        written.append(place.folder / f"run{len(written)}")
        return write_run(written[-1], template, {"s": images}, contract=contract, **changes)

    return run


@pytest.fixture(scope="module")
def runs(write: Write) -> tuple[Path, Path]:
    return write(made(ONES)), write(made(OTHERS, order=slice(None, None, -1)), part_size=5)


def total(masks: Masks, images: list[int]) -> BoundaryCounts:
    counts = (boundary_counts(masks[n], LABELS[n], classes=4, fraction=FRACTION, ignore=(3,)) for n in images)
    return sum(counts, BoundaryCounts.zeros(4))


def paired(found: Any) -> PairedBoundaries:
    boundary = found.against[0].overall.scores.boundary
    assert isinstance(boundary, PairedBoundaries)
    return boundary


def test_change_and_interval_are_those_of_a_plain_loop(runs: tuple[Path, Path]) -> None:
    boundary = paired(segment.compare(*runs, resamples=60, seed=2))
    labelled = [n for n in range(NUMBER) if n != 3]
    one, other = (total(masks, labelled).score.iou for masks in (ONES, OTHERS))
    np.testing.assert_allclose([boundary.a.score.iou, boundary.b.score.iou], [one, other])
    changes = [change.value for change in boundary.class_changes]
    np.testing.assert_allclose(changes, other - one)
    assert boundary.change.value == pytest.approx(np.nanmean(other) - np.nanmean(one), abs=1e-12)
    assert abs(boundary.change.value) > 0.05
    drawn = []
    for draw in Bootstrap(60, 2).draws(np.arange(NUMBER)).T:
        images = [n for n in labelled for _ in range(int(draw[n]))]
        drawn.append(total(OTHERS, images).score.iou - total(ONES, images).score.iou)
    wanted = np.percentile(np.nanmean(drawn, axis=1), [2.5, 97.5])
    bounds = boundary.change.interval
    assert bounds is not None
    np.testing.assert_allclose([bounds.low, bounds.high], wanted, atol=1e-12)
    of_class = boundary.class_changes[1].interval
    assert of_class is not None
    np.testing.assert_allclose([of_class.low, of_class.high], np.percentile(np.array(drawn)[:, 1], [2.5, 97.5]))
    assert boundary.class_changes[3].interval is None  # ignored


def test_each_side_is_what_segment_score_says(runs: tuple[Path, Path]) -> None:
    boundary = paired(segment.compare(*runs, resamples=20, classes=["Sky", "Car"], masks=False))
    for output, side in zip(runs, (boundary.a, boundary.b), strict=True):
        alone = segment.score(output, resamples=0, classes=["Sky", "Car"]).overall.boundary
        assert alone is not None
        assert side.mean == alone.mean is not None
    itself = paired(segment.compare(runs[0], runs[0], resamples=20)).change
    assert itself.interval is not None
    assert (itself.value, itself.interval.low, itself.interval.high) == (0, 0, 0)


def test_every_form_shows_it(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = segment.compare(*runs, resamples=20, by=r"^(\d)", to=tmp_path)
    boundary = paired(found)
    change = f"{100 * boundary.change.value:+.2f}"
    told = to_json(found, [])["against"]["B"]
    assert (told["boundary"]["fraction"], told["boundary"]["change"]) == (FRACTION, boundary.change.value)
    assert set(told["slices"]) == {"0", "1"}
    assert told["slices"]["1"]["boundary"]["a"] == pytest.approx(np.nanmean(total(ONES, [10, 11]).score.iou))
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert float(rows[1]["boundary_iou_change"]) == boundary.class_changes[1].value
    assert float(rows[1]["boundary_iou_change_low"]) < float(rows[1]["boundary_iou_change_high"])
    console = Console(file=io.StringIO(), width=80)
    print_comparison(found, console)
    assert isinstance(console.file, io.StringIO)
    text, markdown = console.file.getvalue(), to_markdown(found)
    page = (tmp_path / "compare" / "index.html").read_text()
    for shown in (text, markdown, page):
        assert change in shown
        assert "boundary IoU: d = 6 % of the diagonal" in " ".join(shown.split())
    assert "### classes, boundary IoU in %" in markdown
    assert f"| mean boundary IoU % | {100 * (boundary.a.mean or 0):.2f} |" in markdown
    of_slice = found.against[0].slices["1"].scores
    assert of_slice is not None
    assert of_slice.boundary is not None
    for shown in (text, markdown, page):
        assert f"{100 * of_slice.boundary.change.value:+.2f}" in shown
    assert "### slices, mean boundary IoU in %" in markdown
    assert 'id="boundary-B"' in page
    assert 'href="#boundary-B"' in page


def test_a_slice_without_a_label_has_no_boundary_iou(runs: tuple[Path, Path]) -> None:
    (one,) = segment.compare(*runs, resamples=20, by="^(03)").against[0].slices.values()
    assert (one.images, one.scores) == (1, None)


NOT_COMPARED = "boundary IoU is not compared: "


@pytest.mark.parametrize(
    ("of_a", "of_b", "asked", "note"),
    [
        (0.06, None, {}, f"{NOT_COMPARED}B has no boundary counts, as A has (segment run --boundary 0.06)"),
        (None, 0.03, {}, f"{NOT_COMPARED}A has no boundary counts, as B has (segment run --boundary 0.03)"),
        (0.06, 0.03, {}, f"{NOT_COMPARED}A counts it within 6 % of the diagonal, B within 3 %"),
        (0.06, 0.06, {"merge": ["Sky+Car=Any"]}, REFUSED),
        (0.06, 0.06, {"ignore": ["Sky"]}, REFUSED),
        (None, None, {}, None),
    ],
)
def test_what_cannot_be_compared_is_told(write: Write, of_a: Any, of_b: Any, asked: Any, note: str | None) -> None:
    found = segment.compare(write(made(ONES), of_a), write(made(OTHERS), of_b), resamples=20, **asked)
    scores = found.against[0].overall.scores
    assert scores is not None
    assert scores.boundary is None
    assert [one for one in all_notes(found) if "boundary" in one] == ([] if note is None else [note])
    assert "boundary_iou_change" not in to_csv(found)
    assert to_json(found, [])["against"]["B"]["boundary"] is None


def test_classes_in_another_order_are_brought_together(write: Write, runs: tuple[Path, Path]) -> None:
    """B's class 0 is A's class 2, and so on: the same masks and labels, by other numbers."""
    new = np.arange(256).astype(np.uint8)
    new[[2, 0, 1]] = 0, 1, 2
    classes = {"names": [NAMES[2], NAMES[0], NAMES[1], NAMES[3]]}
    other = write(made(new[OTHERS], new[LABELS]), classes=classes)
    wanted, found = paired(segment.compare(*runs, resamples=20)), paired(segment.compare(runs[0], other, resamples=20))
    np.testing.assert_array_equal(found.b.score.iou, wanted.b.score.iou)
    assert (found.change.value, found.change.interval) == (wanted.change.value, wanted.change.interval)
