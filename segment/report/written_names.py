"""How class names and colours are written where a format gives some characters, or equal colours, a meaning."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
Colour = tuple[int, int, int]


def spreadsheet_cell(value: object) -> object:
    """Return a value for a CSV file; a text that a spreadsheet would read as a formula gets a leading apostrophe."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def line_names(names: Sequence[str]) -> list[str]:
    """Return class names for a text file with fields between colons, a class a line, and comments after `#`.

    A colon becomes `_`, and so does a leading `#`; white space and control characters become one blank. An empty name
    becomes `class`. A changed name that another class has gets a number.

    >>> line_names(["Sky", "a:b", "a_b", "two\\nlines"])
    ['Sky', 'a_b-2', 'a_b', 'two lines']
    """
    taken = {name for name in names if _on_a_line(name) == name}
    written = []
    for name in names:
        clean = _on_a_line(name)
        if clean != name:
            numbered = (f"{clean}-{number}" for number in itertools.count(2))
            clean = next(one for one in itertools.chain([clean], numbered) if one not in taken)
            taken.add(clean)
        written.append(clean)
    return written


def _on_a_line(name: str) -> str:
    clean = " ".join("".join(c if c.isprintable() else " " for c in name).split()).replace(":", "_")
    return f"_{clean[1:]}" if clean.startswith("#") else clean or "class"


def distinct_colours(palette: Sequence[Colour]) -> list[Colour]:
    """Return a palette without repeated colours: of equal ones the first stays, the others become free shades of grey.

    Tools that tell classes by their colours would merge those of one colour.
    """
    free = ((grey, grey, grey) for grey in range(1, 256) if (grey, grey, grey) not in palette)
    seen: set[Colour] = set()
    colours = []
    for colour in palette:
        colours.append(next(free) if colour in seen else colour)
        seen.add(colour)
    return colours
