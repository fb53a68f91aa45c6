"""The folder that an export writes to: which one may be taken, and the mark that tells whose export it holds."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segment.errors import UsageError
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.store.client import Store
from segment.store.names import shown, skip_reason
from segment.store.urls import join_url

_RUN_FOLDERS = ("masks", "stats", "runs", "report")
# Hidden, as tools that read a folder of masks take every other file for one.
MARK = ".export.json"  # identifies the run whose masks a target holds
RENAMED = ".renamed.jsonl"  # shard, id and file name of each image whose file is not named like its id


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


def check_files(store: Store, plan: Plan, urls: Collection[str]) -> None:
    """Refuse to write files in the place of images or labels of a run. Raises UsageError."""
    taken = pa.array(filter(store.exists, urls), pa.string())
    for members in plan.each_members() if len(taken) else ():
        for kind in ("image", "label"):
            held = pc.struct_field(members, [kind, "url"])
            for url in held.filter(pc.is_in(held, taken))[:1].to_pylist():
                raise UsageError(
                    f"{shown(url)} is an image or a label of the run, which would be overwritten: give another folder"
                )


def lies_among(run: Mapping[str, Any], plan: Plan, target: str) -> bool:
    """Whether a target folder is below the folder whose image files the run has read."""
    return (
        target.startswith(f"{run['contract']['input']['url']}/")
        and "files" in plan.table["format"].unique().to_pylist()
    )


def claim(store: Store, target: str, mark: Mapping[str, str]) -> None:
    """Mark the target as the export that `mark` describes.

    Raises:
        UsageError: the target holds another export, or files that are no export.
    """
    url = join_url(target, MARK)
    if not store.exists(url):
        _refuse_filled(store, target)
    found = store.create(url, (json.dumps(mark, indent=2) + "\n").encode())
    try:
        same = json.loads(found) == mark
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise UsageError(
            f"{shown(target)} holds the export of another run or format, or of this run before an --update: "
            "choose another folder"
        )


def _refuse_filled(store: Store, target: str) -> None:
    held = (entry.url.removeprefix(f"{target}/") for entry in store.list(target))
    first = next((name for name in held if skip_reason(name) is None), None)
    if first is not None and not store.exists(join_url(target, MARK)):  # two of the same export may have begun at once
        raise UsageError(
            f"{shown(target)} is not empty and holds no export ({shown(first)} ...): give a new or empty folder"
        )
