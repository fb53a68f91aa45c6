"""What a graph of any format says of itself: ports, the arithmetic at its input, the operator behind an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import add, mul, truediv
from typing import Any

from numpy.typing import NDArray

from segment.models.sessions.ports import Port
from segment.models.sessions.quantised_input import Scales

Numbers = tuple[float, ...]

# Constants of more numbers are weights, not a mean or a standard deviation of channels.
_MOST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class InputFacts:
    """An input, and what the graph does with it first.

    Attributes:
        port: name, element type, shape.
        subtracted: constants that are subtracted from it, one number or one a channel; empty if there are none.
        multiplied: constants that it is multiplied by, as `subtracted`.
        scales: what its levels mean, for an input in 8 bits; None if the graph does not say it.
    """

    port: Port
    subtracted: Numbers = ()
    multiplied: Numbers = ()
    scales: Scales | None = None

    @property
    def is_normalised_inside(self) -> bool:
        """Whether the graph begins with a normalisation."""
        return bool(self.subtracted or self.multiplied)


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """An output, and the operator that decides its meaning.

    Attributes:
        port: name, element type, shape; as inferred for the size that was asked for.
        operator: the last operator that is no cast, reshape, transpose, resize or quantisation: `Softmax`, `Sigmoid`,
            `ArgMax`, or another one's name; empty if there is none.
        scored: number of classes that the `ArgMax` chooses from; None if unknown.
        is_quantised: whether its whole numbers are levels.
    """

    port: Port
    operator: str = ""
    scored: int | None = None
    is_quantised: bool = False


@dataclass(frozen=True)
class GraphFacts:
    """A graph.

    Attributes:
        inputs: of the graph, without initialisers.
        operators: types of all its operators.
        producer: program that wrote the file; empty if unknown.
        metadata: what the program left in the file; keys of nested tables are joined by a dot.
    """

    inputs: tuple[InputFacts, ...]
    outputs: tuple[OutputFacts, ...]
    operators: frozenset[str] = frozenset()
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def with_arithmetic(facts: InputFacts, steps: Iterable[tuple[str, NDArray[Any] | None]]) -> InputFacts:
    """Add what a graph does with an input first to the facts of the input.

    Args:
        steps: leading operators of arithmetic (`Sub`, `Add`, `Mul` or `Div`), and the constants by which they do it;
            None where these are computed. Steps from the first that is no normalisation on are left out.
    """
    scale: Numbers = (1.0,)
    for operator, array in steps:
        if array is None or array.size not in range(1, _MOST_CHANNELS + 1):
            break
        constants = tuple(float(number) for number in array.ravel())
        if (operator in ("Div", "Mul") and 0 in constants) or len({len(constants), len(scale), 1}) > 2:
            break
        if operator in ("Sub", "Add"):
            signed = constants if operator == "Sub" else tuple(-number for number in constants)
            facts = replace(facts, subtracted=_each(add, _each(truediv, signed, scale), facts.subtracted or (0.0,)))
        else:
            factors = tuple(1 / number for number in constants) if operator == "Div" else constants
            scale = _each(mul, scale, factors)
            facts = replace(facts, multiplied=scale)
    return facts


def _each(function: Callable[[float, float], float], left: Numbers, right: Numbers) -> Numbers:
    count = max(len(left), len(right))
    pairs = zip(left * (count if len(left) == 1 else 1), right * (count if len(right) == 1 else 1), strict=True)
    return tuple(function(a, b) for a, b in pairs)
