"""What is noticed of an image without failing it: counted by code while a run goes, told once at its end."""

from __future__ import annotations

from collections.abc import Mapping

from segment.store.names import count

REMARKS = {
    "image_frames": "a file of several pages or frames, of which the first one is segmented",
    "image_damaged": "the decoder reports damage and went on: a part of the picture may be wrong",
    "image_exif_damaged": "EXIF data that cannot be read: taken as upright",
    "label_absent": "no label in the column of labels: segmented, not scored",
    "model_one_class": "one class for every pixel, the same as for all images that the worker had before: if that is "
    "not so, check the card's input (channels, maximum, mean, std), output.kind and the weights",
    "label_frames": "a label file of several pages or frames, of which the first one is used",
    "label_damaged": "the decoder of the label reports damage and went on: a part of the label may be wrong",
    "label_exif_damaged": "a label with EXIF data that cannot be read: taken as upright",
    "label_not_turned": "turned by its EXIF orientation, and its label has none: the label is taken as turned already",
    "label_turned": "the label has an EXIF orientation that is not the image's: each is turned by its own",
}


def remark_lines(counts: Mapping[str, int]) -> list[str]:
    """One line a code, the most frequent first: `12 images: several pages ...`."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [f"{count(number, 'image')}: {REMARKS[code]}" for code, number in ordered if code in REMARKS]
