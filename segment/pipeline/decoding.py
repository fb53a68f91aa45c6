"""From the bytes of a sample to pixels: the same for those that are segmented and those that calibrate."""

from __future__ import annotations

from functools import partial

from segment.errors import SampleError
from segment.images import resize
from segment.images.bands import decode_image
from segment.images.codec import Picture
from segment.inputs.parts import SEGMENTED, Sample
from segment.job import Settings
from segment.models.card_input import Input


def decode_one(sample: Sample, spec: Input, settings: Settings) -> Picture:
    """Decode an image, with `decode = "fast"` maybe at a fraction of its size. Raises SampleError."""
    if sample.fault not in SEGMENTED:
        raise SampleError(str(sample.fault))
    fit = partial(resize.fitted_size, spec) if settings.decode == "fast" and not spec.tiles else None
    return decode_image(sample.image, spec, settings.max_pixels, fit)
