"""The table `output` of a model card: what the graph gives, and how a mask is made of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

Enlarging = Literal["bilinear", "nearest"]
Layout = Literal["NCHW", "NHWC", "NC(HW)", "N(HW)C", "NHW", "N1HW", "NHW1", "N(HW)"]
Side = Annotated[int, Field(ge=1, le=16384)]
Probability = Annotated[float, Field(gt=0, lt=1)]

STRICT = ConfigDict(extra="forbid", frozen=True, defer_build=True)

SCORE_LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC", "NC(HW)", "N(HW)C")
INDEX_LAYOUTS: tuple[Layout, ...] = ("NHW", "N1HW", "NHW1", "N(HW)")

# Advice for a binary model with one channel: its argmax is class 0 everywhere.
ONE_CHANNEL = (
    'One sigmoid channel is not a score per class: for a binary model set output.kind = "sigmoid" and name two '
    "classes, background first; if the graph ends before its sigmoid, set output.logit = true, too"
)

# Advice for several independent sigmoids.
MULTILABEL = (
    "several independent sigmoids give a pixel several classes or none, and a mask holds one class index per pixel. "
    'If the most probable class is wanted, set kind = "probabilities" ("logits" before the sigmoid); for a '
    "background where no class exceeds a threshold t, export the graph with it as the first channel: "
    "torch.cat([torch.full_like(p[:, :1], t), p], dim=1)"
)


class Output(BaseModel):
    """The graph's output."""

    model_config = STRICT

    name: str | None = Field(None, description="Name of the graph's output, required if it has several.")
    kind: Literal["index", "probabilities", "logits", "sigmoid"] = Field(
        description="`index`: class index per pixel; `probabilities`, `logits`: one score per class and pixel; "
        "`sigmoid`: one number per pixel, the probability of the second of two classes."
    )
    layout: Layout = Field(
        description="Order of the dimensions: `NCHW` or `NHWC` for scores; `NHW`, `N1HW` or `NHW1` for an index; any "
        "for a sigmoid. `(HW)` is one dimension of all pixels, row by row: `NC(HW)`, `N(HW)C` for scores, `N(HW)` for "
        "an index."
    )
    height: Side | None = Field(
        None,
        description="Height in pixels; the default is what the graph declares, else that of the input, as for `(HW)`.",
    )
    width: Side | None = Field(
        None,
        description="Width in pixels; the default is what the graph declares, else that of the input, as for `(HW)`.",
    )
    enlarge: Enlarging | None = Field(
        None,
        description="How an output smaller than the input is enlarged to it, within the graph: `bilinear` (half-pixel "
        "centres, scores only, before the argmax or threshold) or `nearest`. The default is `bilinear` for scores; a "
        "class index is always enlarged by `nearest`.",
    )
    threshold: Probability = Field(
        0.5,
        description="Kind `sigmoid` only: a pixel whose probability is higher has the second class, all others have "
        "the first.",
    )
    logit: bool = Field(
        False,
        description="Kind `sigmoid` only: the graph ends before its sigmoid, so its number is a logit. `threshold` "
        "stays a probability.",
    )

    maximum: Literal[255, 1] = Field(
        1,
        exclude_if=lambda number: number == 1,  # the identity of runs without it stays as it was
        description="Kind `sigmoid` only: the number that stands for probability 1, 255 for masks of 0 to 255.",
    )

    @property
    def enlarging(self) -> Enlarging:
        """`enlarge`, or its default."""
        return self.enlarge or ("nearest" if self.kind == "index" else "bilinear")

    @property
    def is_per_class(self) -> bool:
        """Whether the output has a score per class, of which the highest wins."""
        return self.kind in ("probabilities", "logits")

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts that fit `kind`."""
        if self.kind == "sigmoid":
            return (*SCORE_LAYOUTS, *INDEX_LAYOUTS)
        return INDEX_LAYOUTS if self.kind == "index" else SCORE_LAYOUTS

    @property
    def axes(self) -> str:
        """One letter per dimension of the graph's output: `layout` with P for pixels instead of `(HW)`."""
        return axes_of(self.layout)

    @property
    def pixel_layout(self) -> str:
        """`layout` with height and width apart."""
        return self.layout.replace("(HW)", "HW")

    @model_serializer(mode="wrap")
    def _without_fields_of_other_kinds(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing, so that the identity of runs does not change with every new kind."""
        values: dict[str, Any] = dump(self)
        others = () if self.kind == "sigmoid" else ("threshold", "logit")
        return {name: value for name, value in values.items() if name not in others}

    @field_validator("kind", mode="before")
    @classmethod
    def _one_class_per_pixel(cls, value: Any) -> Any:
        if value in ("multilabel", "multi-label", "sigmoids"):
            raise ValueError(MULTILABEL)
        return value

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.kind == "index" and self.enlarge == "bilinear":
            raise ValueError(
                "a class index can only be enlarged by 'nearest': between class 3 and class 5 is not class 4. "
                "'bilinear' is for scores (kind 'logits' or 'probabilities'): export the graph without its argmax"
            )
        if self.layout not in self.layouts:
            raise ValueError(
                f"layout {self.layout!r} does not fit kind {self.kind!r}: use one of {', '.join(self.layouts)}"
            )
        if self.kind != "sigmoid" and (self.logit or self.threshold != 0.5 or self.maximum != 1):
            raise ValueError(f"threshold, logit and maximum are for kind 'sigmoid', not for {self.kind!r}")
        if self.logit and self.maximum != 1:
            raise ValueError("a logit has no maximum: logit = true or maximum = 255")
        return self


def axes_of(layout: Layout) -> str:
    """Return one letter per dimension: P for pixels instead of `(HW)`."""
    return layout.replace("(HW)", "P")
