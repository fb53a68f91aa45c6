"""Models and jobs that are not quantised, and why, in words."""

from __future__ import annotations

from segment.errors import ModelError, UsageError
from segment.job import Job
from segment.models.card import ModelCard
from segment.models.quantisation import Method
from segment.models.sessions.inspection import inspect_graph
from segment.models.weights import Weights

# Of ONNX, and of OpenVINO's IR.
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "FakeQuantize", "ConvInteger", "MatMulInteger")


def check_job(job: Job) -> None:
    """Refuse what a job asks for and quantisation would not do. Raises UsageError: the message says what to do."""
    if job.limit is not None or job.sample is not None:
        raise UsageError(
            "limit and sample choose images of a run, and quantisation chooses its own: leave them out, and say how "
            "many by --images and --evaluate-images"
        )
    if job.device not in ("auto", "cpu"):
        raise UsageError(f"device = {job.device!r}: what INT8 costs and gains is measured on CPUs. Leave it out")


def check_source(card: ModelCard, weights: Weights, method: Method) -> None:
    """Refuse weights that cannot be quantised by a method.

    Raises UsageError, ModelError: the message says why, and what to do.
    """
    if len(weights.models) > 1:
        raise UsageError(
            f"model card {card.name} is an ensemble: quantise each of its models by a card of its own, then name the "
            "new files in the ensemble"
        )
    if weights.format == "tflite":
        raise ModelError(
            f"{weights.origin}: TFLite files are quantised where they are made, by TensorFlow's converter. Give the "
            "model as .onnx, or as OpenVINO IR (.xml) with --method nncf"
        )
    if weights.format == "ir" and method != "nncf":
        raise ModelError(f"{weights.origin}: onnxruntime quantises .onnx only. An OpenVINO IR takes --method nncf")
    if card.quantisation is not None:
        raise ModelError(f"model card {card.name} is of quantised weights: give the card of their source")
    facts = inspect_graph(weights)
    found = sorted(name for name in facts.operators if name in _QUANTISED or name.startswith("QLinear"))
    if found:
        raise ModelError(f"{weights.origin} is quantised already: its graph holds {found[0]}. Give the f32 model")
    half = [entry.port.name for entry in facts.inputs if entry.port.dtype == "float16"]
    if half:
        raise ModelError(
            f"{weights.origin}: its input '{half[0]}' is float16, of which the ranges are measured too coarsely. "
            "Export the model in float32"
        )
