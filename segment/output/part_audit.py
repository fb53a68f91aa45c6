"""The audit of one part: its bytes against the manifest, its rows against the plan, its masks against its counts."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from segment.errors import SegmentError, StoreError
from segment.inputs.discover import Part, read_ids
from segment.job import InputOptions
from segment.models.card import ModelCard
from segment.output.damage import DAMAGE, read_checked
from segment.output.faults import Fault
from segment.output.ledger import Ledger
from segment.output.manifest import masks_path
from segment.output.mask_columns import ExtraColumns
from segment.output.mask_files import masks_file_of, wrong_mask_files
from segment.output.object_checks import VERIFY
from segment.output.row_checks import wrong_rows
from segment.output.run_folder import MOST
from segment.output.stored import Stored
from segment.output.tables import ShardStats, fold, footer_of, read_masks
from segment.output.value_checks import RunFacts, wrong_values
from segment.store.urls import join_url

COLUMNS = [
    "id", "uri", "shard", "part", "index", "width", "height", "status", "error", "confusion", "pixel_accuracy", "miou",
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
        part: the part.
        found: its rows; None if its file is damaged.
        faults: of its file and its masks.
        objects: the objects that were read whole: the masks file, then masks in files of their own. Empty unless deep.
    """

    part: Part
    found: PartRows | None
    faults: list[Fault] = field(default_factory=list)
    objects: tuple[Stored, ...] = ()


class PartAuditor:
    """Audits parts.

    Args:
        ledger: of the run; its `digests` are what the objects must have, where they are known.
        run: `run.json`.
        card: of the model.
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
        self._facts = RunFacts(card, run["contract"].get("mask_size", "source"), extra, ledger.store, ledger.output)

    def audit(self, part: Part) -> PartAudit:
        """Read and check a part.

        Raises:
            StoreError: it cannot be read now.
        """
        try:
            if self._deep:
                url = self._ledger.masks_url(part.shard, part.id)
                return read_checked(url, lambda: self._read_whole(part))
            table = self._ledger.read_rows(part.shard, part.id, COLUMNS)
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
        found, faults = self._checked(part, table)
        files, wrong = self._read_files(part, table, known)
        if known and known[0].rows != len(table):
            wrong.append(("masks files of another number of rows than listed", "has other rows than the manifest says"))
        return PartAudit(part, found, faults or of_part(part, wrong), (file._replace(rows=len(table)), *files))

    def _read_object(self, path: str, known: Stored | None) -> tuple[bytes, Stored]:
        """Read an object; once more if it is not the known one, as bytes may be damaged on their way."""
        url = join_url(self._ledger.output, path)
        for _ in range(2):
            data = self._ledger.store.read(url, most=MOST)
            found = Stored.of(path, data, known.rows if known else None)
            if known is None or found == known:
                break
        return data, found

    def _read_files(
        self, part: Part, table: pa.Table, known: tuple[Stored, ...]
    ) -> tuple[list[Stored], list[tuple[str, str]]]:
        """Read the masks in files of their own, which the footer names; their names hold the digests they must have."""
        files = footer_of(table).get("files", [])
        expected = {item.path: item for item in known[1:]}
        found, wrong = list[Stored](), list[tuple[str, str]]()
        for path in files if isinstance(files, list) else []:
            if masks_file_of(str(path)) != masks_path(part.shard, part.id):
                continue  # the row that points to it has a fault, and no other place is read
            try:
                _, item = self._read_object(path, expected.get(path))
            except FileNotFoundError:
                continue  # as above
            found.append(item)
            if path in expected and item != expected[path]:
                wrong.append(("masks that are damaged or lost", f"points to {path}, which is not what was written"))
        return found, wrong

    def _checked(self, part: Part, table: pa.Table) -> tuple[PartRows, list[Fault]]:
        rows, stats = table.select(COLUMNS), fold(table, self._classes)
        ids = self._input_ids(part, rows) if self._with_input and not part.members else []
        extra = self._facts.extra
        wrong = list(wrong_rows(table, part, self._fingerprint, ids=ids, deep=self._deep, extra=extra))
        if self._deep:
            wrong += wrong_mask_files(self._ledger.store, self._ledger.output, part, table)
        if not wrong:
            wrong += wrong_values(table, self._facts, deep=self._deep)
        return PartRows(rows, stats, ids is None), of_part(part, wrong)

    def _input_ids(self, part: Part, rows: pa.Table) -> list[str] | None:
        """Read the ids of a Parquet part from the input; None if the input is gone, changed or damaged."""
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
