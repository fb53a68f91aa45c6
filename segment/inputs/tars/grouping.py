"""Group tar members into samples: where keys end, and which members are image and label.

By WebDataset's rule a key ends at the first dot of the file name and the rest is the member's suffix: `a/1.seg.png` is
member `seg.png` of sample `a/1`. By that rule `frame.0000.jpg` and `frame.0001.jpg` would be one sample. Where names
show that keys contain dots, keys end later, by one rule for the whole input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from segment.inputs.parts import KeyRule, Span
from segment.inputs.tars.suffixes import field_of, is_image_of_its_own, may_be_image, rank
from segment.job import InputOptions
from segment.store.names import count, shown

LABEL_KEYS = ("seg.png", "mask.png", "label.png")
METADATA_KEY = "json"

File = tuple[str, int, int]  # name, first byte, size

_MOST_DOTS = 16  # dots of a name that are examined
_MOST_IMAGES = 8  # unused images that a sample may have; more are samples of their own


@dataclass(frozen=True, slots=True)
class Fields:
    """The suffixes of the image and the label of a sample.

    Attributes:
        image: suffix that an option names, else None.
        labels: suffixes of labels; the first one that a sample has is its label.
    """

    image: str | None
    labels: tuple[str, ...]

    @staticmethod
    def of(options: InputOptions) -> Fields:
        """Return the suffixes that the options name, else the usual ones."""
        labels = LABEL_KEYS if options.label_key is None else (options.label_key,)
        return Fields(options.image_key, tuple(label for label in labels if label != options.image_key))

    def is_image(self, suffix: str) -> bool:
        """Whether the member of this suffix may be the image of its sample."""
        if self.image is not None:
            return suffix == self.image
        return suffix not in self.labels and may_be_image(suffix)

    def is_label(self, suffix: str) -> bool:
        """Whether the member of this suffix may be the label of its sample."""
        return suffix in self.labels

    def labelled_key(self, name: str) -> str:
        """Return the key of a member whose name ends as a label's; else `""`."""
        lower = name.lower()
        return next((name[: -len(label) - 1] for label in self.labels if lower.endswith(f".{label}")), "")


@dataclass(slots=True)
class Group:
    """The members of one sample.

    Attributes:
        key: key of the sample.
        members: files by lower-case suffix.
        image, label: suffixes of the members that are used, or `""`.
    """

    key: str
    members: dict[str, File]
    image: str = ""
    label: str = ""

    def unused(self) -> Iterator[tuple[str, str]]:
        """Yield suffix and name of each member that is not used. Without an image the label is not used either."""
        used = (self.image, self.label) if self.image else ()
        return ((suffix, file[0]) for suffix, file in self.members.items() if suffix not in used)

    def span(self, suffix: str) -> Span:
        """Return the byte range of a member in the tar."""
        _, start, size = self.members[suffix]
        return Span("", start, size)


def first_key(name: str) -> str:
    """Return WebDataset's key of a name: up to the first dot of the file name; `""` without a suffix after it.

    >>> first_key("v1.0/a.seg.png"), first_key("README"), first_key("d/.a.png")
    ('v1.0/a', '', 'd/.a')
    """
    begin = name.rfind("/") + 1
    while name[begin : begin + 1] == ".":
        begin += 1
    dot = name.find(".", begin)
    return name[:dot] if begin < dot < len(name) - 1 else ""


def group_files(files: Sequence[File], rule: KeyRule, fields: Fields) -> tuple[list[Group], int]:
    """Group files by key, wherever they are in the tar. A repeated suffix begins a second group with the same key.

    Args:
        files: name, first byte and size of each file; names have a suffix.
        rule: where keys end.
        fields: suffixes of image and label.

    Returns:
        The groups, in the order of their first members, and the number of groups whose members are not adjacent.
    """
    key_of = _key_finder([name for name, *_ in files], rule, fields)
    groups: list[Group] = []
    latest: dict[str, Group] = {}
    apart: set[int] = set()
    last: Group | None = None
    for file in files:
        key = key_of(file[0])
        suffix = sys.intern(file[0][len(key) + 1 :].lower())  # millions of members share a few suffixes
        held = latest.get(key)
        if held is None or suffix in held.members:
            held = latest[key] = Group(key, {})
            groups.append(held)
        elif held is not last:
            apart.add(id(held))
        held.members[suffix] = file
        last = held
    for held in groups:
        held.label = next((label for label in fields.labels if label in held.members), "")
        held.image = _image_of(held, fields)
    return groups, len(apart)


def _image_of(held: Group, fields: Fields) -> str:
    """Return the suffix of a sample's image: a plain one (`jpg`) before `left.jpg`, a JPEG before lossless formats."""
    if fields.image is not None:
        return fields.image if fields.image in held.members else ""
    candidates = [suffix for suffix in held.members if suffix != held.label and may_be_image(suffix)]
    return min(candidates, key=rank) if candidates else ""


def _key_finder(names: Sequence[str], rule: KeyRule, fields: Fields) -> Callable[[str], str]:
    """Return a function from a name to its key: the longest key of an image (or label) that the name begins with."""
    if rule == "first":
        return first_key
    keys = set()
    for name in names:
        first = first_key(name)
        if rule == "image":
            if name.lower().endswith(f".{fields.image}"):
                keys.add(name[: -len(fields.image or "") - 1])
        elif labelled := fields.labelled_key(name):
            keys.add(labelled)
        elif is_image_of_its_own(name[len(first) + 1 :].lower()):
            keys.add(_numbered_key(name, first) if rule == "number" else name.rpartition(".")[0])
    if rule == "image":  # `a.thumb.jpg` is a member of `a` if there is an `a.jpg`
        keys = {key for key in keys if keys.isdisjoint(_prefixes(key, first_key(f"{key}.x")))}

    def key_of(name: str) -> str:
        first = first_key(name)
        return next((prefix for prefix in _prefixes(name, first) if prefix in keys), first)

    return key_of


