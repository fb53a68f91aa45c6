"""The error rate of a run: whether more images failed or were lost than its job allows."""

from collections.abc import Iterable

from segment.inputs.findings import LeftOut, by_reason


def too_many_errors(errors: int, images: int, left_out: Iterable[LeftOut], limit: float) -> str:
    """Return a message if more images failed, or are lost in damaged archives, than the job allows; else `""`.

    If the number of lost images is unknown, only a limit of 1 allows it. A run of a choice of images (`--limit`,
    `--sample`) loses none.

    Args:
        errors, images: error rows, and all rows.
        left_out: objects and images of the input that are not planned.
        limit: share of images that may fail, 0-1.
    """
    items = by_reason(left_out)
    lost = next((item for item in items if item.reason == "damaged"), None)
    if any(item.is_choice for item in items):
        lost = None
    if lost and not lost.exact and limit < 1:
        return (
            f"an unknown number of images is lost in damaged archives: {lost}. Repair the archives "
            "and use --update, or accept the loss with --max-error-rate 1"
        )
    missing = lost.number if lost else 0
    if errors + missing <= limit * (images + missing):
        return ""
    in_archives = f" and {missing} more are lost in damaged archives" if missing else ""
    return f"{errors} of {images} images failed{in_archives}, more than --max-error-rate {limit:g} allows"
