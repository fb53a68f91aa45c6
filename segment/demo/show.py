"""The demo: segment the shipped street scenes on both engines, show the scores and a picture."""

from __future__ import annotations

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
from segment.report.console import print_report
from segment.report.pictures import contact_sheet, spread
from segment.runs.driver import run, task_and_plan
from segment.store.client import Store
from segment.store.urls import to_url

_SHARDS = 4
_PICTURES = 5


def run_demo(folder: Path, *, engine: str, scenes: int) -> None:
    """Run the demo in `folder` and replace the scenes and masks of an earlier demo there.

    Args:
        folder: where scenes, masks and the picture are written.
        engine: `local` or `ray`.
        scenes: number of scenes to segment, at least 4.

    Raises:
        UsageError: the folder holds files that are not of a demo.
    """
    _empty(folder)
    print(f"Writing {scenes} labelled street scenes to {folder}/ ...")
    shipped = read_scenes(scenes)
    write_webdataset(folder / "scenes-webdataset", shipped, _SHARDS)
    write_parquet(folder / "scenes-parquet" / "streets.parquet", shipped)
    job = _job(folder, "webdataset", engine)
    print(f"Segmenting the WebDataset shards with the {engine} engine ...")
    report = _run(job)
    print_report(report)
    print("\nThe same scenes from Parquet with the local engine ...")
    again = _run(_job(folder, "parquet", "local"))
    _check_equal(report, again)
    print(f"the same counts to the last pixel: mIoU {100 * (again.miou() or 0):.2f} %")
    picture = folder / "overlays.png"
    _draw(job, picture)
    print(f"\nmasks    {folder}/masks-webdataset/masks/   (Parquet, one row an image)")
    print(f"scores   {folder}/masks-webdataset/report/  (open index.html; Parquet and JSON beside it)")
    print(f"picture  {picture}                  (open it: images, labels, predictions)")


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "scenes-webdataset").exists():
            raise UsageError(f"{folder} is not empty and not the folder of a demo: choose another folder")
        for item in folder.iterdir():  # only what the demo writes; other files are the user's
            if item.name.startswith(("scenes-", "masks-")):
                shutil.rmtree(item)
    folder.mkdir(parents=True, exist_ok=True)


def _job(folder: Path, format: str, engine: str) -> Job:  # noqa: A002
    values = {
        "input": str(folder / f"scenes-{format}"),
        "output": str(folder / f"masks-{format}"),
        "model": "demo-streets",
        "engine": engine,
    }
    return make_job(values, where="segment demo")


def _run(job: Job) -> RunReport:
    with closing(console_progress()) as progress:
        return run(job, progress)


def _check_equal(one: RunReport, other: RunReport) -> None:
    if one.total.confusion != other.total.confusion:
        raise SegmentError("the two runs counted different pixels; please report this as a bug")


def _draw(job: Job, path: Path) -> None:
    ledger = Ledger(Store(), to_url(job.output))
    task, plan = task_and_plan(ledger)
    sheet = contact_sheet(ledger, spread(ledger, plan, _PICTURES), task)
    path.write_bytes(codec.encode_png(sheet))
