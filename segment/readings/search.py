"""Searches the readings of a card, and says which one the labels bear out."""

import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from segment.models.sessions.apart_process import Note, Passing
from segment.readings.alternatives import Reading, orders_and_scalings, resizes
from segment.readings.bench import Bench
from segment.readings.evidence import (
    FEWEST_IMAGES,
    LEAST_EXCESS,
    Comparison,
    Difference,
    Evidence,
    compare,
    excess_over_chance,
    resamples,
)
from segment.readings.labelled import Labelled, LabelledImages
from segment.store.names import count

# Images that are added, as a multiple of those before, while they leave open whether a reading is better; how often;
# and for how many readings.
_GROWTH, _ROUNDS, _OPEN = 2, 3, 4


@dataclass(frozen=True, eq=False)
class Tried:
    """A reading and its evidence."""

    reading: Reading
    evidence: Evidence

    @functools.cached_property
    def miou(self) -> float:
        """mIoU over the images that it has seen, 0-1."""
        return float(self.evidence.miou(resamples(len(self.evidence))[:1])[0])

    @functools.cached_property
    def over_chance(self) -> Difference:
        """How much better it is than predictions that have nothing to do with the labels."""
        return excess_over_chance(self.evidence)

    def against(self, other: Self) -> Comparison:
        """Compare it with another reading."""
        return compare(self.evidence, other.evidence)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        card: what the card says.
        best: the reading to recommend: see `recommended`.
        tried: every reading, the highest score first.
        segmented: how many times the model has segmented an image.
        refused: channel orders and normalisations that the model does not take.
        seconds: of the search.
    """

    card: Tried
    best: Tried
    tried: tuple[Tried, ...]
    segmented: int
    refused: int
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether no reading is better than the card's beyond the noise."""
        return self.best is self.card

    @property
    def over_chance(self) -> Difference:
        """How much better the recommended reading is than one that has nothing to do with the labels."""
        return self.best.over_chance

    @property
    def ties(self) -> tuple[Tried, ...]:
        """The other readings that the recommended one does not exceed beyond the noise, the highest score first."""
        return tuple(item for item in self.tried if item is not self.best and not self.best.against(item).is_better)

    def rival(self, setting: str) -> Tried | None:
        """Return the best reading with another value of one setting, the other settings as recommended."""
        wanted = (setting,)
        return next((item for item in self.tried if item.reading.changes(self.best.reading) == wanted), None)


class _Search:
    """Readings as they are tried."""

    def __init__(self, bench: Bench, labelled: LabelledImages, start: Reading, scalings: bool, note: Note) -> None:
        self.tried: dict[Reading, Tried] = {}
        self._inputs: set[tuple[Reading, bytes]] = set()  # tried: a reading but for its resize, and what that gives
        self._bench, self._labelled, self._start, self._scalings = bench, labelled, start, scalings
        self._note = note

    @property
    def recommended(self) -> Tried:
        """The reading to recommend so far."""
        return recommended(self.tried.values(), self._start)

    def start(self, images: Sequence[Labelled]) -> None:
        """Try readings, from what the card says, until none is better than those that their neighbours are."""
        began = time.monotonic()
        self._try("the card", [self._start], images)
        base = None
        while base != (base := self.recommended.reading):
            pixels = orders_and_scalings(base, self._start.scaling, scalings=self._scalings)
            numberings = self._labelled.numberings
            others = [replace(item, labels=labels) for item in pixels for labels in numberings]
            self._try("readings", others, images)
            self._try("resizes", list(resizes(self.recommended.reading, self._start.resize)), images)
            best = f"{100 * self.recommended.miou:.1f} %"
            self._note(f"{len(self.tried)} readings in {time.monotonic() - began:.0f} s, the best: {best}")

    def grow(self) -> None:
        """Show more images to the readings that may be better than the card, and to the card."""
        for _ in range(_ROUNDS):
            card = self.tried[self._start]
            seen = len(card.evidence)
            undecided = list(_undecided(self.tried.values(), card))
            images = self._labelled.take(_GROWTH * seen) if undecided else []
            if len(images) <= seen:
                return
            open_ones = count(len(undecided), "reading")
            self._note(f"{seen} images leave {open_ones} open: {len(images)} for the best of them")
            shown = (card, *undecided[:_OPEN])
            for number, item in enumerate(shown, 1):
                told = self._counter(f"more images: reading {number} of {len(shown)}", len(item.evidence), len(images))
                evidence = self._bench.evidence(item.reading, images[len(item.evidence) :], told)
                assert evidence is not None, "it was taken before"
                self.tried[item.reading] = Tried(item.reading, item.evidence + evidence)

    def _try(self, what: str, readings: Sequence[Reading], images: Sequence[Labelled]) -> None:
        for number, reading in enumerate(readings, 1):
            told = f"{what}: {number} of {len(readings)}"
            key = replace(reading, resize=self._start.resize), self._bench.inputs(reading, images)
            if key not in self._inputs and (found := self._seen(reading, images, told)) is not None:
                self.tried[reading] = found
            self._inputs.add(key)

    def _counter(self, what: str, seen: int, images: int) -> Callable[[int], object]:
        """Return what tells the image that a reading is tried on, after those that it has seen."""
        return lambda index: self._note(Passing(f"{what}, image {seen + index + 1} of {images}"))

    def _seen(self, reading: Reading, images: Sequence[Labelled], what: str) -> Tried | None:
        """Try a reading on a few images, and on the others unless it is far behind already."""
        few, others = images[:FEWEST_IMAGES], images[FEWEST_IMAGES:]
        evidence = self._bench.evidence(reading, few, self._counter(what, 0, len(images)))
        if evidence is None:
            return None
        found = Tried(reading, evidence)
        leader = max(self.tried.values(), key=lambda item: item.miou, default=None)
        if not others or (leader is not None and leader.against(found).miou.is_clear):
            return found
        more = self._bench.evidence(reading, others, self._counter(what, len(few), len(images)))
        assert more is not None, "it was taken before"
        return Tried(reading, evidence + more)


