"""Every failure this package reports on purpose.

Two families, because they end differently: a `SegmentError` ends the command with its exit code; a
`SampleError` becomes one error row and the run goes on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegmentError(Exception):
    """A failure with a message for the user: what is wrong, where, and how to mend it."""

    exit_code = 1


class UsageError(SegmentError):
    """What was asked for cannot be done as asked: an argument, job file, card or input is wrong."""

    exit_code = 2


class ModelError(UsageError):
    """The model card, its weights and its graph do not fit together."""


class BadReference(UsageError):
    """A path or URL that can name no object: a character or a protocol that no store knows."""


class StoreError(SegmentError):
    """A store refused or failed an operation for good; what is committed stays, a rerun resumes.

    Attributes:
        of_object: whether this one object cannot be had (permission, an unknown host, a redirect that leads nowhere),
            which says nothing about others.
    """

    of_object = False


class StoreRefused(StoreError):
    """A store refuses all of us, not one object: credentials, clock, bucket, full disk. No other call will do."""


class NoCredentials(StoreRefused, UsageError):
    """There are no credentials for a store, or only a part of them."""

    exit_code = 2


class InputChanged(SegmentError):
    """An input object is not the one the plan was made from."""


def input_changed(name: str, how: str) -> InputChanged:
    """Say of an input object how it is another one now: `how` as in "has vanished"; `name` as it is shown."""
    advice = "Put the file back as it was, or take it as it is now with --update."
    return InputChanged(f"{name} {how} since the run was planned. {advice}")


class TooManyErrors(SegmentError):
    """More images failed than `max_error_rate` allows."""

    exit_code = 3


# The text is fixed, never `str(exception)`: rows must be byte-identical however often a part is run.
SAMPLE_ERRORS = {
    "empty": "the image has no bytes",
    "not_an_image": "the bytes are no JPEG, PNG, WebP, BMP or TIFF image",
    "undecodable": "the image is damaged: it could not be decoded",
    "pixel_format": "a TIFF of floating-point, 32-bit, signed or many-band pixels; supported are unsigned 8 and 16 "
    "bits: grey, palette, RGB, RGBA and CMYK",
    "too_many_pixels": "the image's header declares more pixels than --max-pixels allows",
    "too_many_bytes": "the image is larger than --max-image-bytes allows",
    "missing": "the image is listed but does not exist",
    "unreachable": "the image is listed but cannot be had: no permission, an unknown host, or a redirect "
    "that leads nowhere",
    "bad_reference": "the image cell is empty, or no valid path or URL",
    "duplicate_id": "another image of the same shard has this id already",
    "label_missing": "the label is listed but does not exist",
    "label_unreachable": "the label is listed but cannot be had: no permission, an unknown host, or a redirect "
    "that leads nowhere",
    "label_bad_reference": "the label cell is no valid path or URL",
    "label_empty": "the label has no bytes",
    "label_undecodable": "the label is damaged or no image",
    "label_lossy": "the label was compressed with loss, so that its pixels are not those that were drawn: use labels "
    "of a lossless format such as PNG, or take these as they are with --allow-lossy-labels",
    "label_pixels": "the label's pixels are of a kind that cannot be read exactly; supported are grey, palette and RGB "
    "of up to 16 bits, and grey TIFF of 32 bits",
    "label_alpha": "the label has transparent pixels, and no rule says what class they are: write it without alpha",
    "label_size": "the label's width and height are not those of its image",
    "label_value": "the label holds a value that is no class and is not ignored (--label-remap says what values mean)",
    "label_colour": "the label holds a colour that is not in the palette (--label-remap says what colours mean)",
    "label_ambiguous": "the label's palette has the card's colours in other places, so that index and colour name "
    "different classes: say which counts, with --label-encoding index or colour",
    "model_not_finite": "the model's scores are not finite numbers",
    "model_range": "the model predicted a class index out of range",
    "model_not_whole": "the model predicted a class index that is no whole number",
    "model_failed": "the runtime raised an error on this image",
    "out_of_memory": "the image takes more memory than a worker may have (--worker-memory)",
    "killed_worker": "the worker process died each time it came to this image",
}


class SampleError(Exception):
    """One image (or its label) cannot be processed; becomes an error row.

    Attributes:
        code: a key of `SAMPLE_ERRORS`.
        detail: what was found, if that says more: it follows from the image's bytes alone.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(sample_error_text(code, detail))
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str]]:
        return SampleError, (self.code, self.detail)


def sample_error_text(code: str, detail: str = "") -> str:
    """Return the stored text of an error row: `"<code>: <fixed explanation>"`, then `": <detail>"` if there is one."""
    return f"{code}: {SAMPLE_ERRORS[code]}{': ' if detail else ''}{detail}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known word nearest to `word`, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""
