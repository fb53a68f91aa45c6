"""`segment score`: against the report, a plain loop, and counts of the stored masks; of whole and unfinished runs."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

import segment as api
from segment.cli.score import Convention
from segment.errors import SegmentError, UsageError
from segment.metrics import CONVENTIONS, Confusion, image_scores, score
from segment.metrics.bootstrap import Bootstrap
from segment.metrics.conventions import mean_of_defined
from segment.metrics.regroup import regroup
from segment.report.aggregate import load_report
from segment.scores.image_counts import ImageCounts
from segment.scores.matching import key_of
from segment.scores.run_images import RunImages, RunSums, Units, sum_by_slice
from segment.scores.scored import Protocol, Scored, ScoreSums, UnitCount
from segment.scores.slices import Groups, slices_by
from tests.calls import Call
from tests.calls import segment as segment  # a fixture
from tests.runs import CARD, Place, png, scene

CLASSES = len(CARD.classes)


def wrong_label(n: int) -> NDArray[np.uint8]:
    """The label of scene n with some columns of the next class, and void in the last row."""
    label = scene(n)[1].copy()
    label[:, : n + 1] = (label[:, : n + 1] + 1) % CLASSES
    label[-1] = 255
    return label


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two videos of six and three frames, one image without a label, one that is none."""
    place = Place(tmp_path_factory.mktemp("score"))
    for n in range(9):
        place.write(f"{'north' if n < 6 else 'south'}/{n:02d}.png", png(scene(n)[0]), png(wrong_label(n)))
    place.write("alone.png", png(scene(20)[0]))
    place.write("broken.png", b"no image", png(wrong_label(1)))
    place.run(part_size=4)
    return place


def images_of(place: Place) -> dict[str, Confusion]:
    """The counts of each image, from the stored masks and the labels' files."""
    found = {}
    for image in api.open_run(place.output).masks():
        if image.error is None:
            assert image.mask is not None
            label = None if image.id == "alone.png" else wrong_label(int(image.id[-6:-4]))
            found[image.id] = Confusion.of(image.mask, label, CLASSES)
    return found


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_scores_are_the_reports_and_those_of_the_stored_masks(place: Place, convention: Any) -> None:
    report = load_report(api.open_run(place.output)._ledger)
    again = sum(images_of(place).values(), Confusion.zeros(CLASSES))
    for resamples in (0, 50):
        found = api.score(place.output, convention=convention, resamples=resamples)
        assert found.miou == pytest.approx(report.miou(convention), abs=1e-12)
        np.testing.assert_array_equal(found.overall.score.iou, report.score(convention).iou)
        assert found.overall.confusion == again
        assert found.overall.images == 10
        assert bool(found.overall.intervals) == bool(resamples)
        assert found.overall.units == (9 if resamples else 0)
    assert found.report.size_note == ""  # this card counts at the size at which masks are stored


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("group_by", [None, "folder"])
def test_intervals_are_those_of_a_plain_loop(place: Place, convention: Any, group_by: str | None) -> None:
    found = api.score(place.output, convention=convention, group_by=group_by, resamples=200, seed=4)
    labelled = {name: counts for name, counts in images_of(place).items() if counts.is_scored}
    rows = [image.id for image in api.open_run(place.output).masks()]  # errors, too
    draws = Bootstrap(200, 4).draws(np.arange(len(rows)))
    if group_by is not None:
        draws = Bootstrap(200, 4).draws(np.array([key_of(name.rpartition("/")[0] or ".") for name in rows], "u8"))
    assert found.overall.units == (9 if group_by is None else 2)
    mious, ious = [], []
    point = score(sum(labelled.values(), Confusion.zeros(CLASSES)), (3,), convention)
    for draw in draws.T:
        drawn = [name for name, times in zip(rows, draw, strict=True) if name in labelled for _ in range(int(times))]
        one = score(sum((labelled[name] for name in drawn), Confusion.zeros(CLASSES)), (3,), convention)
        iou = np.where((one.labelled == 0) & (point.labelled > 0), np.nan, one.iou)
        by_image = [image_scores(labelled[name], (3,), "omz")[1] for name in drawn]
        mious.append(
            float(mean_of_defined(np.array([m for m in by_image if m is not None])))
            if convention == "image-mean"
            else float(mean_of_defined(iou))
        )
        ious.append(iou)
    low, high = np.nanpercentile(mious, [2.5, 97.5])
    interval = found.overall.intervals["miou"]
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    for index, column in enumerate(np.array(ious).T[:3]):
        of_class = found.overall.class_intervals[index]
        assert of_class is not None
        assert of_class.low == pytest.approx(np.nanpercentile(column, 2.5), abs=1e-12)


