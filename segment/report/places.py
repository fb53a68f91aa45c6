"""Where pictures and masks may be written: never over what a run consists of, nor over its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segment.errors import UsageError
from segment.output.ledger import Ledger
from segment.store.names import shown

_OWN = ("masks", "stats", "runs", "report")  # folders of a run


def check_target(ledger: Ledger, run: Mapping[str, Any], target: str) -> None:
    """Refuse a folder whose files are the run's, or its input's: files named after ids would replace images and labels.

    Args:
        ledger, run: of the run; `run.json`.
        target: an absolute URL.

    Raises:
        UsageError: it is such a place.
    """
    if target == ledger.output or any(f"{target}/".startswith(ledger.url(own) + "/") for own in _OWN):
        raise UsageError(f"{shown(target)} belongs to the run itself: give another folder")
    given = run["contract"]["input"]
    if target in (given["url"], given["labels"]):
        raise UsageError(f"{shown(target)} holds the input of the run, which would be overwritten: give another folder")
