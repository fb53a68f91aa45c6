"""openvino: serves ONNX, OpenVINO IR and TFLite on the CPU."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset15 as ops

from segment.errors import ModelError, NotAModel
from segment.models.card import ModelCard
from segment.models.sessions.averaging import is_averaged, member_in_errors, merged_card
from segment.models.sessions.base import INSTALL_LITERT, Runtime, Settings
from segment.models.sessions.cpu import sums_saturate
from segment.models.sessions.extras import NOTHING, Extras
from segment.models.sessions.idle import IdlePool
from segment.models.sessions.openvino_averaging import checked_size, merged_value
from segment.models.sessions.openvino_ports import Member, dims_of, to_port
from segment.models.sessions.openvino_postprocess import as_numbers, postprocess
from segment.models.sessions.openvino_preprocess import kinds_of, levels_of, with_preprocessing
from segment.models.sessions.ports import Size, choose_ports, refuse
from segment.models.sessions.predict import GraphSession, Outputs, Run
from segment.models.weights import Weights
from segment.process.temporaries import TemporaryFolder

_DECLARED = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)  # of XML: what entities are made of
# openvino accepts the hint bf16 on any AVX-512 CPU and then emulates it; its capabilities list the real support.
CAPABILITY = {"bf16": "BF16", "f16": "FP16"}

_UNREPEATABLE = frozenset({"RandomUniform", "Multinomial", "ReadValue"})


def cpu_capabilities() -> set[str]:
    """Return openvino's capabilities on this machine: bf16 and f16 only if the CPU computes in them."""
    can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"openvino:cpu"} | {f"openvino:cpu:{name}" for name, capability in CAPABILITY.items() if capability in can}