def test_classes_are_regrouped_in_every_image(place: Place) -> None:
    found = api.score(place.output, convention="image-mean", ignore=["none"], merge=["Sky+Car=Any"], resamples=20)
    table = np.array([0, 1, 0, 2])
    expected = []
    for counts in images_of(place).values():
        merged = np.zeros((4, 3), np.int64)
        np.add.at(merged, (np.append(table, 3)[:, None], table[None]), counts.counts)
        expected.append(image_scores(Confusion(merged), (), "omz")[1])
    assert found.miou == pytest.approx(np.mean([m for m in expected if m is not None]), abs=1e-12)
    assert list(found.iou) == ["Any", "Road", "Unlabeled"]


def test_slices_are_runs_of_their_images(place: Place) -> None:
    found = api.score(place.output, by="^([a-z]+)/", resamples=30)
    everything = images_of(place)
    assert list(found.slices) == ["north", "south"]
    for value, one in found.slices.items():
        some = [counts for name, counts in everything.items() if name.startswith(value)]
        assert one.confusion == sum(some, Confusion.zeros(CLASSES))
        assert one.miou == score(one.confusion, (3,), "omz").miou
        assert one.intervals["miou"] is not None
    assert found.sliced.without == 1
    assert "1 image in no slice" in found.notes


def test_notes_say_what_the_scores_cover(place: Place) -> None:
    notes = api.score(place.output, classes=["Sky", "Car"], resamples=20).notes
    assert notes == [
        "1 image with an error in no score",
        "1 image without a label that is counted",
        "ignored: Unlabeled",
        "means over 2 classes, 'Sky', 'Car'; pixel accuracy and kappa are of all",
        "95 % intervals by bootstrap of 9 images: so few make them much too narrow",
        "20 resamples only: the intervals are coarse, and others with another seed",
    ]
    assert "1 image without a label that the card counts" in api.score(place.output, resamples=0).notes
    one_group = api.score(place.output, group_by=r"(.)\.png", resamples=20, by="folder")
    assert one_group.slices["south"].units == 3
    grouped = api.score(place.output, group_by="(g)", resamples=20)
    assert grouped.overall.intervals == {}
    assert grouped.notes[-1] == "no intervals: they follow from differences between groups, and there is 1 group"
    sliced = api.score(place.output, by="folder").notes
    assert sliced[-1] == "2 slices of fewer than 30 images, whose intervals are somewhat too narrow"


def test_images_without_a_counted_label_are_those_of_the_classes_that_are_asked_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for n, value in enumerate((0, 3, 3)):
        place.write(f"{n}.png", png(scene(n)[0]), png(np.full((24, 32), value, np.uint8)))
    place.run()
    told = "2 images without a label that is counted"  # the card ignores class 3
    assert told in api.score(place.output, resamples=20).notes
    assert not [note for note in api.score(place.output, resamples=20, ignore=["none"]).notes if "is counted" in note]


def test_what_is_no_number_or_pattern_is_refused(place: Place) -> None:
    for words, asked in (("seed = -1", {"seed": -1}), ("by = ''", {"by": ""}), ("group_by = ''", {"group_by": ""})):
        with pytest.raises(UsageError, match=words):
            api.score(place.output, resamples=2, **asked)  # type: ignore[arg-type]


def test_means_over_chosen_classes(place: Place) -> None:
    everything, chosen = (
        api.score(place.output, resamples=0),
        api.score(place.output, classes=["Sky", "Car"], resamples=0),
    )
    assert chosen.miou == pytest.approx((everything.iou["Sky"] + everything.iou["Car"]) / 2, abs=1e-15)
    assert chosen.overall.figures["pixel_accuracy"] == everything.overall.figures["pixel_accuracy"]


# --- counts ----------------------------------------------------------------------------------------------------------


