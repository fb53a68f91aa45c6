"""The end of a TFLite graph that enlarges scores and takes the best: cut off, and computed behind the network.

Enlarging and argmax take a quarter of the time of a light network in LiteRT. As nodes of the openvino graph behind it
they are what the same graph has in an openvino session, and as fast.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from openvino import opset15 as ops

from segment.models.sessions.enlarging import Centres
from segment.models.sessions.openvino_enlarging import interpolated
from segment.models.sessions.ports import Dims, Size
from segment.models.sessions.tflite_graph import Operator, TfliteGraph, damage_in_words


@dataclass(frozen=True)
class Resize:
    """One RESIZE_BILINEAR, to `size` (height, width)."""

    size: Size
    centres: Centres


@dataclass(frozen=True)
class Tail:
    """What is cut off.

    Attributes:
        graph: the file without it; its only output are the small scores.
        resizes: bilinear enlargings, in their order.
        argmax: whether an argmax over the classes follows.
        limits: the lowest and the highest level of scores in levels, to which each enlarging rounds.
    """

    graph: bytes
    resizes: tuple[Resize, ...]
    argmax: bool
    limits: tuple[int, int] | None

    def applied(self, scores: Any) -> Any:
        """Return the tail of `float32[1, h, w, C]` as openvino nodes."""
        for resize in self.resizes:
            scores = interpolated(scores, resize.size, resize.centres, (1, 2))
            if self.limits:
                scores = _in_levels(scores, *self.limits)
        if not self.argmax:
            return scores
        best = ops.topk(scores, ops.constant(np.int64(1)), 3, "max", "value", index_element_type="i64", stable=True)
        return ops.squeeze(best.output(1), ops.constant(np.array([3])))


def _in_levels(scores: Any, lowest: int, highest: int) -> Any:
    """Round to whole numbers, which enlarging does not take beyond the lowest and the highest one."""
    if lowest == 0:  # else a FakeQuantize rounds what is above the lowest level, which can differ in the last bit
        return ops.round(scores, "half_to_even")
    ends = [ops.constant(np.float32(limit)) for limit in (lowest, highest)]
    return ops.fake_quantize(scores, *ends, *ends, highest - lowest + 1)


@damage_in_words()
def cut_tail(data: bytes, graph: TfliteGraph) -> Tail | None:
    """Return the tail of a graph; None if it has another end.

    The tail is cut off where its operators are the last ones that run: then the file needs two changed numbers, how
    many operators it has and which tensor is its output.

    Raises:
        ModelError: the file is damaged.
    """
    if len(graph.outputs) != 1 or any(None in graph.tensors[place].dims for place in graph.inputs):
        return None
    nodes = list(graph.nodes)
    argmax = bool(nodes) and nodes[-1].name == "ARG_MAX" and _is_over_classes(graph, nodes[-1])
    kept, place = len(nodes), graph.outputs[0]
    if argmax and place in nodes[-1].outputs:
        kept, place = kept - 1, nodes[-1].inputs[0]
    resizes: list[Resize] = []
    while kept and nodes[kept - 1].name == "RESIZE_BILINEAR" and nodes[kept - 1].outputs == (place,):
        resize = _enlarging(graph, nodes[kept - 1])
        if resize is None:
            break
        before = graph.tensors[nodes[kept - 1].inputs[0]].dims
        if before[1:3] != resize.size:  # else it changes nothing
            resizes.insert(0, resize)
        kept, place = kept - 1, nodes[kept - 1].inputs[0]
    dtype = graph.tensors[place].dtype
    if not resizes or dtype not in ("float32", "uint8", "int8") or graph.producers.get(place) not in nodes[:kept]:
        return None
    limits = None if dtype == "float32" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return Tail(_cut(data, graph, kept, place), tuple(resizes), argmax, limits)


def _is_over_classes(graph: TfliteGraph, node: Operator) -> bool:
    axis = graph.tensors[node.inputs[1]].integers()
    return len(graph.tensors[node.inputs[0]].dims) == 4 and axis in ([3], [-1])


def _enlarging(graph: TfliteGraph, node: Operator) -> Resize | None:
    """Return what an operator does; None if it makes anything smaller, or a size is unknown."""
    before, after = (_size(graph.tensors[place].dims) for place in (node.inputs[0], node.outputs[0]))
    if node.options is None or not before or not after or after[0] < before[0] or after[1] < before[1]:
        return None
    align_corners, half_pixel = node.options.truth(2), node.options.truth(3)
    return Resize(after, "align_corners" if align_corners else "half_pixel" if half_pixel else "asymmetric")


def _size(dims: Dims) -> Size | None:
    if len(dims) != 4 or dims[1] is None or dims[2] is None:
        return None
    return dims[1], dims[2]


def _cut(data: bytes, graph: TfliteGraph, kept: int, output: int) -> bytes:
    changed = bytearray(data)
    operators, outputs = graph.places
    struct.pack_into("<I", changed, operators, kept)
    struct.pack_into("<Ii", changed, outputs, 1, output)
    return bytes(changed)
