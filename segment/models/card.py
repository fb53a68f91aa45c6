"""The model card: a TOML file that describes a model completely, except for the content of its weights.

`load_card` reads a built-in card by name, or any card by path or URL.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_serializer, model_validator

from segment.errors import UsageError, did_you_mean
from segment.models.classes import Byte, Classes
from segment.models.validation import validation_message
from segment.store.client import Store
from segment.store.urls import is_url, join_url, parent_url, redact_url, to_url, unsigned

Channels = Literal["RGB", "BGR"]
Convention = Literal["omz", "cityscapes", "image-mean"]
Resolution = Literal["model", "source"]
Enlarging = Literal["bilinear", "nearest"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Resampler = Literal["pillow", "opencv"]
Side = Annotated[int, Field(ge=1, le=16384)]
Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]
Triple = tuple[float, float, float]

_STRICT = ConfigDict(extra="forbid", frozen=True)

# Advice for a binary model with one channel: its argmax is class 0 everywhere.
TWO_CHANNELS = (
    "One sigmoid channel is not a score per class: export the graph with two, background first: "
    "torch.cat([1 - p, p], dim=1) of a probability p, torch.cat([0 * x, x], dim=1) of a logit x"
)


class Resize(BaseModel):
    """How an image is resized to the model's input.

    Attributes:
        method: `stretch` fills height and width; `letterbox` keeps the aspect ratio and fills height or width; `pad`
            keeps the aspect ratio and only shrinks: an image that fits keeps its pixels.
        anchor: position of the image for `letterbox` and `pad`: `top-left` with the border right and below, or
            `centre`; the larger half of an odd border is right and below.
        resampler: library: Pillow's and OpenCV's 'bilinear' are different functions.
        interpolation: kernel. When shrinking, Pillow's `bilinear` is antialiased, OpenCV's is not.
        pad: RGB value of the border, 0-255.
    """

    model_config = _STRICT

    method: Literal["stretch", "letterbox", "pad"] = "stretch"
    anchor: Literal["top-left", "centre"] = "top-left"
    resampler: Resampler = "pillow"
    interpolation: Interpolation = "bilinear"
    pad: tuple[Byte, Byte, Byte] = (0, 0, 0)

    @model_validator(mode="after")
    def _consistent(self) -> Resize:
        if self.resampler == "pillow" and self.interpolation == "area":
            raise ValueError("'area' is an OpenCV interpolation; with resampler = 'pillow' use 'bilinear', or 'opencv'")
        if self.method == "stretch" and self.anchor != "top-left":
            raise ValueError("'stretch' has no border: anchor is for method = 'letterbox' and 'pad'")
        return self


class Input(BaseModel):
    """The graph's input: `(pixel / 255 * maximum - mean) / std`, channel by channel.

    Attributes:
        name: name of the graph's input, required if it has several.
        layout: `NCHW` or `NHWC`.
        height, width: pixels.
        channels: order of the colour channels.
        maximum: value of the brightest pixel before normalisation: 255 or 1.
        mean, std: normalisation, in units of `maximum` and in the order of `channels`.
        resize: how images are resized to height and width.
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
            raise ValueError("std must not contain a zero: pixels are divided by it")
        return self


class Output(BaseModel):
    """The graph's output.

    Attributes:
        name: name of the graph's output, required if it has several.
        kind: `index` (class index per pixel), `probabilities` or `logits` (one score per class and pixel).
        layout: `NCHW` or `NHWC` for scores; `NHW`, `N1HW` or `NHW1` for an index.
        height, width: pixels; the default is the size that the graph declares, else that of the input.
        enlarge: how an output smaller than the input is enlarged to it, within the graph: `bilinear` (half-pixel
            centres, scores only, before the argmax) or `nearest`. The default is `bilinear` for scores; a class index
            is always enlarged by `nearest`.
    """

    model_config = _STRICT

    name: str | None = None
    kind: Literal["index", "probabilities", "logits"]
    layout: Literal["NCHW", "NHWC", "NHW", "N1HW", "NHW1"]
    height: Side | None = None
    width: Side | None = None
    enlarge: Enlarging | None = None

    @property
    def enlarging(self) -> Enlarging:
        """`enlarge`, or its default."""
        return self.enlarge or ("nearest" if self.kind == "index" else "bilinear")

    @model_validator(mode="after")
    def _fits_kind(self) -> Output:
        if self.kind == "index" and self.enlarge == "bilinear":
            raise ValueError(
                "a class index can only be enlarged by 'nearest': between class 3 and class 5 is not class 4. "
                "'bilinear' is for scores (kind 'logits' or 'probabilities'): export the graph without its argmax"
            )
        fitting = ("NHW", "N1HW", "NHW1") if self.kind == "index" else ("NCHW", "NHWC")
        if self.layout not in fitting:
            raise ValueError(f"layout {self.layout!r} does not fit kind {self.kind!r}: use one of {', '.join(fitting)}")
        return self


