"""`segment score`: against the report, a plain loop, and counts of the stored masks; of whole and unfinished runs."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

import segment as api
from segment.cli.score import Convention
from segment.errors import SegmentError, UsageError
from segment.metrics import CONVENTIONS, Confusion, image_scores, score
from segment.metrics.bootstrap import CHUNK, resample_counts
from segment.metrics.regroup import regroup
from segment.report.aggregate import load_report
from segment.scores.image_counts import ImageCounts
from segment.scores.scored import Protocol, score_images
from segment.scores.slices import groups_of, slices_by, slices_of
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
    names = sorted(labelled)
    units = [[name] for name in names] if group_by is None else [names[:6], names[6:]]
    assert found.overall.units == len(units)
    mious, ious = [], []
    point = score(sum(labelled.values(), Confusion.zeros(CLASSES)), (3,), convention)
    for draw in next(resample_counts(len(units), 200, 4)):
        drawn = [name for unit, times in zip(units, draw, strict=True) for name in unit * int(times)]
        one = score(sum((labelled[name] for name in drawn), Confusion.zeros(CLASSES)), (3,), convention)
        iou = np.where((one.labelled == 0) & (point.labelled > 0), np.nan, one.iou)
        by_image = [image_scores(labelled[name], (3,), "omz")[1] for name in drawn]
        mious.append(np.mean([m for m in by_image if m is not None]) if convention == "image-mean" else np.nanmean(iou))
        ious.append(iou)
    low, high = np.percentile(mious, [2.5, 97.5])
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
    assert found.without_slice == 1
    assert "1 image in no slice" in found.notes


def test_notes_say_what_the_scores_cover(place: Place) -> None:
    notes = api.score(place.output, classes=["Sky", "Car"], resamples=20).notes
    assert notes == [
        "1 image with an error in no score",
        "1 image without a label that the card counts",
        "ignored: Unlabeled",
        "means over 2 classes; pixel accuracy and kappa are of all",
        "95 % intervals by bootstrap of 9 images: so few make them much too narrow",
        "20 resamples only: the intervals are coarse, and others with another seed",
    ]
    one_group = api.score(place.output, group_by=r"(.)\.png", resamples=20, by="folder")
    assert one_group.slices["south"].units == 3
    grouped = api.score(place.output, group_by="(g)", resamples=20)
    assert grouped.overall.intervals == {}
    assert grouped.notes[-1] == "no intervals: they follow from differences between groups, and there is 1 group"
    sliced = api.score(place.output, by="folder").notes
    assert sliced[-1] == "2 slices of fewer than 30 images, whose intervals are somewhat too narrow"


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


def dense(counts: ImageCounts) -> NDArray[np.int64]:
    """`int64[n, C + 1, C]`."""
    found = np.zeros((len(counts), (counts.classes + 1) * counts.classes), np.int64)
    for image, (start, stop) in zip(found, itertools.pairwise(counts.offsets), strict=True):
        np.add.at(image, counts.cells[start:stop], counts.counts[start:stop])
    return found.reshape(len(counts), counts.classes + 1, counts.classes)


def test_sparse_counts_are_the_dense_ones() -> None:
    generator = np.random.default_rng(1)
    matrices = generator.integers(0, 9, (2 * CHUNK + 5, 4, 3)) * (generator.random((2 * CHUNK + 5, 4, 3)) < 0.3)
    counts = counts_of(matrices)
    assert np.array_equal(dense(counts), matrices)
    assert np.array_equal(counts.total().counts, matrices.sum(axis=0))
    some = np.array([7, 2000, 7, 0])
    assert np.array_equal(dense(counts.take(some)), matrices[some])
    assert counts.take(some).ids.to_pylist() == ["0/7", "5/2000", "0/7", "0/0"]
    assert np.array_equal(np.concatenate([dense(block) for _, block in counts.blocks()]), matrices)
    units = generator.integers(0, 1500, len(counts))
    units = np.unique(units, return_inverse=True)[1]
    for chunk, (unit, images) in enumerate(counts.chunks(np.arange(len(counts)), units)):
        for inner in (0, int(unit[-1])):
            wanted = matrices[units == chunk * CHUNK + inner].sum(axis=0)
            assert np.array_equal(images.take(np.flatnonzero(unit == inner)).total().counts, wanted)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_many_images_in_chunks_are_scored_as_their_sum(convention: Any) -> None:
    generator = np.random.default_rng(2)
    matrices = generator.integers(0, 100, (CHUNK + 300, 5, 4)) * (generator.random((CHUNK + 300, 5, 4)) < 0.4)
    counts, protocol = counts_of(matrices), Protocol(regroup(CARD.classes), convention, "omz")
    found = score_images(counts, protocol, resamples=40)
    mious = [image_scores(Confusion(matrix), (3,), "omz")[1] for matrix in matrices]
    expected = np.mean([m for m in mious if m is not None])
    if convention != "image-mean":
        expected = score(Confusion(matrices.sum(axis=0)), (3,), convention).miou or 0.0
    assert found.miou == pytest.approx(expected, abs=1e-12)
    interval = found.intervals["miou"]
    assert interval is not None
    assert interval.low < expected < interval.high
    again = score_images(counts, protocol, groups_of(counts.ids, "folder").of_image, resamples=40)
    assert again.units == 7


def test_a_class_that_many_resamples_miss_is_told() -> None:
    matrices = np.zeros((40, 5, 4), np.int64)
    matrices[:, 0, 0] = 10
    matrices[:, 0, 1] = 1  # false positives of class 1 in every image, its labels in one
    matrices[3, 1, 1] = 20
    found = score_images(counts_of(matrices), Protocol(regroup(CARD.classes), "omz", "omz"), resamples=1000)
    assert found.unlabelled[1] == pytest.approx((1 - 1 / 40) ** 40, abs=0.05)
    bounds = found.class_intervals[1]
    assert bounds is not None
    assert bounds.low == pytest.approx(20 / (20 + 40))  # drawn once
    assert any(line.startswith("Road: no label in 3") for line in found.notes(CARD.classes.names))


# --- slices ----------------------------------------------------------------------------------------------------------

IDS = pa.chunked_array([["b/x/1.png", "a/2.png"], ["a/3.png", "4.png"]])


def test_slices_by_folder_and_pattern() -> None:
    found = slices_of(IDS, "folder", "by")
    assert (found.values, found.of_image.tolist()) == ((".", "a", "b/x"), [2, 1, 1, 0])
    found = slices_of(IDS, r"/(\d)", "by")
    assert (found.values, found.of_image.tolist()) == (("1", "2", "3"), [0, 1, 2, -1])
    found = slices_of(IDS, r"^(\D*)", "by")  # an empty name is none: in a CSV file it is that of all images
    assert (found.values, found.of_image.tolist()) == (("a/", "b/x/"), [1, 0, 0, -1])


def test_slices_by_size_and_by_share_of_a_class() -> None:
    matrices = np.zeros((50, 5, 4), np.int64)
    matrices[:, 4, 0] = 7  # void is no label
    matrices[10:, 0, 1] = 1000 - np.arange(40)
    matrices[10:, 1, 1] = np.arange(40) * 10
    counts = counts_of(matrices)
    sizes = slices_by(counts, "size", CARD.classes.names)
    assert sizes.values == ("below 0.25 MP", "0.25 MP to 1 MP", "1 MP to 4 MP", "4 MP to 16 MP")
    assert np.bincount(sizes.of_image).tolist() == [3, 7, 30, 10]
    found = slices_by(counts, "label:road", CARD.classes.names)
    assert found.values == ("no Road", "Road below 1 %", "Road 1 % to 10 %", "Road 10 % or more")
    shares = np.arange(40) * 10 / (1000 + np.arange(40) * 9)
    wanted = [-1] * 10 + [0] + [1 if share < 0.01 else 2 if share < 0.1 else 3 for share in shares[1:]]
    assert found.of_image.tolist() == wanted
    with pytest.raises(UsageError, match=r"by: no class 'Rode'. Did you mean 'Road'"):
        slices_by(counts, "label:Rode", CARD.classes.names)


def test_the_command_knows_the_conventions_of_a_card() -> None:
    assert [name.value for name in Convention] == list(CONVENTIONS)


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("sequence", "says nothing about what is taken from an id: write 'folder', or a regular expression"),
        ("(", "is no regular expression"),
        ("(zz)", "no id of an image matches; the first is 'b/x/1.png'"),
    ],
)
def test_what_makes_no_slices(by: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        slices_of(IDS, by, "by")
    assert words in str(refused.value)


def test_too_many_slices_and_images_without_a_group() -> None:
    many = pa.chunked_array([[str(n) for n in range(1001)]])
    with pytest.raises(UsageError, match="has 1,001 values, such as '0', '1', '2': slices are 1,000 at most"):
        slices_of(many, "(.*)", "by")
    assert len(groups_of(many, "(.*)").values) == 1001
    with pytest.raises(UsageError, match=r"1 id of 4 do not match, such as '4\.png'"):
        groups_of(IDS, r"/(\d)")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_formats_say_the_same(place: Place, segment: Call) -> None:
    asked = ["score", str(place.output), "--by", "folder", "--resamples", "40", "--merge", "Sky+Road=Ground"]
    found = api.score(place.output, by="folder", resamples=40, merge=["Sky+Road=Ground"])
    told = json.loads(segment(*asked, "--format", "json").out)
    assert told["scores"]["miou"]["value"] == found.miou
    interval = found.overall.intervals["miou"]
    assert interval is not None
    assert told["scores"]["miou"]["interval"] == [interval.low, interval.high]
    assert list(told["slices"]) == [".", "north", "south"]
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


def test_a_wrong_question_is_told_and_ends_with_2(place: Place, segment: Call) -> None:
    for flags, words in (
        (["--ignore", "Skyy"], "error: ignore: no class 'Skyy'. Did you mean 'Sky'?"),
        (
            ["--group-by", "folder", "--resamples", "0"],
            "error: group_by is for intervals, and resamples = 0 makes none",
        ),
        (["--convention", "coco"], "'coco' is not one of 'omz', 'cityscapes', 'mmseg', 'image-mean'"),
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
    with pytest.raises(UsageError, match="has a label so far: there is nothing to score"):
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
