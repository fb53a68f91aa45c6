"""Every failure that this package reports on purpose.

There are two families: a `SegmentError` ends the command with its exit code; a `SampleError` becomes one error row
and the run continues.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_SUGGESTED = 3  # names at most
_SYNONYMS = {"gpu": "cuda", "nvidia": "cuda", "trt": "tensorrt", "ort": "onnxruntime"}  # like others by letters alone


class SegmentError(Exception):
    """A failure whose message says what is wrong, where, and how to fix it."""

    exit_code = 1


class UsageError(SegmentError):
    """An argument, job file, model card or input is wrong."""

    exit_code = 2


class ModelError(UsageError):
    """The model card, its weights and its graph do not match."""


class NotAModel(ModelError):
    """Bytes that are no model of their format, as what reads them says; it does not know of which file they are."""


class BadReference(UsageError):
    """A path or URL that cannot name an object: an invalid character or an unknown protocol."""


class NotAFile(BadReference):
    """A local path names no regular file: reading it may never end, or change something."""


class LinkToItself(NotAFile):
    """A symbolic link of a local path leads to itself, and is to be deleted: the message says so."""


class StoreError(SegmentError):
    """A request to a store failed permanently. Committed parts stay; a rerun resumes.

    Attributes:
        object_specific: whether only this object is unavailable (permission, unknown host, redirect without a
            target); other objects may be readable.
    """

    object_specific = False


class OverLimit(StoreError):
    """A read was given up: it is of one object, whose server may be a stranger's, and no trouble of the store."""

    object_specific = True


class TooManyBytes(OverLimit):
    """An object has more bytes than the read may hold."""


class TooSlow(OverLimit):
    """The bytes of an object come, and so slowly that the read takes longer than it may."""


class StoreRefused(StoreError):
    """A store refuses every request: credentials, clock, bucket, full disk."""


class NoCredentials(StoreRefused, UsageError):
    """The credentials for a store are missing or incomplete."""

    exit_code = 2


class InputChanged(SegmentError):
    """An input object has changed since the run was planned."""


def input_changed(name: str, how: str) -> InputChanged:
    """Return the error for an input object that has changed.

    Args:
        how: predicate of the message, such as "has vanished".
    """
    advice = "Restore the original file, or plan its new content with --update."
    return InputChanged(f"{name} {how} since the run was planned. {advice}")


class TooManyErrors(SegmentError):
    """More images failed than `max_error_rate` allows."""

    exit_code = 3


