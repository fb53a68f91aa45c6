"""The options of a job for runtime and speed, and for what is written beside masks; see `sessions.extras`."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Measure = Literal["maximum", "margin", "entropy"]


class _Options(BaseModel):
    model_config = ConfigDict(defer_build=True)  # a worker gets its options pickled, and validates none


class KeepOptions(_Options):
    """Metadata: what is kept of each image beside its mask."""

    keep: tuple[str, ...] = Field(
        (),
        description="Keep these columns of Parquet files and lists, or keys of a tar's .json members, as text in the "
        "column `meta`.",
        examples=[["weather", "video"]],
    )

    @field_validator("keep")
    @classmethod
    def _single_columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.strip() for text in value for name in text.split(","))
        if "" in names:
            raise ValueError("keep: a name of a column is empty")
        if odd := next((name for name in names if name.startswith(":")), None):
            raise ValueError(f"keep: {odd!r} is no column; brightness is measured of every image without it")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"keep names {twice[0]!r} twice")
        return names


class ExtraOptions(_Options):
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


class BoundaryOptions(_Options):
    """Boundaries: how well outlines are found."""

    boundary: float | None = Field(
        None,
        ge=0.0001,
        le=1,
        description="Count boundary IoU, too: the IoU of the pixels whose distance to an outline is at most this "
        "fraction of the diagonal; 0.02 in its paper, 0.005 for Cityscapes.",
        examples=[0.02],
    )


class SpeedOptions(_Options):
    """Speed: exactness that may be given up."""

    decode: Literal["exact", "fast"] = Field(
        "exact",
        description="`fast` decodes a JPEG at 1/2, 1/4 or 1/8 of its size where the model sees it no larger than that; "
        "some pixels of masks change.",
    )


class RuntimeOptions(_Options):
    """Runtime: what runs the model."""

    runtime: Literal["auto", "onnxruntime", "openvino", "litert"] = Field(
        "auto", description="Library that runs the model; `auto` is resolved once, by what every node supports."
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field("auto", description="Device that runs the model.")
    precision: Literal["auto", "f32", "bf16", "f16"] = Field("auto", description="Floating-point type of the model.")
    allow_mixed_precision: bool = Field(
        False,
        description="With `auto`, let each node of a cluster compute in the fastest precision that it has, in place of "
        "one that all have. Masks then depend on the node that made them; every masks file says its precision.",
    )
    min_agreement: float = Field(
        0.99,
        ge=0,
        le=1,
        description="Share of pixels, 0-1, that must be as in f32 on a CPU, on the first images: below it `auto` takes "
        "f32, and a GPU is refused. 0 compares nothing.",
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="Images per call of the model; `auto` is 1 on CPUs and is measured on GPUs."
    )
