"""ONNX operators that no mask can be made with: those that depend on chance, and what openvino does otherwise."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from onnx import ModelProto, NodeProto, helper

from segment.errors import ModelError
from segment.models.sessions.onnxfile import Wiring, all_nodes, inferred_ports, needed_nodes
from segment.models.sessions.ports import Dims

# Their result is another one each time, or depends on the other images of a batch.
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")


def check_repeatable(model: ModelProto, result: Iterable[str]) -> None:
    """Refuse a graph whose output depends on chance.

    Args:
        result: names of the output to read.

    Raises:
        ModelError: it names the operators.
    """
    nodes, wiring = all_nodes(needed_nodes(model.graph.node, result)[0]), Wiring(model.graph)
    found = sorted({node.op_type for node in nodes if _is_by_chance(wiring, node)})
    if found:
        raise ModelError(
            f"an image would get another mask each time: the graph has {', '.join(found)}. Export it for inference: in "
            "PyTorch, call model.eval() before"
        )


def _is_by_chance(wiring: Wiring, node: NodeProto) -> bool:
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        trains = wiring.constant(node.input[2])
        return trains is None or bool(trains.any())
    return node.op_type in _RANDOM or bool(_attributes(node).get("training_mode"))


def check_alike(model: ModelProto, entry: Sequence[str], shape: Sequence[int], result: Sequence[str]) -> None:
    """Refuse operators with attributes that openvino leaves out, or reads otherwise, without a word (2026.4).

    Args:
        entry: names of the input that takes the image.
        shape: of that input.
        result: names of the output to read.

    Raises:
        ModelError: there is one, or one that depends on chance.
    """
    check_repeatable(model, result)
    fed = next((item.name for item in model.graph.input if item.name in entry), entry[0])
    ports = functools.cache(lambda: inferred_ports(model, fed, shape))

    def dims(name: str) -> Dims:
        port = ports().get(name)
        return (port and port.dims) or ()

    for node in all_nodes(needed_nodes(model.graph.node, result)[0]):
        if words := _unlike(node, _attributes(node), dims):
            raise ModelError(
                f"openvino computes {node.op_type} with {words} otherwise than ONNX says: use --runtime onnxruntime"
            )


def _unlike(node: NodeProto, said: dict[str, Any], dims: Callable[[str], Dims]) -> str:
    """Return what openvino does otherwise; an empty text if nothing."""
    kind, pads = node.op_type, said.get("pads") or [0]
    if kind == "Resize" and said.get("exclude_outside") and said.get("mode") == b"cubic":
        return "exclude_outside"
    if kind == "Resize" and said.get("antialias") and not _enlarges(dims(node.input[0]), dims(node.output[0])):
        return "antialias"
    if kind == "ConvTranspose" and said.get("auto_pad") == b"SAME_UPPER" and _has_odd_pads(said, dims(node.input[0])):
        return "output_shape and auto_pad"
    if not said.get("ceil_mode") or not any(pads):
        return ""
    if kind == "AveragePool" and said.get("count_include_pad"):
        return "ceil_mode and count_include_pad"
    return "ceil_mode and such strides" if kind == "MaxPool" and _may_begin_beyond(said) else ""


def _enlarges(before: Dims, after: Dims) -> bool:
    """Whether no side becomes smaller, as far as sizes are known."""
    return bool(before and after) and all(old and new and old <= new for old, new in zip(before, after, strict=True))


def _has_odd_pads(said: dict[str, Any], before: Dims) -> bool:
    """Whether an output_shape leaves an odd number of pixels to cut off, of which openvino cuts more at the start."""
    if "output_shape" not in said:
        return False
    shape, kernel = said["output_shape"], said.get("kernel_shape")
    sides = before[-len(shape) :]
    if not kernel or None in sides or len(sides) < len(shape):
        return True  # unknown
    ones = [1] * len(shape)
    steps, gaps, more = (said.get(key) or ones for key in ("strides", "dilations", "output_padding"))
    more = more if "output_padding" in said else [0] * len(shape)
    rows = zip(sides, steps, kernel, gaps, more, shape, strict=True)
    return any((step * ((n or 0) - 1) + k * gap - gap + 1 + extra - to) % 2 for n, step, k, gap, extra, to in rows)


def _may_begin_beyond(said: dict[str, Any]) -> bool:
    """Whether a last window may begin beyond the image: ONNX leaves it out, openvino does not."""
    kernel = said["kernel_shape"]
    ones = [1] * len(kernel)
    ends = said["pads"][len(kernel) :]
    rows = zip(kernel, said.get("strides") or ones, said.get("dilations") or ones, ends, strict=True)
    return any(end and step >= (k - 1) * gap + 2 - end for k, step, gap, end in rows)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute if item.type != item.GRAPH}
