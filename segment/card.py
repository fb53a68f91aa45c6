"""The model card: everything about a model but its weights, as a checked contract.

A card is a TOML file. `load_card` reads a built-in card by name, or any card by path or URL.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from importlib.resources.abc import Traversable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segment.classes import Classes
from segment.errors import UsageError, nearest
from segment.explain import explain
from segment.store import Store
from segment.urls import is_url, join_url, parent_url, redact_url, to_url

Channels = Literal["RGB", "BGR"]
Convention = Literal["omz", "cityscapes", "image-mean"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Resampler = Literal["pillow", "opencv"]
Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=1, le=16384)]
Triple = tuple[float, float, float]

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Resize(BaseModel):
    """How an image of any size becomes the model's input size.

    Attributes:
        method: `stretch` fills height and width; `letterbox` keeps the aspect ratio and pads on the right and below.
        resampler: whose resampling; Pillow's and OpenCV's 'bilinear' are different functions.
        interpolation: kernel. `bilinear` in Pillow is antialiased when shrinking, in OpenCV it is not.
        pad: RGB value of the letterbox border, 0-255.
    """

    model_config = _STRICT

    method: Literal["stretch", "letterbox"] = "stretch"
    resampler: Resampler = "pillow"
    interpolation: Interpolation = "bilinear"
    pad: tuple[Byte, Byte, Byte] = (0, 0, 0)

    @model_validator(mode="after")
    def _known_kernel(self) -> Resize:
        if self.resampler == "pillow" and self.interpolation == "area":
            raise ValueError("'area' is an OpenCV interpolation; with resampler = 'pillow' use 'bilinear', or 'opencv'")
        return self


class Input(BaseModel):
    """What the graph wants to be fed.

    The graph is given `(pixel / 255 * maximum - mean) / std`, channel by channel.

    Attributes:
        name: the graph's input, needed only where it has several.
        layout: `NCHW` or `NHWC`.
        height, width: pixels.
        channels: order of the colour channels.
        maximum: value of the brightest pixel before normalisation: 255 or 1.
        mean, std: subtracted, then divided by; in units of `maximum` and in the order of `channels`.
    """

    model_config = _STRICT

    name: str | None = None
    layout: Literal["NCHW", "NHWC"]
    height: Side
    width: Side
    channels: Channels
    maximum: Literal[255, 1] = 255
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    resize: Resize = Resize()

    @model_validator(mode="after")
    def _std_not_zero(self) -> Input:
        if 0.0 in self.std:
            raise ValueError("std must not hold a zero: it is divided by")
        return self


class Output(BaseModel):
    """What the graph gives back.

    Attributes:
        name: the graph's output, needed only where it has several.
        kind: `index` (class index per pixel), `probabilities` or `logits` (one score per class and pixel).
        layout: `NCHW` or `NHWC` for scores; `NHW`, `N1HW` or `NHW1` for an index.
        height, width: pixels; those of the input unless stated.
    """

    model_config = _STRICT

    name: str | None = None
    kind: Literal["index", "probabilities", "logits"]
    layout: Literal["NCHW", "NHWC", "NHW", "N1HW", "NHW1"]
    height: Side | None = None
    width: Side | None = None

    @model_validator(mode="after")
    def _layout_fits_kind(self) -> Output:
        fitting = ("NHW", "N1HW", "NHW1") if self.kind == "index" else ("NCHW", "NHWC")
        if self.layout not in fitting:
            raise ValueError(f"layout {self.layout!r} does not fit kind {self.kind!r}: use one of {', '.join(fitting)}")
        return self


class Metric(BaseModel):
    """How the model's published score was computed.

    Attributes:
        convention: the named mIoU convention (`segment.metrics`).
        resolution: score at the `model`'s output size (label resized) or at the `source` image's (mask resized).
        label_resampler: whose 'nearest' resizes labels: Pillow samples pixel centres, OpenCV rounds down.
        published: published mIoU, 0-1.
        note: on which data, by whom.
    """

    model_config = _STRICT

    convention: Convention = "omz"
    resolution: Literal["model", "source"] = "model"
    label_resampler: Resampler = "pillow"
    published: Annotated[float, Field(ge=0, le=1)] | None = None
    note: str = ""


class WeightsFile(BaseModel):
    """One published file: where it is, how large, and its SHA-384 in hexadecimal.

    A relative `url` is relative to the card.
    """

    model_config = _STRICT

    url: str
    size: Annotated[int, Field(gt=0)]
    sha384: Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]


class ModelCard(BaseModel):
    """The contract of a model. See the classes of its parts."""

    model_config = _STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    description: str = ""
    licence: str = ""
    source: str = ""
    gflops: float | None = None
    mparams: float | None = None
    input: Input
    output: Output
    classes: Classes
    metric: Metric = Metric()
    weights: tuple[WeightsFile, ...] = Field(default=(), max_length=2)

    @property
    def output_height(self) -> int:
        """Rows of a mask as the graph gives it."""
        return self.output.height or self.input.height

    @property
    def output_width(self) -> int:
        """Columns of a mask as the graph gives it."""
        return self.output.width or self.input.width


def _card_folder() -> Traversable:
    return importlib.resources.files("segment") / "cards"


def built_in_cards() -> list[str]:
    """Names of the cards in the package, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _card_folder().iterdir() if item.name.endswith(".toml"))


def load_card(reference: str, store: Store | None = None) -> ModelCard:
    """Load a card.

    Args:
        reference: name of a built-in card, path of a TOML file, or any fsspec URL of one.
        store: how to reach a URL; the default has no storage options.

    Raises:
        UsageError: no such card, or the card is wrong; the message says where and how to mend it.
    """
    if reference in built_in_cards():
        text = (_card_folder() / f"{reference}.toml").read_text(encoding="utf-8")
        return parse_card(text, where=f"built-in card {reference}", base=str(_card_folder()))
    if not (is_url(reference) or reference.endswith(".toml") or "/" in reference):
        raise UsageError(
            f"no model card named '{reference}'.{nearest(reference, built_in_cards())} "
            f"`segment models` lists the built-in cards; for one of your own give its path (my-card.toml)."
        )
    url = to_url(reference)
    data = (store or Store()).read_if_exists(url)
    if data is None:
        raise UsageError(f"no model card at {redact_url(url)}: `segment models` lists the built-in ones.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"model card {redact_url(url)} is not UTF-8 text") from None
    return parse_card(text, where=f"model card {redact_url(url)}", base=parent_url(url))


def parse_card(text: str, where: str = "model card", base: str | None = None) -> ModelCard:
    """Parse a card's TOML text.

    Args:
        text: TOML.
        where: how to name it in an error.
        base: folder that relative weights URLs are relative to.

    Raises:
        UsageError: not TOML, an unknown key (the nearest known one is named), a missing or wrong value, a URL with a
            secret in it.
    """
    try:
        card = ModelCard.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{where}:\n{explain(error, ModelCard)}") from None
    if base is None:
        return card
    files = tuple(
        file.model_copy(update={"url": to_url(file.url) if is_url(file.url) else join_url(to_url(base), file.url)})
        for file in card.weights
    )
    return card.model_copy(update={"weights": files})
