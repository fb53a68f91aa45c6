"""Model cards as TOML text, for people to read and change."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from segment.models.card import ModelCard
from segment.store.foreign_text import in_toml

_WIDTH = 118


def card_to_toml(card: ModelCard, head: str) -> str:
    """Return a card as the text of a TOML file, without the values that are defaults."""
    values = card.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return "\n".join([*comment(head), *_tables(values, "")]) + "\n"


def _tables(values: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the lines of a table: its own values first, as TOML wants it."""
    below = {key: value for key, value in values.items() if _holds_tables(value)}
    for key, value in values.items():
        if key not in below:
            yield from _entry(key, value)
    for key, value in below.items():
        inner = f"{name}.{key}" if name else key
        for table in value if isinstance(value, list) else [value]:
            yield from ("", f"[[{inner}]]" if isinstance(value, list) else f"[{inner}]")
            yield from _tables(table, inner)


def _holds_tables(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _entry(key: str, item: Any) -> list[str]:
    found = line(key, item)
    return [found] if len(found) <= _WIDTH or not isinstance(item, list) else array(key, map(value, item))


def comment(words: str) -> list[str]:
    """Return a text as lines of a comment."""
    return textwrap.wrap(
        "".join(c if c.isprintable() else " " for c in words), _WIDTH, initial_indent="# ", subsequent_indent="# "
    )


def line(key: str, item: Any) -> str:
    """Return the line of a key."""
    return f"{key} = {value(item)}"


def value(item: Any) -> str:
    """Return a value as TOML."""
    if isinstance(item, str):
        return in_toml(item)
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, tuple | list):
        return f"[{', '.join(value(one) for one in item)}]"
    return repr(item)


def inline_table(values: Mapping[str, Any]) -> str:
    """Return a table in one line."""
    return "{ " + ", ".join(line(key, item) for key, item in values.items()) + " }"


def array(key: str, items: Iterable[str]) -> list[str]:
    """Return the lines of an array of TOML values, as many on a line as fit."""
    filled = textwrap.wrap(
        "\x00".join(item.replace(" ", "\x01") for item in items).replace("\x00", ", ") + ",",
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [f"{key} = [", *(one.replace("\x01", " ") for one in filled), "]"]