class Published(BaseModel):
    """A published score, and what another score must share to be comparable.

    Attributes:
        miou: mIoU, 0-1.
        dataset, split: evaluated images.
        images: number of images.
        convention, resolution: as in the table `metric`, which gives the defaults.
        weights_sha384: SHA-384 of each file of the evaluated weights; the default is the card's weights.
        source: publisher and place.
        note: the rest of the protocol.
    """

    model_config = _STRICT

    miou: Share
    dataset: str = ""
    split: str = ""
    images: Annotated[int, Field(gt=0)] | None = None
    convention: Convention | None = None
    resolution: Resolution | None = None
    weights_sha384: tuple[Digest, ...] = Field(default=(), max_length=2)
    source: str = ""
    note: str = ""

    @property
    def where(self) -> str:
        """The evaluated images, such as `PASCAL VOC 2012 val, 1,449 images`; empty if the card does not name them."""
        number = f"{self.images:,} images" if self.images else ""
        return ", ".join(filter(None, (f"{self.dataset} {self.split}".strip(), number)))


def _published(value: Any) -> Any:
    return {"miou": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class Metric(BaseModel):
    """How the model is scored.

    Attributes:
        convention: mIoU convention; see `segment.metrics`.
        resolution: score at the size of the `model`'s output (labels are resized) or of the `source` image (masks are
            resized).
        label_resampler: library whose 'nearest' resizes labels: Pillow samples pixel centres, OpenCV rounds down.
        published: a published score: a table, or the mIoU alone, 0-1.
        note: data and publisher.
    """

    model_config = _STRICT

    convention: Convention = "cityscapes"
    resolution: Resolution = "source"
    label_resampler: Resampler = "pillow"
    published: Annotated[
        Published | None, BeforeValidator(_published, json_schema_input_type=Published | Share | None)
    ] = None
    note: str = ""


class WeightsFile(BaseModel):
    """One published file: URL (relative to the card, or absolute), size in bytes, hexadecimal SHA-384.

    The URL may be signed; a dump of the card omits the signature.
    """

    model_config = _STRICT

    url: str
    size: Annotated[int, Field(gt=0)]
    sha384: Digest

    @field_serializer("url")
    def _without_signature(self, url: str) -> str:
        return unsigned(url)


class ModelCard(BaseModel):
    """A model's description. `gflops` is 10^9 operations per image, `mparams` is 10^6 parameters."""

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

    @model_validator(mode="after")
    def _several_scores(self) -> ModelCard:
        if self.output.kind != "index" and len(self.classes) == 1:
            raise ValueError(
                f"classes.names has one name, so every pixel has this class: name the background, too. {TWO_CHANNELS}"
            )
        return self

    @property
    def output_height(self) -> int:
        """Height of a mask: that of the input, or of the graph's output if it is larger."""
        return max(self.input.height, self.output.height or 0)

    @property
    def output_width(self) -> int:
        """Width of a mask: that of the input, or of the graph's output if it is larger."""
        return max(self.input.width, self.output.width or 0)


def _card_folder() -> Traversable:
    return importlib.resources.files("segment") / "models" / "cards"


def built_in_cards() -> list[str]:
    """Return the names of the built-in cards, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _card_folder().iterdir() if item.name.endswith(".toml"))


def load_card(reference: str, store: Store | None = None) -> ModelCard:
    """Load a card.

    Args:
        reference: name of a built-in card, or path or URL of a TOML file.
        store: reads URLs; the default has no storage options.

    Raises:
        UsageError: there is no such card, or the card is invalid; the message says where and how to fix it.
    """
    if reference in built_in_cards():
        text = (_card_folder() / f"{reference}.toml").read_text(encoding="utf-8")
        return parse_card(text, where=f"built-in card {reference}", base=str(_card_folder()))
    if not (is_url(reference) or reference.endswith(".toml") or "/" in reference):
        raise UsageError(
            f"no model card named '{reference}'.{did_you_mean(reference, built_in_cards())} "
            f"`segment models` lists the built-in cards; for your own card give its path (my-card.toml)."
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
        where: name of the card in error messages.
        base: folder of the card, for relative URLs of weights.

    Raises:
        UsageError: invalid TOML, an unknown key (the message suggests a similar one), a missing or invalid value, a
            URL with a secret.
    """
    try:
        card = ModelCard.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{where}:\n{validation_message(error, ModelCard)}") from None
    if base is None:
        return card
    files = tuple(
        file.model_copy(update={"url": to_url(file.url) if is_url(file.url) else join_url(to_url(base), file.url)})
        for file in card.weights
    )
    return card.model_copy(update={"weights": files})
