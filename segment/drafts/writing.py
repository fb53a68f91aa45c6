"""A draft as the text of a card: TOML with a comment for every line that is known from a file or guessed."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from segment.drafts.contract import Draft, Said

_WIDTH = 118
_HEAD = (
    "Lines marked GUESS are in no file of the model: check them, above all channels, maximum, mean and std, where a "
    "wrong value costs tens of points and raises no error."
)


def card_text(draft: Draft, origin: str, weights: Sequence[tuple[str, bytes]]) -> str:
    """Return the TOML text of a card.

    Args:
        draft: the contract.
        origin: the model, for the comment at the top.
        weights: URL and bytes of each file of the weights; empty if the card names none.
    """
    height, width = draft.size.value
    lines = [
        *_comment(f"Drafted by `segment models draft` from {origin}. {_HEAD}"),
        _line("name", draft.name),
        _line("source", origin),
        "",
        "[input]",
        *([_line("name", draft.input_name)] if draft.input_name else []),
        *_said("layout", draft.layout),
        *_comment(draft.size.comment),
        _line("height", height),
        _line("width", width),
        *_said("channels", draft.channels),
        *_scaling(draft),
        *_comment(draft.resize.comment),
        f"resize = {_table(draft.resize.value)}",
        "",
        "[output]",
        *(_said("name", draft.output_name) if draft.output_name else []),
        *_said("kind", draft.kind),
        *_sigmoid(draft),
        *_said("layout", draft.output_layout),
        *_size(draft.output_size),
        "",
        *_classes(draft),
    ]
    for url, data in weights:
        lines += ["", "[[weights]]", _line("url", url), _line("size", len(data)), _line("sha384", _digest(data))]
    return "\n".join(lines) + "\n"


def _scaling(draft: Draft) -> list[str]:
    """The normalisation; all three keys stand there, as these are the ones to correct."""
    scaling, depth = draft.scaling.value, 1 if draft.channels.value == "GREY" else 3
    lines = [*_comment(draft.scaling.comment), _line("maximum", scaling.maximum)]
    return [*lines, _line("mean", scaling.mean[:depth]), _line("std", scaling.std[:depth])]


def _classes(draft: Draft) -> list[str]:
    classes = draft.classes.value
    lines = ["[classes]", *_comment(draft.classes.comment)]
    lines += _list("names", (_text(name) for name in classes.names))
    lines += _list("palette", (str(list(colour)) for colour in classes.palette))
    lines += _comment("Label values that count for nothing.")
    lines.append(_line("ignore", classes.ignore))
    return [*lines, _line("void_colours", classes.void_colours)] if classes.void_colours else lines


def _sigmoid(draft: Draft) -> list[str]:
    if draft.kind.value != "sigmoid":
        return []
    lines = ["logit = true"] if draft.logit else []
    return [
        *lines,
        *_comment("GUESS: the usual threshold of a probability. Otherwise: any between 0 and 1."),
        "threshold = 0.5",
    ]


def _size(size: tuple[int, int] | None) -> list[str]:
    return [_line("height", size[0]), _line("width", size[1])] if size else []


def _said(key: str, said: Said[str]) -> list[str]:
    return [*_comment(said.comment), _line(key, said.value)]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        "".join(c if c.isprintable() else " " for c in text), _WIDTH, initial_indent="# ", subsequent_indent="# "
    )


def _line(key: str, value: Any) -> str:
    return f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(round(value, 8))
    return str(value)


def _text(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table(values: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {_value(value)}" for key, value in values.items()) + " }"


def _list(key: str, items: Iterable[str]) -> list[str]:
    filled = textwrap.wrap(
        "\x00".join(item.replace(" ", "\x01") for item in items).replace("\x00", ", ") + ",",
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [f"{key} = [", *(line.replace("\x01", " ") for line in filled), "]"]


def _digest(data: bytes) -> str:
    return hashlib.sha384(data).hexdigest()
