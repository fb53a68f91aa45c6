"""Readings of label values: as they are stored, numbered from 1, or without the first class."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segment.models.classes import VOID, Classes

UNKNOWN = -1  # in a table: the value is no class


@dataclass(frozen=True)
class Numbering:
    """What the values of labels mean.

    Attributes:
        name: in words.
        table: class of each value, 0-255; `VOID` for none, `UNKNOWN` where the value has no meaning.
        remap: `label_remap` of a job that reads labels so; empty for what a job does without.
    """

    name: str
    table: tuple[int, ...] = field(repr=False)
    remap: tuple[tuple[str, int | str], ...] = field(default=(), repr=False)

    @property
    def lookup(self) -> NDArray[np.int16]:
        """`table` as `int16[256]`."""
        return np.array(self.table, dtype=np.int16)

    def reads(self, values: NDArray[np.int64]) -> bool:
        """Whether all of these values have a meaning."""
        return bool((self.lookup[values] != UNKNOWN).all())

    @property
    def toml(self) -> str:
        """The line of a job file."""
        entries = ", ".join(f'{key} = "{to}"' if isinstance(to, str) else f"{key} = {to}" for key, to in self.remap)
        return f"label_remap = {{ {entries} }}"


def numberings(classes: Classes) -> tuple[Numbering, ...]:
    """Return the readings of values for these classes, the plain one first.

    Numbered from 1, 0 is ignored: ADE20K's labels for models whose configuration says `reduce_zero_label`. Where
    class 0 is left out, 0 is class 1.
    """
    number, void = len(classes), dict.fromkeys(classes.void_values, VOID)
    plain = {value: value for value in range(number)}
    found = [
        _numbering("as they are", plain | void, {}),
        _numbering(
            "numbered from 1, 0 ignored",
            void | {0: VOID} | {value + 1: value for value in range(min(number, 255))},
            {0: "ignore"} | {value + 1: value for value in range(min(number, 255))},
        ),
        _numbering(
            "numbered from class 1 on",
            {value - 1: value for value in range(1, number)} | void,
            {value - 1: value for value in range(1, number)},
        ),
    ]
    if number == 2:  # masks of black and white
        found.append(_numbering("0 and 255", {0: 0, 255: 1}, {255: 1}))
    return tuple(found)


def decoded() -> Numbering:
    """Return the reading of labels that are classes already: of colours, or by a remap of the user's."""
    return _numbering("as they are", {value: value for value in range(256)}, {})


def _numbering(name: str, meaning: Mapping[int, int], remap: Mapping[int, int | str]) -> Numbering:
    table = tuple(meaning.get(value, UNKNOWN) for value in range(256))
    return Numbering(name, table, tuple((str(key), to) for key, to in remap.items()))