def counts_of(matrices: NDArray[np.int64]) -> ImageCounts:
    """Sparse counts of `int64[n, C + 1, C]`; image n has n / 10 megapixels."""
    flat = matrices.reshape(len(matrices), -1)
    images, cells = np.nonzero(flat)
    offsets = np.searchsorted(images, np.arange(len(matrices) + 1))
    ids = pa.chunked_array([[f"{n % 7}/{n}" for n in range(len(matrices))]])
    pixels, counts = np.arange(len(matrices)) * 10**5, flat[images, cells].astype(np.uint32)
    return ImageCounts(matrices.shape[2], ids, pixels, offsets, cells.astype(np.uint16), counts)


def test_sparse_counts_are_the_dense_ones() -> None:
    generator = np.random.default_rng(1)
    matrices = generator.integers(0, 9, (300, 4, 3)) * (generator.random((300, 4, 3)) < 0.3)
    counts = counts_of(matrices)
    assert np.array_equal(counts.total().counts, matrices.sum(axis=0))
    some = np.array([7, 200, 7, 0])
    assert np.array_equal(counts.take(some).total().counts, matrices[some].sum(axis=0))
    assert counts.take(some).ids.to_pylist() == ["0/7", "4/200", "0/7", "0/0"]
    cells = generator.random(12) < 0.5
    assert np.array_equal(counts.pixels_in(cells), matrices.reshape(300, 12)[:, cells].sum(axis=1))


def scored(counts: ImageCounts, protocol: Protocol, resamples: int, block: int, groups: Groups | None = None) -> Scored:
    """The score of images that come in blocks of this size."""
    units = Units(Bootstrap(resamples), groups)
    sums = ScoreSums(protocol, resamples, grouped=units.are_groups)
    for start in range(0, len(counts), block):
        rows = np.arange(start, min(start + block, len(counts)))
        some = counts.take(rows)
        sums.add(some, *units.of(rows, some))
    return sums.scored()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_images_in_blocks_are_scored_as_their_sum(convention: Any) -> None:
    generator = np.random.default_rng(2)
    matrices = generator.integers(0, 100, (700, 5, 4)) * (generator.random((700, 5, 4)) < 0.4)
    counts, protocol = counts_of(matrices), Protocol(regroup(CARD.classes), convention, "omz")
    found = scored(counts, protocol, 40, block=700)
    mious = [image_scores(Confusion(matrix), (3,), "omz")[1] for matrix in matrices]
    expected = np.mean([m for m in mious if m is not None])
    if convention != "image-mean":
        expected = score(Confusion(matrices.sum(axis=0)), (3,), convention).miou or 0.0
    assert found.miou == pytest.approx(expected, abs=1e-12)
    interval = found.intervals["miou"]
    assert interval is not None
    assert interval.low < expected < interval.high
    pieces = scored(counts, protocol, 40, block=33)
    other = pieces.intervals["miou"]
    assert other is not None
    assert (pieces.units, other.low, other.high) == (found.units, *map(pytest.approx, (interval.low, interval.high)))
    assert pieces.class_intervals == found.class_intervals
    assert scored(counts, protocol, 40, block=33, groups=Groups("folder", ())).units == 7


def test_many_groups_are_counted_once() -> None:
    count, generator = UnitCount(repeated=True), np.random.default_rng(0)
    units = generator.integers(0, 30_000, 60_000).astype(np.uint64)
    for start in range(0, len(units), 500):
        count.add(units[start : start + 500])
    assert int(count) == len(np.unique(units))


def test_slices_are_the_same_however_many_are_summed_at_once() -> None:
    """With fewer, the images are read again."""
    matrices = np.random.default_rng(3).integers(1, 100, (50, 5, 4))
    counts, protocol = counts_of(matrices), Protocol(regroup(CARD.classes), "omz", "omz")
    units = Units(Bootstrap(20))
    reads = []

    def blocks() -> Iterator[RunImages]:
        reads.append(1)
        for start in (0, 20, 40):
            rows = np.arange(start, min(start + 20, 50))
            some = counts.take(rows)
            yield RunImages(some, None, *units.of(rows, some))

    found = []
    for at_once in (9, 3):
        overall = RunSums(protocol, units, None)
        slices = slices_by("folder", CARD.classes.names, ())
        sliced = sum_by_slice(blocks, overall, slices, lambda: RunSums(protocol, units, None), at_once)
        assert (list(sliced.results), sliced.without, overall.result().images) == (list("0123456"), 0, 50)
        assert sliced.passes == len(reads) - len(found)
        found.append([(one.images, one.miou, one.intervals, one.units) for one in sliced.results.values()])
    assert len(reads) == 1 + 3
    assert found[0] == found[1]
    assert [one[0] for one in found[0]] == [8, 7, 7, 7, 7, 7, 7]


