"""Whether a run has more failed or lost images than its job allows."""

from __future__ import annotations

from collections.abc import Iterable

from segment.inputs.findings import LeftOut, by_reason


def too_many_errors(errors: int, images: int, left_out: Iterable[LeftOut], limit: float) -> str:
    """Say that more images failed, or are lost in damaged archives, than the job allows; `""` if not.

    Where nobody can tell how many are lost, only a limit of 1 allows it.

    Args:
        errors, images: error rows, and all rows.
        left_out: what the input holds besides; nothing is lost of a choice among what is there.
        limit: share of images that may fail, 0-1.
    """
    items = by_reason(left_out)
    lost = next((item for item in items if item.reason == "damaged"), None)
    if any(item.is_choice for item in items):
        lost = None
    if lost and not lost.exact and limit < 1:
        return (
            f"images are lost behind the damage of archives, and nobody can tell how many: {lost}. Mend the archives "
            "and use --update, or accept the loss with --max-error-rate 1"
        )
    missing = lost.number if lost else 0
    if errors + missing <= limit * (images + missing):
        return ""
    behind = f" and {missing} more are lost behind the damage of archives" if missing else ""
    return f"{errors} of {images} images failed{behind}, more than --max-error-rate {limit:g} allows"
