"""onnxruntime: serves ONNX on the CPU, and on NVIDIA GPUs through CUDA or TensorRT."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.sessions.base import INSTALL_CUDA, ONNX_ONLY, Runtime
from segment.models.sessions.half import in_half_precision
from segment.models.sessions.io_binding import CudaPin, bound_run
from segment.models.sessions.predict import GraphSession, Run
from segment.models.sessions.surgery import Surgeon
from segment.models.sessions.tensorrt import engine_folder, engine_options, one_builder
from segment.models.sessions.vetting import shape_of_a_run
from segment.models.weights import Weights

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def gpu_capabilities() -> set[str]:
    """What the installed build of onnxruntime can do with a GPU, if there is one."""
    built_in = onnxruntime.get_available_providers()
    return {f"onnxruntime:{device}" for device, provider in PROVIDERS.items() if provider in built_in}


def open_onnxruntime(
    card: ModelCard, weights: Weights, runtime: Runtime, *, threads: int, batch: int = 1, vetted: bool = True
) -> GraphSession:
    """Load a model. `run` of one onnxruntime session may be called by any number of threads at once.

    On a GPU (the first that this process sees: Ray shows each actor its own) two calls are in flight, and others wait.

    Args:
        card: the contract.
        weights: ONNX bytes.
        runtime: device and precision.
        threads: intra-op threads of one call.
        batch: images of a whole batch. TensorRT's engine is built for just that: fewer images are padded.
        vetted: see `GraphSession`.

    Raises:
        ModelError: card and graph do not fit, onnxruntime cannot load the graph, or the device is not to be had.
    """
    if weights.format != "onnx":
        raise ModelError(ONNX_ONLY)
    # TensorRT halves what it wants to by itself.
    half = runtime.precision == "f16" and runtime.device != "tensorrt"
    surgeon = Surgeon(card, in_half_precision(weights.graph) if half else weights.graph)

    def raw(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        session = _load(surgeon.raw(), replace(runtime, device="cpu"), threads)
        return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])

    if not surgeon.knows_output:
        surgeon.learn(shape_of_a_run(card, raw))

    @lru_cache(maxsize=1)  # a graph that takes any batch is loaded once
    def load(number: int | None, masked: bool) -> Run:
        session = _load(surgeon.compiled(number, masked=masked), runtime, threads)
        return _plain(session) if runtime.device == "cpu" else _on_gpu(session, card, number)

    def load_for(batched: bool, masked: bool) -> Run:
        if runtime.device == "tensorrt":
            return load(batch, masked)
        return load(1 if surgeon.fixed_batch and not batched else None, masked)

    return GraphSession(card, load_for, raw, exact=runtime.device == "cpu", vetted=vetted)


def _load(model: bytes, runtime: Runtime, threads: int) -> Any:
    wanted = PROVIDERS.get(runtime.device, "CPUExecutionProvider")
    if wanted not in onnxruntime.get_available_providers():
        raise ModelError(f"the onnxruntime installed on this machine has no {runtime.device}: {INSTALL_CUDA}")
    if runtime.device != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA that came as Python packages is not where the loader looks
    engines = engine_folder(model, runtime) if runtime.device == "tensorrt" else None
    options = engine_options(engines, runtime) if engines else {}
    try:
        with one_builder(engines) if engines else nullcontext():
            session = onnxruntime.InferenceSession(model, _options(threads), providers=_providers(runtime, options))
    except Exception as error:  # onnxruntime's own types, one per status code
        raise ModelError(f"onnxruntime cannot load the graph: {_first_line(error)}") from error
    if wanted not in session.get_providers():
        raise ModelError(
            f"device {runtime.device} was asked for, but onnxruntime fell back to {session.get_providers()}: "
            f"its CUDA libraries (or TensorRT's) do not load here. Mend the installation, or use --device cpu"
        )
    return session


def _plain(session: Any) -> Run:
    entry = session.get_inputs()[0].name

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        masks, check = session.run(None, {entry: images})
        return masks, check

    return run


def _on_gpu(session: Any, card: ModelCard, number: int | None) -> Run:
    """Bound buffers, once a first call has loaded the kernels and shown that masks have the size the card says."""
    wanted = (card.output_height, card.output_width)
    first = np.zeros((number or 1, card.input.height, card.input.width, 3), np.uint8)
    masks, _ = _plain(session)(first)
    if masks.shape[1:] != wanted:
        return _plain(session)  # `GraphSession` says what is wrong
    return bound_run(session, wanted, pin=CudaPin, batch=number)


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Waiting threads must not burn the cores of the sessions beside this one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors: warnings about a published graph help nobody here
    return options


def _providers(runtime: Runtime, engine: dict[str, str]) -> list[Any]:
    if runtime.device == "cpu":
        return ["CPUExecutionProvider"]
    # Without these the library decides precision (TF32) and, by racing kernels, the algorithm of each convolution.
    cuda = (PROVIDERS["cuda"], {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
    return [*([(PROVIDERS["tensorrt"], engine)] if runtime.device == "tensorrt" else []), cuda, "CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
