"""The table `input.tiles` of a model card: images larger than the input are segmented tile by tile."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from segment.models.card_output import STRICT

Blend = Literal["centre", "confidence", "mean"]

_MOST_OVERLAP = 0.9  # of a tile: beyond, an image takes more than a hundred times its pixels

_SCALE = (
    "with tiles an image keeps its own pixels, or has fewer by a whole factor, which is `shrink`: shrink = 2 segments "
    "it at half its height and width"
)


class Tiles(BaseModel):
    """A sliding window: images are not resized, and each tile has the size of the input.

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
        "`confidence`, the one whose highest probability, weighted by a window, is the highest; `mean`, all of them: "
        "their probabilities are averaged, weighted by a window, which takes 2 bytes for each class and pixel of a row "
        "of tiles, at most 1 GiB.",
    )
    pad: Literal["reflect", "constant"] = Field(
        "reflect",
        description="How an image smaller than a tile is padded on the right and below: by its own pixels, mirrored, "
        "or by `input.resize.pad`.",
    )

    shrink: Annotated[int, Field(ge=1, le=64, strict=True)] = Field(
        1,
        exclude_if=lambda factor: factor == 1,  # the identity of runs without it stays as it was
        description="Segment an image at a fraction of its height and width: a pixel of a tile is the mean of `shrink` "
        "by `shrink` pixels. The mask has the image's size.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_scale(cls, values: Any) -> Any:
        if isinstance(values, dict) and "scale" in values:
            raise ValueError(_SCALE)
        return values

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
