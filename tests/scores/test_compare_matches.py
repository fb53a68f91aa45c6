"""Which images and classes of two runs are compared, and what is told of them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segment as api
from segment.errors import SegmentError, UsageError
from segment.inputs.parts import Part
from segment.metrics.common_classes import pairs_of_each
from segment.models.classes import Classes
from segment.output.plan import Plan
from segment.report.comparison.comparison_formats import to_json
from segment.report.comparison.comparison_notes import all_notes
from segment.scores import run_images
from segment.scores.matching import Matches, RunRows, key_of, match
from tests.runs import CARD, Place
from tests.written_runs import Made, read_template, write_run

SIZE = (6, 8)
SKY, ROAD, CAR = (np.full(SIZE, index, np.uint8) for index in range(3))

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write a run of a shard of images, or of given shards; the next one has the next name."""
    place = Place(tmp_path_factory.mktemp("matches"))
    place.add("a.png", 1)
    place.run()
    template, numbers = read_template(place.output), itertools.count()

    def written(images: list[Made], **changes: Any) -> Path:
        return write_run(place.folder / f"run{next(numbers)}", template, {"s": images}, **changes)

    return written


def kept(write: Write, *values: str | None, name: str = "city", keep: bool = True) -> Path:
    """A run that keeps a value of each image."""
    images = [Made(f"{n}.png", SKY, SKY, meta=(value,) if keep else ()) for n, value in enumerate(values)]
    contract = read_template(write([Made("x.png", SKY)]))["contract"]
    contract["input"] |= {"keep": [name] if keep else []}
    return write(images, contract=contract)


def rows(*found: str) -> tuple[RunRows, Plan]:
    """Rows given as `shard/id`, with a `!` where they are errors, each in a part of its own; and their plan."""
    names = [one.rstrip("!").split("/") for one in found]
    number = len(found)
    keys = np.array([key_of(name) for _, name in names], np.uint64)
    sound = np.array([not one.endswith("!") for one in found])
    parts = [Part(f"{n}", shard, "parquet", "file:///x", 1, "e", n, n + 1, 0, ()) for n, (shard, _) in enumerate(names)]
    return RunRows(keys, sound, np.arange(number, dtype=np.int32), np.arange(number + 1)), Plan.of(parts)


def matched(a: list[str], b: list[str]) -> Matches:
    (rows_a, plan_a), (rows_b, plan_b) = rows(*a), rows(*b)
    return match(rows_a, rows_b, plan_a, plan_b)


@pytest.mark.parametrize(
    ("a", "b", "pairs", "by_shard", "failed_of_a"),
    [
        (["s/x", "s/y"], ["t/y", "t/x"], [("s/x", "t/x"), ("s/y", "t/y")], False, 0),
        (["s/x", "t/x!"], ["s/x!", "t/x"], [], True, 1),  # two images, each of which is an error in one of the runs
        (["s/x", "t/x!", "s/y"], ["s/x", "s/y!"], [("s/x", "s/x")], True, 1),
        (["s/x", "s/x!"], ["t/x", "t/z!"], [("s/x", "t/x")], False, 0),  # an id twice in one shard
        (["s/x!", "s/y", "s/z"], ["s/x", "s/y!"], [], False, 1),
    ],
)
def test_an_id_of_another_shard_is_another_image(
    a: list[str], b: list[str], pairs: list[tuple[str, str]], by_shard: bool, failed_of_a: int
) -> None:
    found = matched(a, b)
    assert [(a[i], b[j]) for i, j in zip(found.rows_a, found.rows_b, strict=True)] == pairs
    assert (found.by_shard, found.failed_of_a) == (by_shard, failed_of_a)


def test_two_sound_images_of_one_id_in_a_shard_are_refused() -> None:
    with pytest.raises(SegmentError, match="two images of one id"):
        matched(["s/x", "s/x"], ["s/x"])


def test_images_from_elsewhere_are_told(write: Write) -> None:
    a = [Made(f"{n}.png", SKY) for n in range(5)]
    b = [Made(f"{n}.png", SKY, place="s3://b" if n < 3 else "/data") for n in range(5)]
    (note,) = (line for line in all_notes(api.compare(write(a), write(b), resamples=0)) if "elsewhere" in line)
    assert note.endswith("2 images, such as s3://b/3.png and /data/3.png")
    assert not [line for line in all_notes(api.compare(write(a), write(a), resamples=0)) if "elsewhere" in line]


