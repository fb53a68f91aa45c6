"""Export of masks to files for other tools: index PNGs, PASCAL VOC palette PNGs, COCO run-length annotations.

An export reads one part at a time, so memory holds the masks of one part (COCO: the annotations of one shard). It skips
existing files, so the same command resumes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segment.errors import UsageError
from segment.images import codec
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.mask_files import read_mask
from segment.output.plan import Plan
from segment.report.filenames import Names
from segment.report.rows import numbers_of, part_tables
from segment.store.client import Store
from segment.store.names import shown
from segment.store.urls import join_url

Format = Literal["png", "voc", "coco-rle"]

_RUN_FOLDERS = ("masks", "stats", "runs", "report")
_MARK = "export.json"  # identifies the run whose masks a target holds
_RENAMED = "renamed.jsonl"  # shard, id and file name of each image whose file is not named like its id
_THREADS = 16


@dataclass
class Exported:
    """The result of an export: files written, files skipped, rows without a mask, files not named like their id."""

    written: int = 0
    skipped: int = 0
    without_mask: int = 0
    renamed: int = 0


def export(ledger: Ledger, target: str, kind: Format, store: Store) -> Exported:
    """Write the masks of the committed parts of a run below `target`, an absolute URL.

    `png` writes `<id>.png`, whose pixel values are class indices. `voc` writes `SegmentationClass/<id>.png` with the
    card's palette, and `labelmap.txt`. `coco-rle` writes one COCO file per shard, `<shard>.json`, whose category ids
    are class indices. A file whose id cannot be its name gets another one, which `renamed.jsonl` lists.

    Raises:
        UsageError: there is no run; or the target belongs to the run, is its input, or holds the export of another
            run or format.
        SegmentError: a masks file is damaged, or a store refuses a request.
    """
    run, plan = ledger.read_run_and_plan()
    card = ModelCard.model_validate(run["card"])
    check_target(ledger, run, target)
    # after an --update the plan may hold other images, and their old files would stay
    planned = hashlib.sha256(Plan(plan.table).to_bytes()).hexdigest()
    _claim(store, target, {"run": run["fingerprint"], "plan": planned, "format": kind})
    if kind == "coco-rle":
        return _Coco(ledger, plan, card, store, target).export()
    if kind == "voc":
        colours = zip(card.classes.names, card.classes.palette, strict=True)
        lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in colours]
        store.write(
            join_url(target, "labelmap.txt"), ("# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n").encode()
        )
        palette = card.classes.palette_array
        folder = join_url(target, "SegmentationClass")
        return _Files(ledger, plan, store, target, folder).export(
            lambda png: codec.encode_palette_png(codec.decode_mask(png), palette)
        )
    return _Files(ledger, plan, store, target, target).export(lambda png: png)


def check_target(ledger: Ledger, run: Mapping[str, Any], target: str) -> None:
    """Refuse a target folder that belongs to the run or holds its input, where files named by id would replace others.

    Args:
        ledger, run: of the run; `run.json`.
        target: an absolute URL.

    Raises:
        UsageError: the target is such a folder.
    """
    if target == ledger.output or any(f"{target}/".startswith(ledger.url(own) + "/") for own in _RUN_FOLDERS):
        raise UsageError(f"{shown(target)} belongs to the run itself: give another folder")
    given = run["contract"]["input"]
    if target in (given["url"], given["labels"]):
        raise UsageError(f"{shown(target)} holds the input of the run, which would be overwritten: give another folder")


def _claim(store: Store, target: str, mark: dict[str, str]) -> None:
    """Mark the target as an export of this run; UsageError if it holds another one."""
    url = join_url(target, _MARK)
    found = store.create(url, (json.dumps(mark, indent=2) + "\n").encode())
    try:
        same = json.loads(found) == mark
    except ValueError:
        same = False
    if not same:
        raise UsageError(
            f"{shown(target)} holds the export of another run or format, or of this run before an --update: "
            "choose another folder"
        )


class _Files:
    """Writes one PNG per image below `folder`, and the list of renamed files below `target`."""

    def __init__(self, ledger: Ledger, plan: Plan, store: Store, target: str, folder: str) -> None:
        self._ledger, self._plan, self._store, self._target, self._folder = ledger, plan, store, target, folder
        self._names = Names.of_run(ledger, plan)

    def export(self, encode: Callable[[bytes], bytes]) -> Exported:
        done, renamed = Exported(), []
        numbers = numbers_of(self._plan, self._ledger.committed(self._plan))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="export") as pool:
            for rows in _rows_with_masks(self._ledger, self._plan, numbers, done):
                for new in pool.map(lambda row: self._write(row, encode), rows):
                    done.written += new
                    done.skipped += not new
                renamed += [self._line(row) for row in rows if self._names.is_changed(row["shard"], row["id"])]
        if renamed:
            self._store.write(join_url(self._target, _RENAMED), "".join(renamed).encode())
        done.renamed = len(renamed)
        return done

    def _write(self, row: Mapping[str, Any], encode: Callable[[bytes], bytes]) -> bool:
        url = join_url(self._folder, self._names.file(row["shard"], row["id"]))
        if self._store.exists(url):
            return False
        png = row["mask"]["bytes"] or codec.encode_mask(read_mask(self._ledger.store, self._ledger.output, row["mask"]))
        self._store.write(url, encode(png))
        return True

    def _line(self, row: Mapping[str, Any]) -> str:
        named = {"shard": row["shard"], "id": row["id"], "file": self._names.file(row["shard"], row["id"])}
        return json.dumps(named, ensure_ascii=False) + "\n"


def _rows_with_masks(
    ledger: Ledger, plan: Plan, numbers: Sequence[int], done: Exported
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows with a mask, part by part; count the others."""
    for number in numbers:  # one part at a time bounds the memory for masks
        for _, table in part_tables(ledger, plan, [number], ["id", "shard", "index", "mask"]):
            rows = table.to_pylist()
            with_mask = [row for row in rows if row["mask"] is not None]
            done.without_mask += len(rows) - len(with_mask)
            yield with_mask


