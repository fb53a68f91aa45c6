"""`segment.compare`: against plain loops over pixels and counts of written runs; images, classes, sizes that differ."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import segment as api
from segment.errors import SegmentError, UsageError
from segment.images.resize import restore_mask
from segment.metrics import Confusion, score
from segment.metrics.bootstrap import Bootstrap
from segment.metrics.common_classes import common_classes
from segment.models.classes import Classes
from segment.report.comparison.comparing import Request, compare_ledgers
from segment.report.comparison.comparison_notes import all_notes, run_in_words
from segment.scores import mask_pairs
from segment.scores.matching import key_of
from tests.runs import CARD, Place
from tests.written_runs import Made, read_template, write_run

Masks = NDArray[np.uint8]
SIZE = (6, 8)
NUMBER = 20
NAMES = CARD.classes.names
PALETTE = list(CARD.classes.palette)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The `run.json` of a real run."""
    place = Place(tmp_path_factory.mktemp("template"))
    place.add("a.png", 1)
    place.run()
    return read_template(place.output)


def random_masks(seed: int, classes: int = 4, number: int = NUMBER) -> Masks:
    return np.random.default_rng(seed).integers(0, classes, (number, *SIZE)).astype(np.uint8)


LABELS = random_masks(0)
LABELS[:, 0] = 255
ONES, OTHERS = (
    np.where(random_masks(seed) < 2, LABELS % 4, random_masks(seed + 10)).astype(np.uint8) for seed in (1, 2)
)
ONES[:, 0], OTHERS[:, 0] = ONES[:, 0] % 4, OTHERS[:, 0] % 4
IDS = [f"{'north' if n < 12 else 'south'}/{n:02d}.png" for n in range(NUMBER)]


def made(masks: Masks, labels: Masks | None = LABELS) -> list[Made]:
    every = [None] * NUMBER if labels is None else labels
    return [Made(*one) for one in zip(IDS, masks, every, strict=True)]


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, template: dict[str, Any]) -> Write:
    """Write a run of a shard of images; the next one has the next name."""
    numbers = iter(range(9))

    def written(images: list[Made], **changes: Any) -> Path:
        return write_run(tmp_path / f"run{next(numbers)}", template, {"s": images}, **changes)

    return written


def pixel_counts(a: Masks, b: Masks, classes: int = 4) -> NDArray[np.int64]:
    found = np.zeros((classes, classes), np.int64)
    np.add.at(found, (a.ravel(), b.ravel()), 1)
    return found


# --- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part_size", [3, 5])
def test_agreement_is_that_of_the_pixels_whatever_the_order(write: Write, part_size: int) -> None:
    a = write(made(ONES), part_size=3)
    b = write(made(OTHERS)[::-1], part_size=part_size)
    found = api.compare(a, b, by="folder", resamples=20)
    same = ONES == OTHERS
    assert found.agreement == same.mean()
    overall = found.against[0].overall
    assert overall.agreement is not None
    counts = pixel_counts(ONES, OTHERS)
    assert np.array_equal(overall.agreement.confusion.counts[:-1], counts)
    iou = np.diag(counts) / (counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts))
    np.testing.assert_array_equal(overall.agreement.score.iou, iou)
    images = found.images().to_pydict()
    assert images["id"] == IDS
    assert images["agreement"] == same.mean(axis=(1, 2)).tolist()
    slices = found.against[0].slices
    assert {value: one.images for value, one in slices.items()} == {"north": 12, "south": 8}
    for value, chosen in (("north", slice(0, 12)), ("south", slice(12, NUMBER))):
        agreement = slices[value].agreement
        assert agreement is not None
        assert agreement.figures["pixel_accuracy"] == same[chosen].mean()
    assert found.against[0].changed_most(3) == np.argsort(same.mean(axis=(1, 2)), kind="stable")[:3].tolist()


