"""The audit of one part: its bytes against the manifest, its rows against the plan, its masks against its counts."""

import contextlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from segment.errors import NotAFile, SegmentError, StoreError
from segment.inputs.parts import Part
from segment.inputs.reads import read_ids
from segment.job import InputOptions
from segment.models.card import ModelCard
from segment.output.damage import DAMAGE, read_checked
from segment.output.faults import Fault
from segment.output.ledger import Ledger
from segment.output.manifest import masks_path
from segment.output.mask_columns import ExtraColumns
from segment.output.mask_files import MOST_PNG_PIXELS, mask_paths, masks_file_of, wrong_mask_files
from segment.output.object_checks import VERIFY
from segment.output.row_checks import wrong_footer, wrong_rows
from segment.output.shard_stats import ShardStats, fold
from segment.output.stored import MOST, Stored
from segment.output.tables import read_masks
from segment.output.value_checks import MaskValues, RunFacts, wrong_values
from segment.store.urls import join_url

COLUMNS = [
    "id", "uri", "shard", "part", "index", "width", "height", "brightness", "status", "error", "confusion",
    "pixel_accuracy", "miou",
]  # fmt: skip  # all that every run has, but the masks
_WITHOUT_ID = ("undecodable:", "killed_worker:", "out_of_memory:")  # errors of Parquet rows whose id was not read


class PartRows(NamedTuple):
    """The rows of a part without masks, their statistics, and whether the input could not be read for their ids."""

    rows: pa.Table
    stats: ShardStats
    is_unseen: bool


@dataclass(frozen=True)
class PartAudit:
    """What the audit of a part found.

    Attributes:
        found: its rows; None if its file is damaged.
        faults: of its file and its masks.
        objects: the objects that were read whole: the masks file, then masks in files of their own. Empty unless deep.
    """

    part: Part
    found: PartRows | None
    faults: list[Fault] = field(default_factory=list)
    objects: tuple[Stored, ...] = ()


class _MaskFiles(NamedTuple):
    """Masks of a part in files of their own, to which its rows point.

    Attributes:
        paths: by the position of the image.
        objects: what was found there, by path, unless it is not what was written.
        values: its pixels, by path; None if they cannot be decoded.
    """

    paths: Mapping[int, str]
    objects: dict[str, Stored]
    values: dict[str, MaskValues | None]


class PartAuditor:
    """Audits parts.

    Args:
        ledger: of the run; its `digests` are what the objects must have, where they are known.
        run: `run.json`.
        deep: read every byte; otherwise all columns but the masks.
        with_input: compare the ids of Parquet with the input, if `deep`.
    """

    def __init__(
        self, ledger: Ledger, run: Mapping[str, Any], card: ModelCard, *, deep: bool, with_input: bool = True
    ) -> None:
        self._ledger, self._fingerprint, self._deep = ledger, run["fingerprint"], deep
        self._with_input = with_input and deep
        self._options, self._classes = InputOptions.of_run(run), len(card.classes)
        extra = ExtraColumns.of_run(run, card)
        self._contract = contract = run["contract"]
        most = max(MOST_PNG_PIXELS, contract.get("max_pixels", 0))
        self._facts = RunFacts(card, contract.get("mask_size", "source"), extra, most)

    def audit(self, part: Part, size: int | None = None) -> PartAudit:
        """Read and check a part; `size` is that of its masks file, in bytes, if it was listed.

        Raises:
            StoreError: it cannot be read now.
        """
        try:
            if self._deep:
                url = self._ledger.masks_url(part.shard, part.id)
                return read_checked(url, lambda: self._read_whole(part))
            table = self._ledger.read_rows(part.shard, part.id, COLUMNS, size=size)
            return PartAudit(part, *self._checked(part, table))
        except StoreError:
            raise
        except (SegmentError, *DAMAGE):  # truncated, corrupted, deleted meanwhile, or not a masks file
            return PartAudit(part, None, of_part(part, [("damaged masks files", "is damaged")]))

    def _read_whole(self, part: Part) -> PartAudit:
        path = masks_path(part.shard, part.id)
        known = self._ledger.digests.group(path)
        data, file = self._read_object(path, known[0] if known else None)
        if known and file != known[0]:
            return PartAudit(part, None, of_part(part, [_OTHER_BYTES]), (file,))
        table = read_masks(io.BytesIO(data))
        files = self._read_files(part, table, {item.path: item for item in known})
        found, faults = self._checked(part, table, files)
        wrong = []
        if known and known[0].rows != len(table):
            wrong.append(("masks files of another number of rows than listed", "has other rows than the manifest says"))
        objects = (file._replace(rows=len(table)), *files.objects.values())
        return PartAudit(part, found, faults or of_part(part, wrong), objects)

    def _read_object(self, path: str, known: Stored | None) -> tuple[bytes, Stored]:
        """Read an object; once more if it is not the known one, as bytes may be damaged on their way."""
        url = join_url(self._ledger.output, path)
        for _ in range(2):
            data = self._ledger.store.read(url, most=MOST)
            found = Stored.of(path, data, known.rows if known else None)
            if known is None or found == known:
                break
        return data, found

    def _read_files(self, part: Part, table: pa.Table, known: Mapping[str, Stored]) -> _MaskFiles:
        """Read the masks in files of their own, each once. No place is read that is not of this part."""
        files = _MaskFiles(mask_paths(table), {}, {})
        for path in files.paths.values():
            if masks_file_of(path) == masks_path(part.shard, part.id):
                with contextlib.suppress(FileNotFoundError, NotAFile):  # which is a fault of its row
                    data, item = self._read_object(path, known.get(path))
                    if item == known.get(path, item):
                        files.objects[path], files.values[path] = item, MaskValues.of_tiff(data)
        return files

    def _checked(self, part: Part, table: pa.Table, files: _MaskFiles | None = None) -> tuple[PartRows, list[Fault]]:
        rows, stats = table.select(COLUMNS), fold(table, self._classes)
        ids = self._input_ids(part, rows) if self._with_input and not part.members else []
        extra = self._facts.extra
        wrong = list(wrong_rows(table, part, self._fingerprint, ids=ids, deep=self._deep, extra=extra))
        if files is not None:
            wrong += [*wrong_mask_files(part, files.paths, files.objects), *wrong_footer(table, self._contract)]
        if not wrong:
            wrong += wrong_values(table, part, self._facts, None if files is None else files.values)
        return PartRows(rows, stats, ids is None), of_part(part, wrong)

    def _input_ids(self, part: Part, rows: pa.Table) -> list[str] | None:
        """Read the ids of a Parquet part from the input; None if the input is gone, changed, damaged or not allowed."""
        try:
            ids = read_ids(part, self._options, self._ledger.store)
        except (SegmentError, *DAMAGE):
            return None
        held = zip(ids, rows["id"].to_pylist(), rows["error"].to_pylist(), strict=True)
        return [own if (error or "").startswith(_WITHOUT_ID) else name for name, own, error in held]


_OTHER_BYTES = ("masks files of other bytes than were written", "is not the file that was written (SHA-256)")


def of_part(part: Part, wrong: Iterable[tuple[str, str]]) -> list[Fault]:
    """Return faults of a part's masks file from their kinds and words."""
    name = masks_path(part.shard, part.id)
    return [Fault(kind, f"{name} {words}: {VERIFY}") for kind, words in wrong]
