"""Warnings about labels that hold too little or mean something else: wherever a score is shown, with a remap."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segment.metrics import Confusion
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.report.aggregate import load_report
from segment.report.label_checks import label_warnings
from segment.store.client import Store
from tests.calls import Call
from tests.datasets import Item, write_files, write_list, write_parquet, write_tars
from tests.runs import CARD, CLASSES, Notes, Outcome, Place, png, scene

WRITERS = {"files": write_files, "list": write_list, "parquet": write_parquet, "tars": write_tars}


def card_of(**changes: Any) -> ModelCard:
    return CARD.model_copy(update={"classes": CARD.classes.model_copy(update=changes)})


def counted(cells: dict[tuple[int, int], int]) -> Confusion:
    """Return counts by (label, prediction); label `CLASSES` is void."""
    counts = np.zeros((CLASSES + 1, CLASSES), np.int64)
    for cell, number in cells.items():
        counts[cell] = number
    return Confusion(counts)


def told(cells: dict[tuple[int, int], int], card: ModelCard = CARD, **changes: Any) -> list[str]:
    return label_warnings(counted(cells), card, **{"remap": {}, "labelled": True, **changes})


VOID = CLASSES
SOUND = {(0, 0): 50, (1, 1): 30, (2, 2): 10, (0, 1): 20, (2, 1): 5, (VOID, 0): 7, (3, 0): 3}


# --- warnings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [
        SOUND,
        {(0, 0): 5, (1, 0): 5},  # a poor model, and labels of two classes
        {(0, 2): 5, (1, 1): 5},
        {},
    ],
)
def test_labels_of_several_classes_give_no_warning(cells: dict[tuple[int, int], int]) -> None:
    assert told(cells) == []


def test_a_run_without_labels_gives_no_warning() -> None:
    assert told({(VOID, 0): 100}, labelled=False) == []


def test_one_class_beside_void_names_the_value_and_the_remap() -> None:
    (line,) = told({(0, 0): 60, (VOID, 0): 1040})
    assert line == (
        "the only class in any label is 'Sky' (0), so that mIoU is the IoU of one class; 1,040 pixels are void (label "
        "value 255) or of images without a label. If 255 is meant as a class, run again with another output and name "
        "the class, for example --label-remap 255=1 for 'Road'"
    )


def test_one_class_alone_is_reported_without_a_useless_remap() -> None:
    (line,) = told({(1, 1): 60, (1, 0): 3})
    assert line == "the only class in any label is 'Road' (1)"
    (line,) = told({(0, 0): 60, (3, 0): 40})
    assert line.endswith("; 40 pixels are of ignored classes")
    (line,) = told({(0, 0): 60, (VOID, 0): 40}, card_of(ignore=(3,)))  # the card has no void value
    assert line == "the only class in any label is 'Sky' (0), so that mIoU is the IoU of one class"


def test_a_card_of_one_class_has_labels_of_one_class() -> None:
    assert told({(0, 0): 60, (VOID, 0): 40, (3, 3): 1}, card_of(ignore=(1, 2, 3, 255))) == []


@pytest.mark.parametrize(
    ("changes", "remap", "words"),
    [
        ({"ignore": (3, 200, 255)}, {}, "(label value 200, 255)"),
        ({"ignore": (), "void_colours": ((224, 224, 192),)}, {}, "(colour 224,224,192)"),
        ({"void_colours": ((1, 2, 3),)}, {"#010203": "Sky"}, "(label value 255)"),
        ({}, {"255": "Road", "7": "ignore"}, "(what --label-remap ignores)"),
        ({}, {"*": "Ignore"}, "(label value 255 or what --label-remap ignores)"),
    ],
)
def test_void_is_named_by_what_makes_it(changes: dict[str, Any], remap: dict[str, str], words: str) -> None:
    (line,) = told({(0, 0): 60, (VOID, 0): 40}, card_of(**changes), remap=remap)
    assert f"40 pixels are void {words} or of images without a label" in line
    assert ("--label-remap 255=1" in line) == ("255" in words)


def test_nothing_but_void() -> None:
    for cells in ({(VOID, 1): 9}, {(3, 0): 9}, {(VOID, 1): 9, (3, 2): 1}):
        (line,) = told(cells)
        assert line.startswith("the input has labels, but none of their pixels counts: every label is void")
    assert "for example --label-remap 255=1 for 'Road'" in told({(VOID, 1): 9})[0]
    assert "--label-remap" not in told({(3, 1): 9})[0]


def test_predictions_that_share_no_class_with_the_labels() -> None:
    (line,) = told({(0, 2): 60, (1, 2): 40})
    assert line.startswith(
        "no labelled pixel is predicted as its class: the labels hold 'Sky' (0), 'Road' (1), the predictions "
        "there 'Car' (2). If "
    )
    assert len(told({(0, 2): 60, (VOID, 0): 1})) == 2  # one class only, and no pixel correct


def test_labels_that_count_from_one() -> None:
    (line,) = told({(1, 0): 60, (2, 1): 30, (2, 2): 5, (1, 2): 5})
    assert line.startswith("90% of the labelled pixels are predicted as the class numbered one lower, 5% as their own.")
    assert line.endswith("--label-remap 1=0 --label-remap 2=1 and so on")
    (line,) = told({(0, 1): 60, (1, 2): 40})
    assert "one higher, 0% as their own" in line
    assert "--label-remap 0=1 --label-remap 1=2" in line


def test_before_the_end_it_is_so_far() -> None:
    assert [line[:7] for line in told({(0, 0): 60}, so_far=True)] == ["so far "]


# --- whole runs ---------------------------------------------------------------------------------------------------


def run_with(folder: Path, kind: str, values: Sequence[Sequence[int]], **changes: Any) -> tuple[Place, Outcome]:
    """Segment scenes whose labels are vertical stripes of the given values, one item per image."""
    place = Place(folder)
    items = []
    for number, held in enumerate(values):
        label = np.repeat(np.array(held, np.uint8), 32 // len(held))[None].repeat(24, axis=0)
        items.append(Item(f"{number}.png", png(scene(number)[0]), png(label)))
    given = WRITERS[kind](folder / kind, items)
    return place, place.run(**given, **changes)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([(0, 255), (255, 0)], "the only class in any label is 'Sky' (0)"),
        ([(255,), (255,)], "the input has labels, but none of their pixels counts"),
        ([(3, 255), (3,)], "the input has labels, but none of their pixels counts"),
        ([(1, 1)], "the only class in any label is 'Road' (1)"),
    ],
)
def test_a_run_says_what_its_labels_lack(
    tmp_path: Path, kind: str, values: Sequence[Sequence[int]], words: str
) -> None:
    _, outcome = run_with(tmp_path, kind, values)
    assert [line for line in outcome.warnings if line.startswith(words)]
    assert outcome.report.warnings[0].startswith(words)


def test_the_remap_that_is_named_does_what_it_says(tmp_path: Path) -> None:
    place, outcome = run_with(tmp_path, "files", [(0, 255), (255, 0)])
    assert "--label-remap 255=1" in outcome.report.warnings[0]
    again = place.run(
        input=str(tmp_path / "files/images"),
        labels=str(tmp_path / "files/labels"),
        output=str(tmp_path / "anew"),
        label_remap={"255": "1"},
    )
    assert again.report.warnings == ()
    assert np.count_nonzero(again.report.total.confusion.label_pixels) == 2


def test_warnings_are_in_every_form_of_a_report(tmp_path: Path, segment: Call) -> None:
    place, outcome = run_with(tmp_path, "files", [(0, 255), (255, 0)])
    (line,) = outcome.report.warnings
    printed = " ".join(segment("report", str(place.output)).out.split())
    assert f"warning: {line}" in printed
    assert printed.index("warning:") < printed.index("mIoU % ")
    assert (
        "- **warning:** the only class in any label is 'Sky' (0)"
        in segment("report", str(place.output), "-f", "markdown").out
    )
    for told in (
        segment("report", str(place.output), "-f", "json").out,
        (place.output / "report/summary.json").read_text(),
    ):
        assert json.loads(told)["warnings"] == [line]
    page = (place.output / "report/index.html").read_text()
    assert '<h2 id="warnings-title">' in page
    assert page.index("the only class in any label is") < page.index("Pixel accuracy")


def test_a_run_at_the_command_line_warns_on_stderr_quiet_or_not(tmp_path: Path, segment: Call) -> None:
    place, _ = run_with(tmp_path, "files", [(0, 255)])
    flags = place.flags(input=str(tmp_path / "files/images"), labels=str(tmp_path / "files/labels"))
    for how in ([], ["--quiet"], ["--log-format=json"]):
        called = segment(*flags, *how)
        assert called.code == 0
        line = next(line for line in called.err.splitlines() if "the only class in any label" in line)
        if how == ["--log-format=json"]:
            assert json.loads(line)["event"] == "warning"
        else:
            assert line.startswith("warning: ")


def test_a_sound_run_and_one_without_labels_warn_of_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for seed in range(3):
        place.add(f"{seed}.png", seed)
    assert place.run().report.warnings == ()
    notes = Notes()
    bare = place.run(output=str(tmp_path / "bare"), labels=None)
    assert bare.report.warnings == ()
    assert notes.warnings == []
    assert load_report(Ledger(Store(), f"file://{tmp_path}/bare")).warnings == ()


def test_an_unlabelled_parquet_warns_of_nothing_though_its_file_is_gone(tmp_path: Path) -> None:
    place = Place(tmp_path)
    given = write_parquet(tmp_path / "in", [Item(f"{n}.png", png(scene(n)[0])) for n in range(3)])
    for file in (tmp_path / "in").iterdir():  # `datasets` writes an empty label column
        pq.write_table(pq.read_table(file).drop_columns("label"), file)
    assert place.run(**given).report.warnings == ()
    for file in (tmp_path / "in").iterdir():
        file.unlink()
    assert load_report(Ledger(Store(), f"file://{place.output}")).warnings == ()
