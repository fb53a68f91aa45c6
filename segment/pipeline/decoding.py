"""From the bytes of a sample to pixels: the same for those that are segmented and those that calibrate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from segment.errors import SampleError
from segment.images import resize
from segment.images.bands import decode_image
from segment.images.codec import Picture
from segment.inputs.parts import SEGMENTED, Part, Sample
from segment.job import Settings
from segment.models.card_input import Input


def decode_one(sample: Sample, spec: Input, settings: Settings) -> Picture:
    """Decode an image, with `decode = "fast"` maybe at a fraction of its size. Raises SampleError."""
    if sample.fault not in SEGMENTED:
        raise SampleError(str(sample.fault))
    fit = partial(resize.fitted_size, spec) if settings.decode == "fast" and not spec.tiles else None
    return decode_image(sample.image, spec, settings.max_pixels, fit)


class Decoding:
    """What a worker decodes now: for heartbeats, so that an image whose decoding has no end is known.

    Attributes:
        at: part and index of the image; None if there is none, or a batch of several.
    """

    def __init__(self) -> None:
        self.at: tuple[str, int] | None = None

    @contextmanager
    def of(self, part: Part, samples: Sequence[Sample]) -> Iterator[None]:
        """Say so while the block decodes images, or their labels."""
        self.at = (part.id, samples[0].index) if len(samples) == 1 else None
        try:
            yield
        finally:
            self.at = None
