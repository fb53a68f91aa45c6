"""Averaged probabilities: the views and members of a card, and what both runtimes share in merging them into one graph.

The merged graph takes what the card says of its input and gives `float32[N, C, H, W]`: the mean of the probabilities of
all models for all views, each turned and resized back to the plain view. Views see the whole canvas, border included,
and their results are turned back as a whole: a pixel's probabilities come back to the pixel, wherever the border is.
Softmax or sigmoid precede the mean. Scores smaller than the input are averaged at their own size.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import numpy as np

from segment.errors import ModelError
from segment.models.buckets import scaled_size
from segment.models.card import ModelCard
from segment.models.sessions.ports import Port, Size, refuse
from segment.models.sessions.quantised import Levels
from segment.models.weights import Weights

# Added to a view's probabilities of an image if one of its numbers is not what the card says: the mean could hide it.
# Postprocessing finds it: `model_not_finite`, or `model_range` of a sigmoid.
_NOT_FINITE, _BEYOND = float("nan"), 1e4


# A larger window of average pooling is likely one over the whole input, which a graph of a fixed size writes as a
# number: on a larger view it would cover a corner, and nothing would fail.
_LARGEST_WINDOW = 8


class View(NamedTuple):
    """A size of the input.

    Attributes:
        scale: None for the plain view.
    """

    scale: float | None
    card: ModelCard

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.card.input.height, self.card.input.width

    def __str__(self) -> str:
        return f"the view {self.scale:g}, an input of {self.size[0]}x{self.size[1]}"


def is_averaged(card: ModelCard, models: int) -> bool:
    """Whether a mask comes from several views or models."""
    return bool(card.input.tta) or models > 1


def views_of(card: ModelCard) -> list[View]:
    """Return the views by size, the plain one first; each is also mirrored if `card.input.flips`."""
    plain = card.model_copy(update={"input": card.input.model_copy(update={"tta": ()})})
    views = [View(None, plain)]
    for scale in card.input.scales:
        height, width = scaled_size(card.input.height, card.input.width, scale)
        sized = plain.input.model_copy(update={"height": height, "width": width})
        output = plain.output.model_copy(update={"height": None, "width": None})
        views.append(View(scale, plain.model_copy(update={"input": sized, "output": output})))
    return views


def merged_card(card: ModelCard) -> ModelCard:
    """Return the contract of the merged graph."""
    kind = "sigmoid" if card.output.kind == "sigmoid" else "probabilities"
    output = {"name": None, "kind": kind, "layout": "NCHW", "logit": False, "maximum": 1}
    plain = views_of(card)[0].card
    return plain.model_copy(update={"output": card.output.model_copy(update=output)})


def activation(card: ModelCard) -> str:
    """Return what makes the graph's scores probabilities: `softmax`, `sigmoid`, or an empty string."""
    if card.output.kind == "logits":
        return "softmax"
    return "sigmoid" if card.output.logit else ""


def penalty(card: ModelCard) -> float:
    """Return what is added to all probabilities of an image if one of its numbers is not what the card says."""
    return _BEYOND if card.output.kind == "sigmoid" and not card.output.logit else _NOT_FINITE


@contextmanager
def member_in_errors(weights: Weights, number: int) -> Iterator[None]:
    """Say in errors which member of an ensemble they are of."""
    try:
        yield
    except ModelError as error:
        if not weights.members:
            raise
        raise ModelError(f"member {number + 1} of the ensemble ({weights.models[number].origin}): {error}") from error


def check_members(
    card: ModelCard,
    weights: Weights,
    entries: Sequence[Port],
    levels: Sequence[Levels | None],
    sizes: Sequence[Size | None],
) -> None:
    """Refuse members that differ in what the card does not fix.

    Args:
        levels: of each input; see `input_levels`.
        sizes: (height, width) of the output of each.

    Raises:
        ModelError: types or levels of inputs differ, or sizes of outputs.
    """
    first = levels[0]
    for number, (entry, own, size) in enumerate(zip(entries, levels, sizes, strict=True)):
        who = f"member {number + 1} of the ensemble ({weights.models[number].origin})"
        if entry.dtype != entries[0].dtype:
            refuse(card, f"{who} takes {entry.dtype}, member 1 takes {entries[0].dtype}: export both with one type")
        if own is not None and first is not None and not np.array_equal(own, first):
            refuse(card, f"the 8-bit input of {who} has another scale or zero point than that of member 1")
        if size != sizes[0]:
            shapes = ["x".join(map(str, each or ("of unknown size",))) for each in (size, sizes[0])]
            refuse(
                card,
                f"the output of {who} is {shapes[0]}, that of member 1 {shapes[1]}: only outputs of one size are "
                "averaged",
            )


def refuse_view(card: ModelCard, view: View, reason: str) -> NoReturn:
    """Raise the ModelError for a graph that does not take a view."""
    refuse(
        card,
        f"input.tta: the graph fails on {view} ({reason}). Export it with dynamic height and width, or remove "
        f"{view.scale:g} from input.tta",
    )


def check_windows(card: ModelCard, view: View, windows: Iterable[Sequence[int]]) -> None:
    """Refuse a view for a graph of a fixed size with large windows of average pooling.

    Raises ModelError: there is one.
    """
    for window in windows:
        if max(window, default=0) > _LARGEST_WINDOW:
            pixels = "x".join(map(str, window))
            refuse_view(card, view, f"it averages over a fixed window of {pixels}, and is made for one size")


def black(view: View) -> Any:
    """Return a black image of a view, `uint8[1, H, W, planes]`."""
    return np.zeros((1, *view.size, view.card.input.planes), np.uint8)
