"""onnxruntime: serves ONNX on the CPU, and on NVIDIA GPUs through CUDA or TensorRT."""

import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.sessions.averaging import is_averaged, merged_card
from segment.models.sessions.base import INSTALL_CUDA, ONNX_ONLY, Runtime, Settings, first_line
from segment.models.sessions.cpu import sums_saturate
from segment.models.sessions.extras import Extras
from segment.models.sessions.io_binding import CudaPin, bound_run
from segment.models.sessions.onnx_averaging import merged_graph
from segment.models.sessions.onnxfile import names_read, read_model
from segment.models.sessions.predict import GraphSession, Outputs, Run
from segment.models.sessions.sanity_check import output_shape_by_run
from segment.models.sessions.surgery import Surgeon
from segment.models.sessions.tensorrt import engine_build_lock, engine_folder, engine_options
from segment.models.weights import Weights

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def gpu_capabilities() -> set[str]:
    """Return the GPU capabilities of the installed onnxruntime; see `runtimes.capabilities`."""
    built_in = onnxruntime.get_available_providers()
    return {f"onnxruntime:{device}" for device, provider in PROVIDERS.items() if provider in built_in}


def open_onnxruntime(card: ModelCard, weights: Weights, runtime: Runtime, settings: Settings) -> GraphSession:
    """Load a model. Any number of threads may call `predict` at once.

    On a GPU (the first that this process sees: Ray gives each actor its own) two calls are in flight; more wait.
    TensorRT builds its engine for the batch of the settings, and pads smaller batches.

    Args:
        weights: ONNX bytes, of one model or several.

    Raises:
        ModelError: card and graph do not match, onnxruntime cannot load the graph, or the device is unavailable.
    """
    if weights.format != "onnx":
        raise ModelError(ONNX_ONLY)
    # TensorRT converts to f16 itself.
    half = runtime.precision == "f16" and runtime.device != "tensorrt"
    graphs = [in_half_precision(model.graph) if half else model.graph for model in weights.models]

    def trial(model: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        session = _load(model, replace(runtime, device="cpu"), settings.threads)
        return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])

    if is_averaged(card, len(graphs)):
        first, merged = merged_graph(card, weights, graphs, trial)
        surgeon = Surgeon(merged_card(card), merged, first.before)
    else:
        first = surgeon = Surgeon(card, graphs[0])

    def raw(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return trial(first.raw(), images)

    if not surgeon.output_is_known:
        surgeon.set_output_dims(output_shape_by_run(card, raw))

    @lru_cache(maxsize=1)  # a graph that takes any batch size is loaded once
    def load(number: int | None, masked: bool) -> Run:
        graph = surgeon.compiled(number, masked=masked, extras=settings.extras, in_bands=runtime.device == "cpu")
        session = _load(graph, runtime, settings.threads)
        return _unbound_run(session) if runtime.device == "cpu" else _on_gpu(session, card, number, settings.extras)

    def load_for(batched: bool, masked: bool) -> Run:
        if runtime.device == "tensorrt":
            return load(settings.batch, masked)
        return load(1 if surgeon.fixed_batch and not batched else None, masked)

    return GraphSession(card, load_for, raw, settings, exact=runtime.device == "cpu")


def _load(model: bytes, runtime: Runtime, threads: int) -> Any:
    wanted = PROVIDERS.get(runtime.device, "CPUExecutionProvider")
    if wanted not in onnxruntime.get_available_providers():
        raise ModelError(f"the onnxruntime installed on this machine has no {runtime.device}: {INSTALL_CUDA}")
    if runtime.device != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # the loader does not search the folders of CUDA's Python packages
    engines = engine_folder(model, runtime) if runtime.device == "tensorrt" else None
    options = engine_options(engines, runtime) if engines else {}
    try:
        with engine_build_lock(engines) if engines else nullcontext():
            session = onnxruntime.InferenceSession(model, _options(threads), providers=_providers(runtime, options))
    except Exception as error:  # onnxruntime's own types, one per status code
        raise ModelError(f"onnxruntime cannot load the graph: {first_line(error)}") from error
    if wanted not in session.get_providers():
        raise ModelError(
            f"the job requires device {runtime.device}, but onnxruntime fell back to {session.get_providers()}: "
            f"its CUDA libraries (or TensorRT's) do not load here. Repair the installation, or use --device cpu"
        )
    return session


def _unbound_run(session: Any) -> Run:
    name = session.get_inputs()[0].name

    def run(images: NDArray[np.uint8]) -> Outputs:
        return tuple(session.run(None, {name: images}))

    return run


def _on_gpu(session: Any, card: ModelCard, number: int | None, extras: Extras) -> Run:
    """Bind buffers, after a first call that loads the kernels and shows the size of the masks."""
    expected = (card.output_height, card.output_width)
    first = np.zeros((number or 1, card.input.height, card.input.width, card.input.planes), np.uint8)
    masks, *_ = _unbound_run(session)(first)
    if masks.shape[1:] != expected:
        return _unbound_run(session)  # `GraphSession` raises the error
    return bound_run(session, expected, pin=CudaPin, batch=number, extras=extras)


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads would take CPU time from the other sessions of the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    if sums_saturate():  # so weights are made uint8, whose sums are exact; with VNNI that would only be slower
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3  # errors only: the user cannot act on warnings about a published graph
    return options


def _providers(runtime: Runtime, engine: dict[str, str]) -> list[Any]:
    if runtime.device == "cpu":
        return ["CPUExecutionProvider"]
    # By default the library chooses the precision (TF32), and each convolution's algorithm by timing them.
    cuda = (PROVIDERS["cuda"], {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
    return [*([(PROVIDERS["tensorrt"], engine)] if runtime.device == "tensorrt" else []), cuda, "CPUExecutionProvider"]


def in_half_precision(data: bytes) -> bytes:
    """Convert an ONNX model to FP16 with onnxruntime's converter.

    Inputs and outputs keep their types, so the card matches as before, and argmax and the check for NaN use float32.
    Values beyond 65,504 become infinite; `predict` detects them in the scores.

    Raises ModelError: the bytes are not a self-contained ONNX model, or the converter fails.
    """
    model = read_model(data)
    convert = _converter()
    try:
        converted = convert(model, keep_io_types=True)
    except Exception as error:  # the converter raises many types
        raise ModelError(f"the model cannot be converted to f16 ({error}): use --precision f32") from error
    _sort(converted.graph)
    return bytes(converted.SerializeToString())


def _sort(graph: GraphProto) -> None:
    """Sort the nodes topologically: the converter appends its casts at the end."""
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    before = {
        number: {maker[name] for name in names_read(node) if name in maker} for number, node in enumerate(graph.node)
    }
    copies = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    nodes = [copies[number] for number in TopologicalSorter(before).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def _converter() -> Callable[..., Any]:
    path = list(sys.path)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    sys.path[:] = path  # the import adds a folder of scripts
    # Hide its warnings about weights that round to 0.
    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    converter: Callable[..., Any] = convert_float_to_float16
    return converter
