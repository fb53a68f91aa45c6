"""Other classes for counts that are there: ignored, merged, or chosen for the means.

Counts can be united, never split: what a label or a prediction was before it became a class is not in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segment.errors import UsageError, did_you_mean
from segment.metrics.counts import Confusion
from segment.models.classes import Classes, index_of, named
from segment.store.names import count, listed

NOTHING = "none"  # `ignore` of no class


@dataclass(frozen=True)
class Grouping:
    """Classes made from the C classes of a card.

    Attributes:
        names: of the D new classes.
        of_class: index of the new class by index of the old one.
        ignored: indices of the new classes that no score counts.
        chosen: indices of the new classes over which means are taken; None for all.
    """

    names: tuple[str, ...]
    of_class: tuple[int, ...]
    ignored: tuple[int, ...]
    chosen: tuple[int, ...] | None = None

    @property
    def means_in_words(self) -> str:
        """Over which classes means are taken; `""` for all."""
        if self.chosen is None:
            return ""
        chosen = [self.names[index] for index in self.chosen]
        number = count(len(chosen), "class", "classes")
        return f"means over {number}, {listed(chosen)}; pixel accuracy and kappa are of all"

    @property
    def cells(self) -> NDArray[np.int32]:
        """`int32[(C + 1) * C]`: the new cell `label * D + prediction` by the old one; void (row C) becomes row D."""
        columns = np.array(self.of_class, np.int32)
        rows = np.append(columns, np.int32(len(self.names)))
        return np.asarray((rows[:, None] * len(self.names) + columns).ravel(), np.int32)

    def confusion(self, counts: Confusion) -> Confusion:
        """Return counts by the new classes."""
        flat = np.zeros((len(self.names) + 1) * len(self.names), np.int64)
        np.add.at(flat, self.cells, counts.counts.ravel())
        return Confusion(flat.reshape(-1, len(self.names)))


def regroup(
    classes: Classes,
    *,
    ignore: Sequence[str] | None = None,
    merge: Sequence[str] = (),
    chosen: Sequence[str] | None = None,
) -> Grouping:
    """Return other classes, made from those of a card.

    Args:
        classes: of the card.
        ignore: names of the classes to ignore, in place of the card's; `["none"]` for no class.
        merge: unions as `Pole+SignSymbol=Furniture`.
        chosen: names of classes, merged ones by their new name: means are taken over these only.

    A name may be given in any case, a class also by its index in the card, several separated by commas.

    Raises:
        UsageError: there is no such class, a union of one class, of a class twice or of ignored and other classes, or
            nothing is left to score.
    """
    ignored = set(classes.ignored_classes if ignore is None else _ignored(ignore, classes.names))
    united: dict[int, str] = {}
    for text in merge:
        members, name = _union(text, classes.names)
        if twice := [classes.names[index] for index in members if index in united]:
            raise UsageError(f"merge = {text!r}: {twice[0]!r} is in another union already")
        if name in united.values():
            raise UsageError(f"merge = {text!r}: {name!r} is another union's name already: write one union of all")
        if len({index in ignored for index in members}) > 1:
            inner = next(classes.names[index] for index in members if index in ignored)
            raise UsageError(f"merge = {text!r}: {inner!r} is ignored and others are not: say which with --ignore")
        united |= dict.fromkeys(members, name)
    named = [united.get(index, name) for index, name in enumerate(classes.names)]
    names = tuple(dict.fromkeys(named))
    if both := [name for index, name in enumerate(classes.names) if index not in united and name in united.values()]:
        raise UsageError(f"merge: {both[0]!r} is a class already: give the union another name, or merge the class, too")
    of_class = tuple(names.index(name) for name in named)
    new_ignored = tuple(sorted({of_class[index] for index in ignored}))
    if len(new_ignored) == len(names):
        raise UsageError("every class is ignored: nothing is left to score")
    new = Grouping(names, of_class, new_ignored)
    return new if chosen is None else replace(new, chosen=_chosen(chosen, new, classes.names))


def _chosen(texts: Sequence[str], new: Grouping, names: Sequence[str]) -> tuple[int, ...]:
    chosen = {_new_index(text, new, names) for text in _parts(texts, (*new.names, *names))}
    if not chosen:
        raise UsageError("classes: none is named: nothing is left to take a mean of")
    if unscored := [new.names[index] for index in chosen if index in new.ignored]:
        raise UsageError(f"classes: {unscored[0]!r} is ignored: say which classes are with --ignore")
    return tuple(sorted(chosen))


def _new_index(text: str, new: Grouping, names: Sequence[str]) -> int:
    found = index_of(text.strip(), new.names)
    if found is not None:
        return found
    old = class_index(text, names, "classes")
    union = new.names[new.of_class[old]]
    if union != names[old]:
        raise UsageError(f"classes: {names[old]!r} is counted in {union!r}: name that")
    return new.of_class[old]


def _union(text: str, names: Sequence[str]) -> tuple[list[int], str]:
    left, equals, name = text.rpartition("=")
    parts = left.split("+") if equals and left and name.strip() else []
    members = [class_index(part, names, "merge") for part in parts]
    if len(set(members)) < 2 or len(set(members)) < len(members):
        raise UsageError(f"merge = {text!r}: write two or more classes and a name, as 'Pole+SignSymbol=Furniture'")
    return members, name.strip()


def _ignored(texts: Sequence[str], names: Sequence[str]) -> list[int]:
    is_none = [text.strip().lower() for text in texts] == [NOTHING] and NOTHING not in map(str.lower, names)
    return [] if is_none else [class_index(part, names, "ignore") for part in _parts(texts, names)]


def _parts(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return what stands between commas, but for texts that are names with commas."""
    known = {name.lower() for name in names}
    return [part for text in texts for part in ([text] if text.strip().lower() in known else text.split(","))]


def class_index(text: str, names: Sequence[str], option: str) -> int:
    """Return the index of a class given by name, in any case, or by index. Raises UsageError that names the option."""
    name = text.strip()
    found = index_of(name, names)
    if found is not None:
        return found
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    hint = did_you_mean(name, list(names)) or f" The run counted {named(names)}: other classes need another run"
    raise UsageError(f"{option}: no class {name!r}.{hint}")
