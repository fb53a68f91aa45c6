"""Which images and classes of two runs are compared, and what is told of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import segment as api
from segment.errors import SegmentError, UsageError
from segment.metrics.common_classes import pairs_of_each
from segment.models.classes import Classes
from segment.report.comparison.comparison_notes import all_notes
from segment.scores.matching import RunRows, match
from tests.runs import Place
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


def rows(*found: str) -> RunRows:
    """Rows given as `shard/id`, with a `!` where they are errors."""
    shards, ids = zip(*(one.rstrip("!").split("/") for one in found), strict=True)
    sound = np.array([not one.endswith("!") for one in found])
    zeros = np.zeros(len(found), np.int32)
    return RunRows(pa.chunked_array([ids]), pa.array(shards).dictionary_encode(), zeros, zeros, sound)


@pytest.mark.parametrize(
    ("a", "b", "pairs", "by_shard", "failed_of_a", "failed_of_b"),
    [
        (["s/x", "s/y"], ["t/y", "t/x"], [("s/x", "t/x"), ("s/y", "t/y")], False, 0, 0),
        (["s/x", "t/x!"], ["s/x!", "t/x"], [], True, 1, 1),  # two images, each of which is an error in one of the runs
        (["s/x", "t/x!", "s/y"], ["s/x", "s/y!"], [("s/x", "s/x")], True, 1, 0),
        (["s/x", "s/x!"], ["t/x", "t/z!"], [("s/x", "t/x")], False, 0, 0),  # an id twice in one shard
        (["s/x!", "s/y", "s/z"], ["s/x", "s/y!"], [], False, 1, 1),
    ],
)
def test_an_id_of_another_shard_is_another_image(
    a: list[str], b: list[str], pairs: list[tuple[str, str]], by_shard: bool, failed_of_a: int, failed_of_b: int
) -> None:
    found = match(rows(*a), rows(*b))
    assert [(a[i], b[j]) for i, j in zip(found.rows_a, found.rows_b, strict=True)] == pairs
    assert (found.by_shard, found.failed_of_a, found.failed_of_b) == (by_shard, failed_of_a, failed_of_b)


def test_two_sound_images_of_one_id_in_a_shard_are_refused() -> None:
    with pytest.raises(SegmentError, match="two images of one id"):
        match(rows("s/x", "s/x"), rows("s/x"))


def test_images_from_elsewhere_are_told(write: Write) -> None:
    a = [Made(f"{n}.png", SKY) for n in range(5)]
    b = [Made(f"{n}.png", SKY, place="s3://b" if n < 3 else "/data") for n in range(5)]
    (note,) = (line for line in all_notes(api.compare(write(a), write(b), resamples=0)) if "elsewhere" in line)
    assert note.endswith("2 images, such as s3://b/3.png and /data/3.png")
    assert not [line for line in all_notes(api.compare(write(a), write(a), resamples=0)) if "elsewhere" in line]


def test_a_class_that_only_one_run_predicts_is_told(write: Write) -> None:
    wrong = SKY.copy()
    wrong[0, 0] = 2
    a, b = (write([Made("a.png", mask, SKY), Made("b.png", ROAD, ROAD)]) for mask in (SKY, wrong))
    words = "1 class that no scored label has and only {} predicts, 'Car': IoU 0 in the mIoU of {}"
    found = api.compare(a, b, resamples=0)
    assert (found.change or 0) < -0.3  # by one pixel
    for runs, letter in (((a, b), "B"), ((b, a), "A")):
        notes = all_notes(api.compare(*runs, resamples=0))
        assert [words.format(letter, letter) in note for note in notes].count(True) == 1
    chosen = api.compare(a, b, classes=["Sky", "Road"], resamples=0)
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
