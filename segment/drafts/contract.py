"""A draft of a contract: values, each with where it is from."""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from segment.errors import ModelError
from segment.models.classes import Classes
from segment.readings.scalings import Scaling

T = TypeVar("T")


@dataclass(frozen=True)
class Said(Generic[T]):
    """A value of the contract.

    Attributes:
        why: where it is from, or why it is guessed.
        guessed: whether nothing in the model's files says so.
        otherwise: what else it could be, for a guess.
    """

    value: T
    why: str
    guessed: bool = False
    otherwise: str = ""

    @property
    def comment(self) -> str:
        """The comment of a card's line."""
        if not self.guessed:
            return f"Known: {self.why}."
        return f"GUESS: {self.why}." + (f" Otherwise: {self.otherwise}." if self.otherwise else "")


def guess(value: T, why: str, otherwise: str = "") -> Said[T]:
    """Return a guessed value."""
    return Said(value, why, True, otherwise)


@dataclass(frozen=True)
class Hints:
    """What an exporter left beside the graph or in it; None where it says nothing.

    Attributes:
        size: height and width of the input.
        channels: `RGB` or `BGR`.
        scaling: of the pixels.
        resize: table `input.resize` of the card.
        refusal: why such a model cannot be served; empty if it can.
        remarks: what a card cannot say.
    """

    size: Said[tuple[int, int]] | None = None
    channels: Said[str] | None = None
    scaling: Said[Scaling] | None = None
    resize: Said[dict[str, Any]] | None = None
    names: Said[tuple[str, ...]] | None = None
    refusal: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A contract, ready to be written as a card.

    Attributes:
        input_name, output_name: None where the graph has only one.
        logit: whether a sigmoid is missing at the end of the graph (kind `sigmoid`).
        maximum: the number of probability 1 (kind `sigmoid`).
        remarks: for the user, beside the card.
        gives_three: whether the output is three numbers a pixel, no levels: a picture, if all are whole.
    """

    name: str
    input_name: str | None
    layout: Said[str]
    size: Said[tuple[int, int]]
    channels: Said[str]
    scaling: Said[Scaling]
    resize: Said[dict[str, Any]]
    output_name: Said[str] | None
    kind: Said[str]
    logit: bool
    maximum: int
    output_layout: Said[str]
    output_size: tuple[int, int] | None
    classes: Said[Classes]
    remarks: tuple[str, ...] = field(default=())
    gives_three: bool = False


def refusal(why: str) -> ModelError:
    """Return the error for a model that cannot be served."""
    return ModelError(f"no card can serve this model: {why}")


def unanswered(why: str) -> ModelError:
    """Return the error for a model that can be served once an option of the draft is given, left out or corrected."""
    return ModelError(f"no card is drafted: {why}")
