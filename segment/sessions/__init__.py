"""Sessions: every model becomes `uint8[N, H, W, 3]` RGB in, `uint8[N, H, W]` of class indices out.

The only package that imports onnx, onnxruntime or openvino, and each only when it is needed.
"""

from __future__ import annotations

from segment.card import ModelCard
from segment.errors import UsageError
from segment.sessions.base import Masks, Runtime, Session
from segment.sessions.runtimes import capabilities, resolve, runtime_version
from segment.weights import Weights

__all__ = ["Masks", "Runtime", "Session", "capabilities", "open_session", "resolve", "runtime_version"]


def open_session(card: ModelCard, weights: Weights, runtime: Runtime, *, threads: int = 1, streams: int = 1) -> Session:
    """Load a model, its card's contract compiled into the graph.

    Args:
        card: the contract.
        weights: verified bytes.
        runtime: as `resolve` decided it.
        threads: CPU threads of one `predict` call.
        streams: how many threads may call `predict` at once; they share the weights.

    Raises:
        ModelError: card, weights and graph do not fit together, or this machine cannot provide `runtime`.
    """
    if runtime.name == "onnxruntime":
        from segment.sessions.onnxruntime import open_onnxruntime

        return open_onnxruntime(card, weights, runtime, threads=threads)
    if runtime.name == "openvino":
        from segment.sessions.openvino import open_openvino

        return open_openvino(card, weights, runtime, threads=threads, streams=streams)
    raise UsageError(f"no runtime named '{runtime.name}': use onnxruntime or openvino")
