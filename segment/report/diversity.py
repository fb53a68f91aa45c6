"""The choice of images that look different: one of each cluster of near-duplicates, such as the frames of a video."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from segment.images.perceptual_hash import PerceptualHash

ItemT = TypeVar("ItemT")
ViewT = TypeVar("ViewT")
DrawnT = TypeVar("DrawnT")


class Diversity(Generic[ItemT, ViewT]):
    """Chooses, group by group, images that look different.

    No two of a group are near-duplicates. Images that are none of an earlier group's either come first: a run of one
    sequence still has an image in each group.

    Args:
        read: reads an image; called twice for one that is taken only as there is no better one.
        hash_of: says what an image that was read looks like; None if all of them are to look different.
    """

    def __init__(self, read: Callable[[ItemT], ViewT], hash_of: Callable[[ViewT], PerceptualHash] | None) -> None:
        self._read, self._hash_of = read, hash_of
        self._shown: list[PerceptualHash | None] = []

    def choose(
        self, slots: Iterable[Sequence[ItemT]], most: int, draw: Callable[[ItemT, ViewT], DrawnT]
    ) -> list[DrawnT]:
        """Return a group of at most `most` images, in the order of their slots, as they are drawn.

        Args:
            slots: images of which at most one is taken, the first one of those that look different.
            draw: draws an image. Memory holds one image at a time, and what this returns.
        """
        taken: dict[int, tuple[PerceptualHash | None, DrawnT]] = {}
        left: list[tuple[int, ItemT, PerceptualHash | None]] = []
        for place, slot in enumerate(slots):
            if len(taken) == most:
                break
            for item in slot:
                view = self._read(item)
                look = self._hash_of(view) if self._hash_of else None
                if not _is_near(look, [*self._shown, *(one for one, _ in taken.values())]):
                    taken[place] = look, draw(item, view)
                    break
                left.append((place, item, look))
        for place, item, look in left:
            if len(taken) < most and place not in taken and not _is_near(look, [one for one, _ in taken.values()]):
                taken[place] = look, draw(item, self._read(item))
        self._shown += [look for look, _ in taken.values()]
        return [drawn for _, (_, drawn) in sorted(taken.items(), key=lambda pair: pair[0])]


def _is_near(look: PerceptualHash | None, others: Iterable[PerceptualHash | None]) -> bool:
    return look is not None and any(look.is_near(other) for other in others if other)
