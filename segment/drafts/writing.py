"""A draft as the text of a card: TOML with a comment for every line that is known from a file or guessed."""

import hashlib
from collections.abc import Sequence

from segment.drafts.contract import Draft, Said
from segment.models.toml_text import array, comment, inline_table, line
from segment.store.foreign_text import in_toml

_HEAD = (
    "Lines marked GUESS are in no file of the model: check them, above all channels, maximum, mean and std, where a "
    "wrong value costs tens of points and raises no error."
)


def card_text(draft: Draft, origin: str, weights: Sequence[tuple[str, bytes]]) -> str:
    """Return the TOML text of a card.

    Args:
        origin: the model, for the comment at the top.
        weights: URL and bytes of each file of the weights; empty if the card names none.
    """
    height, width = draft.size.value
    lines = [
        *comment(f"Drafted by `segment models draft` from {origin}. {_HEAD}"),
        line("name", draft.name),
        line("source", origin),
        "",
        "[input]",
        *([line("name", draft.input_name)] if draft.input_name else []),
        *_said("layout", draft.layout),
        *comment(draft.size.comment),
        line("height", height),
        line("width", width),
        *_said("channels", draft.channels),
        *_scaling(draft),
        *comment(draft.resize.comment),
        f"resize = {inline_table(draft.resize.value)}",
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
        lines += ["", "[[weights]]", line("url", url), line("size", len(data)), line("sha384", _digest(data))]
    return "\n".join(lines) + "\n"


def _scaling(draft: Draft) -> list[str]:
    """The normalisation; all three keys stand there, as these are the ones to correct."""
    scaling, depth = draft.scaling.value, 1 if draft.channels.value == "GREY" else 3
    lines = [*comment(draft.scaling.comment), line("maximum", round(scaling.maximum, 8))]
    mean, std = ([round(number, 8) for number in numbers[:depth]] for numbers in (scaling.mean, scaling.std))
    return [*lines, line("mean", mean), line("std", std)]


def _classes(draft: Draft) -> list[str]:
    classes = draft.classes.value
    lines = ["[classes]", *comment(draft.classes.comment)]
    lines += array("names", (in_toml(name) for name in classes.names))
    lines += array("palette", (str(list(colour)) for colour in classes.palette))
    lines += comment("Label values that count for nothing.")
    lines.append(line("ignore", classes.ignore))
    return [*lines, line("void_colours", classes.void_colours)] if classes.void_colours else lines


def _sigmoid(draft: Draft) -> list[str]:
    if draft.kind.value != "sigmoid":
        return []
    lines = ["logit = true"] if draft.logit else []
    lines += [line("maximum", draft.maximum)] if draft.maximum != 1 else []
    return [
        *lines,
        *comment("GUESS: the usual threshold of a probability. Otherwise: any between 0 and 1."),
        "threshold = 0.5",
    ]


def _size(size: tuple[int, int] | None) -> list[str]:
    return [line("height", size[0]), line("width", size[1])] if size else []


def _said(key: str, said: Said[str]) -> list[str]:
    return [*comment(said.comment), line(key, said.value)]


def _digest(data: bytes) -> str:
    return hashlib.sha384(data).hexdigest()
