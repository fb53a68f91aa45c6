"""What a worker decodes now."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from segment.inputs.parts import Part, Sample


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
