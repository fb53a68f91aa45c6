"""A distributed batch-segmentation job: images, a model card and an output prefix in; masks and exact statistics out.

import segment
report = segment.run(segment.Job(input="images/", output="out/", model="unet-camvid-onnx-0001"))
print(report.miou())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segment.job import Job
    from segment.models.card import ModelCard, load_card
    from segment.report.aggregate import RunReport
    from segment.runs.driver import run

__all__ = ["Job", "ModelCard", "RunReport", "load_card", "run"]

_HOMES = {
    "Job": "segment.job",
    "run": "segment.runs.driver",
    "ModelCard": "segment.models.card",
    "load_card": "segment.models.card",
    "RunReport": "segment.report.aggregate",
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
