"""How an input is read: the options of a job that concern its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from segment.inputs.label_patterns import is_label_pattern

InputFormat = Literal["auto", "files", "webdataset", "parquet", "list"]

# Option values that name no Parquet column.
ROW_NUMBERS = ":row"  # as id column: ids are row numbers
NO_LABELS = ":none"  # as label column: there are no labels

_MIB = 1 << 20


class InputOptions(BaseModel):
    """How an input is read.

    Attributes:
        format: format of the input; `auto` detects it from the file names.
        include_hidden: also read files whose name, or a folder of it, begins with `.` or `_`.
        labels: files: path or URL of the folder of label images, matched by relative path without suffix.
        label_pattern: files: path of an image's label relative to `labels` (or to the input without `labels`).
            The fields are `{stem}`, `{dir}` (folder relative to the input) and `{name}` of the image; as in a
            shell, `{stem%END}` drops an ending and `{stem#START}` drops a beginning.
        image_key: WebDataset: suffix of the image member, as in `left.jpg`; the key ends before it. None selects the
            only image of a sample, or the one with the plainest suffix.
        label_key: WebDataset: suffix of the label member, as in `seg.png`; None tries `seg.png`, `mask.png`
            and `label.png`.
        image_column, label_column, id_column: Parquet and lists: column names. In Parquet a name may also be a field
            of a struct column (`sample.image`); in a list without a header columns are named `1`, `2` and so on. None
            detects the column by its usual names. In Parquet, `id_column` `:row` selects row numbers, and
            `label_column` `:none` reads no labels.
        limit: number of images to read from the start of the input; None reads all.
        sample: number of images to read from all over the input, the same in every run (`segment.inputs.selection`).
        part_size: images in a part; `auto` follows from the number of images.
        part_bytes: limit in bytes of the encoded images and labels of a part with more than one image.
        max_image_bytes: limit in bytes of an encoded image; a larger one is an error row. It is not read where its
            size is known.
        max_row_group_bytes: Parquet: limit in bytes of a row group (of the columns that are read); a larger one is
            refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: InputFormat = "auto"
    include_hidden: bool = False
    labels: str | None = None
    label_pattern: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    limit: int | None = Field(default=None, ge=1)
    sample: int | None = Field(default=None, ge=1)
    part_size: int | Literal["auto"] = "auto"
    part_bytes: int = Field(default=256 * _MIB, ge=1)
    max_image_bytes: int = Field(default=256 * _MIB, ge=1)
    max_row_group_bytes: int = Field(default=1024 * _MIB, ge=1)

    @staticmethod
    def of_run(run: Mapping[str, Any]) -> InputOptions:
        """Return the options that `run.json` records."""
        given = run["contract"]["input"]
        return InputOptions(**{name: value for name, value in given.items() if name in InputOptions.model_fields})

    @field_validator("part_size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("part_size is 'auto' or at least 1")
        return value

    @model_validator(mode="after")
    def _one_selection(self) -> InputOptions:
        if self.limit is not None and self.sample is not None:
            raise ValueError("limit and sample both select images: give one of them")
        return self

    @field_validator("label_pattern")
    @classmethod
    def _known_fields(cls, value: str | None) -> str | None:
        if value is not None and not is_label_pattern(value):
            raise ValueError(
                "label_pattern takes {stem}, {dir} and {name}, as in '{dir}/{stem}_L.png'; {stem%END} and {stem#START} "
                "are the stem without an ending or a beginning, as in "
                "'{dir}/{stem%_leftImg8bit}_gtFine_labelIds.png'"
            )
        return value

    @field_validator("image_key", "label_key")
    @classmethod
    def _plain_key(cls, value: str | None) -> str | None:
        return value if value is None else value.removeprefix(".").lower()
