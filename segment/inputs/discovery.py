"""What discovery finds: the parts of an input, and the tars that are not indexed yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segment.inputs.findings import LeftOut, by_reason
from segment.inputs.parts import KeyRule, Part
from segment.store.client import Entry


@dataclass(frozen=True, slots=True)
class Unindexed:
    """Tars of an input that are listed and not indexed yet; what the first tars have decided for them.

    Attributes:
        key_rule: where keys of members end.
        part_size: images of a part.
        density: images per byte of the tars that were indexed first.
    """

    tars: tuple[Entry, ...]
    key_rule: KeyRule
    part_size: int
    density: float

    @property
    def images(self) -> int:
        """Number of images to expect."""
        return round(self.density * sum(entry.size for entry in self.tars))

    def to_json(self) -> dict[str, Any]:
        """Return the form that `plan.parquet` stores."""
        tars = [[entry.url, entry.size, entry.etag] for entry in self.tars]
        return {"tars": tars, "key_rule": self.key_rule, "part_size": self.part_size, "density": self.density}

    @staticmethod
    def from_json(item: Mapping[str, Any]) -> Unindexed:
        """Return the object that `to_json` stored."""
        return Unindexed(**{**item, "tars": tuple(Entry(*entry) for entry in item["tars"])})


@dataclass(frozen=True, slots=True)
class Discovery:
    """The content of an input.

    Attributes:
        each_part: all parts, shard by shard, in order; may be read several times, each of which takes its time.
        labelled: number of images with a label; None where it is unknown until rows are read (Parquet).
        warnings: one line for each problem, with counts.
        notes: one line for each decision.
        left_out: what the input holds and the run does not segment, by reason and place.
        unindexed: tars of the input whose images are not known yet; None if all are.
    """

    each_part: Iterable[Part]
    images: int
    labelled: int | None
    warnings: list[str]
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    unindexed: Unindexed | None = None

    @property
    def parts(self) -> list[Part]:
        """All parts at once; of a large input they take far more memory than their plan."""
        return list(self.each_part)

    @property
    def lines(self) -> list[str]:
        """All findings, one line each: notes first, then warnings with the prefix `warning: `."""
        left_out = by_reason(self.left_out)
        notes = [*self.notes, *(str(item) for item in left_out if not item.matters)]
        warnings = [*self.warnings, *(str(item) for item in left_out if item.matters)]
        return [*notes, *(f"warning: {warning}" for warning in warnings)]
