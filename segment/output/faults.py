"""Faults that an audit finds, in bounded memory: a run may have 100,000 parts, and one cause can damage them all."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

_SHOWN = 10  # faults of a kind that are listed one by one


class Fault(NamedTuple):
    """A fault: its kind, as in "10 more KIND", and the line that describes it."""

    kind: str
    line: str


@dataclass
class Faults:
    """Collects faults; of a frequent kind the first lines, and the number of all.

    Attributes:
        parts: (shard, id) of the parts that have a fault, or are lost.
        shards: those whose statistics have one.
    """

    parts: dict[tuple[str, str], None] = field(default_factory=dict)
    shards: dict[str, None] = field(default_factory=dict)
    _lines: dict[str, list[str]] = field(default_factory=dict)
    _numbers: Counter[str] = field(default_factory=Counter)

    def add(self, faults: Iterable[Fault]) -> None:
        """Add faults of the run as a whole."""
        for kind, line in faults:
            self._numbers[kind] += 1
            if self._numbers[kind] <= _SHOWN:
                self._lines.setdefault(kind, []).append(line)

    def add_of(self, shard: str, part: str, faults: Iterable[Fault]) -> None:
        """Add faults of a part, or of the statistics of a shard (part `""`), which are then to be made again."""
        if found := list(faults):
            if part:
                self.parts[shard, part] = None
            elif shard:
                self.shards[shard] = None
            self.add(found)

    def has(self, shard: str, part: str) -> bool:
        """Return whether there is a fault of a part, or of the statistics of a shard."""
        return (shard, part) in self.parts if part else shard in self.shards

    @property
    def number(self) -> int:
        """Number of all faults."""
        return self._numbers.total()

    def summary(self) -> tuple[str, ...]:
        """Return a line for each fault; of a frequent kind, the first few and one with the number of the others."""
        summary: list[str] = []
        for kind, lines in self._lines.items():
            more = self._numbers[kind] - len(lines)
            summary += [*lines, f"{more:,} more {kind}"] if more else lines
        return tuple(summary)
