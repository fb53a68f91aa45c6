"""Sessions: every model becomes `uint8[N, H, W, 3]` RGB in, `uint8[N, H, W]` of class indices out.

The only package that imports onnx, onnxruntime or openvino, and each only when it is needed.
"""

from __future__ import annotations

from segment.errors import UsageError
from segment.models.card import ModelCard
from segment.models.sessions.base import Masks, Runtime, Session
from segment.models.sessions.batches import LARGEST, BatchProbe, probe_batches
from segment.models.sessions.footprint import Footprint, footprint
from segment.models.sessions.runtimes import capabilities, resolve_runtime, runtime_version
from segment.models.weights import Weights

__all__ = [
    "LARGEST",
    "BatchProbe",
    "Footprint",
    "Masks",
    "Runtime",
    "Session",
    "capabilities",
    "find_batch",
    "footprint",
    "open_session",
    "resolve_runtime",
    "runtime_version",
]


def open_session(
    card: ModelCard,
    weights: Weights,
    runtime: Runtime,
    *,
    threads: int = 1,
    streams: int = 1,
    batch: int = 1,
    vetted: bool = True,
) -> Session:
    """Load a model, its card's contract compiled into the graph.

    Args:
        card: the contract.
        weights: verified bytes.
        runtime: as `resolve_runtime` decided it.
        threads: CPU threads of one `predict` call.
        streams: how many threads may call `predict` at once; they share the weights.
        batch: images of a whole batch; any other number may come.
        vetted: look at the first images by value, whether the model is what the card says.

    Raises:
        ModelError: card, weights and graph do not fit together, or this machine cannot provide `runtime`.
    """
    if runtime.name == "onnxruntime":
        from segment.models.sessions.onnxruntime import open_onnxruntime

        return open_onnxruntime(card, weights, runtime, threads=threads, batch=batch, vetted=vetted)
    if runtime.name == "openvino":
        from segment.models.sessions.openvino import open_openvino

        return open_openvino(card, weights, runtime, threads=threads, streams=streams, vetted=vetted)
    raise UsageError(f"no runtime named '{runtime.name}': use onnxruntime or openvino")


def find_batch(card: ModelCard, weights: Weights, runtime: Runtime, largest: int = LARGEST) -> BatchProbe:
    """Find the batch to run a model with on this machine's device; see `probe_batches`.

    All its images are random, so it says nothing about the model.

    Raises:
        ModelError: as `open_session`.
    """
    if runtime.device == "tensorrt":  # an engine for each batch; the one that is chosen is then there already
        return probe_batches(
            lambda batch: open_session(card, weights, runtime, batch=batch, vetted=False), largest=largest
        )
    session = open_session(card, weights, runtime, vetted=False)
    return probe_batches(lambda _: session, largest=largest)
