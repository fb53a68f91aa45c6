"""What a class is: names, palettes, ignored classes."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]

VOID = 255  # in a decoded label: this pixel is ignored and is no class


class Classes(BaseModel):
    """The classes of a data set.

    Attributes:
        names: class names by index.
        palette: RGB colour by index, as many as names.
        ignore: label values left out of every metric. A value below `len(names)` is a class that is
            ignored (CamVid's 'Unlabeled'); any other is 'void', such as VOC's 255.
        void_colours: RGB colours that mean 'void' in colour-coded labels, such as VOC's (224, 224, 192).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...] = Field(min_length=1, max_length=255)
    palette: tuple[Colour, ...]
    ignore: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()
    void_colours: tuple[Colour, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Classes:
        if len(self.palette) != len(self.names):
            raise ValueError(
                f"{len(self.names)} names but {len(self.palette)} palette colours: give one colour a class"
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError("class names must differ from each other")
        return self

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignored_classes(self) -> tuple[int, ...]:
        """Indices of the classes that no metric counts."""
        return tuple(sorted(value for value in set(self.ignore) if value < len(self.names)))

    @property
    def void_values(self) -> tuple[int, ...]:
        """Label values that are ignored and are no class."""
        return tuple(sorted(value for value in set(self.ignore) if value >= len(self.names)))

    def index(self, name: str) -> int:
        """Return the index of a class name (case does not matter). Raises KeyError."""
        lowered = [known.lower() for known in self.names]
        if name.lower() not in lowered:
            raise KeyError(name)
        return lowered.index(name.lower())

    @property
    def palette_array(self) -> NDArray[np.uint8]:
        """The palette as `uint8[C, 3]`, RGB."""
        return np.asarray(self.palette, dtype=np.uint8)
