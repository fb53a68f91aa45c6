"""The model card: a TOML file that describes a model completely, except for the content of its weights.

`load_card` reads a built-in card by name, or any card by path or URL.
"""

from __future__ import annotations

import importlib.resources
import os.path
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_serializer, model_validator

from segment.errors import UsageError, did_you_mean
from segment.models.buckets import Size
from segment.models.card_input import Input, Resampler, View
from segment.models.card_output import ONE_CHANNEL, STRICT, Output
from segment.models.classes import Classes
from segment.models.quantisation import Quantisation
from segment.models.validation import parse_toml, validation_message
from segment.store.bounds import MOST_TOML
from segment.store.client import Store
from segment.store.local_files import with_hint
from segment.store.names import argument, shown, suffix_of
from segment.store.urls import is_url, join_url, parent_url, to_url, unsigned

Convention = Literal["omz", "cityscapes", "mmseg", "image-mean"]
Resolution = Literal["model", "source"]
Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]


class Published(BaseModel):
    """A published score, and what another score must share to be comparable."""

    model_config = STRICT

    miou: Share = Field(description="mIoU, 0-1.")
    dataset: str = Field("", description="Data set of the evaluated images.")
    split: str = Field("", description="Split of the data set.")
    images: Annotated[int, Field(gt=0)] | None = Field(None, description="Number of images.")
    convention: Convention | None = Field(None, description="The default is that of the table `metric`.")
    resolution: Resolution | None = Field(None, description="The default is that of the table `metric`.")
    weights_sha384: tuple[Digest, ...] = Field(
        default=(),
        max_length=2,
        description="SHA-384 of each file of the evaluated weights; the default is the card's weights.",
    )
    tta: tuple[View, ...] = Field(
        (),
        exclude_if=lambda views: not views,
        description="Views whose probabilities were averaged; see `input.tta`.",
    )
    source: str = Field("", description="Publisher and place.")
    note: str = Field("", description="The rest of the protocol.")

    @property
    def where(self) -> str:
        """The evaluated images, such as `PASCAL VOC 2012 val, 1,449 images`; empty if the card does not name them."""
        number = f"{self.images:,} images" if self.images else ""
        return ", ".join(filter(None, (f"{self.dataset} {self.split}".strip(), number)))


