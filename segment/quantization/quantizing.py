"""`segment.quantize`: weights in INT8, a card beside them, and a page that says what they cost."""

from dataclasses import dataclass

from segment.errors import SegmentError, UsageError
from segment.job import Job
from segment.models.card import load_card
from segment.models.quantisation import Method
from segment.models.sessions import apart_process
from segment.models.sessions.apart_process import Note
from segment.models.weights import load_weights
from segment.process.temporaries import TemporaryFolder
from segment.progress import Progress
from segment.quantization.asked import Asked, check_job, check_source
from segment.quantization.calibration import FEWEST_IMAGES, places_of, spread
from segment.quantization.judging import gains, judge, reservations
from segment.quantization.making import Chosen, Making, make
from segment.quantization.pricing import price, served_by
from segment.quantization.quantised_folder import (
    CARD,
    PAGE,
    REFUSED,
    OutputFolder,
    quantised_name,
    text_of,
    with_price,
)
from segment.quantization.quantised_page import render_quantisation
from segment.quantization.runtime_speeds import RuntimeSpeed
from segment.report.comparison.comparing import RunComparison
from segment.report.comparison.gate import Verdict
from segment.store.client import Store
from segment.store.names import count, shown

_UNLABELLED = {"labels": None, "label_pattern": None, "label_key": None, "label_column": None}


@dataclass(frozen=True, eq=False)
class QuantisedModel:
    """A quantised model and what it costs.

    Attributes:
        card: path or URL of its card; of no file if it was refused.
        comparison: A is the source in f32; B and C are the quantised model, on each runtime that serves it.
        speeds: of source and quantised model.
        verdicts: one for each runtime.
        notes: what one must know of all this, one line each.
        accepted: whether the card was written.
    """

    card: str
    page: str
    comparison: RunComparison
    speeds: tuple[RuntimeSpeed, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    accepted: bool


def quantize(
    job: Job,
    *,
    calibrate: str | None = None,
    images: int = 100,
    method: Method = "onnxruntime",
    evaluate_images: int = 500,
    max_drop: float = 0.5,
    min_agreement: float = 0.97,
    force: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantisedModel:
    """Quantise a model to INT8, measure what that costs, and write the new weights with their card.

    Args:
        job: `model` and `weights` are quantised; `input` and `labels` are the images that say what it costs; `output`
            is the folder to write `card.toml`, the weights and `index.html` to.
        calibrate: path or URL of the images that calibrate; None takes some of the job's input, and evaluates others.
        images, method, evaluate_images, max_drop, min_agreement, force, seed: as the options of `segment quantize`.
        progress: the display of the runs; see `segment.run`.

    Raises:
        UsageError: the model cannot be quantised, there are too few images, or the output holds something else.
        SegmentError: the loss is beyond the limit; only a page was written, `refused.html`.
    """
    asked = Asked(calibrate, images, method, evaluate_images, max_drop, min_agreement, force, seed)
    made = quantise_job(job, asked, progress=progress)
    if not made.accepted:
        raise SegmentError(refusal(made))
    return made


def refusal(made: QuantisedModel) -> str:
    """Return why a model was not written, and what may help."""
    lines = [verdict.words for verdict in made.verdicts if not verdict.passed]
    return (
        f"not written: {'; '.join(lines)}. What changed is in {shown(made.page)}. More calibration images (--images), "
        "or another --method, may lose less; --force writes the model all the same"
    )


def quantise_job(
    job: Job, asked: Asked, *, progress: Progress | None = None, note: Note = lambda line: None
) -> QuantisedModel:
    """Do the same without raising where the model is refused; `note` gets lines on what is done."""
    asked.check()
    check_job(job)
    store = Store(job.storage_options)
    card = load_card(job.model, store)
    if card.input.is_dynamic and asked.method == "nncf":
        raise UsageError("--method nncf needs a card of one input size, not height = 'image': use --method onnxruntime")
    weights = load_weights(card, job.weights, store=store)
    check_source(card, weights, asked.method)
    output = OutputFolder(job.output, quantised_name(card), weights, store)
    runtimes = served_by(job, "ir" if asked.method == "nncf" else "onnx")
    chosen = _choose(job, asked, store)
    for line in chosen.notes:
        note(line)
    with TemporaryFolder() as temporary:
        folder = temporary.path
        making = Making(card, weights, job, asked, chosen, runtimes, store, folder)
        made = apart_process.call_apart(make, making, note=note, temporary=folder)
        note(f"comparing with the source on {count(len(chosen.evaluated), 'image')}, {1 + len(runtimes)} runs")
        evaluating = job.model_copy(update={"sample": chosen.sample})
        priced = price(evaluating, folder / CARD, runtimes, folder, store, seed=asked.seed, progress=progress)
        verdicts = tuple(judge(priced.comparison, asked))
        notes = (*chosen.notes, *made.notes, *reservations(priced.comparison, asked), *gains(made.speeds))
        accepted = asked.force or all(verdict.passed for verdict in verdicts)
        whole = with_price(made.card, priced.prices)
        found = QuantisedModel(
            output.file(CARD),
            output.file(PAGE if accepted else REFUSED),
            priced.comparison,
            made.speeds,
            verdicts,
            notes,
            accepted,
        )
        page = render_quantisation(found, whole, priced.tasks)
        if accepted:
            output.publish({name: (folder / name).read_bytes() for name in made.files}, text_of(whole), page)
        else:
            output.refuse(page)
        return found


def _choose(job: Job, asked: Asked, store: Store) -> Chosen:
    """Choose images that calibrate and others that are evaluated, as far as there are enough."""
    places = places_of(job.input, job, store)
    is_own, are_few = asked.calibrate is None, len(places) < 2 * FEWEST_IMAGES
    calibrators = min(asked.images, len(places) // 2) if is_own and not are_few else 0  # that are not evaluated
    most = min(asked.evaluate_images, len(places) - calibrators)
    sample = most if most < len(places) else None
    evaluated = places if sample is None else places_of(job.input, job, store, sample)
    if asked.calibrate is not None:
        unlabelled = job.model_copy(update=_UNLABELLED)
        calibrating = spread(places_of(asked.calibrate, unlabelled, store), asked.images, asked.seed)
        return Chosen(calibrating, unlabelled, evaluated, sample, [])
    if are_few:
        calibrating = spread(places, asked.images, asked.seed)
        words = f"too few to part, {count(len(places), 'image')}: those that calibrate are evaluated, too"
        return Chosen(calibrating, job, evaluated, sample, [f"{words}, which may flatter"], False)
    names = {place.name for place in evaluated}
    others = [place for place in places if place.name not in names]
    words = f"{calibrators} of {len(places):,} images calibrate, {most:,} others are evaluated"
    return Chosen(spread(others, calibrators, asked.seed), job, evaluated, sample, [words])
