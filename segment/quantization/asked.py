"""What `segment quantize` is asked for beside a job, and the jobs and models that it refuses, in words."""

from dataclasses import dataclass
from importlib.util import find_spec

from segment.errors import ModelError, UsageError
from segment.job import Job
from segment.models.card import ModelCard
from segment.models.quantisation import Method
from segment.models.sessions.inspection import inspect_graph
from segment.models.weights import Weights

METHODS: tuple[Method, ...] = ("onnxruntime", "nncf")
# Of ONNX, and of OpenVINO's IR.
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "FakeQuantize", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class Asked:
    """How weights are quantised, and what that may cost.

    Attributes:
        calibrate: path or URL of the images that calibrate; None takes them from the job's input, and evaluates others.
        images: number of these.
        evaluate_images: number of images on which the price is measured, at most.
        max_drop: largest loss of mIoU, in points (per cent).
        min_agreement: smallest share of pixels that keep their class, 0-1, where no image is labelled.
        force: write the model even if it is beyond these.
        seed: of the choice of images that calibrate, and of the intervals.
    """

    calibrate: str | None = None
    images: int = 100
    method: Method = "onnxruntime"
    evaluate_images: int = 500
    max_drop: float = 0.5
    min_agreement: float = 0.97
    force: bool = False
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError for what cannot be."""
        if self.method not in METHODS:
            raise UsageError(f"--method {self.method}: use one of {', '.join(METHODS)}")
        if self.method == "nncf" and find_spec("nncf") is None:
            raise UsageError("--method nncf needs NNCF: pip install 'segment-job[nncf]'")
        if self.images < 1 or self.evaluate_images < 1:
            raise UsageError("--images and --evaluate-images are numbers from 1 up")
        if not self.max_drop >= 0 or not 0 <= self.min_agreement <= 1:
            raise UsageError("--max-drop is a number of points from 0 up, and --min-agreement a share of 0 to 1")


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
    """Refuse weights that cannot be quantised by a method, whatever their graph; for that see `check_graph`.

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


def check_graph(weights: Weights) -> None:
    """Refuse a graph that cannot be quantised. Raises ModelError: the message says why, and what to do."""
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