def _published(value: Any) -> Any:
    return {"miou": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class Metric(BaseModel):
    """How the model is scored."""

    model_config = STRICT

    convention: Convention = Field("cityscapes", description="mIoU convention.")
    resolution: Resolution = Field(
        "source",
        description="Score at the size of the `model`'s output (labels are resized) or of the `source` image (masks "
        "are resized).",
    )
    label_resampler: Resampler = Field(
        "pillow",
        description="Library whose 'nearest' resizes labels: Pillow samples pixel centres, OpenCV rounds down.",
    )
    published: Annotated[
        Published | None, BeforeValidator(_published, json_schema_input_type=Published | Share | None)
    ] = Field(None, description="A published score: a table, or the mIoU alone, 0-1.")
    note: str = Field("", description="Data and publisher.")


class WeightsFile(BaseModel):
    """One published file."""

    model_config = STRICT

    url: str = Field(
        description="URL, relative to the card if it is relative. It may be signed; a dump omits the signature."
    )
    size: Annotated[int, Field(gt=0)] = Field(description="Bytes.")
    sha384: Digest = Field(description="Hexadecimal digest.")

    @field_serializer("url")
    def _without_signature(self, url: str) -> str:
        return unsigned(url)


class Member(BaseModel):
    """One model of an ensemble; it keeps the card's contract of input and output."""

    model_config = STRICT

    weights: Annotated[tuple[WeightsFile, ...], Field(min_length=1, max_length=2)] = Field(
        description="Files of the weights: one .onnx or .tflite, or an .xml and a .bin."
    )


class ModelCard(BaseModel):
    """A model's description: input, output, classes, metric and weights."""

    model_config = STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = Field(
        description="Name of the model."
    )
    description: str = Field("", description="What the model is for.")
    licence: str = Field("", description="Licence of the weights.")
    source: str = Field("", description="Publisher of the model.")
    gflops: float | None = Field(None, description="Billions of floating-point operations per image.")
    mparams: float | None = Field(None, description="Millions of parameters.")
    input: Input = Field(description="Size, layout and normalisation of the graph's input.")
    output: Output = Field(description="Kind, layout and size of the graph's output.")
    classes: Classes = Field(description="Names, palette and ignored values of the classes.")
    metric: Metric = Field(Metric.model_construct(), description="Convention and resolution of scores.")
    weights: tuple[WeightsFile, ...] = Field(default=(), max_length=2, description="Files of the weights.")
    ensemble: tuple[Member, ...] = Field(
        (),
        exclude_if=lambda members: not members,
        description="Instead of `weights`: models whose probabilities are averaged.",
    )
    quantisation: Quantisation | None = Field(
        None,
        exclude_if=lambda made: made is None,
        description="How `segment quantize` made the weights.",
    )

    @model_validator(mode="after")
    def _enough_classes(self) -> ModelCard:
        if self.output.kind != "index" and len(self.classes) == 1:
            raise ValueError(
                f"classes.names has one name, so every pixel has this class: name the background, too. {ONE_CHANNEL}"
            )
        if self.output.kind == "sigmoid" and len(self.classes) != 2:
            raise ValueError(
                f"classes.names has {len(self.classes)} names, but output.kind = 'sigmoid' has two classes, the "
                "background first"
            )
        return self

    @model_validator(mode="after")
    def _fits_tiles(self) -> ModelCard:
        if self.input.tiles is None:
            return self
        blend = self.input.tiles.blend
        if self.output.kind == "index" and blend != "centre":
            raise ValueError(
                f"input.tiles.blend = {blend!r} needs scores, but the graph gives a class index (output.kind = "
                "'index'): use 'centre', or export the graph without its argmax"
            )
        if self.output.threshold != 0.5 and blend == "mean":
            raise ValueError(
                "input.tiles.blend = 'mean' takes the class of the higher mean, which is a threshold of 0.5: use "
                "'centre' or 'confidence', by which each tile is compared with output.threshold"
            )
        if self.metric.resolution == "model":
            raise ValueError(
                "metric.resolution = 'model' is the size of one tile: with input.tiles images are scored at their own "
                "size, metric.resolution = 'source'"
            )
        return self

    @model_validator(mode="after")
    def _size_of_the_image(self) -> ModelCard:
        if self.input.is_dynamic and (self.output.height or self.output.width):
            raise ValueError("output.height and output.width follow from the image where input.height = 'image'")
        return self

    def at(self, size: Size) -> ModelCard:
        """Return the card for an input of one of its sizes (height, width); the card itself if it has only one."""
        return self.model_copy(update={"input": self.input.at(size)}) if self.input.is_dynamic else self

    @model_validator(mode="after")
    def _averaged(self) -> ModelCard:
        if self.ensemble and self.weights:
            raise ValueError("a card has weights or an ensemble: move the weights to an [[ensemble]] of their own")
        if len(self.ensemble) == 1:
            raise ValueError("an ensemble has two or more members: name another, or use [[weights]]")
        averaged = "ensemble" if self.ensemble else "input.tta" if self.input.tta else ""
        if averaged and self.output.kind == "index":
            raise ValueError(
                f"{averaged} averages probabilities, and a class index has none: export the graph without its argmax, "
                "and set output.kind and output.layout to what it gives then"
            )
        if self.input.scales and "(HW)" in self.output.layout:
            raise ValueError(
                f"the scales in input.tta need an output with height and width, and layout {self.output.layout!r} does "
                "not say them for another size of the input: export the graph without its last reshape, or remove them"
            )
        return self

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """Files of the weights, of all members of an ensemble."""
        return (*self.weights, *(file for member in self.ensemble for file in member.weights))

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


def is_built_in(card: ModelCard) -> bool:
    """Return whether a card is one of the built-in ones, unchanged."""
    return card.name in built_in_cards() and card == load_card(card.name)


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
    if suffix_of(reference) in (".onnx", ".xml", ".bin", ".tflite"):
        graph = f"{reference.removesuffix('.bin')}.xml" if reference.endswith(".bin") else reference  # OpenVINO has two
        raise UsageError(
            f"{shown(reference)} is a model, and --model takes its card, which says what goes in and comes out. "
            f"`segment models draft {argument(graph)} --to my-card.toml` drafts one; then: --model my-card.toml"
        )
    if not (is_url(reference) or reference.endswith(".toml") or "/" in reference):
        own = f"{reference}.toml"
        is_there = os.path.isfile(own)  # noqa: PTH113 - takes names that are too long, too
        meant = f" Did you mean '{shown(own)}'?" if is_there else did_you_mean(reference, built_in_cards())
        raise UsageError(
            f"no model card named '{shown(reference)}'.{meant} `segment models` lists the built-in cards; for your own "
            "card give its path (my-card.toml)."
        )
    url = to_url(reference)
    data = (store or Store()).read_given(url, most=MOST_TOML)
    if data is None:
        raise UsageError(with_hint(f"no model card at {shown(url)}: `segment models` lists the built-in ones", url))
    return parse_card(data, where=f"model card {shown(url)}", base=parent_url(url))


def parse_card(text: str | bytes, where: str = "model card", base: str | None = None) -> ModelCard:
    """Parse a card's TOML text.

    Args:
        text: TOML; bytes of it are UTF-8.
        where: name of the card in error messages.
        base: folder of the card, for relative URLs of weights.

    Raises:
        UsageError: invalid TOML, an unknown key (the message suggests a similar one), a missing or invalid value, a
            URL with a secret.
    """
    values = parse_toml(text, where)
    if "model" in values and "classes" not in values:
        raise UsageError(f"{where} is a job file, as `segment run --job` takes")
    try:
        card = ModelCard.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}:\n{validation_message(error, ModelCard)}") from None
    return card if base is None else _with_urls(card, to_url(base))


def _with_urls(card: ModelCard, base: str) -> ModelCard:
    """Return the card with URLs for the paths of its weights, which are relative to `base`."""

    def located(files: tuple[WeightsFile, ...]) -> tuple[WeightsFile, ...]:
        urls = (to_url(file.url) if is_url(file.url) else join_url(base, file.url) for file in files)
        return tuple(file.model_copy(update={"url": url}) for file, url in zip(files, urls, strict=True))

    ensemble = tuple(member.model_copy(update={"weights": located(member.weights)}) for member in card.ensemble)
    return card.model_copy(update={"weights": located(card.weights), "ensemble": ensemble})
