"""What a graph of any format says of itself: ports, the arithmetic at its input, the operator behind an output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from segment.models.sessions.ports import Port
from segment.models.sessions.quantised_input import Scales

Numbers = tuple[float, ...]

# Constants of more numbers are weights, not a mean or a standard deviation of channels.
MOST_CHANNELS = 4


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
    """

    port: Port
    operator: str = ""
    scored: int | None = None


@dataclass(frozen=True)
class GraphFacts:
    """A graph.

    Attributes:
        inputs: of the graph, without initialisers.
        outputs: of the graph.
        operators: types of all its operators.
        producer: program that wrote the file; empty if unknown.
        metadata: what the program left in the file; keys of nested tables are joined by a dot.
    """

    inputs: tuple[InputFacts, ...]
    outputs: tuple[OutputFacts, ...]
    operators: frozenset[str] = frozenset()
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def add_arithmetic(facts: InputFacts, operator: str, constants: Numbers, scale: Numbers) -> tuple[InputFacts, Numbers]:
    """Add one leading operator (`Sub`, `Add`, `Mul` or `Div` by constants) to the facts of an input.

    Args:
        facts: of the input so far.
        operator: its type.
        constants: one number, or one a channel.
        scale: product of the factors before it; `subtracted` is in units of the input.

    Returns:
        The facts, and the new product of factors.
    """
    if operator in ("Sub", "Add"):
        sign = 1 if operator == "Sub" else -1
        shift = _each(lambda number, factor: sign * number / factor, constants, scale)
        return replace(facts, subtracted=_each(lambda a, b: a + b, shift, facts.subtracted or (0.0,))), scale
    factors = tuple(1 / number for number in constants) if operator == "Div" else constants
    scale = _each(lambda a, b: a * b, scale, factors)
    return replace(facts, multiplied=scale), scale


def _each(function: Callable[[float, float], float], left: Numbers, right: Numbers) -> Numbers:
    count = max(len(left), len(right))
    pairs = zip(left * (count if len(left) == 1 else 1), right * (count if len(right) == 1 else 1), strict=True)
    return tuple(function(a, b) for a, b in pairs)
