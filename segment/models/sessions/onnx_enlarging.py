"""Bilinear enlarging as nodes of an ONNX graph; see `enlarging`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper

from segment.models.sessions.enlarging import CENTRES, Enlarging, SmallScores, bands_of, class_axes, enlarging_of
from segment.models.sessions.onnx_nodes import Nodes
from segment.models.sessions.onnxfile import Wiring
from segment.models.sessions.ports import Port, Size

Values = dict[str, str]  # of outputs, by the name of the output

_FIRST_OF_PIXELS = {"probabilities": 2}  # axis of rows in an output; 1 in the others
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FLOAT_NAMES = ("float32", "float16", "bfloat16")  # a Resize of others rounds to whole numbers
_KEEPS_INDEX = ("Identity", "Squeeze", "Unsqueeze", "Reshape")
_INDICES = (
    *(TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32, TensorProto.UINT32),
    *(TensorProto.INT64, TensorProto.UINT64, TensorProto.FLOAT),
)  # types that hold every class index
_MOST_CLASSES = 256  # whose index is a byte


def axis_of_rows(output: str) -> int:
    """Return the axis of the rows in an output of a session."""
    return _FIRST_OF_PIXELS.get(output, 1)


def enlarged_outputs(nodes: Nodes, small: SmallScores, classes: int, outputs: Callable[[str], Values]) -> Values:
    """Enlarge scores, and make outputs of them, a band of rows at a time.

    Args:
        classes: their number, C.
        outputs: makes outputs, by their name, of enlarged scores `float32[N, C, rows, W]`.
    """
    wide = nodes.add("MatMul", small.scores, np.ascontiguousarray(small.enlarging.columns.T))
    made = []
    for band in bands_of(small.enlarging, classes):
        rows = nodes.add("Slice", wide, *(np.array([bound], np.int64) for bound in (band.start, band.stop, 2)))
        made.append(outputs(nodes.add("MatMul", band.rows, rows)))
    if len(made) == 1:
        return made[0]
    return {name: nodes.add("Concat", *(part[name] for part in made), axis=axis_of_rows(name)) for name in made[0]}


class GraphScores:
    """Finds the scores that a graph enlarges by itself, just before its output.

    Args:
        port: returns type and shape of a value by its name; None if unknown.
    """

    def __init__(self, graph: GraphProto, port: Callable[[str], Port | None]) -> None:
        self._port, self._wiring = port, Wiring(graph)

    def of_index(self, result: str, size: Size | None) -> SmallScores | None:
        """Return the scores whose argmax is an output of (height, width); None if there are none."""
        node = self._wiring.makers.get(result)
        while node is not None and (node.op_type in _KEEPS_INDEX or _casts_to(node, _INDICES)):
            node = self._wiring.makers.get(node.input[0])
        if node is None or node.op_type != "ArgMax" or _attribute(node, "select_last_index", 0):
            return None
        layout = {1: "NCHW", 3: "NHWC", -3: "NCHW", -1: "NHWC"}.get(_attribute(node, "axis", 0))
        found = self.of_scores(node.input[0], layout) if layout else None
        return found if found and found.size == size else None

    def of_scores(self, value: str, layout: str) -> SmallScores | None:
        """Return the scores of which a value `layout` is made; None if it is not enlarged."""
        softmax = False
        node = self._wiring.makers.get(value)
        while node is not None and node.op_type != "Resize":
            if node.op_type == "Transpose" and (order := list(_attribute(node, "perm", ()))):
                layout = "".join(layout[order.index(axis)] for axis in range(len(order)))
            elif node.op_type == "Softmax" and not softmax and _attribute(node, "axis", None) in class_axes(layout):
                softmax = True
            elif not _casts_to(node, _FLOATS) and node.op_type != "Identity":
                return None
            node = self._wiring.makers.get(node.input[0])
        if node is None or layout != "NCHW":
            return None
        enlarging = self._enlarging(node)
        return SmallScores(node.input[0], enlarging, softmax) if enlarging else None

    def _enlarging(self, node: NodeProto) -> Enlarging | None:
        """Return how a Resize of `[N, C, H, W]` enlarges; None if it does anything else."""
        # That of opset 10 has two inputs, and no attribute for its centres.
        if len(node.input) < 3 or _attribute(node, "mode", b"nearest") != b"linear" or _attribute(node, "antialias", 0):
            return None
        # These shift the scales, or what they are of (opset 18).
        if _attribute(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch":
            return None
        if list(_attribute(node, "axes", (2, 3))) != [2, 3]:
            return None
        centres = _attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
        small, large = self._port(node.input[0]), self._port(node.output[0])
        if centres not in CENTRES or small is None or large is None or small.dtype not in _FLOAT_NAMES:
            return None
        before, after = small.dims, large.dims
        if before is None or after is None or len(before) != 4 or before[:2] != after[:2]:
            return None
        if None in (*before[1:], *after[1:]) or int(before[1] or 0) > _MOST_CLASSES:
            return None
        size, target = ((int(dims[2] or 0), int(dims[3] or 0)) for dims in (before, after))
        if (scales := self._scales(node)) is None:
            return None
        return enlarging_of(size, target, centres, (float(scales[-2]), float(scales[-1])) if scales.size else None)

    def _scales(self, node: NodeProto) -> NDArray[Any] | None:
        """Return the scale of each axis; none if they follow from the sizes, None if they are not constant."""
        name = node.input[2] if len(node.input) > 2 else ""
        return self._wiring.constant(name) if name else np.empty(0)


def _casts_to(node: NodeProto, types: Sequence[int]) -> bool:
    return node.op_type == "Cast" and _attribute(node, "to", 0) in types


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)