def test_a_class_that_many_resamples_miss_is_told() -> None:
    matrices = np.zeros((40, 5, 4), np.int64)
    matrices[:, 0, 0] = 10
    matrices[:, 0, 1] = 1  # false positives of class 1 in every image, its labels in two
    matrices[3:5, 1, 1] = 20
    found = scored(counts_of(matrices), Protocol(regroup(CARD.classes), "omz", "omz"), 1000, block=40)
    assert found.unlabelled[1] == pytest.approx(np.exp(-2), abs=0.03)
    bounds = found.class_intervals[1]
    assert bounds is not None
    assert 20 / (20 + 65) < bounds.low < 20 / (20 + 40)  # one of them, drawn once
    told = "classes without a label in some resamples, which leave them out, also of means: Road (1"
    assert any(line.startswith(told) for line in found.notes(CARD.classes.names))


def test_a_class_of_one_unit_and_one_without_a_label_have_no_interval() -> None:
    """The one unit is an image, or a group of two; no draw of it says how another one would vary."""
    matrices = np.zeros((6, 5, 4), np.int64)
    matrices[:, 0, 0] = 10
    matrices[2:4, 1, 1], matrices[2:4, 1, 0] = 5, (1, 3)
    matrices[:, 0, 1] = 1  # predicted elsewhere, too, which says nothing of how well the class is found
    matrices[:, 0, 2] = 1  # predicted, never labelled
    units = np.arange(6) // 2
    protocol = Protocol(regroup(CARD.classes), "omz", "omz")
    for grouped, numbers in ((True, units), (False, np.arange(6))):
        sums = ScoreSums(protocol, 200, grouped=grouped)
        for block in (slice(0, 3), slice(3, 6)):
            draws = Bootstrap(200).draws(numbers[block])
            sums.add(counts_of(matrices[block]), numbers[block].astype(np.uint64), draws)
        found = sums.scored()
        sky, road, car, _ = found.class_intervals
        assert sky is not None
        assert ((road is None), car) == (grouped, None)
        kind = "groups" if grouped else "images"
        told = "labelled in one group alone, and so without an interval: 'Road'"
        assert (told in found.notes(CARD.classes.names, kind)) is grouped


def test_resamples_that_draw_no_image_are_in_no_interval_and_blamed_on_no_class() -> None:
    """Of three images these are 5 % of the resamples."""
    matrices = np.zeros((3, 5, 4), np.int64)
    matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 1, 0] = (10, 20, 30), 5, (1, 0, 2)
    empty = Bootstrap(1000).draws(np.arange(3)).sum(axis=0) == 0
    assert empty.mean() == pytest.approx(np.exp(-3), abs=0.02)
    found = scored(counts_of(matrices), Protocol(regroup(CARD.classes), "omz", "omz"), 1000, block=3)
    assert found.unlabelled == (0, 0, 0, 0)
    assert len(found.notes(CARD.classes.names)) == 1
    bounds = found.intervals["miou"]
    assert bounds is not None
    assert 0.7 < bounds.low < (found.miou or 0) < bounds.high < 1.01


# --- slices ----------------------------------------------------------------------------------------------------------

IDS = pa.chunked_array([["b/x/1.png", "a/2.png"], ["a/3.png", "4.png"]])


def with_ids(ids: pa.ChunkedArray) -> ImageCounts:
    """Images of these ids, without counts."""
    number = len(ids)
    return replace(counts_of(np.zeros((number, 5, 4), np.int64)), ids=ids)


def divided(counts: ImageCounts, by: str) -> tuple[list[str], list[int]]:
    """The values of slices, and the index of that of each image, -1 where there is none; in blocks of three."""
    slices = slices_by(by, CARD.classes.names, list(counts.meta))
    starts = range(0, len(counts), 3)
    blocks = [counts.take(np.arange(start, min(start + 3, len(counts)))) for start in starts]
    numbers = np.concatenate([slices.numbers_of(block) for block in blocks]).tolist()
    values = slices.in_order()
    place = {number: index for index, (_, number) in enumerate(values)} | {-1: -1}
    return [value for value, _ in values], [place[number] for number in numbers]


