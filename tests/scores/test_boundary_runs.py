"""Runs with `--boundary`: what is stored, scored and shown; also of images in tiles; other runs stay as they were."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rich.console import Console

import segment
from segment.errors import UsageError
from segment.images.codec import decode_mask
from segment.metrics import BoundaryCounts
from segment.metrics.bootstrap import Bootstrap
from segment.metrics.conventions import mean_of_defined
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.mask_columns import BOUNDARY, MASKS_SCHEMA, ExtraColumns, masks_schema
from segment.report.aggregate import load_report
from segment.report.console import print_report
from segment.report.markdown import to_markdown
from segment.report.percents import span
from segment.report.run_score import score_run, with_intervals
from segment.report.score_formats import print_score, to_csv, to_json
from segment.report.score_formats import to_markdown as score_as_markdown
from segment.scores.boundaries import REFUSED, ImageBoundaries
from segment.scores.boundaries import read_boundary_score as read_score
from segment.store.client import Store
from tests.pipeline.test_large_images import TILED, mosaic
from tests.runs import CARD, CLASSES, Outcome, Place, png, scene
from tests.serving import message

FRACTION = 0.03  # of 40: d = 1
LABELLED = range(6)


def wrong_label(n: int) -> NDArray[np.uint8]:
    """The label of scene n, some columns moved down, with void and class 3, which is ignored."""
    label = scene(n)[1].copy()
    label[:, : 4 + 3 * n] = np.roll(label[:, : 4 + 3 * n], n + 1, axis=0)
    label[-1], label[0, :5] = 255, 3
    return label


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("boundary"))
    for n in LABELLED:
        place.write(f"{'north' if n < 4 else 'south'}/{n}.png", png(scene(n)[0]), png(wrong_label(n)))
    place.write("alone.png", png(scene(9)[0]))
    place.write("broken.png", b"no picture", png(scene(9)[1]))
    return place


@pytest.fixture(scope="module")
def outcome(place: Place) -> Outcome:
    return place.run(boundary=FRACTION)


@pytest.fixture(scope="module")
def ledger(place: Place, outcome: Outcome) -> Ledger:
    assert outcome.rows
    return Ledger(Store(), str(place.output))


def name_of(n: int) -> str:
    return f"{'north' if n < 4 else 'south'}/{n}.png"


def counts_of(n: int) -> BoundaryCounts:
    return BoundaryCounts.of(scene(n)[1], wrong_label(n), CLASSES, fraction=FRACTION, ignore=(3,))


def stored(row: dict[str, Any]) -> BoundaryCounts:
    found = BoundaryCounts.zeros(CLASSES)
    cell = row["boundary"]
    found.counts[:, cell["class_id"]] = [cell["both"], cell["label"], cell["prediction"]]
    return found


def test_rows_hold_the_counts(place: Place, outcome: Outcome, ledger: Ledger) -> None:
    for n in LABELLED:
        assert stored(outcome.rows[name_of(n)]) == counts_of(n)
        assert 3 not in outcome.rows[name_of(n)]["boundary"]["class_id"]
    assert outcome.rows["alone.png"]["boundary"] is None
    assert outcome.rows["broken.png"]["boundary"] is None
    file = min(place.output.glob("masks/*/*.parquet"))
    assert pq.read_schema(file).remove_metadata() == masks_schema(ExtraColumns(boundary=True))
    assert not audit_run(ledger, deep=True).problems
    said = message(lambda: place.run(boundary=0.05), UsageError)
    assert "boundary: 0.03 there, 0.05 now" in said


def test_other_runs_have_the_columns_that_they_had() -> None:
    assert masks_schema() == MASKS_SCHEMA
    assert BOUNDARY.get_field_index("both") == 1


def test_the_score_is_that_of_the_sums_with_the_intervals_of_a_plain_loop(place: Place, ledger: Ledger) -> None:
    counts = {n: counts_of(n) for n in LABELLED}
    total = sum(counts.values(), BoundaryCounts.zeros(CLASSES))
    found = segment.score(place.output, resamples=100, seed=5, by="folder").overall.boundary
    assert found is not None
    np.testing.assert_array_equal(found.score.iou, total.score.iou)
    assert found.mean == pytest.approx(np.nanmean(total.score.iou), abs=1e-12)
    assert 0.2 < found.mean < 1
    means, ious = [], []
    rows = [image.id for image in segment.open_run(place.output).masks()]  # errors, too
    for draw in Bootstrap(100, 5).draws(np.arange(len(rows))).T:
        times = {n: int(draw[rows.index(name_of(n))]) for n in counts}
        one = sum((counts[n] for n in counts for _ in range(times[n])), BoundaryCounts.zeros(CLASSES)).score
        iou = np.where((one.labelled == 0) & (total.score.labelled > 0), np.nan, one.iou)
        means.append(float(mean_of_defined(iou)))
        ious.append(iou)
    assert found.interval is not None
    assert [found.interval.low, found.interval.high] == pytest.approx(np.nanpercentile(means, [2.5, 97.5]), abs=1e-12)
    of_class = found.class_intervals[0]
    assert of_class is not None
    expected = np.nanpercentile(np.array(ious)[:, 0], [2.5, 97.5])
    assert [of_class.low, of_class.high] == pytest.approx(expected, abs=1e-12)
    assert found.class_intervals[3] is None  # ignored
    run, plan = ledger.read_run_and_plan()
    streamed = read_score(ledger, plan, run, CARD, ledger.committed(plan))
    assert streamed is not None
    np.testing.assert_array_equal(streamed.score.iou, found.score.iou)
    bare = segment.score(place.output, resamples=0, classes=["Road"]).overall.boundary
    assert bare is not None
    assert (bare.mean, bare.interval) == (total.score.iou[1], None)


def test_slices_are_runs_of_their_images(place: Place) -> None:
    found = segment.score(place.output, resamples=20, by="^([a-z]+)/")
    for value, numbers in (("north", range(4)), ("south", range(4, 6))):
        boundary = found.slices[value].boundary
        assert boundary is not None
        total = sum((counts_of(n) for n in numbers), BoundaryCounts.zeros(CLASSES))
        np.testing.assert_array_equal(boundary.score.iou, total.score.iou)
    markdown = score_as_markdown(found)
    assert "| slice | images | mIoU % | 95 % interval | pixel acc. % | boundary % | 95 % of it |" in markdown
    south = found.slices["south"].boundary
    assert south is not None
    assert f"| {100 * (south.mean or 0):.2f} | {span(south.interval)} |" in markdown
    grouped = segment.score(place.output, resamples=20, group_by="folder").overall.boundary
    assert grouped is not None
    assert grouped.interval is not None


@pytest.mark.parametrize("other", [{"merge": ["Sky+Car=Any"]}, {"ignore": ["Sky"]}, {"ignore": ["none"]}])
def test_other_classes_do_not_follow_and_it_is_said(place: Place, other: Any) -> None:
    for resamples in (0, 20):
        found = segment.score(place.output, resamples=resamples, **other)
        assert found.overall.boundary is None
        assert REFUSED in found.notes
    assert REFUSED not in segment.score(place.output, resamples=20, ignore=["Unlabeled"]).notes


def test_every_form_shows_it(place: Place, ledger: Ledger) -> None:
    found = segment.score(place.output, resamples=50)
    boundary = found.overall.boundary
    assert boundary is not None
    assert boundary.mean is not None
    mean, road = f"{100 * boundary.mean:.2f}", f"{100 * boundary.score.iou[1]:.2f}"
    asjson = json.loads(json.dumps(to_json(found)))["boundary"]
    assert (asjson["fraction"], asjson["mean"], asjson["classes"][3]["boundary_iou"]) == (FRACTION, boundary.mean, None)
    both, label, predicted = (asjson["classes"][1][f"{side}_pixels"] for side in ("both", "label", "predicted"))
    assert both / (label + predicted - both) == boundary.score.iou[1]
    records = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert float(records[1]["boundary_iou"]) == boundary.score.iou[1]
    report = with_intervals(ledger, ledger.read_run_and_plan()[1], load_report(ledger))
    summary = json.loads((place.output / "report" / "summary.json").read_text())["boundary"]
    assert (summary["mean"], summary["classes"][1]["boundary_iou"]) == (boundary.mean, boundary.score.iou[1])
    console = Console(file=io.StringIO(), width=80)
    print_score(found, console)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    page = (place.output / "report" / "index.html").read_text()
    assert printed.count(f"mean boundary IoU {mean} % (") == 2
    assert printed.count("d = 3 % of the diagonal") == 2
    assert f"Mean boundary IoU {mean} % (" in page
    assert page.count(f">{road}</td>") == 1
    assert f"Mean boundary IoU {mean} % (" in to_markdown(report)
    assert f"| Road | {road} | " in to_markdown(report)
    assert score_run(ledger, segment.report.run_score.Request(resamples=0)).overall.boundary is not None


def test_sums_tell_wrong_from_missed() -> None:
    """Image 0 has class 1; image 1 has none; image 2 has classes 0 and 2."""
    ids = np.array([1, 0, 2], np.uint8)
    counts = np.array([[5, 0, 7], [8, 0, 9], [6, 4, 7]])  # in both regions, in the label's, the prediction's
    images = ImageBoundaries(3, FRACTION, np.array([0, 1, 1, 3]), ids, counts)
    tp, fp, fn = images.by_role().swapaxes(0, 1)
    assert (tp.sum(axis=0).tolist(), fp.sum(axis=0).tolist()) == ([0, 5, 7], [4, 1, 0])
    assert fn.tolist() == [[0, 3, 0], [0, 0, 0], [0, 0, 2]]
    assert not any(part[1].any() for part in (tp, fp, fn))
    assert images.total().counts.tolist() == [[0, 5, 7], [0, 8, 9], [4, 6, 7]]
    assert images.take(np.array([2, 1])).total().counts.tolist() == [[0, 0, 7], [0, 0, 9], [4, 0, 7]]


def test_images_in_tiles_are_counted_over_the_cuts(tmp_path: Path) -> None:
    """Strips of 21 rows at most, and d = 5: the counts are those of the whole image."""
    place = Place(tmp_path)
    place.card_path.write_text(TILED)
    mask, label = mosaic(100, 75, 2), np.roll(mosaic(100, 75, 2), (2, 3), axis=(0, 1))
    label[40:43] = 255
    palette = np.array(CARD.classes.palette, np.uint8)
    place.write("a.png", png(palette[mask]), png(label))
    place.write("b.png", png(palette[mask]))
    rows = place.run(boundary=0.04).rows
    assert np.array_equal(decode_mask(rows["a.png"]["mask"]["bytes"]), mask)
    assert stored(rows["a.png"]) == BoundaryCounts.of(mask, label, CLASSES, fraction=0.04, ignore=(3,))
    assert rows["b.png"]["boundary"] is None
