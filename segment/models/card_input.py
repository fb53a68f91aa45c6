"""The table `input` of a model card: what the graph takes, and how an image is brought to it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, WithJsonSchema, model_serializer, model_validator

from segment.models.buckets import LARGEST_SIDE, Size, bucket_size, scaled_size, step_of, trial_side
from segment.models.card_output import STRICT, Side
from segment.models.card_tiles import Tiles
from segment.models.classes import Byte
from segment.store.names import count

Channels = Literal["RGB", "BGR", "GREY", "BANDS"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Resampler = Literal["pillow", "opencv"]
IMAGE = "image"
_MULTIPLE_OF = 32
# In a card also "image"; in memory always a number, see `Input.is_dynamic`.
InputSide = Annotated[
    Side,
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": LARGEST_SIDE}, {"const": IMAGE}]}),
]
_MOST_BANDS = 64
Finite = Annotated[float, Field(allow_inf_nan=False)]
ByChannel = Annotated[tuple[Finite, ...], Field(min_length=1, max_length=_MOST_BANDS)]
Band = Annotated[int, Field(ge=1, le=1024)]

View = Literal["flip"] | Annotated[float, Field(ge=0.1, le=4)]


def _says_nothing(value: object) -> bool:
    """Leave a field out of a dump where it is None, so that the identity of runs without it stays as it was."""
    return value is None


class Resize(BaseModel):
    """How an image is resized to the model's input."""

    model_config = STRICT

    method: Literal["stretch", "letterbox", "pad", "none", "short_side"] = Field(
        "stretch",
        description="`stretch` fills height and width; `letterbox` keeps the aspect ratio and fills height or width; "
        "`pad` keeps the aspect ratio and only shrinks: an image that fits keeps its pixels; `none` scales nothing: "
        "a smaller image gets a border, a larger one is an error row; `short_side` scales the shorter side to a number "
        "of pixels. With height and width `image` the default is `none`, and `short_side` is the other choice.",
    )
    short_side: Side | None = Field(
        None,
        exclude_if=_says_nothing,
        description="Method `short_side` only: pixels of the shorter side; the longer one is "
        "`int(short_side * longer / shorter)`, as by torchvision's `Resize(short_side)`.",
    )
    anchor: Literal["top-left", "centre"] = Field(
        "top-left",
        description="Position of the image for `letterbox`, `pad` and `none`: `top-left` with the border right and "
        "below, or `centre`; the larger half of an odd border is right and below.",
    )
    resampler: Resampler = Field(
        "pillow", description="Library: Pillow's and OpenCV's 'bilinear' are different functions."
    )
    interpolation: Interpolation = Field(
        "bilinear", description="Kernel. When shrinking, Pillow's `bilinear` is antialiased, OpenCV's is not."
    )
    pad: Annotated[tuple[Byte, ...], Field(min_length=1, max_length=_MOST_BANDS)] = Field(
        (0, 0, 0), description="Value of the border, 0-255: RGB, or one number for each of `bands`."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.resampler == "pillow" and self.interpolation == "area":
            raise ValueError("'area' is an OpenCV interpolation; with resampler = 'pillow' use 'bilinear', or 'opencv'")
        if self.method == "stretch" and self.anchor != "top-left":
            raise ValueError("'stretch' has no border: anchor is for method = 'letterbox' and 'pad'")
        if (self.method == "short_side") != (self.short_side is not None):
            raise ValueError("method = 'short_side' and short_side = PIXELS go together")
        return self


class Input(BaseModel):
    """The graph's input: `(pixel / 255 * maximum - mean) / std`, channel by channel."""

    model_config = STRICT

    name: str | None = Field(None, description="Name of the graph's input, required if it has several.")
    layout: Literal["NCHW", "NHWC"] = Field(description="Order of the dimensions.")
    height: InputSide = Field(
        description="Height in pixels; `image` (height and width both) runs the model at the size of each image, "
        "padded right and below to a multiple of `multiple_of`."
    )
    width: InputSide = Field(description="Width in pixels, or `image`.")
    multiple_of: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        exclude_if=_says_nothing,
        description="With height and width `image` only: number of which the sides of the input are multiples, 32 by "
        "default. Sides from 16 times this number on are multiples of its double, from 32 times on of its quadruple, "
        "and so on, so that the runtime sees few sizes.",
    )
    channels: Channels = Field(
        description="Order of the colour channels; `GREY` is one channel of luma (ITU-R 601, rounded as Pillow's `L`), "
        "computed within the graph after the resize; `BANDS` are those of `bands`, the default where they are given."
    )
    bands: Annotated[tuple[Band, ...], Field(min_length=1, max_length=_MOST_BANDS)] | None = Field(
        None,
        exclude_if=_says_nothing,
        description="`BANDS` only: the bands of a multi-band TIFF that the graph takes, in its order, counted from 1. "
        "Other images have the bands red, green, blue.",
    )
    band_range: tuple[Finite, Finite] | None = Field(
        None,
        exclude_if=_says_nothing,
        description="`BANDS` only: numbers of 16-bit bands that become 0 and 255. Those between are mapped linearly "
        "and rounded, those beyond clipped. Without it bands have 8 bits.",
    )
    maximum: Literal[255, 1] = Field(255, description="Value of the brightest pixel before normalisation.")
    mean: ByChannel = Field(
        (0.0, 0.0, 0.0),
        description="Subtracted; in units of `maximum`, in the order of `channels` or `bands`; one value for `GREY`.",
    )
    std: ByChannel = Field(
        (1.0, 1.0, 1.0), description="Divisor; in units of `maximum`, in the order of `channels`; one value for `GREY`."
    )
    resize: Resize = Field(Resize.model_construct(), description="How images are resized to height and width.")
    tiles: Tiles | None = Field(
        None, exclude_if=_says_nothing, description="Instead of a resize: images of any size, in tiles of the input's."
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
        return 1 if self.channels == "GREY" else self.planes

    @property
    def planes(self) -> int:
        """Number of channels of an image on its way to the session: 3, or the number of bands."""
        return len(self.bands) if self.bands else 3

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_grey(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("channels") == "GREY":
            return {"mean": (0.0,), "std": (1.0,), **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_bands(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("bands") is None:
            return values
        values = {"channels": "BANDS", **values}
        if not isinstance(values["bands"], list | tuple) or not values["bands"]:
            return values  # which is an error
        number, resize = len(values["bands"]), values.get("resize", {})
        if isinstance(resize, dict):
            resize = {"pad": (0,) * number, **resize}
        return {"mean": (0.0,) * number, "std": (1.0,) * number, **values, "resize": resize}

    @model_validator(mode="after")
    def _bands(self) -> Self:
        if (self.channels == "BANDS") != (self.bands is not None):
            raise ValueError('channels = "BANDS" and bands = [...] go together')
        if self.band_range and (not self.bands or self.band_range[0] >= self.band_range[1]):
            raise ValueError("band_range = [low, high] is for 16-bit bands, with low below high")
        if len(self.resize.pad) != self.planes:
            given = count(len(self.resize.pad), "value")
            raise ValueError(f"resize.pad has {given}, but an image has {self.planes} channels")
        return self

    @property
    def is_dynamic(self) -> bool:
        """Whether the model runs at the size of each image; `height` and `width` are then those of its trial."""
        return self.multiple_of is not None

    @property
    def sides(self) -> tuple[str, str]:
        """Height and width as the card says them."""
        return (IMAGE, IMAGE) if self.is_dynamic else (str(self.height), str(self.width))

    @property
    def channels_in_words(self) -> str:
        """`channels`, or the bands and their range."""
        if self.bands is None:
            return self.channels
        depth = f" (16 bits, {self.band_range[0]:g} to {self.band_range[1]:g})" if self.band_range else ""
        return f"bands {', '.join(map(str, self.bands))}{depth}"

    def shape(self, batch: int) -> list[int]:
        """Shape of the graph's input for a batch."""
        sizes = {"N": batch, "C": self.depth, "H": self.height, "W": self.width}
        return [sizes[axis] for axis in self.layout]

    def size_for(self, size: Size) -> Size:
        """Return height and width of the input for an image of a size that is scaled already."""
        return bucket_size(size, self.multiple_of) if self.multiple_of else (self.height, self.width)

    def at(self, size: Size) -> Self:
        """Return the input at one of its sizes (height, width)."""
        return self.model_copy(update={"height": size[0], "width": size[1]}) if self.is_dynamic else self

    @model_validator(mode="before")
    @classmethod
    def _size_of_the_image(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        height, width = values.get("height"), values.get("width")
        if IMAGE not in (height, width):
            if values.get("multiple_of") is not None:
                raise ValueError("multiple_of is for height = 'image' and width = 'image'")
            return values
        if height != width:
            raise ValueError("height and width are both 'image', or both numbers")
        multiple_of, resize = values.get("multiple_of", _MULTIPLE_OF), values.get("resize", {})
        side = trial_side(multiple_of) if isinstance(multiple_of, int) and multiple_of > 0 else 1
        if isinstance(resize, dict):
            resize = {"method": "none", **resize}
        return {**values, "height": side, "width": side, "multiple_of": multiple_of, "resize": resize}

    @model_validator(mode="after")
    def _resize_fits_size(self) -> Self:
        resize = self.resize
        if not self.is_dynamic and resize.method == "short_side":
            raise ValueError(
                "resize.method = 'short_side' leaves the longer side open, and nothing is cropped, as a mask has every "
                "pixel of its image: set height = 'image' and width = 'image'"
            )
        if self.is_dynamic and resize.method not in ("none", "short_side"):
            raise ValueError(
                f"height = 'image' leaves an image its shape: resize.method = 'none' or 'short_side', not "
                f"{resize.method!r}"
            )
        if self.is_dynamic and self.scales:
            raise ValueError("the scales in tta need one size: remove them, or say height and width in pixels")
        if self.is_dynamic and resize.anchor != "top-left":
            raise ValueError("height = 'image' pads right and below: resize.anchor = 'top-left'")
        return self

    @model_serializer(mode="wrap")
    def _as_in_a_card(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        return {**values, "height": IMAGE, "width": IMAGE} if self.is_dynamic else values

    @model_validator(mode="after")
    def _normalisation(self) -> Self:
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.depth:
                named = "bands" if self.bands else f"channels = {self.channels!r}"
                raise ValueError(f"{key} has {count(len(values), 'value')}, but {named} needs {self.depth}")
        if 0.0 in self.std:
            raise ValueError("std must not contain a zero: pixels are divided by it")
        return self

    @model_validator(mode="after")
    def _fits_tiles(self) -> Self:
        if self.tiles is None:
            return self
        if self.is_dynamic:
            raise ValueError("tiles have one size, which height = 'image' does not say: give height and width")
        self.tiles.check_side("height", self.height)
        self.tiles.check_side("width", self.width)
        if self.resize.model_copy(update={"pad": Resize().pad}) != Resize():
            raise ValueError("with tiles no image is resized: leave out all of resize but resize.pad")
        return self

    @model_validator(mode="after")
    def _different_views(self) -> Self:
        plain = f"{self.height}x{self.width} pixels"
        seen: dict[tuple[int, int], str] = {(self.height, self.width): "the plain view"}
        for scale in self.scales:
            size = scaled_size(self.height, self.width, scale)
            if size in seen:
                steps = f"{step_of(self.height)} rows and {step_of(self.width)} columns"
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
