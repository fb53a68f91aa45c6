"""onnxruntime: serves ONNX on the CPU, and on NVIDIA GPUs through CUDA or TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from segment.card import ModelCard
from segment.errors import ModelError
from segment.sessions.base import INSTALL_CUDA, ONNX_ONLY, Runtime
from segment.sessions.predict import GraphSession, Run
from segment.sessions.surgery import Surgeon
from segment.weights import Weights

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def gpu_capabilities() -> set[str]:
    """What the installed build of onnxruntime can do with a GPU, if there is one."""
    built_in = onnxruntime.get_available_providers()
    return {f"onnxruntime:{device}" for device, provider in PROVIDERS.items() if provider in built_in}


def open_onnxruntime(card: ModelCard, weights: Weights, runtime: Runtime, *, threads: int) -> GraphSession:
    """Load a model. `run` of one onnxruntime session may be called by any number of threads at once.

    Args:
        card: the contract.
        weights: ONNX bytes.
        runtime: device and precision.
        threads: intra-op threads of one call.

    Raises:
        ModelError: card and graph do not fit, onnxruntime cannot load the graph, or the device is not to be had.
    """
    if weights.format != "onnx":
        raise ModelError(ONNX_ONLY)
    surgeon = Surgeon(card, weights.graph)
    exact = runtime.device == "cpu"
    if surgeon.fixed_batch:
        single = _load(surgeon.compiled(symbolic_batch=False), runtime, threads)
        return GraphSession(
            card, single, lambda: _load(surgeon.compiled(symbolic_batch=True), runtime, threads), exact=exact
        )
    run = _load(surgeon.compiled(symbolic_batch=True), runtime, threads)
    return GraphSession(card, run, lambda: run, exact=exact)


def _load(model: bytes, runtime: Runtime, threads: int) -> Run:
    wanted = PROVIDERS.get(runtime.device, "CPUExecutionProvider")
    if wanted not in onnxruntime.get_available_providers():
        raise ModelError(f"the onnxruntime installed on this machine has no {runtime.device}: {INSTALL_CUDA}")
    if runtime.device != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA that came as Python packages is not where the loader looks
    try:
        session = onnxruntime.InferenceSession(model, _options(threads), providers=_providers(runtime))
    except Exception as error:  # onnxruntime's own types, one per status code
        raise ModelError(f"onnxruntime cannot load the graph: {_first_line(error)}") from error
    if wanted not in session.get_providers():
        raise ModelError(
            f"device {runtime.device} was asked for, but onnxruntime fell back to {session.get_providers()}: "
            f"its CUDA libraries (or TensorRT's) do not load here. Mend the installation, or use --device cpu"
        )
    entry = session.get_inputs()[0].name

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        masks, check = session.run(None, {entry: images})
        return masks, check

    return run


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


def _providers(runtime: Runtime) -> list[Any]:
    if runtime.device == "cpu":
        return ["CPUExecutionProvider"]
    # Without these the library decides precision (TF32) and, by racing kernels, the algorithm of each convolution.
    cuda = (PROVIDERS["cuda"], {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
    if runtime.device == "cuda":
        return [cuda, "CPUExecutionProvider"]
    half = {"trt_fp16_enable": "1" if runtime.precision == "f16" else "0"}
    return [(PROVIDERS["tensorrt"], half), cuda, "CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
