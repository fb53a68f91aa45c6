"""What a card says of weights that `segment quantize` made: from which, how, and at what price."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from segment.models.card_output import STRICT

Method = Literal["onnxruntime", "nncf"]
Share = Annotated[float, Field(ge=0, le=1)]


class Price(BaseModel):
    """What the quantised model costs on one runtime, against the source in f32."""

    model_config = STRICT

    runtime: str = Field(description="Runtime, and precision of what is left in floating point.")
    images: Annotated[int, Field(gt=0)] = Field(description="Number of images that were compared.")
    agreement: Share = Field(description="Share of the pixels that have the same class as by the source, 0-1.")
    miou_before: Share | None = Field(None, description="mIoU of the source, 0-1; by the card's convention.")
    miou_after: Share | None = Field(None, description="mIoU of the quantised model.")


class Quantisation(BaseModel):
    """How weights were quantised."""

    model_config = STRICT

    source: str = Field(description="File name of the weights that were quantised.")
    source_sha384: tuple[str, ...] = Field(description="SHA-384 of each file of them.")
    method: Method = Field(description="What quantised them.")
    settings: str = Field(description="Its settings.")
    images: Annotated[int, Field(gt=0)] = Field(description="Number of images it was calibrated with.")
    images_sha384: str = Field(description="SHA-384 of the pixels of these, as the network got them.")
    seed: int = Field(description="Of the choice of these images.")
    versions: dict[str, str] = Field(description="Versions of the tools, by name.")
    price: tuple[Price, ...] = Field((), description="What the model costs, on each runtime that serves it.")
