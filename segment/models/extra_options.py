"""The options of a job for what is written beside masks and confusion; see `segment.models.sessions.Extras`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

Measure = Literal["maximum", "margin", "entropy"]


class ExtraOptions(BaseModel):
    """Certainty: how sure the model is, written beside the masks."""

    confidence: Measure | None = Field(
        None,
        description="Write how sure the model is of each image and class, 0-1: the mean over pixels of the `maximum` "
        "probability, of its `margin` to the second one, or of 1 - `entropy` / log C.",
    )
    confidence_maps: bool = Field(False, description="Also write the measure of every pixel, as a PNG of 0-255.")
    probabilities: tuple[str | int, ...] = Field(
        (),
        description="Write the probabilities of these classes (names or indices) as PNGs of 0-255.",
        examples=[["Road", 3]],
    )

    @model_validator(mode="after")
    def _maps_of_a_measure(self) -> Self:
        if self.confidence_maps and self.confidence is None:
            raise ValueError("confidence_maps needs a measure: confidence = maximum, margin or entropy")
        return self


class BoundaryOptions(BaseModel):
    """Boundaries: how well outlines are found, counted beside the confusion."""

    boundary: float | None = Field(
        None,
        ge=0.0001,
        le=1,
        description="Count boundary IoU, too: the IoU of the pixels whose distance to an outline is at most this "
        "fraction of the diagonal; 0.02 in its paper, 0.005 for Cityscapes.",
        examples=[0.02],
    )
