"""Drafts a card for a model, and tries it before anybody sees it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from segment.drafts.contract import Draft, Said, guess, refusal
from segment.drafts.reading import read_draft
from segment.drafts.trial import MOST_IMAGES, NamedImage, Trial, picture_of, read_images, try_card
from segment.drafts.writing import card_text
from segment.errors import ModelError, SampleError, UsageError
from segment.images.bands import decode_image
from segment.job import Job, make_job
from segment.models.card import ModelCard, load_card, parse_card
from segment.models.sessions.apart_process import Note, Passing, Within
from segment.models.weights import Weights, load_weights, with_suffix
from segment.readings.checking import IMAGES, Checked, check_readings
from segment.readings.labelled import NoLabels
from segment.readings.search import Found, Tried
from segment.readings.verdict import SPLIT, comparison, no_evidence, percent, resize_table, table_lines
from segment.store.client import Store
from segment.store.names import basename, suffix_of
from segment.store.urls import parent_url, redact_url, to_url, unsigned

T = TypeVar("T")

# Parts of a draft whose keys in a card have other names.
_KEYS = {
    "scaling": "maximum, mean, std", "output_name": "output.name", "kind": "output.kind",
    "output_layout": "output.layout",
}  # fmt: skip
# What a job needs and a draft does not.
_JOB = {"model": "-", "output": "memory://segment-draft"}

# A card that `load_weights` can name in its messages; it describes nothing.
_NO_CARD = "demo-streets"


@dataclass(frozen=True)
class DraftedCard:
    """A card that runs.

    Attributes:
        text: TOML.
        card: the same, parsed.
        remarks: what was noticed.
        picture: PNG of the images with their masks; empty without images.
        label_remap: of a run with the labels.
    """

    text: str
    card: ModelCard
    remarks: tuple[str, ...]
    picture: bytes
    label_remap: Mapping[str, str | int]


def draft_card(
    model: str,
    images: str | None = None,
    *,
    labels: str | None = None,
    label_remap: Mapping[str, str | int] | None = None,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    name: str = "",
    beside: str | None = None,
    store: Store | None = None,
    note: Note = lambda line: None,
    within: Within = nullcontext,
) -> DraftedCard:
    """Draft a card for a model, and run it on generated images and on three of `images`.

    Args:
        model: path or URL of an .onnx, .xml or .tflite file.
        images: path or URL of an image or of a folder; with `labels` of any input of a job.
        labels: folder of labels, which decide what is guessed: see `segment.readings`.
        label_remap: what label values mean; see `Job`.
        size: height and width, where the graph leaves them free.
        classes: number of classes, where the graph does not say it.
        name: of the card; the default is the model's file name.
        beside: path or URL of the card to be; weights in its folder are named without one.
        note: gets lines on the progress of a check against labels.
        within: entered for each step on the model: while it is read, and while it is run.

    Raises:
        UsageError: a file does not exist or cannot be read; or there are too few labels.
        ModelError: the model cannot be served; the message says why.
        StoreError: a transfer failed.
    """
    store, url = store or Store(), to_url(model)
    note(Passing("reading the model"))
    weights = load_weights(load_card(_NO_CARD), url, store=store)
    pictures = [] if labels else _pictures(images, store)
    files = _files(url, weights, store)
    named = [(_reference(file, beside), data) for file, data in files]
    note(Passing("running drafts of the card on generated images"))
    with within():
        draft = read_draft(weights_url(url), weights, store, size=size, classes=classes, name=name)
        draft = _settled(draft, lambda other: try_card(_card(other, url, named)[1], weights, pictures))
        text, card = _card(draft, url, named)
        trial = _trial(card, weights, pictures, size)
    if draft.gives_three and trial.is_picture:
        raise refusal(
            "it gives a picture: three whole numbers of 0 to 255 a pixel, which are colours and no scores. Export the "
            "graph with the class index, before it becomes colours"
        )
    remap = dict(label_remap or {})
    if labels:
        job = make_job({**_JOB, "input": images, "labels": labels, "label_remap": remap}, "draft")
        job = job.model_copy(update={"runtime": trial.runtime.partition(",")[0]})
        try:
            checked = check_readings(card, weights, job, images=IMAGES, note=note, within=within, store=store)
        except NoLabels as error:
            raise NoLabels(f"{error}\nWithout --labels the card is drafted, and holds guesses") from None
        draft = decided(draft, checked)
        if checked.found.over_chance.matters:
            remap = remap or dict(checked.found.best.reading.labels.remap)
        text, card = _card(draft, url, named)
        pictures = _labelled_pictures(checked, card, job)
        with within():
            trial = _trial(card, weights, pictures, size)
    remarks = [*_told(draft), *draft.remarks, *trial.remarks, *_missing_weights(files), _ran(trial)]
    return DraftedCard(text, card, tuple(remarks), picture_of(trial, card) if pictures else b"", remap)


def _settled(draft: Draft, trial: Callable[[Draft], Trial]) -> Draft:
    """Return the draft of one channel as what its numbers are: a probability of 0 to 1 or 0 to 255, or as drafted.

    By the second some number has to be near 255, as those near 0 may be logits.
    """
    if draft.logit:
        tried = [_probability(draft, 1), _probability(draft, 255)]
    elif draft.kind.value == "index" and len(draft.classes.value) == 2:
        tried = [draft, _probability(draft, 255)]
    else:
        return draft
    for other in tried:
        with suppress(ModelError):  # a number beyond, or what the trial of the draft itself finds
            if 1 in trial(other).classes or other.maximum == 1:
                return other
    return draft


def _probability(draft: Draft, maximum: int) -> Draft:
    why = f"one channel, whose numbers are from 0 to {maximum} for all images tried"
    return replace(draft, logit=False, maximum=maximum, kind=guess("sigmoid", why, draft.kind.otherwise))


def _card(draft: Draft, url: str, weights: Sequence[tuple[str, bytes]]) -> tuple[str, ModelCard]:
    text = card_text(draft, redact_url(url), weights)
    return text, parse_card(text, where="the drafted card")


def weights_url(url: str) -> str:
    """Return the URL of the graph: the .xml of a .bin."""
    return with_suffix(url, ".xml") if suffix_of(url) == ".bin" else url


def _pictures(images: str | None, store: Store) -> list[NamedImage]:
    try:
        return read_images(images, store) if images else []
    except SampleError as error:
        raise UsageError(f"{images}: {error}") from None


def _labelled_pictures(checked: Checked, card: ModelCard, job: Job) -> list[NamedImage]:
    images = checked.labelled.take(MOST_IMAGES)
    return [(item.name, decode_image(item.data, card.input, job.max_pixels).pixels) for item in images]


def _trial(card: ModelCard, weights: Weights, pictures: list[NamedImage], size: tuple[int, int] | None) -> Trial:
    try:
        return try_card(card, weights, pictures)
    except ModelError as error:
        advice = ". Many networks need a --size of multiples of 32" if any(side % 32 for side in size or ()) else ""
        raise ModelError(f"the drafted card does not run: {error}{advice}") from None


def _files(url: str, weights: Weights, store: Store) -> list[tuple[str, bytes]]:
    """Return URL and bytes of each file, for the card; none if the graph's tensors are in files of their own."""
    graph = weights_url(url)
    entry = store.info(graph)
    if weights.format == "onnx" and (entry is None or entry.size != len(weights.graph)):
        return []
    found = [(unsigned(graph), weights.graph)]
    return [*found, (unsigned(with_suffix(graph, ".bin")), weights.data)] if weights.data else found