# The texts are constants, never `str(exception)`: a part that runs again must write the same bytes.
SAMPLE_ERRORS = {
    "empty": "the image has no bytes",
    "not_an_image": "the bytes are no JPEG, PNG, WebP, BMP or TIFF image",
    "undecodable": "the image is damaged: it could not be decoded",
    "pixel_format": "the image's pixels are of a kind that is not read; supported are, unsigned, grey of up to 8 and "
    "of 16 bits, RGB, RGBA and CMYK of 8 and 16, palettes of up to 8, grey with alpha of 8, and JPEGs of 8 bits",
    "too_many_pixels": "the image's header declares more pixels than --max-pixels allows",
    "too_wide": "a row of tiles of the image has more probabilities than are held (input.tiles.blend = 'mean'); "
    "'centre' and 'confidence' take images of any width",
    "larger_than_input": "the image is larger than the model's input, and its card shrinks no image (input.resize)",
    "bands": "the image has fewer bands than the card reads (input.bands)",
    "band_type": "the numbers of the image's bands are not those that the card reads: unsigned 8 bits, or 16 bits with "
    "input.band_range",
    "too_many_bytes": "the image is larger than --max-image-bytes allows",
    "too_slow": "the image did not come in full within the stall time (--stall-timeout): its server is too slow",
    "too_much_work": "the image takes far more work to decode than its size and pixels explain",
    "missing": "the image is listed but does not exist",
    "unreachable": "the image is listed but cannot be had: no permission, an unknown host, or a redirect "
    "that leads nowhere",
    "bad_reference": "the image cell is empty, or no valid path or URL",
    "not_allowed": "the image is listed but outside of the folder, bucket or host of its list: --allow-input says what "
    "else may be read",
    "not_a_file": "the image is listed but is no regular file: a folder, device, pipe, socket or file of the kernel",
    "duplicate_id": "another image of the same shard has this id already",
    "label_missing": "the label is listed but does not exist",
    "label_unreachable": "the label is listed but cannot be had: no permission, an unknown host, or a redirect "
    "that leads nowhere",
    "label_bad_reference": "the label cell is no valid path or URL",
    "label_not_allowed": "the label is listed but outside of the folder, bucket or host of its list: --allow-input "
    "says what else may be read",
    "label_not_a_file": "the label is listed but is no regular file: a folder, device, pipe, socket or file of the "
    "kernel",
    "label_too_slow": "the label did not come in full within the stall time (--stall-timeout): its server is too slow",
    "label_too_much_work": "the label takes far more work to decode than its size and pixels explain",
    "label_empty": "the label has no bytes",
    "label_undecodable": "the label is damaged or no image",
    "label_lossy": "the label was compressed with loss, so that its pixels are not those that were drawn: use labels "
    "of a lossless format such as PNG, or take these as they are with --allow-lossy-labels",
    "label_pixels": "the label's pixels are of a kind that cannot be read exactly; supported are grey, palette and RGB "
    "of up to 16 bits, and grey TIFF of 32 bits",
    "label_alpha": "the label has transparent pixels, and no rule says what class they are: write it without alpha",
    "label_size": "the label's width and height are not those of its image",
    "label_value": "the label holds a value that is no class and is not ignored (--label-remap says what values mean, "
    "'*' all others)",
    "label_colour": "the label holds a colour that is not in the palette (--label-remap says what colours mean)",
    "label_ambiguous": "the label's palette has the card's colours in other places, so that index and colour name "
    "different classes: say which counts, with --label-encoding index or colour",
    "model_not_finite": "the model's scores are not finite numbers",
    "model_range": "the model predicted a class index or a probability out of range",
    "model_not_whole": "the model predicted a class index that is no whole number",
    "model_failed": "the runtime raised an error on this image",
    "out_of_memory": "the image takes more memory than a worker may have (--worker-memory)",
    "killed_worker": "the worker process died, or came to no end, at this image",
}


class SampleError(Exception):
    """An image or its label cannot be processed; it becomes an error row.

    Attributes:
        code: key of `SAMPLE_ERRORS`.
        detail: additional finding; empty if there is none. Depends on the image's bytes only.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(sample_error_text(code, detail))
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str]]:
        return SampleError, (self.code, self.detail)


def sample_error_text(code: str, detail: str = "") -> str:
    """Return the text of an error row: `"<code>: <explanation>"`, then `": <detail>"` if there is a detail."""
    return f"{code}: {SAMPLE_ERRORS[code]}{': ' if detail else ''}{detail}"


def did_you_mean(word: str, known: Iterable[str], alike: float = 0.5) -> str:
    """Return `" Did you mean 'x'?"` for the known words that hold `word`, else the most similar one; else `""`.

    Args:
        alike: least similarity, 0 to 1.

    >>> did_you_mean("unet", ["icnet-camvid", "unet-camvid"]), did_you_mean("colour", ["name"])
    (" Did you mean 'unet-camvid'?", '')
    """
    found = _nearest(word, sorted(set(known)), alike)
    quoted = [f"'{one}'" for one in found]
    return f" Did you mean {', '.join(quoted[:-1])}{' or ' * bool(quoted[:-1])}{quoted[-1]}?" if quoted else ""


def _nearest(word: str, known: list[str], alike: float) -> list[str]:
    if _SYNONYMS.get(word.lower()) in known:
        return [_SYNONYMS[word.lower()]]
    holding = [one for one in known if len(word) > 2 and word.lower() in one.lower()]
    if holding:
        return sorted(holding, key=len)[:_SUGGESTED]
    names = {one.lower().strip("-"): one for one in reversed(known)}  # all options begin alike
    if whole := difflib.get_close_matches(word.lower().strip("-"), names, n=1, cutoff=alike):
        return [names[whole[0]]]
    pieces = {piece: one for one in reversed(known) for piece in re.split(r"[-_./ ]", one.lower()) if len(piece) > 2}
    return [pieces[piece] for piece in difflib.get_close_matches(word.lower(), pieces, n=1, cutoff=0.75)]
