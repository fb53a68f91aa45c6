"""The table `input` of a model card: what the graph takes, and how an image is brought to it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from segment.models.card_output import STRICT, Side
from segment.models.card_tiles import Tiles
from segment.models.classes import Byte

Channels = Literal["RGB", "BGR", "GREY"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Resampler = Literal["pillow", "opencv"]
ByChannel = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]

View = Literal["flip"] | Annotated[float, Field(ge=0.1, le=4)]

_STRIDE = 32  # the largest stride of most networks


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
        None,
        exclude_if=lambda tiles: tiles is None,  # the identity of runs without them stays as it was
        description="Instead of a resize: images of any size are segmented in tiles of height and width.",
    )
    tta: tuple[View, ...] = Field(
        (),
        exclude_if=lambda views: not views,  # the identity of runs without it stays as it was
        description="Test-time augmentation: views of the input besides the plain one; the probabilities of all are "
        "averaged. `flip` mirrors left and right; a number scales height and width. With `flip` the view of each "
        "size is also mirrored.",
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

    @model_validator(mode="after")
    def _different_views(self) -> Input:
        plain = f"{self.height}x{self.width} pixels"
        seen: dict[tuple[int, int], str] = {(self.height, self.width): "the plain view"}
        for scale in self.scales:
            size = scaled_size(self.height, self.width, scale)
            if size in seen:
                steps = f"{_step(self.height)} rows and {_step(self.width)} columns"
                raise ValueError(
                    f"tta: at {plain}, in steps of {steps}, the scale {scale:g} is the same view as {seen[size]}: "
                    "remove it"
                )
            seen[size] = f"the scale {scale:g}"
        if self.tta.count("flip") > 1:
            raise ValueError("tta names 'flip' twice: once mirrors the view of each size")
        return self

    @property
    def flips(self) -> bool:
        """Whether each view is also seen mirrored."""
        return "flip" in self.tta

    @property
    def scales(self) -> tuple[float, ...]:
        """Scales of the views besides the plain one."""
        return tuple(view for view in self.tta if not isinstance(view, str))


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return height and width of the view of a scale.

    They are rounded to the largest power of two, up to 32, that divides the side: a network of this stride takes them.
    """
    return _scaled_side(height, scale), _scaled_side(width, scale)


def _scaled_side(side: int, scale: float) -> int:
    step = _step(side)
    return max(1, round(side * scale / step)) * step


def _step(side: int) -> int:
    return math.gcd(side, _STRIDE)