def open_openvino(card: ModelCard, weights: Weights, runtime: Runtime, settings: Settings) -> GraphSession:
    """Load a model. Up to `settings.streams` threads may call `predict` at once, each with its own compiled model.

    The graph for single images is compiled for a batch of one, even if the model's batch is symbolic: openvino's
    kernels for fixed shapes are faster.

    Args:
        weights: ONNX, IR or TFLite bytes, of one model or several.

    Raises:
        ModelError: card and graph do not match, openvino cannot load the graph, or the CPU lacks the precision.
    """
    core = openvino.Core()
    _check_precision(core, runtime.precision)
    members = _members(core, card, weights)

    def compiled(contract: Any) -> Any:
        return compiled_model(core, contract, settings.threads, runtime.precision)

    def run(card: ModelCard, member: Member, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        needed, value = _needed(card, member, 1)
        alone = openvino.Model([ops.result(as_numbers(card, value))], needed.get_parameters(), "segment")
        return np.array(compiled(with_preprocessing(card, alone, member.levels)).infer_new_request({0: images})[0])

    def raw(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return run(card, members[0], images)

    size = checked_size(card, weights, members, _needed, run)

    def load(batched: bool, masked: bool) -> Run:
        batch = -1 if batched else 1
        return _runner(
            lambda: compiled(_wrapped(card, members, batch, size, masked, runtime.precision, settings.extras)),
            settings.streams,
        )

    return GraphSession(card, load, raw, settings)


def compiled_model(core: Any, model: Any, threads: int, precision: str) -> Any:
    """Compile a model for calls of so many threads. Raises ModelError: openvino cannot load the graph."""
    settings = {
        # Never several streams of one compiled model: openvino compiles the streams in parallel, with a race on their
        # shared weights, and now and then all masks of such a model are wrong (seen with 2026.4, floating point).
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # With pinning, two processes of one thread each run on the same core.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": precision,
    }
    if sums_saturate():  # so quantised layers are computed in f32
        settings["LP_TRANSFORMS_MODE"] = False
    try:
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ModelError(f"openvino cannot load the graph: {_reason(error)}") from error


def wrapped_model(card: ModelCard, weights: Weights, precision: str, extras: Extras = NOTHING) -> Any:
    """Read a model for single images and add the card's pre- and postprocessing, without compiling it.

    Raises ModelError: as `open_openvino`.
    """
    members = _members(openvino.Core(), card, weights)
    return _wrapped(card, members, 1, checked_size(card, weights, members, _needed, None), False, precision, extras)


def _members(core: Any, card: ModelCard, weights: Weights) -> list[Member]:
    """Read the models, and choose their ports."""
    found = []
    for number, each in enumerate(weights.models):
        with member_in_errors(weights, number):
            if each.format == "onnx":  # else onnx need not be imported
                from segment.models.sessions import onnx_operators, onnxfile

                onnxfile.read_model(each.graph)  # refuses what openvino must not read
            model = read_graph(core, each)
            inputs, outputs = [to_port(port) for port in model.inputs], [to_port(port) for port in model.outputs]
            entry, result = choose_ports(card, inputs, outputs)
            if each.format == "onnx":
                file = onnxfile.read_model(each.graph)  # anew: while openvino reads, memory is at its peak
                onnx_operators.check_alike(file, inputs[entry].names, card.input.shape(1), outputs[result].names)
                del file
            levels = levels_of(card, each, model.inputs[entry])
            found.append(Member(model, entry, result, inputs[entry], outputs[result], levels))
    return found


def _check_precision(core: Any, precision: str) -> None:
    needed = CAPABILITY.get(precision)
    if needed and needed not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError(
            f"this machine's CPU does not compute in {precision}, as all nodes did when the run began: keep it out of "
            "the run, or begin another run with --precision f32, or with --allow-mixed-precision and this machine in it"
        )


def read_graph(core: Any, weights: Weights) -> Any:
    """Read a model. Raises ModelError: openvino cannot read it."""
    magic = {"ir": b"<?xml", "tflite": b"TFL3"}.get(weights.format, b"")
    if magic not in weights.graph[:64]:
        raise NotAModel(f"this is not a model in {weights.format} format: a wrong or damaged file")
    if weights.format == "ir" and (declared := _DECLARED.search(weights.graph)):
        raise ModelError(
            f"the .xml has a declaration <!{declared[1].decode()}>, by which a small file can stand for a huge one: it "
            "is not read. No converter writes one; convert the model again"
        )
    try:
        return _read(core, weights)
    except RuntimeError as error:
        reason = _reason(error)
        if weights.format == "tflite" and reason.startswith("No translator found"):
            reason += f" LiteRT may have this operator: {INSTALL_LITERT}, then --runtime litert"
        if "bin file" in reason:
            reason += f" It has {len(weights.data):,} bytes: is it whole, and that of this .xml?"
        raise ModelError(f"openvino cannot read the {weights.format} weights: {reason}") from error


def _read(core: Any, weights: Weights) -> Any:
    if weights.format == "ir":
        return core.read_model(model=weights.graph, weights=weights.data)
    return core.read_model(model=weights.graph) if weights.format == "onnx" else _read_tflite(core, weights.graph)


def _read_tflite(core: Any, data: bytes) -> Any:
    """Read a TFLite model from a private temporary file: openvino reads TFLite only by path."""
    with TemporaryFolder() as folder:
        file = folder.path / "model.tflite"
        file.write_bytes(data)
        try:
            return core.read_model(file)
        except RuntimeError as error:
            raise RuntimeError(str(error).replace(str(file), file.name)) from error


def _wrapped(
    card: ModelCard,
    members: Sequence[Member],
    batch: int,
    size: Size | None,
    masked: bool = False,
    precision: str = "f32",
    extras: Extras = NOTHING,
) -> Any:
    """Add the card's pre- and postprocessing to a model: RGB bytes to masks, a check value per image, and extras."""
    if is_averaged(card, len(members)):
        parameters, value = merged_value(card, members, _needed, batch, size, precision)
        outputs = postprocess(merged_card(card), value, size, masked, precision, extras)
    else:
        needed, value = _needed(card, members[0], batch)
        parameters, outputs = needed.get_parameters(), postprocess(card, value, size, masked, precision, extras)
    model = openvino.Model([ops.result(output) for output in outputs], parameters, "segment")
    return with_preprocessing(card, model, members[0].levels)


def _needed(card: ModelCard, member: Member, batch: int) -> tuple[Any, Any]:
    """Return the part of a model from the image to the output, reshaped to the card's input size; and the output."""
    model = member.model.clone()
    parameter = model.inputs[member.entry].get_node()
    value = model.outputs[member.result].get_node().input_value(0)
    _check_needs(card, value.get_node(), parameter)
    needed = openvino.Model([ops.result(value)], [parameter], "segment")
    try:
        needed.reshape(openvino.PartialShape(card.input.shape(batch)))
    except RuntimeError as error:
        raise ModelError(f"openvino cannot load the graph: {_reason(error)}") from error
    value = needed.outputs[0].get_node().input_value(0)
    dims = dims_of(value)
    if batch == 1 and dims and dims[0] not in (None, 1):  # a Reshape that leaves the batch to the number of pixels
        raise ModelError(f"of one image of {card.input.height}x{card.input.width} the graph makes {dims[0]}")
    if batch == -1 and dims and dims[0] is not None:
        # A Reshape to one image would run on several: openvino then reads and writes beyond its buffers.
        raise ModelError(f"the graph's output stays a batch of {dims[0]}")
    return needed, value


def _check_needs(card: ModelCard, node: Any, parameter: Any) -> None:
    """Refuse a graph whose output depends on other inputs than the image, on chance or on earlier images."""
    seen, waiting = {node.get_name()}, [node]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "Parameter" and node.get_name() != parameter.get_name():
            name = to_port(node.output(0)).name
            refuse(card, f"the graph also needs the input '{name}'; a session has only one input: the image")
        if found := _UNREPEATABLE.intersection(kinds_of(node)):
            raise ModelError(f"an image would get another mask each time: the graph has {', '.join(sorted(found))}")
        before = [value.get_node() for value in node.input_values()]
        waiting += [node for node in before if node.get_name() not in seen]
        seen |= {node.get_name() for node in before}


def _runner(compiled: Callable[[], Any], streams: int) -> Run:
    """Return a function that runs a batch on an idle infer request; it compiles another model if none is idle."""
    requests = IdlePool(lambda: compiled().create_infer_request(), streams)

    def run(images: NDArray[np.uint8]) -> Outputs:
        with requests.borrowed() as request:
            return outputs_of(request, images)

    return run


def outputs_of(request: Any, images: NDArray[Any]) -> Outputs:
    """Run the outputs of `postprocess`; without a check value every image passes."""
    outputs = request.infer({0: images}, share_inputs=True)
    masks, *others = (outputs[n] for n in range(len(outputs)))
    return (masks, *(others or [np.zeros(len(images), np.float32)]))


def _reason(error: RuntimeError) -> str:
    """Return the text of an openvino error, without the lines that name source files and stages."""
    noise = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(noise))[:500] or "no reason given"