def test_slices_by_folder_and_pattern() -> None:
    assert divided(with_ids(IDS), "folder") == ([".", "a", "b/x"], [2, 1, 1, 0])
    assert divided(with_ids(IDS), r"/(\d)") == (["1", "2", "3"], [0, 1, 2, -1])
    # an empty name is none: in a CSV file it is that of all images
    assert divided(with_ids(IDS), r"^(\D*)") == (["a/", "b/x/"], [1, 0, 0, -1])


def test_a_whole_number_is_one_value_however_it_is_written() -> None:
    """Where a column has gaps pandas writes 1.0 for 1; `01` and `1.0.0` are no numbers, and other values.

    A value that is written in one way is named as it is written, such as a version.
    """
    for texts, values, of_image in (
        (["1.0", "2", "1", "-3.00"], ["-3.00", "1", "2"], [1, 2, 1, 0]),
        (["-0.0", "0", "7.00", "7.00"], ["0", "7.00"], [0, 0, 1, 1]),
        (["2.1", "1.0", "2.0", "1.0"], ["1.0", "2.0", "2.1"], [2, 0, 1, 0]),
        (["01", "1.0.0", "1.0", "1.5"], ["01", "1.0", "1.0.0", "1.5"], [0, 2, 1, 3]),
        (["+5", "5", "-5", "+5.0"], ["-5", "5"], [1, 1, 0, 1]),
        (["+0", "0", "+-5", "+5"], ["+-5", "+5", "0"], [2, 2, 0, 1]),
        (["1", "1.0", "beta", "beta"], ["1", "beta"], [0, 0, 1, 1]),
    ):
        counts = replace(with_ids(IDS), meta={"lane": pa.chunked_array([texts[:3], texts[3:]])})
        assert divided(counts, "lane") == (values, of_image)
        assert len(np.unique(Groups("lane", ["lane"]).units_of(counts))) == len(values)


def test_slices_by_size_and_by_share_of_a_class() -> None:
    matrices = np.zeros((50, 5, 4), np.int64)
    matrices[:, 4, 0] = 7  # void is no label
    matrices[10:, 0, 1] = 1000 - np.arange(40)
    matrices[10:, 1, 1] = np.arange(40) * 10
    counts = counts_of(matrices)
    values, of_image = divided(counts, "size")
    assert values == ["below 0.25 MP", "0.25 MP to 1 MP", "1 MP to 4 MP", "4 MP to 16 MP"]
    assert np.bincount(of_image).tolist() == [3, 7, 30, 10]
    values, of_image = divided(counts, "label:road")
    assert values == ["no Road", "Road below 1 %", "Road 1 % to 10 %", "Road 10 % or more"]
    shares = np.arange(40) * 10 / (1000 + np.arange(40) * 9)
    wanted = [-1] * 10 + [0] + [1 if share < 0.01 else 2 if share < 0.1 else 3 for share in shares[1:]]
    assert of_image == wanted
    with pytest.raises(UsageError, match=r"by: no class 'Rode'. Did you mean 'Road'"):
        divided(counts, "label:Rode")


