"""Other classes from counts that are there, against counts of pixels that have them from the start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment.errors import UsageError
from segment.metrics import Confusion
from segment.metrics.regroup import regroup
from segment.models.classes import VOID, Classes

NAMES = ("Sky", "Road", "Pole", "Sign", "Car, parked", "Void-like")
CLASSES = Classes(names=NAMES, palette=[(n, n, n) for n in range(6)], ignore=(5, 255))


def test_the_cards_own_classes() -> None:
    same = regroup(CLASSES)
    assert (same.names, same.of_class, same.ignored, same.chosen) == (NAMES, tuple(range(6)), (5,), None)
    counts = Confusion(np.arange(42).reshape(7, 6))
    assert same.confusion(counts) == counts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_merged_counts_are_counts_of_merged_pixels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    guess = generator.integers(0, 6, (9, 7)).astype(np.uint8)
    label = generator.choice(np.array([0, 1, 2, 3, 4, 5, VOID], np.uint8), (9, 7))
    found = regroup(CLASSES, merge=["Pole+sign=Thin", "0+Car, parked=Rest"])
    assert found.names == ("Rest", "Road", "Thin", "Void-like")
    assert found.ignored == (3,)
    table = np.full(256, VOID, np.uint8)
    table[:6] = [0, 1, 2, 2, 0, 3]
    assert found.confusion(Confusion.of(guess, label, 6)) == Confusion.of(table[guess], table[label], 4)


def test_names_that_differ_in_case_alone_are_two_classes() -> None:
    classes = Classes(names=("car", "Car", "Van"), palette=[(n, n, n) for n in range(3)])
    assert [regroup(classes, chosen=[name]).chosen for name in ("car", "Car", "VAN")] == [(0,), (1,), (2,)]


def test_what_is_ignored_and_chosen() -> None:
    found = regroup(CLASSES, ignore=["pole", "3"], chosen=["Car, parked", "sky,Road"])
    assert found.ignored == (2, 3)
    assert found.chosen == (0, 1, 4)
    assert regroup(CLASSES, ignore=["none"]).ignored == ()
    merged = regroup(CLASSES, ignore=["Pole,Sign"], merge=["Pole+Sign=Thin"], chosen=["Road"])
    assert (merged.names, merged.ignored, merged.chosen) == (("Sky", "Road", "Thin", *NAMES[4:]), (2,), (1,))
    by_index = regroup(CLASSES, merge=["0+1=Flat"], chosen=["2", "flat"])  # an index of the card, though Pole is 1 now
    assert [by_index.names[index] for index in by_index.chosen or ()] == ["Flat", "Pole"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"ignore": ["Pola"]},
            "ignore: no class 'Pola'. Did you mean 'Pole'?",
        ),
        ({"ignore": ["255"]}, "ignore: no class '255'. The run counted 0 "),
        ({"ignore": [",".join(map(str, range(6)))]}, "every class is ignored"),
        ({"merge": ["Pole+Sign"]}, "write two or more classes and a name, as 'Pole+SignSymbol=Furniture'"),
        ({"merge": ["Pole=Thin"]}, "write two or more classes"),
        ({"merge": ["Pole+Pole=Thin"]}, "write two or more classes"),
        ({"merge": ["Pole+Sign="]}, "write two or more classes"),
        ({"merge": ["Pole+Lamp=Thin"]}, "merge: no class 'Lamp'"),
        ({"merge": ["Pole+Sign=Thin", "Sign+Road=Flat"]}, "'Sign' is in another union already"),
        ({"merge": ["Pole+Sign=Thin", "Road+Sky=Thin"]}, "'Thin' is another union's name already"),
        ({"merge": ["Pole+Sign=Road"]}, "'Road' is a class already"),
        ({"merge": ["Pole+Void-like=Thin"]}, "'Void-like' is ignored and others are not: say which with --ignore"),
        ({"chosen": ["Void-like"]}, "classes: 'Void-like' is ignored"),
        ({"chosen": ["Pole"], "merge": ["Pole+Sign=Thin"]}, "classes: 'Pole' is counted in 'Thin': name that"),
        ({"chosen": ["2"], "merge": ["Pole+Sign=Thin"]}, "classes: 'Pole' is counted in 'Thin': name that"),
        ({"chosen": ["Lamp"]}, "classes: no class 'Lamp'"),
        ({"chosen": []}, "classes: none is named"),
    ],
)
def test_what_counts_do_not_hold_is_refused(asked: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        regroup(CLASSES, **asked)  # type: ignore[arg-type]
    assert words in str(refused.value)
