"""The columns of masks files: those of every run, and those that a run has beside them (`ExtraColumns`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from segment.inputs.metadata import Values
from segment.metrics import BoundaryCounts
from segment.models.card import ModelCard
from segment.models.sessions.extras import Extras

CELLS = pa.struct([("cell", pa.list_(pa.int32())), ("count", pa.list_(pa.int64()))])
MASK = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_REGIONS = ("both", "label", "prediction")  # in the order of `BoundaryCounts.counts`
BOUNDARY = pa.struct([("class_id", pa.list_(pa.int32())), *((name, pa.list_(pa.int64())) for name in _REGIONS)])

MASKS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("brightness", pa.float32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("mask", MASK),
        pa.field("confusion", CELLS),
        pa.field("pixel_accuracy", pa.float64()),
        pa.field("miou", pa.float64()),
    ]
)
_SCALAR_FEATURES = {
    pa.string(): "string",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.float32(): "float32",
    pa.float64(): "float64",
}
_IMAGE = {"_type": "Image"}
_TEXT = {"dtype": "string", "_type": "Value"}
_INDICES, _PIXELS = ({"feature": {"dtype": kind, "_type": "Value"}, "_type": "List"} for kind in ("int32", "int64"))


class ImageExtras(NamedTuple):
    """What is written beside the mask of an image.

    Attributes:
        confidence: mean of the measure over the image's pixels, 0-1; None without a measure.
        by_class: the same over the pixels of each predicted class, None where there are none.
        map: PNG of the measure of every pixel, 0-255; None without maps, and for an image too large for one.
        probabilities: PNG of the probability of each chosen class, 0-255; none as `map`.
        boundary: pixels of boundary regions; None where they are not counted, or without a label.
    """

    confidence: float | None = None
    by_class: tuple[float | None, ...] = ()
    map: bytes | None = None
    probabilities: tuple[bytes, ...] = ()
    boundary: BoundaryCounts | None = None


@dataclass(frozen=True, slots=True)
class ExtraColumns:
    """The columns that a run has beside those of every run; none by default.

    Attributes:
        confidence: whether there are `mean_confidence` and `class_confidence`.
        maps: whether there is `confidence`, PNGs of the pixels' measure.
        classes: names of the classes whose probabilities are in `probabilities`, a struct of PNGs by class name.
        meta: names of the fields of `meta`, a struct of text: what is kept of the images' metadata.
        measured: those of `meta` that are none of the input's: `brightness`, in runs up to format 4.
        boundary: whether there is `boundary`, counts of boundary regions of the classes that have one.
    """

    confidence: bool = False
    maps: bool = False
    classes: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    boundary: bool = False

    @staticmethod
    def of(
        extras: Extras, maps: bool, card: ModelCard, *, keep: Sequence[str] = (), boundary: bool = False
    ) -> ExtraColumns:
        """Return the columns for what sessions return, for `Job.keep`, and for boundaries if they are counted."""
        names = tuple(card.classes.names[index] for index in extras.probabilities)
        meta = tuple(name.removeprefix(":") for name in keep)
        measured = tuple(name.removeprefix(":") for name in keep if name.startswith(":"))
        return ExtraColumns(extras.confidence is not None, maps, names, meta, measured, boundary)

    @staticmethod
    def of_run(run: Mapping[str, Any], card: ModelCard) -> ExtraColumns:
        """Return the columns of a run, given its `run.json`."""
        contract = run["contract"]
        wanted = contract.get("confidence") or {"measure": None, "maps": False}
        extras = Extras(wanted["measure"], tuple(contract.get("probabilities", ())))
        keep = contract["input"].get("keep", ())
        boundary = "boundary" in contract
        return ExtraColumns.of(extras, wanted["maps"], card, keep=keep, boundary=boundary)

    @property
    def fields(self) -> list[pa.Field]:
        """The fields, in order; null in error rows without a mask, except `meta`."""
        fields = []
        if self.confidence:
            fields += [pa.field("mean_confidence", pa.float64()), pa.field("class_confidence", pa.list_(pa.float64()))]
        if self.maps:
            fields.append(pa.field("confidence", MASK))
        if self.classes:
            fields.append(pa.field("probabilities", pa.struct([pa.field(name, MASK) for name in self.classes])))
        if self.meta:
            fields.append(pa.field("meta", pa.struct([pa.field(name, pa.string()) for name in self.meta])))
        if self.boundary:
            fields.append(pa.field("boundary", BOUNDARY))
        return fields

    @property
    def plain(self) -> list[str]:
        """The leaves that hold PNGs, which are compressed already."""
        names = ["confidence.bytes"] if self.maps else []
        return names + [f"probabilities.{name}.bytes" for name in self.classes]

    @property
    def features(self) -> dict[str, object]:
        """The Hugging Face features; see `features_of`."""
        number = {"dtype": "float64", "_type": "Value"}
        known = {
            "mean_confidence": number,
            "class_confidence": {"feature": number, "_type": "List"},
            "confidence": _IMAGE,
            "probabilities": dict.fromkeys(self.classes, _IMAGE),
            "meta": dict.fromkeys(self.meta, _TEXT),
            "boundary": {"class_id": _INDICES} | dict.fromkeys(_REGIONS, _PIXELS),
        }
        return {field.name: known[field.name] for field in self.fields}

    def arrays(self, rows: Sequence[ImageExtras | None], metas: Sequence[Values]) -> list[pa.Array]:
        """Return the columns of some rows; `metas` are their values of `meta`, empty where it is null."""
        values = [{} if row is None else self._values(row) for row in rows]
        for value, meta in zip(values, metas, strict=True):
            if meta:
                value["meta"] = dict(zip(self.meta, meta, strict=True))
        return [pa.array([value.get(field.name) for value in values], field.type) for field in self.fields]

    def _values(self, row: ImageExtras) -> dict[str, Any]:
        return {
            "mean_confidence": row.confidence,
            "class_confidence": row.by_class,
            "confidence": None if row.map is None else {"bytes": row.map},
            "probabilities": {name: {"bytes": png} for name, png in zip(self.classes, row.probabilities, strict=True)}
            if row.probabilities
            else None,
            "boundary": None if row.boundary is None else _sparse(row.boundary),
        }


def _sparse(boundary: BoundaryCounts) -> dict[str, list[int]]:
    """Return the counts of the classes that have a boundary region."""
    found = np.flatnonzero(boundary.counts.any(axis=0))
    counts = zip(_REGIONS, boundary.counts[:, found].tolist(), strict=True)
    return {"class_id": found.tolist(), **dict(counts)}


NO_COLUMNS = ExtraColumns()


def masks_schema(extra: ExtraColumns = NO_COLUMNS) -> pa.Schema:
    """Return the schema of a run's masks files."""
    return pa.schema([*MASKS_SCHEMA, *extra.fields])


def features_of(extra: ExtraColumns) -> dict[str, object]:
    """Return Hugging Face `datasets` features, with which `load_dataset("parquet", ...)` decodes masks as images."""
    features: dict[str, object] = {
        field.name: {"dtype": _SCALAR_FEATURES[field.type], "_type": "Value"}
        for field in MASKS_SCHEMA
        if field.type in _SCALAR_FEATURES
    }
    features["mask"] = _IMAGE
    features["confusion"] = {"cell": _INDICES, "count": _PIXELS}
    return {name: features[name] for name in MASKS_SCHEMA.names} | extra.features
