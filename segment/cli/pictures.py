"""Commands that convert masks to files for people or other tools: `overlay`, `export`."""

from typing import Annotated, Any, Literal

import typer

from segment.cli.app import AllowInput, RunPrefix, StorageOptions, app, open_ledger, option
from segment.cli.streams import put, say, streams


def _number(words: str) -> Any:
    return option(words, metavar="N", min=0, show_default=False)


@app.command()
def overlay(
    output: RunPrefix,
    ids: Annotated[list[str] | None, option("Id of an image; repeatable.", metavar="ID")] = None,
    worst: Annotated[int, _number("The N images with the lowest mIoU.")] = 0,
    least_certain: Annotated[
        int, _number("The N images of which the model is least sure, in a run with --confidence.")
    ] = 0,
    sample: Annotated[int, _number("N images, spread over the input.")] = 0,
    to: Annotated[str, option("Folder or URL to write to.", "--to", "-t")] = "overlays",
    sheet: Annotated[
        bool, option("One PNG with image, label and prediction of each image.", "--contact-sheet")
    ] = False,
    opacity: Annotated[float, option("Opacity of the mask, 0-1.", min=0, max=1)] = 0.55,
    storage_option: StorageOptions = None,
    allow_input: AllowInput = None,
) -> None:
    """Draw masks over their images.

    segment overlay out/ --worst 20 --contact-sheet
    """
    from segment.report.exports.destination import check_target
    from segment.report.overlays import chosen_rows, write_overlays, write_sheet
    from segment.runs.driver import task_and_plan
    from segment.store.names import count, shown
    from segment.store.urls import to_url

    ledger, target = open_ledger(output, storage_option, allow_input), to_url(to)
    task, plan = task_and_plan(ledger)
    check_target(ledger, ledger.read_run_and_plan()[0], target)
    rows = chosen_rows(ledger, plan, ids or [], worst, sample, least_certain)
    if sheet:
        url = write_sheet(ledger, plan, rows, task, target)
        streams.work_is_done()
        put(shown(url))
        return
    written = write_overlays(ledger, plan, rows, task, target, opacity)
    streams.work_is_done()
    for url in written.urls:
        put(shown(url))
    if written.gone:
        why = "gone, changed, not allowed or too large to draw"
        images = count(written.gone, f"image is {why}", f"images are {why}")
        what = "its overlay shows" if written.gone == 1 else "their overlays show"
        say(f"{images}; {what} the mask only", err=True)
    if written.renamed:
        why = "its id cannot be a file name" if written.renamed == 1 else "their ids cannot be file names"
        say(f"{count(written.renamed, 'overlay')} under another name: {why}", err=True)


ExportFormat = Literal["png", "voc", "coco-stuff", "coco-panoptic", "cvat", "label-studio", "cog", "coco-rle"]


@app.command()
def export(
    output: RunPrefix,
    target: Annotated[str, typer.Argument(metavar="DEST", help="Folder or URL to write to.")],
    form: Annotated[
        ExportFormat,
        option(
            "png: class indices; voc: PASCAL VOC; coco-stuff, coco-panoptic: COCO; cvat: a zip for CVAT; "
            "label-studio: tasks with predictions; cog: cloud-optimised GeoTIFFs; coco-rle: former name of coco-stuff.",
            "--format",
            "-f",
        ),
    ] = "png",
    storage_option: StorageOptions = None,
    allow_input: AllowInput = None,
) -> None:
    """Write masks as files for other tools. The same command again writes what is missing.

    segment export out/ masks-png/
    """
    from segment.report.exports.exporting import export as export_masks
    from segment.store.names import count, shown
    from segment.store.urls import to_url

    ledger, url = open_ledger(output, storage_option, allow_input), to_url(target)
    done = export_masks(ledger, url, form, ledger.store)
    streams.work_is_done()
    words = [f"{count(done.written, 'file')} written to {shown(url)}"]
    words += [f"{done.skipped} there already"] if done.skipped else []
    words += [f"{count(done.without_mask, 'error row')} without a mask"] if done.without_mask else []
    words += [f"{count(done.not_done, 'image')} not segmented yet"] if done.not_done else []
    words += [f"{count(done.tars_left, 'tar')} not indexed yet"] if done.tars_left else []
    words += [f"{done.renamed} under another name than the id (.renamed.jsonl)"] if done.renamed else []
    say(", ".join(words))
    for note in done.notes:
        say(note, err=True)
