"""The session protocol: one loaded model, independent of the runtime."""

import logging
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError, NotAModel
from segment.models.card import ModelCard
from segment.models.sessions.extras import NOTHING, Extras
from segment.models.weights import Weights
from segment.store.names import shown

ONNX_ONLY = "onnxruntime serves .onnx only; openvino serves .xml and .tflite: use --runtime openvino"
TFLITE_ONLY = "litert serves .tflite only: use --runtime openvino"
INSTALL_LITERT = "pip install 'segment-job[litert]'"
MIXED = "mixed"  # a precision: bf16 on the nodes that compute in it, f32 on the others
INSTALL_CUDA = "uv pip install --override jobs/cuda-overrides.txt . onnxruntime-gpu (by uv, in a clone)"

log = logging.getLogger(__name__)

# What parsers, runtimes and graph surgery raise on a graph that contradicts itself; other errors are bugs.
_CONTRADICTIONS = (ArithmeticError, LookupError, RuntimeError, ValueError, struct.error)


class Masks(NamedTuple):
    """Masks of a batch.

    Attributes:
        masks: `uint8[N, output height, output width]` of class indices.
        faults: by position in the batch, the `SampleError` code of an image with an invalid output
            (`model_not_finite`, `model_range`, `model_not_whole`); its mask is undefined.
        remarks: by position, a code of `segment.output.remarks.REMARKS`: a warning about a valid mask.
        confidence: `uint8[N, output height, output width]`, 255 times the measure of `Extras`; None without one.
        probabilities: `uint8[N, K, output height, output width]`, 255 times the probabilities of the K classes of
            `Extras`; None without any.
    """

    masks: NDArray[np.uint8]
    faults: Mapping[int, str]
    remarks: Mapping[int, str] = MappingProxyType({})
    confidence: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is loaded; see `open_session`."""

    threads: int = 1
    streams: int = 1
    batch: int = 1
    sanity_check: bool = True
    extras: Extras = NOTHING


def first_line(error: Exception) -> str:
    """Return the first line of what a runtime says, whose errors are of types of its own; else the error's type."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


@contextmanager
def graph_in_words(weights: Weights) -> Iterator[None]:
    """Refuse a graph that cannot be read, whoever finds it: sizes, types and content may contradict each other.

    Raises ModelError: instead of what libraries raise on such a graph; it names a file that is no model.
    """
    try:
        yield
    except NotAModel as error:
        raise ModelError(f"weights {shown(weights.origin)}: {error}") from error
    except _CONTRADICTIONS as error:
        log.debug("the graph cannot be used", exc_info=True)
        raise ModelError(
            f"the graph cannot be used ({type(error).__name__}: {first_line(error)[:300]}). It is damaged or "
            "contradicts itself: export the model anew. If it runs elsewhere, the fault is of segment: please report it"
        ) from error


class Session(Protocol):
    """One loaded model, with its card's pre- and postprocessing compiled into the graph."""

    card: ModelCard

    def predict(self, images: NDArray[np.uint8]) -> Masks:
        """Segment a batch.

        Args:
            images: `uint8[N, input height, input width, 3]`, RGB, or the bands of the card; C-contiguous.
        """
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """The code that computes the masks; recorded in `run.json` and part of the fingerprint.

    Attributes:
        name: `onnxruntime`, `openvino` or `litert`.
        device: `cpu`, `cuda` or `tensorrt`.
        precision: of the graph's floating-point operations: `f32`, `bf16` or `f16`; `mixed` where each node has its
            own, see `own_runtime`.
    """

    name: str
    device: str
    precision: str
    version: str

    @property
    def repeats(self) -> bool:
        """Whether every machine of a run gives the same masks every time; GPUs need not."""
        return self.device == "cpu" and self.precision != MIXED

    def beside(self, other: Self) -> str:
        """Return device and precision, as far as they differ from another runtime's; on the same device the name, too.

        >>> Runtime("openvino", "cpu", "bf16", "1").beside(Runtime("openvino", "cpu", "f32", "1"))
        'bf16'
        """
        name = (self.name, other.name if self.device == other.device else self.name)
        facts = (name, (self.device, other.device), (self.precision, other.precision))
        return " ".join(own for own, its in facts if own != its)
