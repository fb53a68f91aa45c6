"""openvino: serves ONNX, OpenVINO IR and TFLite on the CPU."""

from __future__ import annotations

import os
import queue
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset15 as ops
from openvino.preprocess import PrePostProcessor

from segment.card import ModelCard
from segment.errors import ModelError
from segment.sessions.base import Runtime
from segment.sessions.contract import Port, choose_ports, is_identity, refuse
from segment.sessions.predict import GraphSession, Run
from segment.weights import Weights

# openvino accepts the hint bf16 on any AVX-512 CPU and then emulates; its list of capabilities tells the truth.
CAPABILITY = {"bf16": "BF16", "f16": "FP16"}
# What moves numbers about, or changes their type: the position of a class fits into these.
_MOVES = {"Convert", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose"}
_WIDE = {"u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32"}


def cpu_capabilities() -> set[str]:
    """What openvino can do on this machine; bf16 and f16 only where the CPU computes in them."""
    can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"openvino:cpu"} | {f"openvino:cpu:{name}" for name, capability in CAPABILITY.items() if capability in can}


def open_openvino(card: ModelCard, weights: Weights, runtime: Runtime, *, threads: int, streams: int) -> GraphSession:
    """Load a model. Up to `streams` threads may predict at once, each with its own infer request.

    The graph for single images is compiled with a batch of exactly one, also where the model's batch is symbolic:
    openvino's kernels for fixed shapes are the faster ones.

    Args:
        card: the contract.
        weights: ONNX, IR or TFLite bytes.
        runtime: precision.
        threads: threads of one call.
        streams: calls at once.

    Raises:
        ModelError: card and graph do not fit, openvino cannot load the graph, or the CPU lacks the precision.
    """
    core = openvino.Core()
    _check_precision(core, runtime.precision)
    if weights.format == "onnx":
        _check_self_contained(weights.graph)
    settings = {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads * streams,
        # Pinned, two processes of one thread each end up on one and the same core.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": runtime.precision,
    }
    model = _read(core, weights)
    inputs, outputs = [_port(port) for port in model.inputs], [_port(port) for port in model.outputs]
    entry, result = choose_ports(card, inputs, outputs)

    def load(batch: int) -> Run:
        try:
            compiled = core.compile_model(_compile_contract(card, model.clone(), entry, result, batch), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"openvino cannot load the graph: {_reason(error)}") from error
        return _runner(compiled, streams)

    return GraphSession(card, load(1), lambda: load(-1))


def contract_model(card: ModelCard, weights: Weights, batch: int) -> Any:
    """Read a model and put the card's contract around it, without compiling it.

    Raises:
        ModelError: as `open_openvino`.
    """
    model = _read(openvino.Core(), weights)
    entry, result = choose_ports(card, [_port(port) for port in model.inputs], [_port(port) for port in model.outputs])
    return _compile_contract(card, model, entry, result, batch)


def _check_precision(core: Any, precision: str) -> None:
    needed = CAPABILITY.get(precision)
    if needed and needed not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError(f"this machine's CPU does not compute in {precision}: run the job with --precision f32")


def _check_self_contained(data: bytes) -> None:
    from segment.sessions.onnxfile import read_model

    read_model(data)


def _read(core: Any, weights: Weights) -> Any:
    magic = {"ir": b"<?xml", "tflite": b"TFL3"}.get(weights.format, b"")
    if magic not in weights.graph[:64]:
        raise ModelError(f"the weights are not a model in {weights.format} format: a wrong or damaged file")
    try:
        if weights.format == "ir":
            return core.read_model(model=weights.graph, weights=weights.data)
        if weights.format == "onnx":
            return core.read_model(model=weights.graph)
        return _read_tflite(core, weights.graph)
    except RuntimeError as error:
        raise ModelError(f"openvino cannot read the {weights.format} weights: {_reason(error)}") from error


def _read_tflite(core: Any, data: bytes) -> Any:
    """openvino reads TFLite from a path only: a private file, gone as soon as it is read."""
    handle, name = tempfile.mkstemp(suffix=".tflite")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return core.read_model(name)
    except RuntimeError as error:
        raise RuntimeError(str(error).replace(name, "model.tflite")) from error
    finally:
        Path(name).unlink()


def _port(port: Any) -> Port:
    shape = port.get_partial_shape()
    dims = None
    if shape.rank.is_static:
        dims = tuple(dim.get_length() if dim.is_static else None for dim in shape)
    node = port.get_node()
    if node.get_type_name() == "Result":
        node = node.input_value(0).get_node()
    # An IR of before 2020 names nodes only.
    names = sorted(port.get_names()) or []
    dtype = port.get_element_type()
    known = {"bf16": "bfloat16", "boolean": "bool"}.get(dtype.get_type_name())
    return Port(tuple(dict.fromkeys([*names, node.get_friendly_name()])), known or _numpy_name(dtype), dims)


def _numpy_name(dtype: Any) -> str:
    try:
        return str(np.dtype(dtype.to_dtype()).name)
    except (RuntimeError, TypeError):
        return str(dtype.get_type_name())


