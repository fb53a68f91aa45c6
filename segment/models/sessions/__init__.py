"""Sessions: every model maps `uint8[N, H, W, 3]` RGB images to `uint8[N, H, W]` class indices.

Where a card names bands, their number stands for 3, here and in the modules of this package.
Only this package imports onnxruntime, openvino or LiteRT, and each only when it is used.
"""

from segment.errors import ModelError, UsageError
from segment.models.card import ModelCard
from segment.models.sessions.base import MIXED, Masks, Runtime, Session, Settings, graph_in_words
from segment.models.sessions.batches import LARGEST, BatchProbe, probe_batches
from segment.models.sessions.choice import runtime_for
from segment.models.sessions.extras import NOTHING, Extras
from segment.models.sessions.footprint import Footprint, footprint
from segment.models.sessions.predict import GraphSession
from segment.models.sessions.runtimes import (
    BF16,
    LAST_RUN,
    RUNTIMES,
    capabilities,
    fastest,
    own_runtime,
    requirement_of,
    resolve_runtime,
    runtime_version,
)
from segment.models.sessions.sizes import SizedSession, most_sizes
from segment.models.weights import Weights

__all__ = [
    "BF16",
    "LARGEST",
    "LAST_RUN",
    "MIXED",
    "BatchProbe",
    "Extras",
    "Footprint",
    "Masks",
    "Runtime",
    "Session",
    "capabilities",
    "fastest",
    "find_batch",
    "footprint",
    "open_session",
    "own_runtime",
    "requirement_of",
    "resolve_runtime",
    "runtime_for",
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
    sanity_check: bool = True,
    extras: Extras = NOTHING,
) -> Session:
    """Load a model, with the card's pre- and postprocessing compiled into the graph.

    Args:
        threads: CPU threads of one `predict` call.
        streams: maximum number of concurrent `predict` calls; they share the weights.
        batch: images of a full batch; `predict` takes any other number, too.
        sanity_check: check the masks of the first images; see `SanityCheck`.
        extras: what `predict` returns beside the masks.

    Raises:
        ModelError: card, weights and graph do not match, or this machine cannot provide `runtime`.
        UsageError: the model cannot give the `extras`.
    """
    extras.check(card)

    @graph_in_words(weights)
    def load(sized: ModelCard, check: bool) -> GraphSession:
        return _load(sized, weights, runtime, Settings(threads, streams, batch, sanity_check and check, extras))

    if not card.input.is_dynamic:
        return load(card, True)
    if runtime.device == "tensorrt":
        raise ModelError(
            f"model card '{card.name}' says height = 'image', and TensorRT builds an engine of minutes for each size: "
            "use --device cuda"
        )
    return SizedSession(card, load, most_sizes(weights.size))


def _load(card: ModelCard, weights: Weights, runtime: Runtime, settings: Settings) -> GraphSession:
    if runtime.name == "onnxruntime":
        from segment.models.sessions.onnxruntime import open_onnxruntime

        return open_onnxruntime(card, weights, runtime, settings)
    if runtime.name == "openvino":
        from segment.models.sessions.openvino import open_openvino

        return open_openvino(card, weights, runtime, settings)
    if runtime.name == "litert":
        from segment.models.sessions.litert import open_litert

        return open_litert(card, weights, settings)
    raise UsageError(f"no runtime named '{runtime.name}': use {', '.join(RUNTIMES[1:])}")


def find_batch(
    card: ModelCard, weights: Weights, runtime: Runtime, largest: int = LARGEST, extras: Extras = NOTHING
) -> BatchProbe:
    """Find the fastest batch size for a model on this machine's device; see `probe_batches`.

    The images are random, so there is no sanity check.

    Raises ModelError: as `open_session`.
    """
    if runtime.device == "tensorrt":  # builds an engine per batch size, which the session then finds in the cache
        return probe_batches(
            lambda batch: open_session(card, weights, runtime, batch=batch, sanity_check=False, extras=extras),
            largest=largest,
        )
    session = open_session(card, weights, runtime, sanity_check=False, extras=extras)
    return probe_batches(lambda _: session, largest=largest)
