"""Runs that are written, not run: the files of a run, from masks and labels of a test's own."""

import copy
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.errors import sample_error_text
from segment.images.mask_png import encode_mask
from segment.inputs.parts import Part
from segment.metrics import BoundaryCounts, Confusion, image_scores
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.mask_columns import ExtraColumns, ImageExtras
from segment.output.mask_files import write_mask_file
from segment.output.mask_tiff import MaskWriter
from segment.output.plan import Plan
from segment.output.run_folder import to_json
from segment.output.tables import ImageRow, write_masks
from segment.scores.boundaries import fraction_of
from segment.store.client import Store


@dataclass(frozen=True, eq=False)
class Made:
    """An image of a written run: a mask and a label `uint8[H, W]`; an error row without a mask.

    `size` is that of the image where the mask is smaller; the counts are those of the mask, at its size. `in_file` puts
    the mask into a file of its own, as if it were large. `place` is where its source is. `meta` are
    the values that the run keeps. A run whose contract says so has boundary counts.
    """

    id: str
    mask: NDArray[np.uint8] | None
    label: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None
    in_file: bool = False
    place: str = "s3://b"
    meta: tuple[str | None, ...] = ()


def write_run(
    output: Path,
    template: Mapping[str, Any],
    shards: Mapping[str, Sequence[Made]],
    part_size: int = 3,
    classes: Mapping[str, Any] | None = None,
    unwritten: int = 0,
    **changes: Any,
) -> Path:
    """Write a run.

    Args:
        output: its folder.
        template: `run.json` of a run that was run.
        shards: images by shard.
        part_size: images of a part.
        classes: keys of the card's classes that are others.
        unwritten: number of parts, the last ones, that are planned and not committed.
        changes: keys of `run.json` that are others.
    """
    run = {**copy.deepcopy(dict(template)), **changes}
    run["card"]["classes"] |= classes or {}
    card = ModelCard.model_validate(run["card"])
    ledger = Ledger(Store(), f"file://{output}")
    ledger.store.write(ledger.url("run.json"), to_json(run))
    parts = [
        (_part(shard, start, min(start + part_size, len(images))), images[start : start + part_size])
        for shard, images in shards.items()
        for start in range(0, len(images), part_size)
    ]
    plan = Plan.of([part for part, _ in parts])
    ledger.freeze_plan(plan)
    for part, images in parts[: len(parts) - unwritten]:
        rows = [_row(image, part.start + number, card, run) for number, image in enumerate(images)]
        rows = [
            _in_file(ledger, part, row, image) if image.in_file else row
            for row, image in zip(rows, images, strict=True)
        ]
        extra = ExtraColumns.of_run(run, card)
        data = write_masks(rows, shard=part.shard, part=part.id, fingerprint=run["fingerprint"], extra=extra)
        ledger.store.write(ledger.masks_url(part.shard, part.id), data)
    if not unwritten:
        for shard, ids in plan.parts_by_shard().items():
            ledger.finish_shard(shard, ids, card, run["fingerprint"])
        ledger.succeed({}, run["fingerprint"])
    return output


def _part(shard: str, start: int, stop: int) -> Part:
    return Part(f"{shard}-{start:04}", shard, "parquet", "file:///nowhere/x.parquet", 100, "e", start, stop, 0, ())


def _row(image: Made, index: int, card: ModelCard, run: Mapping[str, Any]) -> ImageRow:
    uri = f"{image.place}/{image.id}"
    if image.mask is None:
        error = sample_error_text("undecodable")
        return ImageRow(image.id, uri, index, None, error, None, None, None, None)
    counts = Confusion.of(image.mask, image.label, len(card.classes))
    accuracy, miou = image_scores(counts, card.classes.ignored_classes, card.metric.convention)
    size = image.size or image.mask.shape
    boundary, fraction = None, fraction_of(run)
    if fraction is not None and image.label is not None:
        number, ignored = len(card.classes), card.classes.ignored_classes
        boundary = BoundaryCounts.of(image.mask, image.label, number, fraction=fraction, ignore=ignored)
    mask, extras = encode_mask(image.mask), ImageExtras(boundary=boundary)
    return ImageRow(image.id, uri, index, size, None, mask, counts, accuracy, miou, extras=extras, meta=image.meta)


def _in_file(ledger: Ledger, part: Part, row: ImageRow, image: Made) -> ImageRow:
    assert image.mask is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mask.tif"
        with MaskWriter(file, *image.mask.shape) as writer:
            writer.write(image.mask)
        written = write_mask_file(ledger.store, ledger.output, part.shard, part.id, row.index, file)
    return dataclasses.replace(row, mask=None, mask_file=written)


def read_template(output: Path) -> dict[str, Any]:
    """Return the `run.json` of a run."""
    return dict(json.loads((output / "run.json").read_text()))