def test_images_that_were_written_anew_between_the_runs_are_told(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for name, seed in (("a.png", 1), ("b.png", 2)):
        place.add(name, seed, label=False)
    place.run()
    place.add("b.png", 3, label=False)
    place.run(output=f"{tmp_path}/new")
    notes = all_notes(api.compare(place.output, tmp_path / "new"))
    assert "taken as the same by their id, though their file was written anew: 1 image" in notes


def test_a_class_that_only_one_run_predicts_is_told(write: Write) -> None:
    wrong = SKY.copy()
    wrong[0, 0] = 2
    a, b = (write([Made("a.png", mask, SKY), Made("b.png", ROAD, ROAD)]) for mask in (SKY, wrong))
    words = "predicted by {} alone, and in no label: 'Car'. IoU 0 in the mIoU of {}, not in that of {}: a part of the"
    found = api.compare(a, b, resamples=0)
    assert (found.change or 0) < -0.3  # by one pixel
    for runs, letters in (((a, b), "BBA"), ((b, a), "AAB")):
        notes = all_notes(api.compare(*runs, resamples=0))
        assert [words.format(*letters) in note for note in notes].count(True) == 1
    chosen = api.compare(a, b, classes=["Sky", "Road"], resamples=0)
    assert "means over 2 classes, 'Sky', 'Road'; pixel accuracy and kappa are of all" in all_notes(chosen)
    assert not [note for note in all_notes([chosen][0]) if "predicts" in note]


def test_scores_of_models_of_other_sizes_are_told(write: Write) -> None:
    large = [np.kron(mask, np.ones((2, 2), np.uint8)) for mask in (SKY, ROAD)]
    runs = [
        write([Made("a.png", mask, label, size=(24, 32))], scored_at="model")
        for mask, label in ((SKY, ROAD), (large[0], large[1]))
    ]
    assert "A is scored on 48 pixels and B on 192, at the size of each model" in all_notes(
        api.compare(*runs, resamples=0)
    )


def test_a_run_without_an_image_is_named(write: Write) -> None:
    whole = [Made("a.png", SKY)]
    for images, unwritten, words in (([], 0, "has no image$"), (whole, 1, "has no image yet$")):
        with pytest.raises(UsageError, match=rf"^B, .*run\d+, {words}"):
            api.compare(write(whole), write(images, unwritten=unwritten))


def classes(*names: str) -> Classes:
    return Classes(names=names, palette=tuple((n, n, n) for n in range(len(names))))


def test_each_run_takes_the_pairs_of_its_classes() -> None:
    a, b, c = classes("Sky", "Car"), classes("Himmel", "Car"), classes("Ciel", "Auto")
    assert pairs_of_each(["Sky=Himmel", "sky=ciel", "Car=1"], a, [b, c]) == [
        ["Sky=Himmel", "Car=1"],
        ["sky=ciel", "Car=1"],
    ]
    with pytest.raises(UsageError, match="map: no class 'Cielo'"):
        pairs_of_each(["Sky=Cielo"], a, [b, c])


# --- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"by": "city"}, {"group_by": "city"}])
def test_metadata_that_differs_in_the_other_run_is_counted(write: Write, asked: dict[str, str]) -> None:
    a, b = kept(write, "x", "x", "y", None, "y"), kept(write, "x", "y", None, "z", "y")
    if "group_by" in asked:
        a = kept(write, "x", "x", "y", "w", "y")  # a group is known of each image
    found = api.compare(a, b, resamples=10, **asked)
    differ, not_in_a, not_in_b = (2, 0, 1) if "group_by" in asked else (1, 1, 1)
    assert found.against[0].pairs.read.meta["city"].tolist() == [differ, not_in_a, not_in_b]
    note = next(note for note in all_notes(found) if note.startswith("'city' is taken from A: "))
    assert f"{differ} image{'s' * (differ > 1)} with another value in B" in note
    assert ("1 image without one in A" in note) == bool(not_in_a)
    assert "1 image without one in B" in note
    told = to_json(found, [])["against"]["B"]["metadata"]
    assert told == {"city": {"differs": differ, "missing_in_a": not_in_a, "missing_in_b": not_in_b}}


def test_metadata_that_only_a_keeps_or_that_is_the_same(write: Write) -> None:
    a = kept(write, "x", "x", "y")
    for b in (kept(write, None, None, None, keep=False), kept(write, "x", "x", "y", name="town")):
        found = api.compare(a, b, by="city", resamples=0)
        assert "'city' is taken from A: 3 images without one in B" in all_notes(found)
        assert {value: one.images for value, one in found.against[0].slices.items()} == {"x": 2, "y": 1}
    assert not any("is taken from" in note for note in all_notes(api.compare(a, a, by="city", resamples=0)))
    assert api.compare(a, kept(write, "z", "z", "z"), by="folder", resamples=0).against[0].pairs.read.meta == {}


@pytest.mark.parametrize(
    "asked", [{"by": "city"}, {"by": "meta:city"}, {"by": "city:1,2"}, {"group_by": "city", "resamples": 10}]
)
@pytest.mark.parametrize("other", [None, "town"])
def test_metadata_that_only_b_keeps_is_asked_of_the_wrong_run(
    write: Write, asked: dict[str, Any], other: str | None
) -> None:
    b = kept(write, "1", "2", "3")
    a = kept(write, "1", "2", "3", name=other or "city", keep=other is not None)
    with pytest.raises(UsageError, match=r"by = '.*': B keeps this metadata and A does not; .* name B first"):
        api.compare(a, b, **asked)
    assert api.compare(b, a, **{"resamples": 0} | asked).against[0].pairs


def test_several_passes_over_the_images_are_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two slices at once; what was found while images were read is counted in the first pass alone."""
    a, b = kept(write, *"vwxyz"), kept(write, *"vwxyy")
    once = [api.compare(a, b, by="city", resamples=10), api.score(a, by="city", resamples=10)]
    monkeypatch.setattr(run_images, "_SLICE_BYTES", 2 * 8 * 10 * 9 * len(CARD.classes))
    found, scored = api.compare(a, b, by="city", resamples=10), api.score(a, by="city", resamples=10)
    assert (found.against[0].sliced.passes, scored.sliced.passes) == (3, 2)  # the sums of a score are smaller
    assert any(note.startswith("images were read 3 times: ") for note in all_notes(found))
    assert any(note.startswith("images were read 2 times: ") for note in scored.notes)
    assert found.against[0].pairs.read.meta["city"].tolist() == [1, 0, 0]
    assert list(found.against[0].slices) == list(scored.slices) == list("vwxyz")
    for one in (all_notes(once[0]), once[1].notes):
        assert not any("images were read" in note for note in one)