def _reference(url: str, beside: str | None) -> str:
    """Return the URL as the card names it: the file's name in the card's folder, else a path or URL."""
    if beside is not None and parent_url(to_url(beside)) == parent_url(url):
        return basename(url)
    return url


def _told(draft: Draft) -> Iterator[str]:
    said = {field.name: getattr(draft, field.name) for field in fields(draft)}
    guessed = [_KEYS.get(name, name) for name, value in said.items() if isinstance(value, Said) and value.guessed]
    guessed += ["output.threshold"] if draft.kind.value == "sigmoid" else []
    if guessed:
        yield f"guessed, check them: {'; '.join(guessed)}"
    if draft.logit:
        yield "the output, one channel, ends in no sigmoid: it may be a logit, as the card says, or no mask"


def _missing_weights(files: list[tuple[str, bytes]]) -> Iterator[str]:
    if not files:
        yield "the model's tensors are in files of their own, which a card cannot name: give it with --weights"


def _ran(trial: Trial) -> str:
    images = f" and {len(trial.images)} of yours" if trial.images else ""
    return f"the card runs ({trial.runtime}): 2 generated images{images}"


def decided(draft: Draft, checked: Checked) -> Draft:
    """Return a draft with what the labels decide; guesses that they leave open stay guesses, and say so.

    Args:
        checked: the check of its card.
    """
    found = checked.found
    remark, *_ = table_lines(checked)
    if not found.over_chance.matters:
        return replace(draft, remarks=(*draft.remarks, remark, no_evidence(found)))
    best = found.best.reading
    resize = draft.resize.value if best.resize == found.card.reading.resize else resize_table(best.resize)
    return replace(
        draft,
        channels=_decided(draft.channels, best.channels, "channels", found),
        scaling=_decided(draft.scaling, best.scaling, "scaling", found),
        resize=_decided(draft.resize, resize, "resize", found),
        classes=_numbered(draft.classes, found),
        remarks=(*draft.remarks, remark, *_remarks(found)),
    )


def _decided(said: Said[T], value: T, setting: str, found: Found) -> Said[T]:
    """Return a setting as it was measured; as it was said where no other value was tried, or none is worse."""
    rival = found.rival(setting)
    if rival is not None and found.best.against(rival).is_better:
        return Said(value, f"measured on {_evidence(found.best)}, next {_evidence(rival, setting)}")
    if rival is None or not said.guessed:
        return Said(value, said.why, said.guessed, said.otherwise)
    split = found.best.against(rival).contradicts
    how = SPLIT if split else "not told apart from"
    level = f"measured on {_evidence(found.best)}, {how} {_evidence(rival, setting)}"
    return Said(value, f"{said.why}; {level}", guessed=True, otherwise=said.otherwise)


def _evidence(item: Tried, setting: str = "") -> str:
    seen = f"{len(item.evidence)} labelled images"
    return f"{item.reading.words([setting])}: {percent(item)} (on {seen})" if setting else f"{seen}: {percent(item)}"


def _numbered(said: Said[Any], found: Found) -> Said[Any]:
    if "labels" not in found.best.reading.changes(found.card.reading):
        return said
    why = f"{said.why}; the labels are {found.best.reading.labels.name}, so give a run {found.best.reading.labels.toml}"
    return Said(said.value, why, said.guessed, said.otherwise)


def _remarks(found: Found) -> Iterator[str]:
    changed = found.best.reading.changes(found.card.reading)
    if changed:
        yield f"measured: {comparison(found, changed).replace('the card says', 'guessed was')}"
    if "labels" in changed:
        yield f"read the labels so, in a job file: {found.best.reading.labels.toml}"