def _compile_contract(card: ModelCard, model: Any, entry: int, result: int, batch: int) -> Any:
    """Put the card's contract around a model: bytes of RGB pixels in; mask and one number per image out."""
    declared, parameter = card.input, model.inputs[entry].get_node()
    value = model.outputs[result].get_node().input_value(0)
    _check_needs(card, value.get_node(), parameter)
    needed = openvino.Model(_back(card, value), [parameter], "segment")
    sizes = {"N": batch, "C": 3, "H": declared.height, "W": declared.width}
    needed.reshape(openvino.PartialShape([sizes[axis] for axis in declared.layout]))
    around = PrePostProcessor(needed)
    picture = around.input(0)
    picture.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    picture.model().set_layout(openvino.Layout(declared.layout))
    steps = picture.preprocess()
    if declared.channels == "BGR":
        steps.reverse_channels()
    if not is_identity(card):
        steps.convert_element_type(openvino.Type.f32)
        steps.scale(255 / declared.maximum)
        steps.mean(list(declared.mean))
        steps.scale(list(declared.std))
    return around.build()


def _check_needs(card: ModelCard, node: Any, parameter: Any) -> None:
    """Refuse a graph whose output follows from more inputs than the picture."""
    seen, waiting = {node.get_name()}, [node]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "Parameter" and node.get_name() != parameter.get_name():
            name = _port(node.output(0)).name
            refuse(card, f"the graph also needs the input '{name}'; a session feeds one picture tensor")
        before = [value.get_node() for value in node.input_values()]
        waiting += [node for node in before if node.get_name() not in seen]
        seen |= {node.get_name() for node in before}


def _back(card: ModelCard, value: Any) -> list[Any]:
    if card.output.kind == "index":
        return _back_of_index(card, value)
    scores = _as(value, openvino.Type.f32)
    axis = card.output.layout.index("C")
    # 'stable' is what sends ties to the first class.
    best = ops.topk(scores, ops.constant(np.int64(1)), axis, "max", "value", index_element_type="i32", stable=True)
    masks = _as(ops.squeeze(best.output(1), ops.constant(np.array([axis]))), openvino.Type.u8)
    # The mean and not the sum: a sum of many finite scores could itself overflow.
    watched = _as(_before_enlarging(value), openvino.Type.f32)
    check = ops.reduce_mean(watched, ops.constant(np.array([1, 2, 3])), keep_dims=False)
    return [ops.result(masks), ops.result(check)]


def _before_enlarging(scores: Any) -> Any:
    """What linear enlarging was done to, if it was: as finite, image by image, as all scores, and far smaller.

    Each score is a convex mean of its neighbours, so it is finite where they are; and every neighbour has a weight in
    some score.
    """
    node = scores.get_node()
    kind = node.get_type_name()
    if (
        kind == "Identity"
        or (kind == "Transpose" and _keeps_images(node))
        or (kind == "Interpolate" and _enlarges(node))
    ):
        return _before_enlarging(node.input_value(0))
    return scores


def _keeps_images(transpose: Any) -> bool:
    order = transpose.input_value(1).get_node()
    return bool(order.get_type_name() == "Constant" and order.data.flat[0] == 0)


def _enlarges(interpolate: Any) -> bool:
    how = interpolate.get_attributes()
    before, after = interpolate.input_value(0).get_partial_shape(), interpolate.output(0).get_partial_shape()
    if not how["mode"].startswith("linear") or any((*how["pads_begin"], *how["pads_end"])) or before.rank.is_dynamic:
        return False
    sizes = list(zip(before, after, strict=True))[1:]
    return all(old.is_static and new.is_static and old.get_length() <= new.get_length() for old, new in sizes)


def _back_of_index(card: ModelCard, index: Any) -> list[Any]:
    if "1" in card.output.layout:
        index = ops.squeeze(index, ops.constant(np.array([card.output.layout.index("1")])))
    is_float = index.get_element_type().is_real()
    masks = ops.result(_as(index, openvino.Type.u8))
    if _is_position(index, len(card.classes)):
        return [masks]
    comparable = _as(index, openvino.Type.f32 if is_float else openvino.Type.i64)
    zero, classes = (ops.constant(np.array(n, np.float32 if is_float else np.int64)) for n in (0, len(card.classes)))
    # 'not below C' and not 'C or above': a NaN is neither.
    wrong = ops.logical_or(ops.logical_not(ops.less(comparable, classes)), ops.less(comparable, zero))
    check = ops.reduce_sum(_as(wrong, openvino.Type.f32), ops.constant(np.array([1, 2])), keep_dims=False)
    return [masks, ops.result(check)]


def _is_position(index: Any, classes: int) -> bool:
    """Whether an index is where the best of at most `classes` scores lies, so that it cannot be out of range."""
    source = _output(index)
    while source.get_node().get_type_name() in _MOVES and source.get_element_type().get_type_name() in _WIDE:
        source = source.get_node().input_value(0)
    if source.get_node().get_type_name() != "TopK" or source.get_index() != 1:
        return False
    scores = source.get_node().input_value(0).get_partial_shape()
    if scores.rank.is_dynamic:
        return False
    dim = scores[source.get_node().get_axis()]
    return bool(dim.is_static and dim.get_length() <= classes)


def _output(value: Any) -> Any:
    return value if isinstance(value, openvino.Output) else value.output(0)


def _as(value: Any, dtype: Any) -> Any:
    return value if _output(value).get_element_type() == dtype else ops.convert(value, dtype.get_type_name())


def _runner(compiled: Any, streams: int) -> Run:
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        idle.put(compiled.create_infer_request())
    checked = len(compiled.outputs) > 1

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        request = idle.get()
        try:
            outputs = request.infer({0: images}, share_inputs=True)
        finally:
            idle.put(request)
        return outputs[0], outputs[1] if checked else np.zeros(len(images), np.float32)

    return run


def _reason(error: RuntimeError) -> str:
    """What an openvino error says, without the lines that name its source files and stages."""
    noise = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(noise))[:500] or "no reason given"
