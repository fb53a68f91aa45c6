"""Checks a card against labels."""

from contextlib import nullcontext
from dataclasses import dataclass

from segment.errors import UsageError
from segment.job import Job
from segment.models.card import ModelCard, load_card
from segment.models.sessions import Runtime, capabilities, runtime_for
from segment.models.sessions.apart_process import Note, Passing, Within
from segment.models.sessions.inspection import inspect_graph
from segment.models.weights import Weights, load_weights
from segment.readings.alternatives import Reading
from segment.readings.bench import Bench
from segment.readings.evidence import FEWEST_IMAGES
from segment.readings.labelled import LabelledImages, NoLabels
from segment.readings.search import Found, search
from segment.store.client import Store
from segment.store.names import count

IMAGES = 16


@dataclass(frozen=True, eq=False)
class Checked:
    """A card, and what the labels say of it.

    Attributes:
        takes_bytes: whether the graph takes bytes, so that value range and normalisation are inside it.
    """

    card: ModelCard
    found: Found
    labelled: LabelledImages
    runtime: Runtime
    takes_bytes: bool


def check_card(
    job: Job,
    *,
    images: int = IMAGES,
    note: Note = lambda line: None,
    within: Within = nullcontext,
    store: Store | None = None,
) -> Checked:
    """Try other readings of a job's card on labelled images of its input, and rank them by mIoU.

    Args:
        job: input, labels, card, weights and runtime; the rest is not used, and nothing is written.
        images: number of images; up to eight times as many where these leave open whether a reading is better.
        note: gets lines on the progress.
        within: entered for each step on the model: while it is read, and while it is run on an image.
        store: reads files; the default has the job's storage options.

    Raises:
        UsageError: fewer images than have a spread are asked for; NoLabels: so few can be used, or none.
        ModelError: card and model do not match.
        StoreError: the store refused.
    """
    store = store or Store(job.storage_options)
    card = load_card(job.model, store)
    weights = load_weights(card, job.weights, store=store)
    return check_readings(card, weights, job, images=images, note=note, within=within, store=store)


def check_readings(
    card: ModelCard,
    weights: Weights,
    job: Job,
    *,
    images: int,
    note: Note,
    within: Within = nullcontext,
    store: Store,
) -> Checked:
    """Do the same for a card and weights that are loaded already; see `check_card`."""
    if images < FEWEST_IMAGES:
        raise UsageError(f"{images} images have no spread that tells noise from a difference: at least {FEWEST_IMAGES}")
    labelled = LabelledImages(job, card, store, images, note)
    if len(labelled) < FEWEST_IMAGES:
        raise NoLabels(
            f"only {count(len(labelled), 'labelled image')} can be used, too few to tell noise from a difference: at "
            f"least {FEWEST_IMAGES} are needed{labelled.reasons}"
        )
    start = Reading.of(card, labelled.numberings[0])
    note(Passing("choosing the runtime, and loading the model"))
    with within():
        runtime = runtime_for(card, weights, job.runtime, job.device, job.precision, nodes=[capabilities()])
        bench = Bench(card, weights, runtime, job.max_pixels, within)
        takes_bytes = _takes_bytes(card, weights)
        bench.evidence(start, labelled.take(1))
    note(f"{len(labelled)} labelled images of {labelled.of:,}; the model segments them once for each reading")
    found = search(bench, labelled, start, images, scalings=not takes_bytes, note=note)
    return Checked(card, found, labelled, runtime, takes_bytes)


def _takes_bytes(card: ModelCard, weights: Weights) -> bool:
    inputs = inspect_graph(weights.models[0]).inputs  # members of an ensemble have the same type
    named = [entry for entry in inputs if card.input.name in entry.port.names]
    return bool(inputs) and (named or inputs)[0].port.dtype == "uint8"
