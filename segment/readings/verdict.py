"""The outcome of a check in words, and the lines of a card to change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from segment.job import Job
from segment.models.card import ModelCard
from segment.models.card_input import Resize
from segment.models.sessions.apart_process import Note, Within
from segment.models.toml_text import inline_table, line
from segment.readings.alternatives import SETTINGS
from segment.readings.bench import MIDDLE
from segment.readings.checking import Checked, check_card
from segment.readings.evidence import LEAST_DIFFERENCE, Comparison
from segment.readings.search import Found, Tried
from segment.store.names import count

_ROWS = 8  # readings that are shown
_LEAST = f"{100 * LEAST_DIFFERENCE:g} points"
SPLIT = "told apart by one measure, which the other contradicts, from"


@dataclass(frozen=True)
class CheckInWords:
    """What `segment check` says: lines, and whether no reading is better than the card's.

    Attributes:
        no_evidence: why nothing can be said; `verdict` and `advice` count only where it is empty.
    """

    table: list[str]
    no_evidence: str
    verdict: list[str]
    advice: list[str]
    agrees: bool


def check_in_words(job: Job, images: int, *, note: Note, within: Within) -> CheckInWords:
    """Check a card, see `check_card`, and return what is said of it."""
    checked = check_card(job, images=images, note=note, within=within)
    table = list(table_lines(checked))
    if not checked.found.over_chance.matters:
        return CheckInWords(table, no_evidence(checked.found), [], [], agrees=False)
    verdict, advice = list(verdict_lines(checked)), list(advice_lines(checked))
    return CheckInWords(table, "", verdict, advice, checked.found.agrees)


def table_lines(checked: Checked) -> Iterator[str]:
    """Yield what was tried, the best readings with their differences to the card and the noise of these."""
    found, runtime = checked.found, checked.runtime
    most = max(len(item.evidence) for item in found.tried)
    yield (
        f"{count(len(found.tried), 'reading')} on up to {most} of {count(checked.labelled.of, 'labelled image')}, "
        f"{count(found.segmented, 'image')} segmented in {found.seconds:.0f} s ({runtime.name}, {runtime.device}, "
        f"{runtime.precision})"
    )
    yield (
        "mIoU (images seen); difference to the card, on the images that both have seen, by mIoU and by the mean over "
        "images of each image's mean IoU; ± is the noise, two standard deviations of a paired bootstrap over images"
    )
    shown = list(dict.fromkeys((*found.tried[:_ROWS], found.best, found.card)))
    for item in shown:
        yield f"{_row(item, found)}  {item.reading.words(_told(found))}"
    if len(found.tried) > len(shown):
        yield f"and {count(len(found.tried) - len(shown), 'reading')} with lower scores"
    yield from _limits(checked)


def _row(item: Tried, found: Found) -> str:
    difference = item.against(found.card)
    texts = ("the card", "") if item is found.card else (difference.miou, difference.by_image)
    return f"{percent(item):>7} {f'({len(item.evidence)})':5} {texts[0]!s:>12} {texts[1]!s:>12}"


def _told(found: Found) -> tuple[str, ...]:
    """Return the settings that differ among the readings."""
    return tuple(name for name in SETTINGS if len({getattr(item.reading, name) for item in found.tried}) > 1)


def _limits(checked: Checked) -> Iterator[str]:
    """Yield what was not tried, and why."""
    if checked.card.input.tiles:
        yield f"not tried: other resizes, as the card has tiles: of each image it sees the middle {MIDDLE} x {MIDDLE}"
    if checked.takes_bytes:
        yield "not tried: value range and normalisation, as the graph takes bytes and does them itself"
    if checked.found.card.reading.channels == "GREY":
        yield "not tried: the order of channels, as there is one"
    if checked.labelled.fixed:
        yield f"not tried: other numberings of the labels, as {checked.labelled.fixed}"
    if checked.found.refused:
        yield f"not tried: {count(checked.found.refused, 'normalisation')} that the model does not take"
    if checked.labelled.unusable:
        total = sum(checked.labelled.unusable.values())
        yield f"left out: {count(total, 'image')} that cannot be used{checked.labelled.reasons}"


def no_evidence(found: Found) -> str:
    """Return why nothing can be said, where no reading has anything to do with the labels."""
    best, excess = found.best, found.over_chance
    if not best.evidence.labelled.any():
        return "nothing can be said: no pixel of the labels is of a class that counts (ignore, void_colours)"
    below = "The score is below chance: are the two classes in the other order? "
    hint = below if excess.value < -excess.noise and best.evidence.correct.shape[1] == 2 else ""
    return (
        f"nothing can be said: no reading is above chance level beyond the noise (the best has {percent(best)}, chance "
        f"{_chance(best)}, noise {100 * excess.noise:.1f} %). {hint}Either the labels are not of these images or of "
        "these classes (names, their order, --label-remap), or the images show little that the model knows, or "
        "output.kind or layout is wrong"
    )


def verdict_lines(checked: Checked) -> Iterator[str]:
    """Yield whether the card agrees with the labels."""
    found = checked.found
    if found.agrees:
        scored = f"it has {percent(found.card)}, and chance {_chance(found.card)}"
        if rivals := list(_open_rivals(found)):
            yield f"the card may be right, and the images do not tell: {scored}; {'; '.join(rivals)}"
        else:
            alone = ", unless by one measure alone" if _are_split(found) else ""
            none = f"no other reading is better beyond the noise and {_LEAST}{alone}"
            yield f"the card agrees with the labels: {scored}; {none}"
        yield from _level(found, ())
        return
    settings = found.best.reading.changes(found.card.reading)
    yield comparison(found, settings)
    yield from _level(found, settings)


def advice_lines(checked: Checked) -> Iterator[str]:
    """Yield the lines of TOML to change, with a line of words before; nothing if the card agrees with the labels."""
    best, card = checked.found.best.reading, checked.found.card.reading
    if lines := card_lines(checked.card, best.card(checked.card)):
        yield from ("", "Change these lines of the card:", "", *lines)
    if best.labels != card.labels:
        yield ""
        yield "Read the labels so, by this line of a job file, or by --label-remap KEY=VALUE"
        yield "for each entry:"
        yield from ("", best.labels.toml)


def _open_rivals(found: Found) -> Iterator[str]:
    """Yield the readings that seem better than the card by more than a tie, but not beyond the noise.

    They have one other setting. As many images again would tell, or show that there is no difference.
    """
    for item in found.ties:
        names, against = item.reading.changes(found.card.reading), item.against(found.card)
        if len(names) == 1 and against.miou.value > LEAST_DIFFERENCE and against.by_image.value > 0:
            difference = f"{against.miou} points, image by image {against.by_image}"
            yield f"{item.reading.words(names)} has {percent(item)}, which is not beyond the noise ({difference})"


def comparison(found: Found, settings: Sequence[str]) -> str:
    """Return a sentence such as `BGR: 61.1 %, RGB: 34.0 %; the card says RGB`."""
    best, card = found.best, found.card
    said = card.reading.words(settings)
    who = "a run reads" if tuple(settings) == ("labels",) else "the card says"
    difference = best.against(card)
    told = f"{difference.miou} points, image by image {difference.by_image}"
    return f"{best.reading.words(settings)}: {percent(best)}, {said}: {percent(card)}; {who} {said} ({told})"


def percent(item: Tried) -> str:
    """Return a score such as `61.1 %`."""
    return f"{100 * item.miou:.1f} %"


def _chance(item: Tried) -> str:
    return f"{100 * (item.miou - item.over_chance.value):.1f} %"


def _level(found: Found, settings: Sequence[str]) -> Iterator[str]:
    """Yield what the labels do not decide: other readings within the noise, the highest score first.

    Those that one measure tells apart and the other contradicts are told by themselves.
    """
    level, split = [], []
    for item in found.ties:
        names, against = item.reading.changes(found.best.reading), item.against(found.best)
        if len(names) == 1 and against.contradicts:
            split.append(f"{item.reading.words(names)} ({_score(item, found.best)}: {_split(against)})")
        elif len(names) == 1:
            alike = len(item.evidence) == len(found.best.evidence)
            difference = "" if alike else f"; {against.miou} points on those that both have seen"
            level.append(f"{item.reading.words(names)} ({_score(item, found.best)}{difference})")
    values = "the new values" if settings else "the card's values"
    if split:
        told = "" if settings else ", so no advice"
        yield f"{SPLIT} {values}{told}: {'; '.join(split)}"
    if level:
        yield f"within the noise or {_LEAST} of {values}, so not told apart: {'; '.join(level)}"


def _are_split(found: Found) -> bool:
    """Whether another reading is told apart by one measure, which the other contradicts."""
    return any(item.against(found.best).contradicts for item in found.ties)


def _score(item: Tried, best: Tried) -> str:
    """Return a score, and the number of images that it is of where the best one's is of others."""
    images = len(item.evidence)
    return percent(item) if images == len(best.evidence) else f"{percent(item)} on {images} images"


def _split(against: Comparison) -> str:
    """Return by how much a reading is better or worse, by each measure, that which is beyond the noise first."""
    measures = [
        (against.miou, f"by mIoU, {against.miou} points"),
        (against.by_image, f"image by image, {against.by_image}"),
    ]
    measures.sort(key=lambda each: not abs(each[0]).matters)
    return "; ".join(f"{'better' if found.value > 0 else 'worse'} {words}" for found, words in measures)


def card_lines(old: ModelCard, new: ModelCard) -> list[str]:
    """Return the lines of TOML that make one card's input the other's; empty if it is."""
    names = ("channels", "maximum", "mean", "std")
    lines = [
        line(name, getattr(new.input, name)) for name in names if getattr(new.input, name) != getattr(old.input, name)
    ]
    if new.input.resize != old.input.resize:
        resize = inline_table(resize_table(new.input.resize))
        lines += ["# instead of a table [input.resize], if there is one", f"resize = {resize}"]
    return ["[input]", *lines] if lines else []


def resize_table(resize: Resize) -> dict[str, Any]:
    """Return the table `input.resize` of a card without the values that are defaults."""
    return {"method": resize.method, **resize.model_dump(mode="json", exclude_defaults=True)}
