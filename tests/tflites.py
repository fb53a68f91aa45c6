"""Small real TFLite models, written as flatbuffers: as much of the schema as the operators in `OPERATORS` need.

tflite([Tensor("x", (1, 8, 8, 3)), Tensor("y", (1, 8, 8, 3))], [Node("LOGISTIC", [0], [1])], [0], [1])
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from numpy.typing import NDArray

OPERATORS = {
    "LOGISTIC": 14, "RESHAPE": 22, "RESIZE_BILINEAR": 23, "CUSTOM": 32, "PAD": 34, "MEAN": 40, "SUB": 41,
    "STRIDED_SLICE": 45, "ARG_MAX": 56, "NEG": 59, "LOG": 73, "SHAPE": 77, "ABS": 101, "QUANTIZE": 114,
    "RANDOM_UNIFORM": 148,
}  # fmt: skip
_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}


class Tensor(NamedTuple):
    """A value: its name, shape and type; its content if it is a constant; scale and zero point if it is quantised.

    The signature is the shape with -1 for sizes that are free.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    content: NDArray[Any] | None = None
    quantised: tuple[float, int] | None = None
    signature: tuple[int, ...] | None = None


class Node(NamedTuple):
    """An operator, and the positions of the tensors that it reads and writes."""

    operator: str
    inputs: Sequence[int]
    outputs: Sequence[int]


def tflite(
    tensors: Sequence[Tensor],
    nodes: Sequence[Node],
    inputs: Sequence[int],
    outputs: Sequence[int],
    metadata: bytes = b"",
) -> bytes:
    """Return the bytes of a model; inputs and outputs are positions of tensors, `metadata` is that of `described`."""
    builder = flatbuffers.Builder(1024)
    contents = [b""] + [b"" if tensor.content is None else tensor.content.tobytes() for tensor in tensors] + [metadata]
    buffers = [_table(builder, 1, [(0, _offset, builder.CreateByteVector(data))] if data else []) for data in contents]
    made = [_tensor(builder, tensor, place + 1) for place, tensor in enumerate(tensors)]
    operators = [_node(builder, node, place) for place, node in enumerate(nodes)]
    codes = [_code(builder, OPERATORS[node.operator]) for node in nodes]
    graph = [
        (0, _offset, _vector(builder, made)),
        (1, _offset, _numbers(builder, inputs, np.int32)),
        (2, _offset, _numbers(builder, outputs, np.int32)),
        (3, _offset, _vector(builder, operators)),
    ]
    graphs = _vector(builder, [_table(builder, 5, graph)])
    signature = [
        (0, _offset, _vector(builder, [_named(builder, place) for place in inputs])),
        (1, _offset, _vector(builder, [_named(builder, place) for place in outputs])),
        (2, _offset, builder.CreateString("serving_default")),
    ]
    signatures = _vector(builder, [_table(builder, 5, signature)])
    name = builder.CreateString("TFLITE_METADATA" if metadata else "none")
    entry = _table(builder, 2, [(0, _offset, name), (1, _uint32, len(contents) - 1)])
    entries = _vector(builder, [entry])
    model = [
        (0, _uint32, 3),
        (1, _offset, _vector(builder, codes)),
        (2, _offset, graphs),
        (4, _offset, _vector(builder, buffers)),
        (6, _offset, entries),
        (7, _offset, signatures),
    ]
    builder.Finish(_table(builder, 8, model), b"TFL3")
    return bytes(builder.Output())


def described(mean: Sequence[float], std: Sequence[float], labels: Sequence[tuple[str, str]]) -> bytes:
    """Return the metadata of a model of RGB; labels are names of files with their languages."""
    builder = flatbuffers.Builder(256)
    numbers = [(place, _offset, _numbers(builder, values, np.float32)) for place, values in enumerate((mean, std))]
    options = _table(builder, 2, numbers)
    units = _vector(builder, [_table(builder, 2, [(0, _uint8, 1), (1, _offset, options)])])  # normalisation
    colours = _table(builder, 2, [(0, _int8, 1)])
    content = _table(builder, 3, [(0, _uint8, 2), (1, _offset, colours)])  # an image
    files = []
    for texts in labels:
        name, language = map(builder.CreateString, texts)
        files.append(_table(builder, 5, [(0, _offset, name), (2, _int8, 2), (3, _offset, language)]))  # of an axis
    listed = _vector(builder, files)
    inputs = _vector(builder, [_table(builder, 7, [(3, _offset, content), (4, _offset, units)])])
    outputs = _vector(builder, [_table(builder, 7, [(6, _offset, listed)])])
    graphs = _vector(builder, [_table(builder, 10, [(2, _offset, inputs), (3, _offset, outputs)])])
    builder.Finish(_table(builder, 8, [(3, _offset, graphs)]), b"M001")
    return bytes(builder.Output())


