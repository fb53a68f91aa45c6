"""The classes of two models, brought together: by name, or as the user says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segment.errors import UsageError
from segment.metrics.regroup import Grouping, class_index, regroup
from segment.models.classes import VOID, Classes
from segment.store.names import listed


@dataclass(frozen=True)
class CommonClasses:
    """The classes of model A and of model B as one list of D classes.

    Attributes:
        classes: the D classes; ignored are those that A's card ignores, or B's card where only B has the class.
        of_a: index of the common class by A's index.
        of_b: the same of B.
    """

    classes: Classes
    of_a: tuple[int, ...]
    of_b: tuple[int, ...]

    @property
    def only_a(self) -> tuple[int, ...]:
        """Indices of the classes that B lacks."""
        return tuple(sorted(set(self.of_a) - set(self.of_b)))

    @property
    def only_b(self) -> tuple[int, ...]:
        """Indices of the classes that A lacks."""
        return tuple(sorted(set(self.of_b) - set(self.of_a)))

    @property
    def shared(self) -> tuple[int, ...]:
        """Indices of the classes that both have."""
        return tuple(sorted(set(self.of_a) & set(self.of_b)))

    @property
    def tables(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The common class by value of A's masks and of B's, `uint8[256]` each; void for other values."""
        found = np.full((2, 256), VOID, np.uint8)
        found[0, : len(self.of_a)], found[1, : len(self.of_b)] = self.of_a, self.of_b
        return found[0], found[1]

    def regrouped(
        self, ignore: Sequence[str] | None = None, merge: Sequence[str] = (), chosen: Sequence[str] | None = None
    ) -> tuple[Grouping, Grouping, Grouping]:
        """Return other classes made from the common ones, for counts of A, of B, and by common classes.

        Means are taken over classes that both have, unless others are chosen.

        Args:
            ignore, merge, chosen: see `metrics.regroup.regroup`.

        Raises:
            UsageError: see `regroup`; or no class that both have is left to score.
        """
        common = regroup(self.classes, ignore=ignore, merge=merge, chosen=chosen)
        if chosen is None and (self.only_a or self.only_b):
            shared = {common.of_class[index] for index in self.shared} - set(common.ignored)
            if not shared:
                raise UsageError("every class that both runs have is ignored: nothing is left to score")
            common = replace(common, chosen=tuple(sorted(shared)))

        def of(indices: Sequence[int]) -> Grouping:
            return replace(common, of_class=tuple(common.of_class[index] for index in indices))

        return of(self.of_a), of(self.of_b), common


def common_classes(a: Classes, b: Classes, pairs: Sequence[str] = ()) -> CommonClasses:
    """Bring the classes of two models together: those of one name, in any case, are one class, and so are given pairs.

    A class that is paired is not matched by name besides. Several classes of A may be paired with one of B, or the
    other way: they are then united.

    >>> names = ("Road", "Car", "Van"), ("road", "auto", "Sky")
    >>> a, b = (Classes(names=some, palette=[(0, 0, 0)] * 3) for some in names)
    >>> common = common_classes(a, b, ["Car=auto", "Van=auto"])
    >>> common.classes.names, common.of_a, common.of_b
    (('Road', 'auto', 'Sky'), (0, 1, 1), (0, 1, 2))

    Args:
        a, b: classes of the two models.
        pairs: as `A-name=B-name`; each name may also be an index.

    Raises:
        UsageError: a pair is none, there is no such class, no class is common, or all together are more than 255.
    """
    given = [_pair(text, a, b) for text in pairs]
    links = _by_name(_by_name(given, a, b, str), a, b, str.lower)
    if not links:
        raise UsageError(
            f"the two runs have no class in common: A has {listed(a.names, 5)}, B has {listed(b.names, 5)}. "
            "Say which belong together with --map 'A-name=B-name'"
        )
    groups = _united(links, len(a), len(b))
    if len(groups) > VOID:
        raise UsageError(
            f"the classes of both runs together are {len(groups)}, and {VOID} is the most: pair more (--map)"
        )
    of_a, of_b = [0] * len(a), [0] * len(b)
    for number, (of_first, of_second) in enumerate(groups):
        for index in of_first:
            of_a[index] = number
        for index in of_second:
            of_b[index] = number
    names = _names(groups, a, b)
    palette = tuple((a.palette[one[0]] if one else b.palette[other[0]]) for one, other in groups)
    ignored = [
        number
        for number, (one, other) in enumerate(groups)
        if set(one or other) <= set(a.ignored_classes if one else b.ignored_classes)
    ]
    return CommonClasses(Classes(names=names, palette=palette, ignore=tuple(ignored)), tuple(of_a), tuple(of_b))


def pairs_of_each(pairs: Sequence[str], a: Classes, others: Sequence[Classes]) -> list[list[str]]:
    """Return for each of several models the pairs (`A-name=B-name`) that name a class of it.

    Raises:
        UsageError: a pair is none, or names a class of no model.
    """
    found: list[list[str]] = [[] for _ in others]
    for text in pairs:
        refused: list[UsageError] = []
        for own, other in zip(found, others, strict=True):
            try:
                _pair(text, a, other)
                own.append(text)
            except UsageError as error:
                refused.append(error)
        if len(refused) == len(others):
            raise refused[0]
    return found


def _by_name(
    links: Sequence[tuple[int, int]], a: Classes, b: Classes, key: Callable[[str], str]
) -> list[tuple[int, int]]:
    """Add the pairs of one name, among the classes that have no partner yet."""
    linked_a, linked_b = {one for one, _ in links}, {other for _, other in links}
    free = {key(name): index for index, name in enumerate(b.names) if index not in linked_b}
    names = [(index, key(name)) for index, name in enumerate(a.names) if index not in linked_a]
    return [*links, *((index, free.pop(name)) for index, name in names if name in free)]


_Members = tuple[list[int], list[int]]  # indices of classes of A, of B


def _pair(text: str, a: Classes, b: Classes) -> tuple[int, int]:
    """Split at the `=` whose two sides are classes, for a name may hold one."""
    cuts = [cut for cut, letter in enumerate(text) if letter == "="]
    if not cuts:
        raise UsageError(f"map = {text!r}: write a class of A and one of B, as 'Pole=pole'")
    for cut in cuts[:-1]:
        try:
            return class_index(text[:cut], a.names, "map"), class_index(text[cut + 1 :], b.names, "map")
        except UsageError:
            continue
    return class_index(text[: cuts[-1]], a.names, "map"), class_index(text[cuts[-1] + 1 :], b.names, "map")


def _united(links: Sequence[tuple[int, int]], size_a: int, size_b: int) -> list[_Members]:
    """Return the connected groups of A's and B's classes, in A's order, then what only B has."""
    groups: list[_Members] = [([index], []) for index in range(size_a)] + [([], [index]) for index in range(size_b)]
    for one, other in links:
        first = next(group for group in groups if one in group[0])
        second = next(group for group in groups if other in group[1])
        if first is not second:
            groups = [group for group in groups if group is not first and group is not second]
            groups.append((sorted(first[0] + second[0]), sorted(first[1] + second[1])))
    return sorted(groups, key=lambda group: (not group[0], group))


def _names(groups: Sequence[_Members], a: Classes, b: Classes) -> tuple[str, ...]:
    """Name each group as A does, or as B does where A has none or several; a name that is taken gets a mark."""
    names: list[str] = []
    for one, other in groups:
        name = a.names[one[0]] if len(one) == 1 else "+".join(b.names[index] for index in other)
        while name in names:
            name += " (B)"
        names.append(name)
    return tuple(names)
