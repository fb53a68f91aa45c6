"""Remarks: observations about images that fail none of them, counted by code and reported at the end of a run."""

import logging
from collections.abc import Iterable, Mapping

from segment.inputs import metadata
from segment.store.names import count, shown

REMARKS = {
    "image_frames": "the file has several pages or frames; the first one is segmented",
    "image_damaged": "the decoder reports damage but returns an image: parts of it may be wrong",
    "image_sparse": "strips or tiles of the TIFF are not stored (a sparse file): they are taken as its value for no "
    "data (GDAL_NODATA), else as 0",
    "image_exif_damaged": "the EXIF data cannot be read: the image is taken as upright",
    "georeference_turned": "the image is turned by its orientation, and its georeference is of the pixels as stored: "
    "it is left out of the mask",
    "georeference_damaged": "the image's georeference cannot be read: it is left out of the mask",
    "maps_too_large": "the image has more than 100 megapixels: the confidence and the probabilities of its pixels are "
    "left out, the means are not",
    "label_absent": "no label in the label column: segmented, not scored",
    "model_one_class": "the model predicts one class for every pixel, as for all earlier images of the worker: if that "
    "is wrong, check the card's input (channels, maximum, mean, std), output.kind and the weights",
    "label_frames": "the label file has several pages or frames; the first one is used",
    "label_damaged": "the decoder reports damage but returns a label: parts of it may be wrong",
    "label_sparse": "strips or tiles of the label's TIFF are not stored (a sparse file): they are taken as its value "
    "for no data (GDAL_NODATA), else as 0",
    "label_exif_damaged": "the EXIF data of the label cannot be read: the label is taken as upright",
    "label_not_turned": "the image is turned by its EXIF orientation and the label has none: the label is taken as "
    "turned already",
    "label_turned": "image and label have different EXIF orientations: each is turned by its own",
    **metadata.REMARKS,
}


def remark_lines(counts: Mapping[str, int]) -> list[str]:
    """Return one line per code, the most frequent first: `12 images: the file has several pages ...`."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [f"{count(number, 'image')}: {_words(code)}" for code, number in ordered]


def _words(code: str) -> str:
    """Return what a code says; the name of a column may follow it after a colon."""
    kind, _, column = code.partition(":")
    words = REMARKS.get(kind) or f"a remark of another version of segment, '{shown(kind)}'"
    return f"{words} '{shown(column)}'" if column else words


class RemarkLog:
    """Logs remarks of images outside a job, which counts them: each code once."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._logged: set[str] = set()

    def add(self, codes: Iterable[str | None]) -> None:
        """Log the remarks of an image; None is no remark."""
        for code in {code for code in codes if code} - self._logged:
            self._logged.add(code)
            self._log.warning("an image, and perhaps later ones: %s", _words(code))
