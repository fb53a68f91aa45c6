"""The demo: make labelled street scenes, segment them, show the scores and a picture."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from segment.demo.dataset import write_parquet, write_webdataset
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

_FIRST_SEED = 0  # the model was trained on seeds from 100,000 up
_SHARDS = 4
_PICTURES = 5


def run_demo(folder: Path, *, engine: str, scenes: int) -> None:
    """Run the demo in `folder`, whose earlier scenes and masks are made anew.

    Raises:
        UsageError: the folder is there and was not made by the demo.
    """
    _empty(folder)
    print(f"Making {scenes} labelled street scenes in {folder}/ ...")
    seeds = range(_FIRST_SEED, _FIRST_SEED + scenes)
    write_webdataset(folder / "scenes-webdataset", seeds, _SHARDS)
    write_parquet(folder / "scenes-parquet" / "streets.parquet", seeds)
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
            raise UsageError(f"{folder} is not empty and was not made by the demo: choose another folder")
        for item in folder.iterdir():  # only what the demo makes; anything else there is the user's
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
