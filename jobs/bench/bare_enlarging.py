"""The best known way to enlarge scores and find the best, for `limit.py`: matrix products, a band of rows at a time.

Graphs that end in a bilinear enlarging lose it here. Nothing of `segment` is imported: it does the same in other words.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np


class Small(NamedTuple):
    """Scores before their enlarging: `[1, C, h, w]`, the weights of rows and columns, a FakeQuantize behind or None."""

    scores: Any
    rows: np.ndarray
    columns: np.ndarray
    quantised: Any = None


def openvino_small_scores(output: Any, kind: str, layout: str) -> Small | None:
    """What an openvino graph enlarges before its end; None if it does not, or by little."""
    from openvino import opset15 as ops

    node, quantised = output.get_node(), None
    if kind == "index":
        while node.get_type_name() in ("Convert", "Squeeze", "Reshape"):
            node = node.input_value(0).get_node()
        if node.get_type_name() != "TopK":
            return None
        layout, node = "NCHW" if node.get_axis() == 1 else "NHWC", node.input_value(0).get_node()
    while node.get_type_name() in ("Convert", "FakeQuantize", "Softmax", "Transpose"):  # softmax keeps the best class
        if node.get_type_name() == "FakeQuantize":
            quantised = node
        elif node.get_type_name() == "Transpose":
            layout = turned(layout, list(node.input_value(1).get_node().data))
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Interpolate":
        return None
    before, after = (dict(zip(layout, port.shape, strict=True)) for port in (node.input_value(0), node.output(0)))
    weights = weights_of(before, after, node.get_attributes()["coordinate_transformation_mode"])
    order = ops.constant(np.array([layout.index(axis) for axis in "NCHW"]))
    return Small(ops.transpose(node.input_value(0), order), *weights, quantised) if weights else None


def openvino_best(small: Small) -> Any:
    """The classes `[1, H, W]`. In the products a constant comes first: so they stay in f32."""
    from openvino import opset15 as ops

    found = []
    for first, last, weights in bands(small.rows):
        some = ops.slice(small.scores, *(ops.constant(np.array([number])) for number in (first, last, 1, 2)))
        wide = ops.matmul(ops.constant(small.columns), some, False, True)
        high = ops.matmul(ops.constant(weights), wide, False, True)
        if small.quantised is not None:
            bounds = small.quantised.input_values()[1:]
            high = ops.fake_quantize(high, *bounds, small.quantised.get_attributes()["levels"])
        best = ops.topk(high, ops.constant(np.int64(1)), 1, "max", "value", index_element_type="i32", stable=True)
        found.append(ops.squeeze(best.output(1), ops.constant(np.int64(1))))
    return ops.concat(found, 1).output(0)


def onnx_best(model: Any, made: str, kind: str, layout: str) -> list[Any]:
    """The nodes from what an ONNX graph enlarges before its output to classes `[1, H, W]`; none if it does not."""
    from onnx import helper, numpy_helper, shape_inference

    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    node = makers[made]
    if kind == "index":
        while node.op_type in ("Cast", "Squeeze", "Reshape"):
            node = makers[node.input[0]]
        if node.op_type != "ArgMax":
            return []
        axis = next(item.i for item in node.attribute if item.name == "axis")
        layout, node = "NCHW" if axis == 1 else "NHWC", makers[node.input[0]]
    while node.op_type in ("Cast", "Softmax", "Transpose"):
        if node.op_type == "Transpose":
            layout = turned(layout, list(next(item.ints for item in node.attribute if item.name == "perm")))
        node = makers[node.input[0]]
    if node.op_type != "Resize" or layout != "NCHW":
        return []
    shapes = {
        item.name: dict(zip("NCHW", (dim.dim_value for dim in item.type.tensor_type.shape.dim), strict=False))
        for item in shape_inference.infer_shapes(model).graph.value_info
    }
    centres = next(item.s for item in node.attribute if item.name == "coordinate_transformation_mode").decode()
    weights = weights_of(shapes[node.input[0]], shapes[node.output[0]], centres)
    if weights is None:
        return []
    nodes: list[Any] = []

    def constant(value: np.ndarray) -> str:
        name = f"limit_w{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"limit_band{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    wide = add("MatMul", node.input[0], constant(np.ascontiguousarray(weights[1].T)))
    found = []
    for first, last, rows in bands(weights[0]):
        some = add("Slice", wide, *(constant(np.array([number])) for number in (first, last, 2)))
        found.append(add("ArgMax", add("MatMul", constant(rows), some), axis=1, keepdims=0))
    add("Concat", *found, axis=1)
    return nodes


def without_unused(nodes: list[Any]) -> list[Any]:
    """The nodes that the last one needs: onnxruntime runs the others, too."""
    needed, kept = set(nodes[-1].input), [nodes[-1]]
    for node in reversed(nodes[:-1]):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def turned(layout: str, order: list[int]) -> str:
    """The layout before a Transpose, of that behind it."""
    return "".join(layout[order.index(axis)] for axis in range(4))


def weights_of(before: dict[str, int], after: dict[str, int], centres: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights of rows and columns for sizes by axis; None for less than eight times the pixels."""
    if before["C"] != after["C"] or after["H"] * after["W"] < 8 * before["H"] * before["W"]:
        return None
    assert centres in ("align_corners", "half_pixel"), centres
    rows, columns = (line_weights(before[axis], after[axis], centres) for axis in "HW")
    return rows, columns


def line_weights(size: int, target: int, centres: str) -> np.ndarray:
    """`float32[target, size]`: what each pixel of a line gives to each pixel of the bilinearly enlarged line."""
    at = np.arange(target) * ((size - 1) / max(target - 1, 1))
    if centres == "half_pixel":
        at = (np.arange(target) + 0.5) * (size / target) - 0.5
    return np.stack([np.interp(at, np.arange(size), line) for line in np.eye(size)], axis=1).astype(np.float32)


def bands(rows: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """32 enlarged rows at a time, which stay in the cache: the small rows that they need, and their weights."""
    for start in range(0, len(rows), 32):
        used = np.flatnonzero(rows[start : start + 32].any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        yield first, last, rows[start : start + 32, first:last].copy()
