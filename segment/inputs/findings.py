"""What planning finds out about an input: notes, warnings, and what the run does not segment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from segment.store.names import DATA_SUFFIXES, as_text, count, examples, shown, suffix_of
from segment.store.urls import unsigned

Reason = Literal[
    "hidden", "system", "format", "other_kind", "run_output", "irregular", "unused_label", "label_format",
    "special_member", "hidden_member", "unused_member", "sample_without_image", "keyless_member", "damaged",
    "removed", "linked", "beyond_limit", "not_sampled",
]  # fmt: skip

# What is left out, as a text for one and for several; then advice, where there is any.
_WORDS: dict[Reason, tuple[str, str, str]] = {
    "hidden": (
        "hidden file (its name or a folder of it begins with '.' or '_')",
        "hidden files (their names or folders begin with '.' or '_')",
        "--include-hidden reads such files",
    ),
    "system": (
        "file that NAS systems, Windows or macOS keep for themselves",
        "files that NAS systems, Windows or macOS keep for themselves",
        "",
    ),
    "format": (
        "file in a format that is not read",
        "files in formats that are not read",
        "images in other formats have to be converted first",
    ),
    "other_kind": ("file of another kind", "files of other kinds", ""),
    "run_output": ("file in outputs of other runs", "files in outputs of other runs", ""),
    "removed": (
        "Parquet file that is not part of the current version of its Delta table",
        "Parquet files that are not part of the current version of their Delta table",
        "",
    ),
    "linked": (
        "link to a file of the input that is read by its own name",
        "links to files of the input that are read by their own names",
        "",
    ),
    "irregular": (
        "object that is no file (a link to nothing, a device, a pipe, a name that ends in a slash)",
        "objects that are no files (links to nothing, devices, pipes, names that end in a slash)",
        "",
    ),
    "unused_label": ("label file that no image uses", "label files that no image uses", ""),
    "label_format": (
        "file among the labels in a format that is not read",
        "files among the labels in formats that are not read",
        "labels in other formats have to be converted to PNG first",
    ),
    "special_member": (
        "tar member that is a link to no file of the tar, a device, a sparse file or a path that leads out",
        "tar members that are links to no file of the tar, devices, sparse files or paths that lead out",
        "",
    ),
    "hidden_member": (
        "hidden tar member (its name or a folder of it begins with '.' or '_')",
        "hidden tar members (their names or folders begin with '.' or '_')",
        "--include-hidden reads such members",
    ),
    "unused_member": (
        "tar member that is neither the image nor the label of its sample",
        "tar members that are neither the image nor the label of their sample",
        "--image-key and --label-key select others",
    ),
    "sample_without_image": ("tar member of a sample without an image", "tar members of samples without an image", ""),
    "keyless_member": ("tar member without a suffix", "tar members without a suffix", ""),
    "damaged": (
        "image after the damage or the end mark of a tar",
        "images after the damage or the end mark of tars",
        "write these tars again and use --update",
    ),
    "beyond_limit": ("image after the first ones (--limit)", "images after the first ones (--limit)", ""),
    "not_sampled": ("image that is not in the sample (--sample)", "images that are not in the sample (--sample)", ""),
}  # fmt: skip
_EXAMPLES = 3  # names shown for each reason
_KINDS = 6  # suffixes counted separately
_AT_ONCE = 10_000  # names that are counted at once; an input may hold millions that it does not use


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A kind of content that the input holds and the run does not segment.

    Attributes:
        number: number of files, members or images; a lower bound if `exact` is False.
        kinds: the same by suffix, or by WebDataset key, most frequent first; the rest is under `""`.
        examples: up to three names.
        exact: whether `number` is exact; after the damage of an archive there may be more.
        place: URL of the archive that holds them; `""` for files of a listing and for sums over several places.
        data: number of those that may be images, labels, archives or tables, by their suffixes.
    """

    reason: Reason
    number: int
    kinds: Mapping[str, int]
    examples: tuple[str, ...]
    exact: bool = True
    place: str = ""
    data: int = 0

    @property
    def is_choice(self) -> bool:
        """Whether `limit` or `sample` left it out."""
        return self.reason in ("beyond_limit", "not_sampled")

    @property
    def matters(self) -> bool:
        """Whether it may hold data of the user, so that leaving it out deserves a warning."""
        if self.reason in ("system", "run_output", "linked"):
            return False
        return self.reason in ("damaged", "irregular") or self.data > 0

    def __str__(self) -> str:
        one, several, advice = _WORDS[self.reason]
        kinds = ", ".join(f"{shown(kind) or 'others'} x {number}" for kind, number in self.kinds.items())
        number = count(self.number, one, several)
        if not self.exact:
            number = f"at least {number}" if self.number else f"an unknown number of {several}"
        text = f"left out: {number}{f': {kinds}' if kinds else ''}"
        text += f"; {examples(self.examples, _EXAMPLES)}" if self.examples else ""
        return f"{text} ({advice})" if advice and self.matters else text

    def to_json(self) -> dict[str, Any]:
        """Return the form that `run.json` stores."""
        return {
            "reason": self.reason,
            "number": self.number,
            "exact": self.exact,
            "data": self.data,
            "kinds": dict(self.kinds),
            "examples": list(self.examples),
            **({"place": self.place} if self.place else {}),
        }

    @staticmethod
    def from_json(item: Mapping[str, Any]) -> LeftOut:
        """Return the object that `to_json` stored."""
        return LeftOut(**{**item, "examples": tuple(item["examples"])})


