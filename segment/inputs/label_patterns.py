"""Label patterns: `{dir}/{stem}_L.png` gives the path of a label from the path of its image."""

import posixpath
import string

from segment.job import LABEL_FIELD
from segment.store.names import suffix_of


def stem_of(path: str) -> str:
    """Return a path without its suffix."""
    return path[: len(path) - len(suffix_of(path))]


def expand_pattern(pattern: str, image: str) -> str:
    """Return the relative path of a label. `{dir}` of a top-level image is `.`.

    Args:
        pattern: a valid `Job.label_pattern`. `{stem%END}` drops an ending and `{stem#START}` a beginning.

    >>> expand_pattern("{dir}/{stem%_leftImg8bit}_gtFine.png", "aachen/a_1_leftImg8bit.png")
    'aachen/a_1_gtFine.png'
    """
    directory, name = posixpath.split(image)
    values = {"dir": directory or ".", "stem": stem_of(name), "name": name}
    text = ""
    for literal, field, _, _ in string.Formatter().parse(pattern):
        text += literal
        if field is not None and (found := LABEL_FIELD.fullmatch(field)):
            field_name, operator, rest = found.groups()
            value = values[field_name]
            text += value.removesuffix(rest) if operator == "%" else value.removeprefix(rest) if operator else value
    return posixpath.normpath(text)
