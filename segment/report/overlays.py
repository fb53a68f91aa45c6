"""Overlays of chosen images as files: a PNG each, or all on one contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segment.errors import SegmentError, UsageError
from segment.images import codec
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.report.filenames import Names
from segment.report.pictures import contact_sheet, look, overlay
from segment.report.rows import Row, find_rows, id_of, read_scores
from segment.store.client import Store
from segment.store.names import examples, shown
from segment.store.urls import join_url

_SHEET = 200  # images on one sheet


def chosen_rows(ledger: Ledger, plan: Plan, ids: Sequence[str], worst: int, sample: int) -> list[Row]:
    """The images of these ids; or the `worst` by mIoU; or a `sample` spread over the input.

    Raises:
        UsageError: not exactly one of the three is asked for; an id is in no committed part; nothing is scored.
        SegmentError: no image has a mask yet.
    """
    if sum(map(bool, (ids, worst, sample))) != 1:
        raise UsageError("say which images: --ids NAME (again for each), --worst N, or --sample N")
    if ids:
        found = find_rows(ledger, plan, ids)
        missing = [name for name, rows in found.items() if not rows]
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(found)} ids are not among the committed images of {shown(ledger.output)}, "
                f"{examples(missing)}. An id is as in the column `id` of masks/, suffix included"
            )
        return [row for rows in found.values() for row in rows]
    committed = ledger.committed(plan)
    if not committed:
        raise UsageError(f"no image of {shown(ledger.output)} is done yet")
    scores = read_scores(ledger, plan, committed)
    if worst and not len(scores.scored):
        raise UsageError(f"no image of {shown(ledger.output)} is scored, so none is the worst: use --sample {worst}")
    rows = scores.worst(worst) if worst else scores.sample(sample)
    if not rows:
        raise SegmentError(f"no committed image of {shown(ledger.output)} has a mask")
    return rows


@dataclass
class Overlays:
    """What was written: URLs, how many are the mask alone, how many are not called as their id."""

    urls: list[str] = field(default_factory=list)
    gone: int = 0
    renamed: int = 0


def write_overlays(
    ledger: Ledger, rows: Sequence[Row], task: Task, target: str, store: Store, opacity: float
) -> Overlays:
    """Write `<id>.png` below `target` for each row.

    Raises:
        SegmentError: a row has no mask; the store refused.
    """
    palette = task.card.classes.palette_array
    names = Names(id_of(ledger, row) for row in rows)
    written = Overlays()
    for row in rows:
        found = look(ledger, row, task)
        url = join_url(target, names.file(row.part.shard, found.id))
        store.write(url, codec.encode_png(overlay(found, palette, opacity)))
        written.urls.append(url)
        written.gone += found.photo is None
        written.renamed += names.is_changed(row.part.shard, found.id)
    return written


def write_sheet(ledger: Ledger, rows: Sequence[Row], task: Task, target: str, store: Store) -> str:
    """Write image, label and prediction of each row on one PNG, `target` itself or `contact-sheet.png` in it.

    Raises:
        UsageError: more images than a sheet holds.
        SegmentError: a row has no mask; the store refused.
    """
    if len(rows) > _SHEET:
        raise UsageError(f"a contact sheet holds {_SHEET} images, {len(rows)} are asked for")
    url = target if target.lower().endswith(".png") else join_url(target, "contact-sheet.png")
    store.write(url, codec.encode_png(contact_sheet(ledger, rows, task)))
    return url
