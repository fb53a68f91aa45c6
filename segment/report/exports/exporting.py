"""`segment export`: masks of a run as files that other tools open.

An export reads a few parts at a time; what it writes for all images together grows in a temporary file, so that memory
is bounded; of the masks that are too large for their rows one is decoded at a time. The same command again goes on
where it broke off: files of single images that exist are skipped, files that hold several images are written anew.
"""

import hashlib
import json
from contextlib import nullcontext
from threading import Lock
from typing import Any, Literal

from segment.output.ledger import Ledger
from segment.process.temporaries import TemporaryFolder
from segment.report.exports.coco import CocoPanoptic, CocoStuff
from segment.report.exports.cog import Cog
from segment.report.exports.destination import RENAMED, check_target, claim, lies_among
from segment.report.exports.label_studio import LabelStudio
from segment.report.exports.masked_images import MaskedImage, MaskedImages
from segment.report.exports.voc import Cvat, Voc
from segment.report.exports.writers import Export, Exported, FileWriter, Writer
from segment.report.filenames import Names
from segment.store.background import in_order
from segment.store.client import Store
from segment.store.names import count
from segment.store.urls import join_url

Format = Literal["png", "voc", "coco-stuff", "coco-panoptic", "cvat", "label-studio", "cog", "coco-rle"]
FORMER_NAMES: dict[Format, Format] = {"coco-rle": "coco-stuff"}
WRITERS: dict[Format, type[Writer[Any]]] = {
    "png": FileWriter,
    "voc": Voc,
    "coco-stuff": CocoStuff,
    "coco-panoptic": CocoPanoptic,
    "cvat": Cvat,
    "label-studio": LabelStudio,
    "cog": Cog,
}


def export(ledger: Ledger, target: str, kind: Format, store: Store) -> Exported:
    """Write the masks of the committed parts of a run below `target`, an absolute URL.

    A file whose id cannot be its name gets another one, which `.renamed.jsonl` lists.

    Raises:
        UsageError: there is no run; or the target belongs to the run, is its input, holds the export of another run or
            format, or files that are no export.
        SegmentError: a masks file is damaged, or a store refuses a request.
    """
    name = FORMER_NAMES.get(kind, kind)
    run, plan = ledger.read_run_and_plan()
    check_target(ledger, run, target)
    if ledger.store.scope:
        store.limit_inputs(ledger.store.scope)
    # after an --update the plan may hold other images, and their old files would stay
    planned = hashlib.sha256(plan.with_left_out([]).to_bytes()).hexdigest()
    claim(store, target, {"run": run["fingerprint"], "plan": planned, "format": name})
    with TemporaryFolder() as scratch:
        kind_of = WRITERS[name]
        is_named = kind_of.names_files or kind_of.tells_alike
        names = Names.of_run(ledger, plan, kind_of.suffix) if is_named else Names([])
        to = Export(ledger.card_of(run), store, target, names, scratch.path, Exported())
        if lies_among(run, plan, target):
            to.done.notes.append(
                "DEST lies in the input: a run with --update, or a new one, takes its pictures for images"
            )
        if name != kind:
            to.done.notes.append(f"the format {kind} is called {name} now")
        _write(kind_of(to), MaskedImages(ledger, plan, to.card.input))
    return to.done


def _write(writer: Writer[Any], images: MaskedImages) -> None:
    to, renamed = writer.to, writer.to.scratch / RENAMED
    whole = Lock()

    def convert(image: MaskedImage) -> tuple[MaskedImage, Any]:
        with whole if image.is_in_file and writer.needs_whole_masks else nullcontext():
            return image, writer.convert(image)

    alike = 0
    with renamed.open("w", encoding="utf-8") as lines:
        for image, converted in in_order(convert, images, name="export", threads=writer.threads, ahead=writer.threads):
            writer.collect(image, converted)
            alike += writer.tells_alike and to.names.is_shared(image.id)
            if writer.names_files and to.names.is_changed(image.shard, image.id):
                named = {"shard": image.shard, "id": image.id, "file": to.file(image)}
                lines.write(json.dumps(named, ensure_ascii=False) + "\n")
                to.done.renamed += 1
    if to.done.renamed:
        to.store.write(join_url(to.target, RENAMED), renamed)
    if alike:
        to.done.notes.append(
            f"{count(alike, 'image is', 'images are')} named like another but for suffix, case or shard: only their "
            "image ids tell them apart, and Datumaro may refuse the data set"
        )
    if images.resized:
        to.done.notes.append(
            f"{count(images.resized, 'mask')} at model size: resized to the image's (nearest neighbour)"
        )
    to.done.without_mask, to.done.not_done = images.without_mask, images.not_done
    to.done.tars_left = images.tars_left
    writer.finish()
