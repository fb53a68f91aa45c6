"""A distributed batch-segmentation job: images, a model card and an output prefix in; masks and exact statistics out.

import segment
report = segment.run(segment.Job(input="images/", output="out/", model="unet-camvid-onnx-0001"))
print(report.miou())

What is exported here is the public face; docs/building-blocks.md shows how its parts go together.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segment.api.model import Model, load_model
    from segment.api.outputs import compare, label_errors
    from segment.api.reader import Run, SegmentedImage, open_run
    from segment.api.segmenter import Segmenter
    from segment.engines.ray_source import ImageSource
    from segment.job import Job
    from segment.metrics import BoundaryCounts, Confusion, IoU, boundary_counts, confusion, iou
    from segment.models.card import ModelCard, load_card
    from segment.progress import Progress
    from segment.quantization.quantizing import QuantisedModel, quantize
    from segment.report.aggregate import RunReport
    from segment.report.comparison.comparing import RunComparison
    from segment.report.label_errors import LabelErrors
    from segment.report.run_score import RunScore, score
    from segment.runs.driver import run

__all__ = [
    "BoundaryCounts",
    "Confusion",
    "ImageSource",
    "IoU",
    "Job",
    "LabelErrors",
    "Model",
    "ModelCard",
    "Progress",
    "QuantisedModel",
    "Run",
    "RunComparison",
    "RunReport",
    "RunScore",
    "SegmentedImage",
    "Segmenter",
    "boundary_counts",
    "compare",
    "confusion",
    "iou",
    "label_errors",
    "load_card",
    "load_model",
    "open_run",
    "quantize",
    "run",
    "score",
]

_HOMES = {
    "BoundaryCounts": "segment.metrics",
    "Confusion": "segment.metrics",
    "ImageSource": "segment.engines.ray_source",
    "IoU": "segment.metrics",
    "Job": "segment.job",
    "LabelErrors": "segment.report.label_errors",
    "Model": "segment.api.model",
    "ModelCard": "segment.models.card",
    "Progress": "segment.progress",
    "QuantisedModel": "segment.quantization.quantizing",
    "Run": "segment.api.reader",
    "RunComparison": "segment.report.comparison.comparing",
    "RunReport": "segment.report.aggregate",
    "RunScore": "segment.report.run_score",
    "SegmentedImage": "segment.api.reader",
    "Segmenter": "segment.api.segmenter",
    "boundary_counts": "segment.metrics",
    "compare": "segment.api.outputs",
    "confusion": "segment.metrics",
    "iou": "segment.metrics",
    "label_errors": "segment.api.outputs",
    "load_card": "segment.models.card",
    "load_model": "segment.api.model",
    "open_run": "segment.api.reader",
    "quantize": "segment.quantization.quantizing",
    "run": "segment.runs.driver",
    "score": "segment.report.run_score",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `segment --help` need not load the libraries behind it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'segment' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What the package offers, for completion in notebooks."""
    return __all__
