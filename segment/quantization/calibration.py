"""The images that calibrate: read as a job reads them, and kept as the network would get them."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, UsageError
from segment.images.codec import Picture
from segment.images.raster import ArrayRaster
from segment.images.resize import resize_image
from segment.inputs.discover import discover
from segment.inputs.parts import Part, Sample, image_uri
from segment.inputs.reads import read_part
from segment.job import Job
from segment.models.card import ModelCard
from segment.models.sessions import Masks
from segment.models.sessions.apart_process import Note, Passing
from segment.pipeline.stages import Clock, decode_one
from segment.pipeline.tiling import TiledImage
from segment.store.client import Store
from segment.store.names import by_kind, count

FEWEST_IMAGES = 8
TILES = 4  # of an image, for a card with tiles


@dataclass(frozen=True)
class Place:
    """One image of an input: a part that holds nothing else, and a name that tells it from all others."""

    part: Part
    name: str


def places_of(input: str, job: Job, store: Store, sample: int | None = None) -> list[Place]:  # noqa: A002
    """Return the images of an input in order, or those that a job with this `sample` segments.

    Raises UsageError: there are no images; StoreError: the store refused.
    """
    options = job.input_options.model_copy(update={"sample": sample})
    return [place for part in discover(input, options, store).parts for place in _alone(part)]


def _alone(part: Part) -> Iterator[Place]:
    for one in map(part.alone, range(len(part))):
        name = image_uri(one, one.members[0].id, one.members[0].image) if one.members else f"{one.url}#:{one.start}"
        yield Place(one, name)


def spread(places: Sequence[Place], number: int, seed: int) -> list[Place]:
    """Return one place, drawn by the seed, of each of so many runs of equal length; all places if there are fewer."""
    if number >= len(places):
        return list(places)
    draws = np.random.default_rng(seed).random(number)
    return [places[int((index + draw) * len(places) / number)] for index, draw in enumerate(draws)]


class Calibration:
    """Images as the network gets them: decoded, turned and resized, before the nodes that normalise them.

    They are in files of a folder, so that a large model input does not fill the memory, and can be read any number of
    times.

    Args:
        card: the card; one with tiles gives a few tiles of each image.
        folder: an existing empty folder.
        note: gets what is done at the moment.

    Attributes:
        unusable: number of images that could not be used, by reason.
        sha384: digest of all pixels.

    Raises:
        UsageError: too few of them can be used.
        StoreError: the store refused.
    """

    def __init__(
        self,
        places: Sequence[Place],
        job: Job,
        card: ModelCard,
        store: Store,
        folder: Path,
        note: Note = lambda line: None,
    ) -> None:
        self.images = 0
        self.unusable: Counter[str] = Counter()
        self._files: list[Path] = []
        self._encoded: set[bytes] = set()
        digest = hashlib.sha384()
        for number, place in enumerate(places, 1):
            note(Passing(f"reading images that calibrate: {number} of {len(places)}"))
            try:
                (sample,) = read_part(place.part, job.input_options, store)
                arrays = _network_inputs(decode_one(sample, card.input, job.settings), card)
            except SampleError as error:
                self.unusable[str(error)] += 1
                continue
            self.images += 1
            self._encoded.add(_digest(sample))
            for array in arrays:
                self._files.append(folder / f"{len(self._files)}.npy")
                np.save(self._files[-1], array)
                digest.update(array.tobytes())
        self.sha384 = digest.hexdigest()
        if self.images < FEWEST_IMAGES:
            raise UsageError(
                f"{count(self.images, 'image')} to calibrate with, and fewer than {FEWEST_IMAGES} do not show the "
                f"range of a network's numbers: give more images (--calibrate, --images){by_kind(self.unusable)}"
            )

    def count_same(self, places: Sequence[Place], job: Job, store: Store) -> int:
        """Return how many of some places hold one of these images: their bytes are read and compared."""
        samples = (sample for place in places for sample in read_part(place.part, job.input_options, store))
        return sum(_digest(sample) in self._encoded for sample in samples)

    def __len__(self) -> int:
        """Number of arrays: of images, or of their tiles."""
        return len(self._files)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return `uint8[1, H, W, 3]`, RGB, of the size of the model's input."""
        return np.load(self._files[index])  # type: ignore[no-any-return]


def _digest(sample: Sample) -> bytes:
    return hashlib.blake2b(sample.image, digest_size=16).digest()


def _network_inputs(image: Picture, card: ModelCard) -> list[NDArray[np.uint8]]:
    if not card.input.tiles:
        return [np.ascontiguousarray(resize_image(image.pixels, card.input, image.size)[np.newaxis])]
    cut = card.input.tiles.model_copy(update={"blend": "centre"})  # what is blended is nothing
    tiles = _Tiles(card.model_copy(update={"input": card.input.model_copy(update={"tiles": cut})}))
    for _ in TiledImage(ArrayRaster(image.pixels), tiles, 1).strips(Clock()):
        pass
    return [tiles.seen[int(index)] for index in np.linspace(0, len(tiles.seen) - 1, min(TILES, len(tiles.seen)))]


class _Tiles:
    """A session that keeps what it gets, and finds nothing."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.seen: list[NDArray[np.uint8]] = []

    def predict(self, images: NDArray[np.uint8]) -> Masks:
        self.seen.append(images.copy())
        nothing = np.zeros((len(images), self.card.output_height, self.card.output_width), np.uint8)
        return Masks(nothing, {})