def test_the_command_knows_the_conventions_of_a_card() -> None:
    assert list(get_args(Convention)) == list(CONVENTIONS)


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("sequence", "nothing about what is taken from an id: write 'size', 'brightness', 'label:CLASS', 'folder', or"),
        ("weather", "the run keeps it (segment run --keep NAME)"),
        ("(", "is no regular expression"),
        ("(zz)", "no id of an image matches; the first is 'b/x/1.png'"),
    ],
)
def test_what_makes_no_slices(by: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        divided(with_ids(IDS), by)
    assert words in str(refused.value)


def test_too_many_slices_and_images_without_a_group() -> None:
    many = with_ids(pa.chunked_array([[str(n) for n in range(1001)]]))
    said = "has more than 1,000 distinct values, such as '0', '1', '2': slices are 1,000 at most"
    with pytest.raises(UsageError, match=said):
        divided(many, "(.*)")
    assert len(np.unique(Groups("(.*)", ()).units_of(many))) == 1001
    with pytest.raises(UsageError, match=r"the id '4\.png' does not match: images without a group cannot be resampled"):
        Groups(r"/(\d)", ()).units_of(with_ids(IDS))


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_formats_say_the_same(place: Place, segment: Call) -> None:
    asked = ["score", str(place.output), "--by", "folder", "--resamples", "40", "--merge", "Sky+Road=Ground"]
    found = api.score(place.output, by="folder", resamples=40, merge=["Sky+Road=Ground"])
    told = json.loads(segment(*asked, "--format", "json").out)
    assert told["scores"]["miou"]["value"] == found.miou
    interval = found.overall.intervals["miou"]
    assert interval is not None
    assert told["scores"]["miou"]["interval"] == [interval.low, interval.high]
    assert {value: one["images"] for value, one in told["slices"].items()} == {".": 1, "north": 6, "south": 3}
    assert (told["images"], told["errors"], told["convention"]) == (11, 1, "omz")
    rows = list(csv.DictReader(io.StringIO(segment(*asked, "-f", "csv").out)))
    assert [row["class"] for row in rows] == ["Ground", "Car", "Unlabeled"] * 4
    assert [row["slice"] for row in rows] == [value for value in ("", ".", "north", "south") for _ in range(3)]
    assert [float(row["iou"]) for row in rows[:2]] == [found.iou["Ground"], found.iou["Car"]]
    span = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    text, markdown = segment(*asked).out, segment(*asked, "-f", "markdown").out
    for shown in (text, markdown):
        for words in (
            f"{100 * (found.miou or 0):.2f}",
            span,
            "Ground",
            "north",
            "Cohen's kappa",
            "1 image with an error",
        ):
            assert words in shown
    assert max(map(len, text.splitlines())) <= 100
    assert "| Ground |" in markdown


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "pixel accuracy, omz %"),
        (["--convention=cityscapes"], "pixel accuracy %"),
        (["--ignore=none"], "pixel accuracy %"),
    ],
)
def test_a_pixel_accuracy_is_named_alike_everywhere(place: Place, segment: Call, flags: list[str], name: str) -> None:
    """Runs lead with that of all labelled pixels; `omz` leaves out those that are predicted as an ignored class."""
    output = str(place.output)
    for command in (["score", output], ["compare", output, output]):
        lines = segment(*command, *flags, "--resamples=0").out.splitlines()
        assert [line.split("  ")[0] for line in lines if line.startswith("pixel accuracy")] == [name]


def test_a_wrong_question_is_told_and_ends_with_2(place: Place, segment: Call) -> None:
    for flags, words in (
        (["--ignore", "Skyy"], "error: ignore: no class 'Skyy'. Did you mean 'Sky'?"),
        (
            ["--group-by", "folder", "--resamples", "0"],
            "error: group_by is for intervals, and resamples = 0 makes none",
        ),
        (["--convention", "coco"], "expected one of 'omz', 'cityscapes', 'mmseg', 'image-mean', not 'coco'"),
    ):
        called = segment("score", str(place.output), *flags)
        assert called.code == 2
        assert words in " ".join(called.err.replace("│", " ").split())
    with pytest.raises(UsageError, match="convention = 'coco' is none"):
        api.score(place.output, convention="coco")  # type: ignore[arg-type]


def test_an_unfinished_run_is_scored_so_far(tmp_path: Path, segment: Call) -> None:
    place = Place(tmp_path)
    for n in range(4):
        place.write(f"{n}.png", png(scene(n)[0]), png(wrong_label(n)))
    place.run()
    (place.output / "_SUCCESS").unlink()
    next((place.output / "stats").iterdir()).unlink()
    sorted(place.output.glob("masks/*/*"))[0].unlink()
    assert segment("score", str(place.output)).out.startswith("blocks: 2 of 4 images so far, by the omz convention")
    sorted(place.output.glob("masks/*/*"))[0].unlink()
    with pytest.raises(UsageError, match="has a labelled pixel so far: there is nothing to score"):
        api.score(place.output)


def test_counts_that_are_not_those_of_the_statistics_are_no_score(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for n in range(4):
        place.write(f"{n}.png", png(scene(n)[0]), png(wrong_label(n)))
    place.run()
    first, second = sorted(place.output.glob("masks/*/*"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(SegmentError, match=r"are not those under .*/stats: `segment audit` says which shard is wrong"):
        api.score(place.output)
    assert api.score(place.output, resamples=0).miou