@dataclass
class _Count:
    """A running sum that becomes a `LeftOut`."""

    number: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, None] = field(default_factory=dict)  # an ordered set
    exact: bool = True
    data: int = 0

    def add(self, number: int, kinds: Mapping[str, int], examples: Iterable[str], exact: bool, data: int) -> None:
        self.number += number
        self.kinds.update(kinds)
        for name in examples:
            if len(self.examples) >= _EXAMPLES:
                break
            self.examples.setdefault(name)
        self.exact = self.exact and exact
        self.data += data

    def result(self, reason: Reason, place: str = "") -> LeftOut:
        return LeftOut(
            reason, self.number, _most_common(self.kinds), tuple(self.examples), self.exact, place, self.data
        )


@dataclass
class Findings:
    """Collects what planning finds out about an input. The planner of each format adds to it.

    Attributes:
        notes: one line for each decision.
        warnings: one line for each problem, with counts.
    """

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _counts: dict[tuple[str, Reason], _Count] = field(default_factory=dict)

    @property
    def left_out(self) -> list[LeftOut]:
        """What is not segmented, sorted by place and reason."""
        return [count.result(reason, place) for (place, reason), count in sorted(self._counts.items())]

    def _count(self, reason: Reason, place: str = "") -> _Count:
        return self._counts.setdefault((unsigned(place), reason), _Count())

    def leave_out(
        self, reason: Reason, names: Iterable[str], kinds: Iterable[str] | None = None, place: str = ""
    ) -> None:
        """Count files or members that are not segmented.

        Args:
            kinds: their kinds; by default their suffixes.
            place: URL of the archive that holds them, if any.
        """
        left, their_kinds = iter(names), None if kinds is None else iter(kinds)
        while listed := list(islice(left, _AT_ONCE)):
            suffixes = (suffix_of(name) or "no suffix" for name in listed)
            found = Counter(suffixes if their_kinds is None else islice(their_kinds, len(listed)))
            data = sum(number for kind, number in found.items() if suffix_of(f"x.{kind}") in DATA_SUFFIXES)
            storable = {as_text(kind): number for kind, number in found.items()}
            self._count(reason, place).add(len(listed), storable, map(as_text, listed), True, data)

    def leave_out_files(self, names: Iterable[str]) -> None:
        """Count files of the input that are not read: those that may hold data apart from all others."""
        for name in names:
            self.leave_out("format" if suffix_of(name) in DATA_SUFFIXES else "other_kind", [name])

    def omit(self, reason: Literal["beyond_limit", "not_sampled"], images: int, *, exact: bool = True) -> None:
        """Count images that `limit` or `sample` leaves out; `images` is a lower bound unless `exact`."""
        if images or not exact:
            self._count(reason).add(images, {}, (), exact, 0)

    def adopt(self, other: Findings) -> None:
        """Take what another planning of the same input found in place of what this one has."""
        self.notes, self.warnings, self._counts = other.notes, other.warnings, other._counts

    def lose(self, images: int, examples: Sequence[str], place: str, *, exact: bool) -> None:
        """Count images after the damage of the archive at `place`; `images` is a lower bound unless `exact`."""
        self._count("damaged", place).add(images, {}, map(as_text, examples), exact, 0)


def choice_in_words(images: int, left_out: Iterable[LeftOut]) -> str:
    """Describe the images that `limit` or `sample` selected; `""` for a run of all images.

    >>> choice_in_words(20, [LeftOut("not_sampled", 80, {}, ())])
    'sample of 20 of 100 images'
    """
    for item in left_out:
        if item.is_choice:
            how = "first" if item.reason == "beyond_limit" else "sample of"
            least = "" if item.exact else "at least "
            return f"{how} {images:,} of {least}{_images(images + item.number)}"
    return ""


def images_in_words(images: int, left_out: Iterable[LeftOut]) -> str:
    """Describe the number of images of a run, and the total of which they are a selection."""
    return choice_in_words(images, left_out) or _images(images)


def _images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"


def _most_common(kinds: Counter[str]) -> dict[str, int]:
    """Return the most frequent kinds, then by name; the others are summed up under `""`."""
    ordered = sorted(((kind, n) for kind, n in kinds.items() if kind), key=lambda item: (-item[1], item[0]))
    rest = kinds[""] + sum(number for _, number in ordered[_KINDS:])
    return dict(ordered[:_KINDS]) | ({"": rest} if rest else {})


def by_reason(items: Iterable[LeftOut]) -> list[LeftOut]:
    """Sum up what is left out over all places."""
    total: dict[Reason, _Count] = {}
    for item in items:
        sums = total.setdefault(item.reason, _Count())
        sums.add(item.number, item.kinds, item.examples, item.exact, item.data)
    return [count.result(reason) for reason, count in total.items()]