class _Coco:
    """Writes one COCO file per shard: images, categories, and one run-length annotation per image and class."""

    def __init__(self, ledger: Ledger, plan: Plan, card: ModelCard, store: Store, target: str) -> None:
        try:
            import pycocotools.mask  # noqa: F401
        except ImportError:
            raise UsageError("--format coco-rle needs another package: pip install 'segment-job[coco]'") from None
        self._ledger, self._plan, self._card, self._store, self._target = ledger, plan, card, store, target

    def export(self) -> Exported:
        done = Exported()
        committed = set(numbers_of(self._plan, self._ledger.committed(self._plan)))
        first = 1
        by_shard: dict[str, list[int]] = {}
        for number, shard in enumerate(self._plan.table["shard"].to_pylist()):
            by_shard.setdefault(shard, []).append(number)
        sizes = self._plan.images_by_shard()
        for shard, numbers in by_shard.items():
            if committed.issuperset(numbers):
                self._shard(shard, numbers, first, done)
            first += sizes[shard]
        return done

    def _shard(self, shard: str, numbers: Sequence[int], first: int, done: Exported) -> None:
        url = join_url(self._target, f"{shard}.json")
        if self._store.exists(url):
            done.skipped += 1
            return
        pictures, annotations = [], []
        for rows in _rows_with_masks(self._ledger, self._plan, numbers, done):
            for row in rows:
                mask = read_mask(self._ledger.store, self._ledger.output, row["mask"])
                number = first + row["index"]
                size = {"height": mask.shape[0], "width": mask.shape[1]}
                pictures.append({"id": number, "file_name": row["id"], **size})
                annotations += _annotations(mask, number)
        classes = [{"id": i, "name": name} for i, name in enumerate(self._card.classes.names)]
        content = {"info": {"description": self._card.name}, "images": pictures}
        content |= {"annotations": annotations, "categories": classes}
        self._store.write(url, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
        done.written += 1


def _annotations(mask: NDArray[np.uint8], image: int) -> list[dict[str, Any]]:
    """Return one annotation per class of a mask; annotation ids are unique within the run."""
    from pycocotools import mask as rle

    found = []
    for index in np.unique(mask).tolist():
        coded = rle.encode(np.asfortranarray(mask == index, dtype=np.uint8))
        found.append(
            {
                "id": image * 256 + index,
                "image_id": image,
                "category_id": index,
                "segmentation": {"size": coded["size"], "counts": coded["counts"].decode("ascii")},
                "area": int(rle.area(coded)),
                "bbox": rle.toBbox(coded).tolist(),
                "iscrowd": 0,
            }
        )
    return found