def _numbered_key(name: str, first: str) -> str:
    return name[: -len(field_of(name[len(first) + 1 :])) - 1]


def _prefixes(name: str, first: str) -> Iterator[str]:
    """Yield a name up to each of its dots, longest first, down to its first key."""
    end = len(name)
    for _ in range(_MOST_DOTS):
        end = name.rfind(".", len(first), end)
        if end < 0:
            return
        yield name[:end]


@dataclass(frozen=True, slots=True)
class Grouping:
    """The samples of an input by one rule.

    Attributes:
        rule: where keys end.
        tars: the groups of each tar.
        apart: number of groups whose members are not adjacent.
        images, labelled: number of groups with an image; with an image and a label.
        clashes: number of unused images of the same kind as the image that is used.
        dotted_labels: number of members that end as labels do and are none by this rule.
    """

    rule: KeyRule
    tars: Sequence[Sequence[Group]]
    apart: int
    images: int
    labelled: int
    clashes: int
    dotted_labels: int


def group_tars(rule: KeyRule, tars: Sequence[Sequence[File]], fields: Fields) -> Grouping:
    """Group the files of each tar by one rule."""
    grouped = [group_files(files, rule, fields) for files in tars]
    ends = tuple(f".{label}" for label in fields.labels)
    every = [held for groups, _ in grouped for held in groups]
    return Grouping(
        rule,
        [groups for groups, _ in grouped],
        sum(apart for _, apart in grouped),
        images=sum(bool(held.image) for held in every),
        labelled=sum(bool(held.image and held.label) for held in every),
        clashes=sum(_clashes(held) for held in every),
        dotted_labels=sum(suffix.endswith(ends) for held in every for suffix in held.members),
    )


def choose_grouping(tars: Sequence[Sequence[File]], fields: Fields, *, dotted: bool = False) -> tuple[Grouping, str]:
    """Group files by the rule that gives most images a label, then by the fewest clashes, then by WebDataset's rule.

    Images of one sample clash if they have the same field: `0000.jpg` and `0001.jpg` do, `left.jpg` and `right.jpg` do
    not.

    Args:
        tars: the files of each tar, all with a suffix.
        fields: suffixes of images and labels. A given image suffix decides alone.
        dotted: whether images of the same input are already planned with keys by another rule than WebDataset's.

    Returns:
        The grouping; and a note if the rule is not WebDataset's.
    """
    if fields.image is not None:
        return group_tars("image", tars, fields), ""
    by_first = group_tars("first", tars, fields)
    if not (by_first.clashes or by_first.dotted_labels or dotted):
        return by_first, ""
    first = (by_first.images, by_first.labelled)
    best = None if dotted else by_first
    del by_first  # a grouping of millions of samples takes gigabytes: at most two are held
    for rule in ("number", "last"):
        found = group_tars(rule, tars, fields)
        is_clean = not (found.clashes or found.dotted_labels)
        if best is None or (-found.labelled, found.clashes) < (-best.labelled, best.clashes):
            best = found
        del found
        if is_clean:
            break
    assert best is not None
    return best, _note(*first, best)


def group_by_rule(rule: KeyRule, tars: Sequence[Sequence[File]], fields: Fields) -> tuple[Grouping, str]:
    """Group files by the rule that earlier tars of the input have decided.

    Returns:
        The grouping; and a note if WebDataset's rule was decided and names of these tars show that keys contain dots.
    """
    found = group_tars(rule, tars, fields)
    if rule != "first" or not (found.clashes or found.dotted_labels):
        return found, ""
    clashes = (held for held in _with_images(found) if _clashes(held))
    name = next((name for held in clashes for suffix, name in held.unused() if is_image_of_its_own(suffix)), "")
    example = f", such as {shown(name)}," if name else ""
    return found, (
        f"keys of tar members may contain dots: {count(found.clashes, 'image')}{example} and "
        f"{count(found.dotted_labels, 'label')} are not used, because keys of the first tars of the input end at "
        "the first dot. If these are samples of their own, --image-key names the member that is the image"
    )


def _note(images: int, labelled: int, best: Grouping) -> str:
    longer = ((held.members[held.image][0], held.key) for held in _with_images(best))
    moved = next(((name, key) for name, key in longer if key != first_key(name)), None)
    if moved is None:
        return ""
    name, key = (shown(text) for text in moved)
    unused = [
        count(best.images - images, "image") if best.images > images else "",
        count(best.labelled - labelled, "label") if best.labelled > labelled else "",
    ]
    without = (
        f"; by keys up to the first dot {' and '.join(filter(None, unused))} would be unused" if any(unused) else ""
    )
    return f"keys of tar members contain dots: {name} is the image of sample {key}{without} (--image-key overrides)"


def _with_images(found: Grouping) -> Iterator[Group]:
    return (held for groups in found.tars for held in groups if held.image)


def _clashes(held: Group) -> int:
    unused = [suffix for suffix, _ in held.unused() if is_image_of_its_own(suffix)]
    if not held.image or not unused:
        return 0
    used = field_of(held.image)
    return len(unused) if len(unused) > _MOST_IMAGES else sum(field_of(suffix) == used for suffix in unused)