def test_masks_are_read_once_and_a_few_parts_at_a_time(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, str]] = []
    original = mask_pairs.read_part_rows

    def counted(ledger: Any, shard: str, part: str, images: int, columns: list[str]) -> Any:
        read.append((ledger.output, part))
        return original(ledger, shard, part, images, columns)

    monkeypatch.setattr(mask_pairs, "read_part_rows", counted)
    a, b = write(made(ONES)), write(made(OTHERS))
    api.compare(a, b, resamples=0)
    assert len(read) == len(set(read)) == 14  # seven parts of each
    asked = mask_pairs.in_order
    ahead: list[int] = []

    def noted(*arguments: Any, **named: Any) -> Any:
        ahead.append(named["ahead"])
        return asked(*arguments, **named)

    monkeypatch.setattr(mask_pairs, "in_order", noted)
    api.compare(a, b, resamples=0, masks=False)
    assert ahead == [16]


def test_without_masks_the_counts_are_compared_alone(write: Write) -> None:
    a, b = write(made(ONES)), write(made(OTHERS))
    whole, alone = api.compare(a, b, resamples=30), api.compare(a, b, resamples=30, masks=False)
    assert alone.change == whole.change is not None
    assert alone.agreement is None
    assert alone.images()["agreement"].null_count == NUMBER
    assert "masks were not compared" in all_notes(alone)


# --- scores ----------------------------------------------------------------------------------------------------------


def counts_of(masks: Masks, chosen: list[int], labels: Masks = LABELS) -> Confusion:
    return sum((Confusion.of(masks[n], labels[n], 4) for n in chosen), Confusion.zeros(4))


@pytest.mark.parametrize("convention", ["omz", "mmseg"])
@pytest.mark.parametrize("group_by", [None, r"(\d)\.png"])
def test_the_paired_interval_is_that_of_a_plain_loop(write: Write, convention: Any, group_by: str | None) -> None:
    found = api.compare(
        write(made(ONES)), write(made(OTHERS)), convention=convention, group_by=group_by, resamples=150, seed=3
    )
    units = np.arange(NUMBER) if group_by is None else np.array([key_of(str(n % 10)) for n in range(NUMBER)], "u8")
    drawn: dict[str, list[Any]] = {"miou": [], "kappa": [], "iou": [], "recall": []}
    for draw in Bootstrap(150, 3).draws(units).T:
        images = [n for n, times in enumerate(draw) for _ in range(int(times))]
        one, other = (score(counts_of(masks, images), (3,), convention) for masks in (ONES, OTHERS))
        for name in ("miou", "kappa"):
            drawn[name].append(other.figures()[name] - one.figures()[name])
        drawn["iou"].append(other.iou - one.iou)
        drawn["recall"].append(other.recall - one.recall)
    scores = found.against[0].overall.scores
    assert scores is not None
    every = list(range(NUMBER))
    one, other = (score(counts_of(masks, every), (3,), convention) for masks in (ONES, OTHERS))
    for name in ("miou", "kappa"):
        change = scores.changes[name]
        assert change.value == pytest.approx(float(other.figures()[name] - one.figures()[name]), abs=1e-12)
        assert change.interval is not None
        bounds = change.interval.low, change.interval.high
        np.testing.assert_allclose(bounds, np.percentile(drawn[name], [2.5, 97.5]), atol=1e-12)
    for kind in ("iou", "recall"):
        for index in range(3):
            change = scores.class_changes[kind][index]
            assert change.interval is not None
            bounds = change.interval.low, change.interval.high
            wanted = np.percentile(np.array(drawn[kind])[:, index], [2.5, 97.5])
            np.testing.assert_allclose(bounds, wanted, atol=1e-12)
    assert (found.against[0].units, scores.a.units) == ("images" if group_by is None else "groups", len(set(units)))


