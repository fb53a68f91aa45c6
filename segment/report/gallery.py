"""The gallery of the HTML report: which images it shows, in groups."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.models.card import ModelCard
from segment.models.classes import VOID, Classes
from segment.output.ledger import Ledger
from segment.pipeline.stages import Task
from segment.report.diversity import Diversity
from segment.report.exhibits import SAME, Colours, Exhibit, Group, Phrase, differences_in, draw_exhibit, look_of
from segment.report.notable import SMALLEST_SHARE, Notable
from segment.report.pictures import ImageView, SourceReader
from segment.report.rows import ImageScores, Row
from segment.report.wording import pct
from segment.store.names import shown

_PER_GROUP = 4  # images
_SMALL = 3 * _PER_GROUP  # images of a run that is shown whole
_CLASSES = 8  # images of the group of classes
_CANDIDATES = 8  # images that are looked at for one that is shown, at most: the others are near-duplicates of it
_OF_CLASS = (
    f"lowest IoU of a class that has {100 * SMALLEST_SHARE:g} % of an image's labelled pixels or more; "
    f"at most {_CLASSES} images, lowest IoU first"
)

_APART = 50  # images of the input between two that are hardly of one scene of a video
_RANKED = 20_000  # images of a ranking that are looked through, at most

_Key = tuple[str, int]


@dataclass(frozen=True)
class _Wanted:
    """A group that is wanted: at most `most` images, one of each slot."""

    title: str
    note: str
    slots: Sequence[Sequence[Row]]
    most: int


def gallery(ledger: Ledger, scores: ImageScores, task: Task, notable: Notable | None = None) -> list[Group]:
    """Draw the worst images, the worst of each class, typical and best ones; of a small run every scored image.

    Without labels draw the least certain images, where they are known, typical ones and a sample. Of near-duplicates
    one is drawn, but in a small run. Memory holds one image at a time.

    Args:
        notable: images that stand for the run; None to show none.
    """
    notable = notable or Notable()
    reader = SourceReader(ledger, task)
    remarks = _remarks(notable, [shown(name) for name in task.card.classes.names])
    drawn: set[_Key] = set()

    def draw(row: Row, view: ImageView) -> Exhibit:
        drawn.add(_key(row))
        return exhibit(view, task.card, remarks.get(_key(row), ""))

    if rows := _few(scores):
        every = [draw(row, reader.read(row)) for row in rows]
        return [Group("Every scored image", "worst first", tuple(every))]
    has_room = np.count_nonzero(scores.sound) <= _SMALL  # for near-duplicates, too
    diverse = Diversity(reader.read, None if has_room else lambda view: look_of(view, task.card.classes))
    groups = (
        Group(wanted.title, wanted.note, tuple(diverse.choose(wanted.slots, wanted.most, draw)))
        for wanted in _wanted(scores, notable, drawn)
    )
    return [group for group in groups if group.exhibits]


def _few(scores: ImageScores) -> list[Row]:
    """Return all scored images, worst first, if the gallery holds them."""
    number = len(scores.scored)
    return scores.worst(number) if 0 < number <= _SMALL else []


def _wanted(scores: ImageScores, notable: Notable, drawn: Collection[_Key]) -> Iterator[_Wanted]:
    """Yield the groups in their order; `drawn` holds the images of the former ones when the next one is asked for."""

    def of_each(rows: Sequence[Row]) -> list[list[Row]]:
        return [[row] for row in rows if _key(row) not in drawn]

    many, most = _CANDIDATES * _PER_GROUP, _PER_GROUP
    if scored := len(scores.scored):
        ranking = scores.ranking()[:scored]
        worst = scores.rows(candidates(ranking, many))
        yield _Wanted("Worst", "lowest mIoU first", of_each(worst), most)
        yield _Wanted("Worst by class", _OF_CLASS, _by_class(notable, drawn), _CLASSES)
        yield _Wanted("Most typical", "like the whole run in classes and mistakes", of_each(notable.typical), most)
        best = scores.rows(candidates(ranking[::-1], many))
        yield _Wanted("Best", "highest mIoU first", of_each(best), most)
        return
    least = of_each(scores.least_certain(2 * many))
    yield _Wanted(
        "Least certain", "lowest confidence first: the images to look at, or to label, first", least, 2 * most
    )
    yield _Wanted("Most typical", "like the whole run in classes", of_each(notable.typical), most)
    left = [row for row in scores.sample(many + 4 * most) if _key(row) not in drawn]
    places = np.array_split(np.arange(len(left)), max(1, min(most, len(left))))
    yield _Wanted("A sample", "evenly spread over the input", [[left[n] for n in some] for some in places], most)


def candidates(ranking: NDArray[np.intp], number: int) -> list[int]:
    """Return the first `number` images of a ranking and, for where these are of one video, as many that are far apart.

    Args:
        ranking: indices of images in the order of the input, best candidates first.
    """
    chosen: list[int] = ranking[:number].tolist()
    for image in ranking[number:_RANKED].tolist():
        if len(chosen) == 2 * number:
            break
        if min(abs(image - other) for other in chosen) > _APART:
            chosen.append(image)
    return chosen


def _by_class(notable: Notable, drawn: Collection[_Key]) -> list[list[Row]]:
    """Return the worst images of each class, the classes with the lowest IoU first; none whose worst is drawn."""
    ranked = sorted(notable.worst.values(), key=lambda images: images[0][0])
    rows = [[row for _, row in images] for images in ranked if _key(images[0][1]) not in drawn]
    return [[row for row in some if _key(row) not in drawn] for some in rows]


def _remarks(notable: Notable, names: Sequence[str]) -> Mapping[_Key, str]:
    """Return for which classes an image is the worst; of one that may stand for it, for which classes it is bad."""
    worst: dict[_Key, list[str]] = {}
    bad: dict[_Key, list[str]] = {}
    for index, ranked in notable.worst.items():
        for place, (iou, row) in enumerate(ranked):
            (bad if place else worst).setdefault(_key(row), []).append(f"{names[index]} {pct(iou)} %")
    words = {key: f"among the lowest IoU of {', '.join(classes)}" for key, classes in bad.items()}
    return words | {key: f"lowest IoU of {', '.join(classes)}" for key, classes in worst.items()}


def _key(row: Row) -> _Key:
    return row.committed_in, row.position


# --- the pictures of an image ----------------------------------------------------------------------------------------

_WRONG, _IGNORED = 1, 2
_DIFFERENCES = {_WRONG: "prediction differs from label", _IGNORED: "label ignored"}
_COLOURS = np.array([[0, 0, 0], [232, 62, 20], [96, 104, 112]], np.uint8)


def exhibit(view: ImageView, card: ModelCard, remark: str = "") -> Exhibit:
    """Draw the pictures of one image.

    Args:
        remark: why it is shown; may be empty.
    """
    classes = card.classes
    labels = [] if view.label is None else [("Label", view.label)]
    return draw_exhibit(
        view,
        [*labels, ("Prediction", view.mask)],
        _differences(view, classes),
        Colours(classes.palette_array, (VOID, *classes.background_classes), _COLOURS),
        _phrases(view, remark),
    )


def difference_legend(exhibits: list[Exhibit]) -> list[tuple[int, str, list[int]]]:
    """Return kind, meaning and colour, RGB, of the differences that are seen."""
    return differences_in(exhibits, _DIFFERENCES, _COLOURS)


def _phrases(view: ImageView, remark: str) -> Iterator[Phrase]:
    if remark:
        yield "remark", remark
    if view.miou is not None:
        yield "score", f"mIoU {pct(view.miou)} %"
        yield "", f"{pct(view.accuracy)} % of pixels right"
    if view.confidence is not None:
        yield "score", f"confidence {pct(view.confidence)} %"


def _differences(view: ImageView, classes: Classes) -> NDArray[np.uint8] | None:
    if view.label is None:
        return None
    differences = np.full(view.mask.shape, SAME, np.uint8)
    differences[view.mask != view.label] = _WRONG
    differences[np.isin(view.label, [*classes.ignored_classes, VOID])] = _IGNORED
    return differences
