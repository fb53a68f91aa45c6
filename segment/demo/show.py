"""The demo: segment the shipped street scenes on both engines, show the scores and a picture."""

import os
import shutil
from contextlib import closing
from pathlib import Path

from segment.demo.dataset import read_scenes, write_parquet, write_webdataset
from segment.errors import SegmentError, UsageError
from segment.images import codec
from segment.job import Job, make_job
from segment.output.ledger import Ledger
from segment.progress import console_progress
from segment.report.aggregate import RunReport
from segment.report.console import page_of, print_report
from segment.report.percents import percent
from segment.report.pictures import contact_sheet, spread
from segment.runs.driver import run, task_and_plan
from segment.store.client import Store
from segment.store.names import shown
from segment.store.urls import to_url

_FOLDERS = ("masks-webdataset", "masks-parquet", "scenes-parquet", "scenes-webdataset")  # the last one marks a demo
_PICTURE = "overlays.png"
_SHARDS = 4
_PICTURES = 5


def run_demo(folder: Path, *, engine: str, scenes: int) -> None:
    """Run the demo in `folder` and replace what an earlier demo wrote there; other files stay.

    Args:
        folder: where scenes, masks and the picture are written.
        engine: `local` or `ray`.
        scenes: number of scenes to segment, at least 4.

    Raises:
        UsageError: the folder is none, cannot be written, or holds files and no demo; nothing was deleted.
    """
    _check(folder)
    job, parquet_job = _job(folder, "webdataset", engine), _job(folder, "parquet", "local")
    shipped = read_scenes(scenes)
    _empty(folder)
    place = shown(str(folder))
    print(f"Writing {scenes} labelled street scenes to {place}/ ...")
    write_webdataset(folder / "scenes-webdataset", shipped, _SHARDS)
    write_parquet(folder / "scenes-parquet" / "streets.parquet", shipped)
    print(f"\nSegmenting the WebDataset shards with the {engine} engine ...")
    report = _run(job)
    print_report(report, page=page_of(Ledger(Store(), report.output)))
    print("\nThe same scenes from Parquet with the local engine ...")
    again = _run(parquet_job)
    if report.total.confusion != again.total.confusion:
        raise SegmentError("the two runs counted different pixels; please report this as a bug")
    picture = folder / _PICTURE
    _draw(job, picture)
    print(f"\nmIoU {percent(again.miou())} %: both runs counted the same pixels")
    print(f"page:    {place}/masks-webdataset/report/index.html")
    print(f"picture: {place}/{_PICTURE}, images with labels and predictions")
    print(f"masks:   {place}/masks-webdataset/masks/, Parquet with a row an image")


def _check(folder: Path) -> None:
    """Refuse a folder in which the demo would fail, or replace files that are not its own."""
    if str(folder).partition("/")[0].endswith(":"):  # `Path` makes one slash of the two
        raise UsageError(f"{shown(str(folder))} is a URL: give the demo a folder of this machine")
    if not folder.is_dir() and os.path.lexists(folder):
        raise UsageError(f"{shown(str(folder))} is not a folder: choose another one for the demo")
    paths = [folder / name for name in _FOLDERS]
    in_the_way = [path for path in paths if os.path.lexists(path) and (path.is_symlink() or not path.is_dir())]
    in_the_way += [path for path in [folder / _PICTURE] if path.is_dir()]
    if in_the_way:
        raise UsageError(
            f"{shown(str(in_the_way[0]))} is in the way of the demo's own: move it, or choose another FOLDER"
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / _FOLDERS[-1]).exists():
        raise UsageError(f"{shown(str(folder))} is not empty and not the folder of a demo: choose another folder")


def _empty(folder: Path) -> None:
    """Delete what the demo is about to write, and nothing else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FOLDERS:
            if (folder / name).exists():
                shutil.rmtree(folder / name)
        (folder / _PICTURE).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{shown(str(error.filename or folder))}: {error.strerror}. Choose another FOLDER for the demo"
        ) from None


def _job(folder: Path, format: str, engine: str) -> Job:  # noqa: A002
    scenes, masks = str(folder / f"scenes-{format}"), str(folder / f"masks-{format}")
    return make_job({"input": scenes, "output": masks, "model": "demo-streets", "engine": engine}, "segment demo")


def _run(job: Job) -> RunReport:
    with closing(console_progress()) as progress:
        return run(job, progress)


def _draw(job: Job, path: Path) -> None:
    ledger = Ledger(Store(), to_url(job.output))
    task, plan = task_and_plan(ledger)
    sheet = contact_sheet(ledger, spread(ledger, plan, _PICTURES), task)
    path.write_bytes(codec.encode_png(sheet))
