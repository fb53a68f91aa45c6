"""The table `input` of a model card: what the graph takes, and how an image is brought to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from segment.models.card_output import STRICT, Side
from segment.models.card_tiles import Tiles
from segment.models.classes import Byte

Channels = Literal["RGB", "BGR", "GREY"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Resampler = Literal["pillow", "opencv"]
ByChannel = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class Resize(BaseModel):
    """How an image is resized to the model's input."""

    model_config = STRICT

    method: Literal["stretch", "letterbox", "pad"] = Field(
        "stretch",
        description="`stretch` fills height and width; `letterbox` keeps the aspect ratio and fills height or width; "
        "`pad` keeps the aspect ratio and only shrinks: an image that fits keeps its pixels.",
    )
    anchor: Literal["top-left", "centre"] = Field(
        "top-left",
        description="Position of the image for `letterbox` and `pad`: `top-left` with the border right and below, or "
        "`centre`; the larger half of an odd border is right and below.",
    )
    resampler: Resampler = Field(
        "pillow", description="Library: Pillow's and OpenCV's 'bilinear' are different functions."
    )
    interpolation: Interpolation = Field(
        "bilinear", description="Kernel. When shrinking, Pillow's `bilinear` is antialiased, OpenCV's is not."
    )
    pad: tuple[Byte, Byte, Byte] = Field((0, 0, 0), description="RGB value of the border, 0-255.")

    @model_validator(mode="after")
    def _consistent(self) -> Resize:
        if self.resampler == "pillow" and self.interpolation == "area":
            raise ValueError("'area' is an OpenCV interpolation; with resampler = 'pillow' use 'bilinear', or 'opencv'")
        if self.method == "stretch" and self.anchor != "top-left":
            raise ValueError("'stretch' has no border: anchor is for method = 'letterbox' and 'pad'")
        return self


class Input(BaseModel):
    """The graph's input: `(pixel / 255 * maximum - mean) / std`, channel by channel."""

    model_config = STRICT

    name: str | None = Field(None, description="Name of the graph's input, required if it has several.")
    layout: Literal["NCHW", "NHWC"] = Field(description="Order of the dimensions.")
    height: Side = Field(description="Height in pixels.")
    width: Side = Field(description="Width in pixels.")
    channels: Channels = Field(
        description="Order of the colour channels; `GREY` is one channel of luma (ITU-R 601, rounded as Pillow's `L`), "
        "computed within the graph after the resize."
    )
    maximum: Literal[255, 1] = Field(255, description="Value of the brightest pixel before normalisation.")
    mean: ByChannel = Field(
        (0.0, 0.0, 0.0),
        description="Subtracted; in units of `maximum`, in the order of `channels`; one value for `GREY`.",
    )
    std: ByChannel = Field(
        (1.0, 1.0, 1.0), description="Divisor; in units of `maximum`, in the order of `channels`; one value for `GREY`."
    )
    resize: Resize = Field(Resize(), description="How images are resized to height and width.")
    tiles: Tiles | None = Field(
        None, description="Instead of a resize: images of any size are segmented in tiles of height and width."
    )

    @property
    def depth(self) -> int:
        """Number of channels of the graph's input."""
        return 1 if self.channels == "GREY" else 3

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_grey(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("channels") == "GREY":
            return {"mean": (0.0,), "std": (1.0,), **values}
        return values

    @model_validator(mode="after")
    def _normalisation(self) -> Input:
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.depth:
                raise ValueError(f"{key} has {len(values)} values, channels = {self.channels!r} need {self.depth}")
        if 0.0 in self.std:
            raise ValueError("std must not contain a zero: pixels are divided by it")
        return self

    @model_validator(mode="after")
    def _fits_tiles(self) -> Input:
        if self.tiles is None:
            return self
        self.tiles.check_side("height", self.height)
        self.tiles.check_side("width", self.width)
        if self.resize.model_copy(update={"pad": Resize().pad}) != Resize():
            raise ValueError(
                "with tiles an image keeps its own pixels, so resize is not applied: leave out all of it but resize.pad"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_tiles_that_are_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing, so that the identity of runs does not change with a new table."""
        values: dict[str, Any] = dump(self)
        return {name: value for name, value in values.items() if name != "tiles" or value is not None}
