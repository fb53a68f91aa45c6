"""Label patterns: `{dir}/{stem}_L.png` gives the path of a label from the path of its image."""

from __future__ import annotations

import posixpath
import re
import string

from segment.store.names import suffix_of

_FIELD = re.compile(r"(stem|dir|name)(?:([%#])(.+))?", re.DOTALL)


def is_label_pattern(pattern: str) -> bool:
    """Whether a pattern has at least one field and every field is valid. Raises ValueError for unbalanced braces."""
    fields = [(name, spec, how) for _, name, spec, how in string.Formatter().parse(pattern) if name is not None]
    return bool(fields) and all(_FIELD.fullmatch(name) and not spec and not how for name, spec, how in fields)


def stem_of(path: str) -> str:
    """Return a path without its suffix."""
    return path[: len(path) - len(suffix_of(path))]


def expand_pattern(pattern: str, image: str) -> str:
    """Return the relative path of a label. `{dir}` of a top-level image is `.`.

    Args:
        pattern: one that `is_label_pattern` accepts. `{stem%END}` drops an ending and `{stem#START}` a beginning.
        image: path of the image relative to the input.

    >>> expand_pattern("{dir}/{stem%_leftImg8bit}_gtFine.png", "aachen/a_1_leftImg8bit.png")
    'aachen/a_1_gtFine.png'
    """
    directory, name = posixpath.split(image)
    values = {"dir": directory or ".", "stem": stem_of(name), "name": name}
    text = ""
    for literal, field, _, _ in string.Formatter().parse(pattern):
        text += literal
        if field is not None and (found := _FIELD.fullmatch(field)):
            field_name, operator, rest = found.groups()
            value = values[field_name]
            text += value.removesuffix(rest) if operator == "%" else value.removeprefix(rest) if operator else value
    return posixpath.normpath(text)
