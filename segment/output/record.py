"""The shape of `run.json`: what every reader of a run may rely on. What the values mean, others check."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from segment.models.extra_options import Measure


class _Shape(BaseModel):
    # other versions write other keys
    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)


class _Input(_Shape):
    url: str
    keep: list[str] = []


class _Runtime(_Shape):
    name: str
    version: str
    device: str
    precision: str


class _Confidence(_Shape):
    measure: Measure
    maps: bool


class _Contract(_Shape):
    input: _Input
    runtime: _Runtime
    labels: dict[str, Any] | None = None
    mask_size: Literal["source", "model"] = "source"
    confidence: _Confidence | None = None
    probabilities: list[int] = []  # of classes
    boundary: float | None = None
    max_pixels: int = 0


class _Weights(_Shape):
    sha384: str
    format: str
    origin: str


class _Versions(_Shape):
    segment: str
    python: str


class _Proof(_Shape):
    agreement: float
    images: int
    reference: _Runtime
    refused: _Runtime | None = None


class _Job(_Shape):
    max_error_rate: float
    label_remap: dict[str, Any] | None = None
    weights: str | None = None


class _Record(_Shape):
    contract: _Contract
    fingerprint: str
    card: dict[str, Any]
    job: _Job
    scored_at: Literal["source", "model"]
    versions: _Versions
    weights: _Weights
    proof: _Proof | None = None


def misshapen(run: Mapping[str, Any]) -> str:
    """Return the first key of `run.json` that is missing or of another type, such as `weights.origin`; `""` if none."""
    try:
        _Record.model_validate(run)
    except ValidationError as error:
        return ".".join(map(str, error.errors()[0]["loc"]))
    return ""
