"""Classes of a data set: names, palette, ignored values."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from segment.store.foreign_text import is_visible, visible
from segment.store.names import shown

Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]  # RGB

_NOTHING = frozenset({"background", "bg", "unlabeled", "unlabelled", "unknown", "void", "ignore", "nothing"})

VOID = 255  # in a decoded label: the pixel is ignored and has no class


LONGEST_NAME = 200  # characters of a class name
_NAMED = 6  # classes that a message names


def _fit_to_show(names: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"the name of class {index} is empty: name the class, if only by its number")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"the name of class {index} has {len(name):,} characters: {LONGEST_NAME} is the limit")
        if not is_visible(name):
            raise ValueError(
                f"the name of class {index}, '{visible(name)}', holds characters that are not seen: a line break or "
                "another control character, one that turns the text, or one without width. Remove them"
            )
    return names


ClassNames = Annotated[tuple[str, ...], AfterValidator(_fit_to_show)]


def background_of(names: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the names that stand for no object.

    >>> background_of(["Background", "cat", "__bg__", "sky"])
    (0, 2)
    """
    words = ["".join(filter(str.isalpha, name)).lower() for name in names]
    return tuple(index for index, word in enumerate(words) if word in _NOTHING)


def named(names: Sequence[str]) -> str:
    """Return the first classes of a list as text, with their indices: `0 Sky, 1 Building, ...`."""
    told = [f"{index} {shown(name)}" for index, name in enumerate(names[:_NAMED])]
    return f"{', '.join(told)}{', ...' * (len(names) > _NAMED)}"


def index_of(name: str, names: Sequence[str]) -> int | None:
    """Return the index of a name; of one that is written in other letters, such as `road` for `Road`; None for none.

    >>> index_of("car", ("Car", "car")), index_of("CAR", ("Car", "car")), index_of("van", ("Car",))
    (1, 0, None)
    """
    exact = (index for index, known in enumerate(names) if known == name)
    alike = (index for index, known in enumerate(names) if known.lower() == name.lower())
    return next(itertools.chain(exact, alike), None)


class Classes(BaseModel):
    """The classes of a data set."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    names: ClassNames = Field(min_length=1, max_length=255, description="Class names by index.")
    palette: tuple[Colour, ...] = Field(description="RGB colours by index, one per class.")
    ignore: tuple[Byte, ...] = Field(
        (),
        description="Label values that no metric counts. A value below the number of classes is an ignored class, such "
        "as CamVid's 'Unlabeled'; any other value is void, such as VOC's 255.",
    )
    void_colours: tuple[Colour, ...] = Field(
        (), description="RGB colours of void pixels in colour-coded labels, such as VOC's (224, 224, 192)."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.palette) != len(self.names):
            raise ValueError(
                f"{len(self.names)} names but {len(self.palette)} palette colours: give one colour per class"
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError("class names must be unique")
        return self

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignored_classes(self) -> tuple[int, ...]:
        """Indices of the ignored classes, ascending."""
        return tuple(sorted(value for value in set(self.ignore) if value < len(self.names)))

    @property
    def background_classes(self) -> tuple[int, ...]:
        """Indices of the classes that are no object by their names, such as 'background': pictures leave them clear."""
        return background_of(self.names)

    @property
    def void_values(self) -> tuple[int, ...]:
        """Ignored label values that are not classes, ascending."""
        return tuple(sorted(value for value in set(self.ignore) if value >= len(self.names)))

    def index(self, name: str) -> int:
        """Return the index of a class name; of one that is written in other letters, such as `road` for `Road`.

        Raises KeyError: there is no such class.
        """
        found = index_of(name, self.names)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def palette_array(self) -> NDArray[np.uint8]:
        """The palette as `uint8[C, 3]`, RGB."""
        return np.asarray(self.palette, dtype=np.uint8)