def _tensor(builder: Any, tensor: Tensor, buffer: int) -> int:
    name, shape = builder.CreateString(tensor.name), _numbers(builder, tensor.shape, np.int32)
    signature = _numbers(builder, tensor.signature, np.int32) if tensor.signature else 0
    slots = [
        (0, _offset, shape),
        (1, _int8, _TYPES[tensor.dtype]),
        (2, _uint32, buffer),
        (3, _offset, name),
    ]
    if tensor.quantised:
        scale, zero_point = tensor.quantised
        parameters = [
            (2, _offset, _numbers(builder, [scale], np.float32)),
            (3, _offset, _numbers(builder, [zero_point], np.int64)),
        ]
        slots.append((4, _offset, _table(builder, 7, parameters)))
    if signature:
        slots.append((7, _offset, signature))
    return _table(builder, 8, slots)


def _named(builder: Any, place: int) -> int:
    """Return an entry of a signature, which converters write since TensorFlow 2.5."""
    name = builder.CreateString(f"name{place}")
    return _table(builder, 2, [(0, _offset, name), (1, _uint32, place)])


def _node(builder: Any, node: Node, code: int) -> int:
    slots = [
        (0, _uint32, code),
        (1, _offset, _numbers(builder, node.inputs, np.int32)),
        (2, _offset, _numbers(builder, node.outputs, np.int32)),
    ]
    if node.operator in _OPTIONS:
        kind, size, options = _OPTIONS[node.operator]
        slots += [(3, _uint8, kind), (4, _offset, _table(builder, size, options))]
    return _table(builder, 5, slots)


def _code(builder: Any, operator: int) -> int:
    slots = [(0, _int8, min(operator, 127)), (2, _int32, 1), (3, _int32, operator)]
    if operator == OPERATORS["CUSTOM"]:
        slots.append((1, _offset, builder.CreateString("Foreign")))
    return _table(builder, 4, slots)


_Slot = tuple[int, Callable[[Any, int, Any], None], Any]


def _table(builder: Any, number: int, slots: Sequence[_Slot]) -> int:
    builder.StartObject(number)
    for place, add, value in slots:
        add(builder, place, value)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: Any, values: Sequence[float], dtype: type) -> int:
    return int(builder.CreateNumpyVector(np.array(values, dtype)))


def _offset(builder: Any, place: int, value: int) -> None:
    builder.PrependUOffsetTRelativeSlot(place, value, 0)


def _uint32(builder: Any, place: int, value: int) -> None:
    builder.PrependUint32Slot(place, value, 0)


def _int32(builder: Any, place: int, value: int) -> None:
    builder.PrependInt32Slot(place, value, 0)


def _uint8(builder: Any, place: int, value: int) -> None:
    builder.PrependUint8Slot(place, value, 0)


def _int8(builder: Any, place: int, value: int) -> None:
    builder.PrependInt8Slot(place, value, 0)


def _bool(builder: Any, place: int, value: bool) -> None:
    builder.PrependBoolSlot(place, value, False)


# The number of an operator's options in their union, how many fields its table has, and those that are set.
_OPTIONS: dict[str, tuple[int, int, list[_Slot]]] = {
    "MEAN": (27, 1, [(0, _bool, True)]),  # keep dimensions
    "RESIZE_BILINEAR": (15, 4, [(2, _bool, True)]),  # align corners
    "STRIDED_SLICE": (32, 5, []),
    "ARG_MAX": (40, 1, [(0, _int8, _TYPES["int64"])]),
}
