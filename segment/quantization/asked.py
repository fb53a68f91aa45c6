"""What `segment quantize` is asked for, beside a job."""

from __future__ import annotations

from dataclasses import dataclass

from segment.errors import UsageError
from segment.models.quantisation import Method

METHODS: tuple[Method, ...] = ("onnxruntime", "nncf")


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
        if self.images < 1 or self.evaluate_images < 1:
            raise UsageError("--images and --evaluate-images are numbers from 1 up")
        if not self.max_drop >= 0 or not 0 <= self.min_agreement <= 1:
            raise UsageError("--max-drop is a number of points from 0 up, and --min-agreement a share of 0 to 1")
