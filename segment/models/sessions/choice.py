"""The choice between runtimes that the capabilities of nodes leave open: by a trial of the model."""

import importlib.util
import logging
from collections.abc import Sequence

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.sessions.apart_process import Note
from segment.models.sessions.base import Runtime
from segment.models.sessions.contest import Tried, contest
from segment.models.sessions.runtimes import AMX, resolve_runtime
from segment.models.weights import Weights

log = logging.getLogger(__name__)

# LiteRT has to be so many times as fast as openvino: less may be chance, and the same job should choose the same again.
_GAIN = 1.05


def runtime_for(
    card: ModelCard,
    weights: Weights,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    *,
    nodes: Sequence[frozenset[str]],
    mixed: bool = False,
    note: Note = log.info,
) -> Runtime:
    """Resolve `auto` as `resolve_runtime` does, and choose between openvino and LiteRT for a TFLite model.

    LiteRT computes in 8 bits what is quantised, openvino in f32. Which is faster depends on the CPU and on the
    operators, so that both are tried on this machine, if every node has LiteRT. Not on CPUs with AMX, where openvino is
    as fast or faster (measured with DeepLab): there LiteRT is tried only if openvino cannot read the file.

    Raises:
        UsageError, ModelError: as `resolve_runtime`; or the runtime asked for is LiteRT, and it cannot run the model.
    """
    chosen = resolve_runtime(weights.format, runtime, device, precision, nodes=nodes, mixed=mixed)
    is_here = importlib.util.find_spec("ai_edge_litert") is not None
    if chosen.name == "litert" and is_here:  # a driver without it leaves the check to the workers
        (found,) = contest(card, weights, [chosen])
        if found.reason:
            raise ModelError(found.reason)
    if runtime != "auto" or weights.format != "tflite" or precision not in ("auto", "f32") or not is_here:
        return chosen
    if not all("litert:cpu" in node for node in nodes) or (any(AMX in node for node in nodes) and _is_read(weights)):
        return chosen
    rival = resolve_runtime(weights.format, "litert", device, precision, nodes=nodes)
    openvino, litert = contest(card, weights, [chosen, rival])
    note(f"openvino: {_told(openvino)}; litert: {_told(litert)}")
    return rival if _is_better(litert, openvino) else chosen


def _is_better(litert: Tried, openvino: Tried) -> bool:
    if litert.seconds is None or openvino.seconds is None:
        return litert.seconds is not None and bool(openvino.reason)
    return litert.seconds * _GAIN < openvino.seconds


def _told(tried: Tried) -> str:
    return tried.reason or ("not tried" if tried.seconds is None else f"{1000 * tried.seconds:.1f} ms of CPU an image")


def _is_read(weights: Weights) -> bool:
    """Whether openvino reads a model."""
    import openvino

    from segment.models.sessions.openvino import read_graph

    try:
        for model in weights.models:
            read_graph(openvino.Core(), model)
    except ModelError:
        return False
    return True
