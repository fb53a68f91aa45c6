"""LiteRT: serves TFLite on the CPU; what is quantised is computed in 8 bits.

Small openvino graphs stand before and behind the network: those that an openvino session adds to a model, so that a
card means the same on both runtimes. Images run one by one: batches gain nothing on CPUs, and one image's mask then
cannot depend on another's.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openvino
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from openvino import opset15 as ops

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.sessions.averaging import is_averaged
from segment.models.sessions.base import TFLITE_ONLY, Settings
from segment.models.sessions.extras import Extras
from segment.models.sessions.idle import IdlePool
from segment.models.sessions.litert_tail import cut_tail
from segment.models.sessions.openvino import compiled_model, outputs_of
from segment.models.sessions.openvino_ports import dims_of, numpy_name
from segment.models.sessions.openvino_postprocess import as_type, dequantised, postprocess
from segment.models.sessions.openvino_preprocess import with_preprocessing
from segment.models.sessions.ports import Port, check_output, choose_ports, refuse
from segment.models.sessions.predict import GraphSession, Outputs, Run
from segment.models.sessions.quantised import Quantised, Scales, input_levels, quantised_output
from segment.models.sessions.tflite_graph import TfliteGraph, read_tflite
from segment.models.weights import Weights
from segment.process.c_stderr import captured_c_stderr

# Their result depends on earlier images, or on chance.
_UNREPEATABLE = frozenset(
    """
    VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE RANDOM_UNIFORM RANDOM_STANDARD_NORMAL MULTINOMIAL RNN LSTM SVDF
    UNIDIRECTIONAL_SEQUENCE_RNN UNIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN BIDIRECTIONAL_SEQUENCE_LSTM
    """.split()  # noqa: SIM905
)


def open_litert(card: ModelCard, weights: Weights, settings: Settings) -> GraphSession:
    """Load a model. Up to `settings.streams` threads may call `predict` at once, each with its own interpreter.

    Args:
        weights: TFLite bytes of one model.

    Raises:
        ModelError: card and graph do not match, or LiteRT does not serve them.
    """
    if weights.format != "tflite":
        raise ModelError(TFLITE_ONLY)
    if is_averaged(card, len(weights.models)):
        raise ModelError(
            f"model card '{card.name}' averages views (input.tta) or an ensemble, which litert does not: "
            "use --runtime openvino"
        )
    networks = IdlePool(lambda: _Network(card, weights, settings.threads, settings.extras), settings.streams)

    def load(batched: bool, masked: bool) -> Run:
        with networks.borrowed() as network:
            network.expect(masked)

        def run(images: NDArray[np.uint8]) -> Outputs:
            with networks.borrowed() as network:
                found = [network(images[i : i + 1], masked) for i in range(len(images))]
            return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))

        return run

    def raw(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with networks.borrowed() as network:
            return network.numbers(images)

    return GraphSession(card, load, raw, settings)


class _Network:
    """An interpreter, with the card's pre- and postprocessing before and behind it; for one thread at a time."""

    def __init__(self, card: ModelCard, weights: Weights, threads: int, extras: Extras) -> None:
        self._card = card
        self._threads = threads
        self._extras = extras
        self._core = openvino.Core()
        graph = read_tflite(weights.graph)
        _check_repeatable(graph)
        self._tail = cut_tail(weights.graph, graph)
        self._interpreter = _interpreter(self._tail.graph if self._tail else weights.graph, threads)
        self._input, self._output, self._name = _chosen(card, self._interpreter, graph)
        self._resize()
        self._before = self._request(_before(card, self._input))
        # The graph may declare another shape than it gives: that of one image is known after a run.
        first = self._run(np.zeros((1, card.input.height, card.input.width, card.input.planes), np.uint8))
        self._shape, self._dtype = first.shape, first.dtype
        scale, is_per_axis = _scale(self._output), self._output["quantization_parameters"]["scales"].size > 1
        self._quantised = scale  # the card's maximum comes behind
        if card.output.maximum == 1:
            self._quantised = quantised_output(
                card, first.dtype.name, scale, is_per_axis=is_per_axis, numbers=bool(scale or extras)
            )
        value, _ = self._value()
        self._size = check_output(card, Port((self._name,), numpy_name(value.get_element_type()), dims_of(value)))
        self._behind: dict[bool, Any] = {}

    def __call__(self, image: NDArray[np.uint8], masked: bool) -> Outputs:
        """Segment `uint8[1, H, W, 3]`; see `Run`."""
        self.expect(masked)
        return outputs_of(self._behind[masked], self._run(image))

    def expect(self, masked: bool) -> None:
        """Load what is behind the network; for `masked` see `Load`."""
        if masked not in self._behind:
            value, parameter = self._value()
            outputs = postprocess(self._card, value, self._size, masked, "f32", self._extras)
            self._behind[masked] = self._request(_model(outputs, parameter))

    def numbers(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's own output for `uint8[1, H, W, 3]`."""
        value, parameter = self._value()
        request = self._request(_model([as_type(value, openvino.Type.f32)], parameter))
        return np.array(request.infer({0: self._run(image)})[0])

    def _value(self) -> tuple[Any, Any]:
        """Return the network's output as a value of a graph, of levels the numbers that they mean; and its source."""
        parameter = ops.parameter(list(self._shape), self._dtype.type)
        value = parameter
        if self._tail:
            value = self._tail.applied(as_type(value, openvino.Type.f32))
        if self._quantised:
            value = dequantised(as_type(value, openvino.Type.f32), self._quantised)
        return value.output(0), parameter

    def _run(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Run the network on `uint8[1, H, W, 3]`."""
        self._interpreter.set_tensor(self._input["index"], self._before.infer({0: image}, share_inputs=True)[0])
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output["index"]))

    def _resize(self) -> None:
        """Give the input the card's size, where the graph leaves it free."""
        wanted = self._card.input.shape(1)
        if list(self._input["shape"]) == wanted:
            return
        with _words("litert cannot load the graph"):
            self._interpreter.resize_tensor_input(self._input["index"], wanted, strict=True)
            self._interpreter.allocate_tensors()

    def _request(self, model: Any) -> Any:
        return compiled_model(self._core, model, self._threads, "f32").create_infer_request()


def _check_repeatable(graph: TfliteGraph) -> None:
    unrepeatable = sorted(_UNREPEATABLE & graph.operators)
    if unrepeatable:
        raise ModelError(f"litert would give an image another mask each time: the graph has {', '.join(unrepeatable)}")


def _interpreter(graph: bytes, threads: int) -> Any:
    with _words("litert cannot load the graph"), captured_c_stderr():  # it says which delegate it has created
        interpreter = Interpreter(model_content=graph, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


@contextmanager
def _words(what: str) -> Iterator[None]:
    """Turn LiteRT's errors into those of a model."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the text of a LiteRT error, whose sentences follow each other without a blank."""
    text = re.sub(r"(?<=[\w.])(?=Node number|unsupported |failed to )", ". ", " ".join(str(error).split()))
    return text.replace("..", ".")[:500] or "no reason given"


def _chosen(card: ModelCard, interpreter: Any, graph: TfliteGraph) -> tuple[Any, Any, str]:
    """Return the input to feed, the output to read, and the name that the file gives to what the card describes."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    ports, declared = [_port(details) for details in inputs], [graph.tensors[place] for place in graph.outputs]
    entry, result = choose_ports(card, ports, [Port((each.name,), each.dtype, each.dims) for each in declared])
    if len(inputs) > 1:
        others = " and ".join(f"'{port.name}'" for port in ports if port != ports[entry])
        refuse(card, f"the graph also needs the input {others}; a session of litert has only one input: the image")
    return inputs[entry], outputs[result], declared[result].name


def _port(details: Any) -> Port:
    signature = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    dims = tuple(None if size < 0 else int(size) for size in signature)
    return Port((details["name"],), np.dtype(details["dtype"]).name, dims)


def _before(card: ModelCard, entry: Any) -> Any:
    """Return the graph from RGB bytes to the network's input."""
    found = entry["quantization_parameters"]
    scales = Scales(found["scales"].astype(np.float64), found["zero_points"].astype(np.float64))
    levels = input_levels(card, _port(entry), scales if scales.scale.size else None)
    parameter = ops.parameter(card.input.shape(1), np.dtype(entry["dtype"]).type)
    return with_preprocessing(card, _model([parameter.output(0)], parameter), levels)


def _scale(details: Any) -> Quantised | None:
    """Return what the levels of an output mean; None if they are numbers."""
    scale, zero_point = details["quantization"]
    return Quantised(float(scale), float(zero_point)) if scale else None


def _model(outputs: list[Any], parameter: Any) -> Any:
    return openvino.Model([ops.result(output) for output in outputs], [parameter], "segment")
