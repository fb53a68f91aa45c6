"""Values of metadata: literals, class names, numbers of channels."""

import ast
from contextlib import suppress
from typing import Any

from segment.drafts.contract import Said
from segment.models.classes import LONGEST_NAME
from segment.readings.scalings import Triple
from segment.store.foreign_text import replace_unseen


def literal(text: str) -> Any:
    """Return the value of a Python literal; None for any other text."""
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    return None


def names_of(found: Any, why: str) -> Said[tuple[str, ...]] | None:
    """Return class names of a list, or of a table by number, be its keys numbers or text; None if one is missing."""
    if isinstance(found, dict):
        by_number = {str(key): name for key, name in found.items()}
        found = [by_number.get(str(number), "") for number in range(len(by_number))]
    names = tuple(_fit_to_show(str(name)) for name in found) if isinstance(found, list | tuple) else ()
    return Said(names, why) if names and all(names) else None


def _fit_to_show(text: str) -> str:
    """Return a text as a card takes it for a class name: blanks in place of what is not seen, and not too long."""
    words = replace_unseen(text.encode("utf-8", "replace").decode("utf-8"), lambda _: " ")
    return " ".join(words.split())[:LONGEST_NAME].strip()


def numbers_of(found: Any) -> Triple | None:
    """Return three numbers of a list, a number, or text such as `123.7 116.3 103.5`; one number counts three times."""
    with suppress(ValueError, TypeError):
        if isinstance(found, str):
            found = found.replace(",", " ").replace("[", " ").replace("]", " ").split()
        numbers = [float(part) for part in (found if isinstance(found, list | tuple) else [found])]
        if len(numbers) in (1, 3):
            first, second, third = numbers * (3 // len(numbers))
            return first, second, third
    return None


def is_pair(found: Any) -> bool:
    """Whether a value is two whole numbers."""
    return isinstance(found, list | tuple) and len(found) == 2 and all(isinstance(side, int) for side in found)
