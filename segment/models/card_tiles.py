"""The table `input.tiles` of a model card: images larger than the input are segmented tile by tile."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from segment.models.card_output import STRICT

Blend = Literal["centre", "confidence"]

_MOST_OVERLAP = 0.9  # of a tile: beyond, an image takes more than a hundred times its pixels

_MEAN = (
    "'mean' is not offered: it would hold the scores of a row of tiles in every class, and was measured no better than "
    "'centre', the default; 'confidence' also weighs the tiles by the model's scores"
)


class Tiles(BaseModel):
    """A sliding window: images keep their own pixels, and each tile has the size of the input.

    Tiles are spread evenly over the image, and the first and last touch its edges.
    """

    model_config = STRICT

    overlap: Annotated[float, Field(ge=0, strict=True)] = Field(
        0.25,
        description="Least overlap of two neighbours: a fraction of a tile up to 0.9, or from 1 a number of pixels.",
    )
    blend: Blend = Field(
        "centre",
        description="Which tile decides where several overlap: `centre`, the one whose centre is nearest; "
        "`confidence`, the one whose highest probability, weighted by a window, is the highest.",
    )
    pad: Literal["reflect", "constant"] = Field(
        "reflect",
        description="How an image smaller than a tile is padded on the right and below: by its own pixels, mirrored, "
        "or by `input.resize.pad`.",
    )

    @field_validator("blend", mode="before")
    @classmethod
    def _offered(cls, value: Any) -> Any:
        if value == "mean":
            raise ValueError(_MEAN)
        return value

    @field_validator("overlap")
    @classmethod
    def _fraction_or_pixels(cls, value: float) -> float:
        if _MOST_OVERLAP < value < 1:
            raise ValueError(f"a fraction goes up to {_MOST_OVERLAP}, and a number of pixels begins at 1")
        if value >= 1 and value % 1:
            raise ValueError("from 1 on it is a number of pixels, which is whole")
        return value

    def overlap_of(self, side: int) -> int:
        """Return the least overlap, in pixels, of tiles that are `side` pixels high or wide."""
        return round(self.overlap * side) if self.overlap < 1 else int(self.overlap)

    def check_side(self, name: str, side: int) -> None:
        """Raise ValueError if the overlap does not fit a side of a tile, such as `height`, of `side` pixels."""
        overlap, most = self.overlap_of(side), int(_MOST_OVERLAP * side)
        if overlap > most:
            raise ValueError(f"tiles.overlap is {overlap} pixels, and with {name} = {side} it can be {most} at most")