def test_each_run_is_scored_as_segment_score_does(write: Write) -> None:
    a, b = write(made(ONES)), write(made(OTHERS))
    asked: dict[str, Any] = {"merge": ["Sky+Road=Ground"], "convention": "image-mean", "resamples": 60}
    found = api.compare(a, b, **asked).against[0].overall.scores
    assert found is not None
    for output, scored in ((a, found.a), (b, found.b)):
        alone = api.score(output, **asked).overall
        assert scored.figures == pytest.approx(alone.figures, abs=1e-12)
        interval, wanted = scored.intervals["miou"], alone.intervals["miou"]
        assert interval is not None
        assert wanted is not None
        assert (interval.low, interval.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    images = api.compare(a, b, resamples=0).images().to_pydict()
    mious = [[score(counts_of(masks, [n]), (3,), "omz").miou for n in range(NUMBER)] for masks in (ONES, OTHERS)]
    assert images["miou_a"] == pytest.approx(mious[0], abs=1e-12)
    assert images["change"] == pytest.approx(np.subtract(mious[1], mious[0]).tolist(), abs=1e-12)
    order = np.argsort(np.subtract(mious[1], mious[0]))
    against = api.compare(a, b, resamples=0).against[0]
    assert against.lost_most(2) == order[:2].tolist()
    assert against.gained_most(2) == order[::-1][:2].tolist()


def test_of_a_run_and_itself_nothing_changes(write: Write) -> None:
    a = write(made(ONES))
    found = api.compare(a, a, resamples=40).against[0]
    assert (found.agreement, found.change) == (1.0, 0.0)
    assert found.overall.scores is not None
    interval = found.overall.scores.changes["miou"].interval
    assert interval is not None
    assert (interval.low, interval.high) == (0.0, 0.0)
    assert found.changed_most(5) == found.lost_most(5) == found.gained_most(5) == []


def test_a_class_that_one_of_the_runs_has_in_one_image_alone_is_named(write: Write) -> None:
    """A predicts it in another image, too, which says nothing of how well the class is found there."""
    labels = np.where(LABELS == 2, 0, LABELS).astype(np.uint8)
    labels[0, 1:3] = 2
    right = labels % 4
    wrong = right.copy()
    wrong[5, 1] = 2
    found = api.compare(write(made(wrong, labels)), write(made(right, labels)), resamples=60)
    scores = found.against[0].overall.scores
    assert scores is not None
    assert [one.class_intervals[2] is None for one in (scores.a, scores.b)] == [True, True]
    assert scores.class_changes["iou"][2].interval is None
    assert f"labelled in one image alone, and so without an interval: '{NAMES[2]}'" in all_notes(found)


# --- images ----------------------------------------------------------------------------------------------------------


def test_what_is_not_compared_is_counted_and_told(write: Write) -> None:
    one, other = made(ONES), made(OTHERS)
    one[4] = Made(IDS[4], ONES[4])  # without a label in A
    other[7] = Made(IDS[7], None)  # an error in B
    other[9] = Made(IDS[9], OTHERS[9][:4])  # another size
    found = api.compare(write(one[1:]), write(other[:18]), resamples=20)
    against = found.against[0]
    compared = [n for n in range(1, 18) if n not in (7, 9)]
    assert found.images()["id"].to_pylist() == [IDS[n] for n in compared]
    assert found.agreement == (ONES[compared] == OTHERS[compared]).mean()
    scored = [n for n in compared if n != 4]
    wanted = [score(counts_of(masks, scored), (3,), "omz").miou for masks in (ONES, OTHERS)]
    assert found.change == pytest.approx((wanted[1] or 0) - (wanted[0] or 0), abs=1e-12)
    assert all_notes(found)[:3] == [
        "not compared, as the other run has no image of this id: 2 images of A and 1 image of B",
        "not compared, because of an error: 1 image of B",
        "not compared, as its source has another size in the other run: 1 image",
    ]
    assert "14 of 15 images labelled in both runs: the scores are of these" in all_notes(found)
    assert against.overall.scores is not None
    assert against.overall.scores.a.images == 14


def test_without_labels_agreement_alone(write: Write) -> None:
    found = api.compare(write(made(ONES, None)), write(made(OTHERS)), resamples=20)
    assert found.agreement == (ONES == OTHERS).mean()
    assert found.change is None
    assert all_notes(found) == ["no image is labelled in both runs: compared by agreement alone"]
    assert found.images()["change"].null_count == NUMBER


def test_ids_of_several_shards_are_matched_with_their_shard(tmp_path: Path, template: dict[str, Any]) -> None:
    outputs = [
        write_run(tmp_path / name, template, {"s": made(masks)[:10], "t": made(masks[::-1])[:10]})
        for name, masks in (("a", ONES), ("b", OTHERS))
    ]
    found = api.compare(*outputs, resamples=0)
    assert found.agreement == (ONES == OTHERS).mean()
    assert "ids come several times, so that images are matched by shard and id" in all_notes(found)


def test_runs_of_other_images_are_refused(write: Write) -> None:
    a, b = write(made(ONES)[:3]), write(made(ONES)[5:8])
    with pytest.raises(
        UsageError, match=r"no image in common; they are matched by id: A has 'north/00.png', B has 'nor"
    ):
        api.compare(a, b, by="folder")
    with pytest.raises(UsageError, match="another size in the other one"):
        api.compare(a, write([Made(IDS[0], ONES[0][:3])]))


def test_masks_at_model_size_are_enlarged_and_told(write: Write) -> None:
    size = (24, 32)
    small = [Made(name, mask, size=size) for name, mask in zip(IDS, ONES, strict=True)]
    large = np.stack([restore_mask(mask, CARD.input, size) for mask in ONES])
    large[:, :5] = 0
    found = api.compare(write(small), write(made(large, None)), resamples=0)
    restored = np.stack([restore_mask(mask, CARD.input, size) for mask in ONES])
    assert found.agreement == (restored == large).mean()
    assert "20 masks of A at model size: resized to the image's (nearest neighbour)" in all_notes(found)


def test_masks_in_files_of_their_own_are_compared(write: Write) -> None:
    in_files = [Made(name, mask, in_file=True) for name, mask in zip(IDS, OTHERS, strict=True)]
    assert api.compare(write(made(ONES)), write(in_files), resamples=0).agreement == (ONES == OTHERS).mean()


def test_unfinished_runs_say_what_is_covered(write: Write) -> None:
    found = api.compare(write(made(ONES)), write(made(OTHERS), unwritten=2), resamples=0)
    assert run_in_words(found.runs[1]).endswith("15 of 20 images so far")
    assert len(found.images()) == 15


@pytest.mark.parametrize(
    ("given", "name"), [(None, "blocks"), ("https://h/a/int8.onnx?X-Amz-Signature=1", "blocks with int8.onnx")]
)
def test_a_run_is_named_with_the_weights_that_it_was_given(write: Write, given: str | None, name: str) -> None:
    a, b = write(made(ONES)), write(made(OTHERS))
    run = json.loads((b / "run.json").read_text())
    (b / "run.json").write_text(json.dumps(run | {"job": run["job"] | {"weights": given}}))
    assert run_in_words(api.compare(a, b, resamples=0).runs[1]).startswith(f"{name} (")


def test_counts_that_are_not_those_of_the_statistics_are_refused(write: Write) -> None:
    a, b = write(made(ONES)), write(made(OTHERS))
    first, second = sorted(b.glob("masks/s/*"))[:2]
    first.write_bytes((a / "masks" / "s" / first.name).read_bytes())
    with pytest.raises(SegmentError, match="are not those under"):
        api.compare(a, b, by="folder")
    assert second.exists()


def test_other_labels_are_told(write: Write) -> None:
    other = LABELS.copy()
    other[:, 1] = (other[:, 1] + 1) % 4
    differ = np.abs(np.bincount(LABELS.ravel(), minlength=256) - np.bincount(other.ravel(), minlength=256)).sum() // 2
    notes = all_notes(api.compare(write(made(ONES)), write(made(ONES, other)), resamples=0))
    assert any(note.startswith(f"the labels are not the same in both runs, of {differ} of 960 ") for note in notes)
    notes = all_notes(api.compare(write(made(ONES)), write(made(OTHERS)), resamples=0))
    assert not any("labels are not the same" in note for note in notes)


# --- classes ---------------------------------------------------------------------------------------------------------


def classes_of(*names: str, ignore: tuple[int, ...] = ()) -> Classes:
    return Classes(names=names, palette=tuple((n, n, n) for n in range(len(names))), ignore=ignore)


def test_classes_are_brought_together_by_name_and_as_given() -> None:
    a, b = (
        classes_of("Sky", "sky", "a=b", "Van", "Tree", ignore=(4,)),
        classes_of("sky", "Auto", "Sky", "Moon", ignore=(3,)),
    )
    common = common_classes(a, b, ["a=b=Auto", "3=auto"])
    assert common.classes.names == ("Sky", "sky", "Auto", "Tree", "Moon")
    assert (common.of_a, common.of_b) == ((0, 1, 2, 2, 3), (1, 2, 0, 4))
    assert (common.only_a, common.only_b, common.shared) == ((3,), (4,), (0, 1, 2))
    assert common.classes.ignored_classes == (3, 4)
    same = common_classes(a, a)
    assert (same.classes.names, same.of_a, same.of_b) == (a.names, (0, 1, 2, 3, 4), (0, 1, 2, 3, 4))
    assert same.classes.palette == a.palette


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "no class in common: A has 'Sky', B has 'Himmel'. Say which belong together with --map"),
        (["Sky"], "write a class of A and one of B"),
        (["Skyy=Himmel"], r"map: no class 'Skyy'. Did you mean 'Sky'"),
    ],
)
def test_classes_that_cannot_be_brought_together(pairs: list[str], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        common_classes(classes_of("Sky"), classes_of("Himmel"), pairs)
    assert words in str(refused.value)


def test_other_label_sets_are_compared_by_common_classes(write: Write) -> None:
    names = ("vehicle", "SKY", "Road", "Tree", "Unlabeled")  # Car is vehicle, Tree is of B alone
    to_b = np.array([1, 2, 0, 4], np.uint8)
    labels = np.where(LABELS == 255, 255, to_b[LABELS % 4]).astype(np.uint8)
    masks = to_b[OTHERS % 4]
    masks[:, 2, :3] = 3
    b = write(
        made(masks, labels),
        classes={"names": names, "palette": [*PALETTE, (9, 9, 9)], "ignore": [4, 255]},
    )
    a = write(made(ONES))
    found = api.compare(a, b, map=["Car=vehicle"], resamples=0)
    against = found.against[0]
    assert against.grouping.names == ("Sky", "Road", "Car", "Unlabeled", "Tree")
    back = np.array([2, 0, 1, 4, 3], np.uint8)[masks]
    assert found.agreement == (back == ONES).mean()
    scores = against.overall.scores
    assert scores is not None
    counted = [Confusion.of(some.reshape(-1, 8), LABELS.reshape(-1, 8), 5) for some in (ONES, back)]
    wanted = [score(one, (3,), "omz").iou[:3].mean() for one in counted]  # Tree, of B alone, is in no mean
    assert (scores.a.miou, scores.b.miou) == (pytest.approx(wanted[0]), pytest.approx(wanted[1]))
    notes = all_notes(found)
    assert any(note.startswith("only B has 1 class, 'Tree': their pixels count as disagreement") for note in notes)
    assert not any("labels are not the same" in note for note in notes)
    with pytest.raises(UsageError, match="map: no class 'Nothing'"):
        api.compare(a, b, map=["Car=Nothing"])


def test_several_runs_are_each_compared_with_the_first(write: Write) -> None:
    outputs = [write(made(masks)) for masks in (ONES, OTHERS, LABELS % 4)]
    found = api.compare(*outputs, resamples=20)
    assert [(one.a.letter, one.b.letter) for one in found.against] == [("A", "B"), ("A", "C")]
    assert found.against[1].agreement == (ONES == LABELS % 4).mean()
    alone = api.compare(outputs[0], outputs[2], resamples=20)
    assert found.against[1].change == alone.change
    with pytest.raises(UsageError, match="1 run: give two or more"):
        compare_ledgers([found.runs[0].ledger], Request())


def test_kept_metadata_of_a_makes_slices_and_groups(tmp_path: Path) -> None:
    place = Place(tmp_path)
    lines = ["image,label,city"]
    for n in range(6):
        place.add(f"{n}.png", n)
        lines.append(f"{place.images}/{n}.png,{place.labels}/{n}.png,{'ab'[n % 3 == 0]}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    place.run(input=str(tmp_path / "list.csv"), keep=["city"])
    found = api.compare(place.output, place.output, by="city", group_by="city", resamples=10).against[0]
    assert {value: one.images for value, one in found.slices.items()} == {"a": 4, "b": 2}
    assert (found.units, found.overall.scores and found.overall.scores.a.units) == ("groups", 2)
