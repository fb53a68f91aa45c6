"""Overlays of selected images: one PNG each, or one contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from segment.errors import SegmentError, UsageError
from segment.images import codec
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.report.exports.destination import check_files
from segment.report.filenames import Names
from segment.report.pictures import contact_sheet, overlay, read_view
from segment.report.rows import Row, find_rows, id_of, read_scores
from segment.store.names import examples, shown
from segment.store.urls import join_url

_LARGEST_SHEET = 200  # images


def chosen_rows(
    ledger: Ledger, plan: Plan, ids: Sequence[str], worst: int, sample: int, least_certain: int = 0
) -> list[Row]:
    """Select images by id, the `worst` ones by mIoU, the `least_certain` ones, or a `sample` spread over the input.

    Raises:
        UsageError: not exactly one of these is given; an id is in no committed part; no image is scored, or has a
            confidence.
        SegmentError: no image has a mask yet.
    """
    if sum(map(bool, (ids, worst, sample, least_certain))) != 1:
        raise UsageError(
            "choose images with one of: --ids ID (once per image), --worst N, --least-certain N, --sample N"
        )
    if ids:
        found = find_rows(ledger, plan, ids)
        missing = [name for name, rows in found.items() if not rows]
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(found)} ids are not among the committed images of {shown(ledger.output)}, "
                f"{examples(missing)}. Give ids as in the column `id` of masks/, with their suffix"
            )
        return [row for rows in found.values() for row in rows]
    if least_certain and not (ledger.read_run() or {}).get("contract", {}).get("confidence"):
        raise UsageError(
            f"the run at {shown(ledger.output)} was made without --confidence, so none of its images is known as the "
            f"least certain: use --sample {least_certain}, or run again with --confidence maximum to another output"
        )
    committed = ledger.committed(plan)
    if not committed:
        raise UsageError(f"no image of {shown(ledger.output)} is done yet")
    scores = read_scores(ledger, plan, committed)
    if worst and not len(scores.scored):
        raise UsageError(f"no image of {shown(ledger.output)} is scored, so none is the worst: use --sample {worst}")
    if worst:
        rows = scores.worst(worst)
    elif least_certain:
        rows = scores.least_certain(least_certain)
    else:
        rows = scores.sample(sample)
    if not rows:
        raise SegmentError(f"no committed image of {shown(ledger.output)} has a mask")
    return rows


@dataclass
class Overlays:
    """The result: URLs of the files, overlays without a source image, files not named like their id."""

    urls: list[str] = field(default_factory=list)
    gone: int = 0
    renamed: int = 0


def write_overlays(
    ledger: Ledger, plan: Plan, rows: Sequence[Row], task: Task, target: str, opacity: float
) -> Overlays:
    """Write `<id>.png` below `target` for each row.

    Raises UsageError: a file of this name is an image or a label of the run; SegmentError: a row has no mask, or the
    store refuses a request.
    """
    classes = task.card.classes
    ids = [id_of(ledger, row) for row in rows]
    names = Names.of_run(ledger, plan, of=ids)
    files = (names.file(row.part.shard, name) for row, name in zip(rows, ids, strict=True))
    written = Overlays([join_url(target, file) for file in files])
    check_files(ledger.store, plan, written.urls)
    for row, url in zip(rows, written.urls, strict=True):
        view = read_view(ledger, row, task)
        ledger.store.write(url, codec.encode_png(overlay(view, classes, opacity)))
        written.gone += view.photo is None
        written.renamed += names.is_changed(row.part.shard, view.id)
    return written


def write_sheet(ledger: Ledger, plan: Plan, rows: Sequence[Row], task: Task, target: str) -> str:
    """Write image, label and prediction of each row to one PNG: `target`, or `contact-sheet.png` in this folder.

    Raises UsageError: there are more images than a sheet holds, or the file is an image or a label of the run;
    SegmentError: a row has no mask, or the store refuses a request.
    """
    if len(rows) > _LARGEST_SHEET:
        raise UsageError(f"a contact sheet holds at most {_LARGEST_SHEET} images, not {len(rows)}")
    url = target if target.lower().endswith(".png") else join_url(target, "contact-sheet.png")
    check_files(ledger.store, plan, [url])
    ledger.store.write(url, codec.encode_png(contact_sheet(ledger, rows, task)))
    return url