def search(bench: Bench, labelled: LabelledImages, start: Reading, images: int, *, scalings: bool, note: Note) -> Found:
    """Try readings of a card.

    Every channel order with every normalisation and numbering; then every resize for what these recommend; and both
    again until nothing changes. Two wrong settings are found as well, unless either alone hides that the other is
    wrong. Where some reading may be better than the card and the images leave it open, more images are taken.

    Args:
        images: number of images to begin with.
        scalings: whether the normalisation may be another; false for a graph that takes bytes.
        note: gets a line after each step, and what is done at the moment.

    Raises:
        ModelError: the model does not take the card as it is.
        StoreError: the store refused.
    """
    began = time.monotonic()
    searching = _Search(bench, labelled, start, scalings, note)
    searching.start(labelled.take(images))
    searching.grow()
    best = searching.recommended
    card = searching.tried[start]
    ranked = by_score(searching.tried.values(), card)
    seconds = time.monotonic() - began
    return Found(card, best, tuple(ranked), bench.segmented, len(bench.refused), seconds)


def by_score(tried: Iterable[Tried], card: Tried) -> list[Tried]:
    """Return readings by their difference to the card, the best first: they may have seen more or fewer images."""
    return sorted(tried, key=lambda item: -item.against(card).miou.value)


def recommended(tried: Collection[Tried], start: Reading) -> Tried:
    """Return the reading to recommend: what the card says, unless a reading is better beyond the noise.

    A reading that is hardly above chance is never recommended. One at chance level is none that another has to be
    better than: where labels show one class alone, its score may be 100 %. Of the readings that are as good as the best
    one, within the noise, it is one with the fewest changes to the card; of these the one with the highest score.
    """
    card = next(item for item in tried if item.reading == start)
    is_hollow = not card.over_chance.matters
    better = [
        item
        for item in by_score(tried, card)
        if item.over_chance.value > LEAST_EXCESS
        and ((is_hollow and item.over_chance.is_clear) or (item.over_chance.matters and item.against(card).is_better))
    ]
    if not better:
        return card
    best = better[0]
    level = [item for item in better if not best.against(item).is_better]
    return min(level, key=lambda item: len(item.reading.changes(start)))


def _undecided(tried: Collection[Tried], card: Tried) -> Iterator[Tried]:
    """Yield the readings that may be better than the card, the highest score first; none if one clearly is."""
    against = {item: item.against(card) for item in tried if item is not card}
    if any(comparison.miou.is_clear or comparison.by_image.is_clear for comparison in against.values()):
        return
    yield from (item for item in by_score(against, card) if against[item].is_open)
