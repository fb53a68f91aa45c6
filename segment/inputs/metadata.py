"""Metadata that came with an image and is kept in its row (`keep`): values as text, by one rule for all formats."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from segment.store.names import count, shown
from segment.store.urls import masked_text

LONGEST = 1000  # bytes of a value as UTF-8

REMARKS = {
    "metadata_damaged": "the .json member is no JSON object, or is too large: none of its values is kept",
    "value_absent": "no value to keep in",
    "value_long": f"a value of more than {LONGEST:,} bytes, which is left out, in",
}

Values = tuple[str | None, ...]


def value_text(value: object) -> str | None:
    """Return a value as text: what JSON has as JSON, all else as it is; None for nothing (null, NaN, empty text).

    Signatures and passwords of URLs are masked: nothing that a run writes contains one.

    >>> from decimal import Decimal
    >>> [value_text(value) for value in ("fog", 3, Decimal("0.50"), True, ["a", 1], float("nan"), "")]
    ['fog', '3', '0.50', 'true', '["a", 1]', None, None]
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    is_json = isinstance(value, int | float | list | tuple | dict)
    text = json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)
    return masked_text(text.encode("utf-8", "backslashreplace").decode())


def kept_values(columns: Sequence[str], values: Sequence[object]) -> tuple[Values, tuple[str, ...]]:
    """Return the values of an image as text, and remarks: which are absent, and which are too long and left out."""
    texts = [value_text(value) for value in values]
    remarks = [f"value_absent:{column}" for column, text in zip(columns, texts, strict=True) if text is None]
    for index, text in enumerate(texts):
        if text is not None and len(text.encode()) > LONGEST:
            texts[index] = None
            remarks.append(f"value_long:{columns[index]}")
    return tuple(texts), tuple(remarks)


def value_lines(remarks: Mapping[str, int]) -> list[str]:
    """Return a line for each remark of `kept_values`, given their numbers: `12 images: no value ...`."""
    split = ((number, remark.partition(":")) for remark, number in remarks.items())
    return [f"{count(number, 'image')}: {REMARKS[kind]} '{shown(column)}'" for number, (kind, _, column) in split]


def json_values(columns: Sequence[str], data: bytes | None) -> tuple[Values, tuple[str, ...]]:
    """Return the values of a sample's .json member, None without one, as `kept_values` does.

    A name is a key of its object, or keys that lead into objects with dots between them.
    """
    if data is None:
        return kept_values(columns, [None] * len(columns))
    try:
        found = json.loads(data)
        if isinstance(found, dict):
            return kept_values(columns, [_value_at(found, column) for column in columns])
    except (ValueError, RecursionError):
        pass
    return (None,) * len(columns), ("metadata_damaged",)


def _value_at(held: Any, column: str) -> object:
    if not isinstance(held, dict):
        return None
    if column in held:
        return held[column]
    keys = (key for key in held if column.startswith(f"{key}."))
    return next((found for key in keys if (found := _value_at(held[key], column[len(key) + 1 :])) is not None), None)


def json_keys(data: bytes) -> list[str]:
    """Return the keys of a JSON object; none if it is no such object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return list(found) if isinstance(found, dict) else []
