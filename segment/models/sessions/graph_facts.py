"""What a graph of any format says of itself: ports, the arithmetic at its input, the operator behind an output."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import add, mul, truediv
from typing import Any, NamedTuple

from numpy.typing import NDArray

from segment.models.sessions.ports import Port
from segment.models.sessions.quantised import Scales

Numbers = tuple[float, ...]

_ARITHMETIC = frozenset({"Sub", "Add", "Mul", "Div"})
# Operators, as ONNX names them, that leave the numbers of pixels as they are: some only place them elsewhere.
_KEEPING = frozenset(
    "Identity Cast Transpose Reshape Squeeze Unsqueeze Resize Upsample Pad Clip".split()  # noqa: SIM905
)
_REVERSED = [2, 1, 0]
_MOST_STEPS = 100  # a damaged file may lead back

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
        producer: program that wrote the file; empty if unknown.
        metadata: what the program left in the file; keys of nested tables are joined by a dot.
    """

    inputs: tuple[InputFacts, ...]
    outputs: tuple[OutputFacts, ...]
    operators: frozenset[str] = frozenset()
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class Reader(NamedTuple):
    """An operator that reads a value.

    Attributes:
        operator: as ONNX names it.
        constant: its other operand; None where there is none, where it is computed, or where the value is subtracted
            from it or divides it.
    """

    operator: str
    result: Any
    constant: NDArray[Any] | None = None


def _size(constant: NDArray[Any] | None) -> int:
    return 0 if constant is None else constant.size


def _leading(value: Any, readers: Callable[[Any], Iterable[Reader]]) -> Iterator[tuple[str, NDArray[Any] | None]]:
    """Yield the arithmetic that a value goes through first: operators and constants, in the order of its channels.

    A value is followed as long as one operator reads more than its shape, or one alone has a constant for each colour.
    """
    order = 1
    for _ in range(_MOST_STEPS):
        found = [reader for reader in readers(value) if reader.operator not in ("Shape", "Size")]
        if len(found) > 1:
            found = [reader for reader in found if reader.operator in _ARITHMETIC and _size(reader.constant) == 3]
        if len(found) != 1:
            return
        operator, value, constant = found[0]
        if operator in _ARITHMETIC:
            yield operator, constant if constant is None else constant.ravel()[::order]
        elif operator == "Gather" and constant is not None and constant.ravel().tolist() == _REVERSED:
            order = -order
        elif operator not in _KEEPING:
            return


def with_arithmetic(facts: InputFacts, value: Any, readers: Callable[[Any], Iterable[Reader]]) -> InputFacts:
    """Add what a graph does with an input first to the facts of the input.

    Args:
        value: the input, as `readers` takes it.
        readers: returns the operators that read a value.
    """
    scale: Numbers = (1.0,)
    for operator, array in _leading(value, readers):
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
