"""What `segment quantize` does with a model, in a process of its own: somebody else's graph may never end."""

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from segment.job import Job
from segment.models.card import ModelCard, parse_card
from segment.models.quantisation import Method
from segment.models.sessions import Runtime, capabilities
from segment.models.sessions.apart_process import LOAD_SECONDS, Note, Passing, Within
from segment.models.weights import Weights, load_weights
from segment.quantization.asked import Asked, check_graph
from segment.quantization.calibration import Calibration, Place
from segment.quantization.pricing import in_f32
from segment.quantization.quantised_folder import CARD, quantised_card, quantised_name, text_of
from segment.quantization.runtime_speeds import Candidate, RuntimeSpeed, measure
from segment.quantization.trial_run import try_runtimes
from segment.store.client import Store
from segment.store.names import count

_QUANTISER_SECONDS = 3600.0  # for what a quantiser does before, between and after the images


@dataclass(frozen=True)
class Chosen:
    """The images of a quantisation.

    Attributes:
        calibrating: those that calibrate.
        reading: the job that reads them.
        evaluated: those that are evaluated.
        sample: the job's `sample` of these.
        notes: on the choice.
        are_apart: whether no image is in both.
    """

    calibrating: list[Place]
    reading: Job
    evaluated: list[Place]
    sample: int | None
    notes: list[str]
    are_apart: bool = True


@dataclass(frozen=True)
class Making:
    """A quantisation that is to be done: its source, its images, and where the result is written.

    Attributes:
        card, weights: of the source.
        job: of the images that are evaluated.
        asked: how it is quantised.
        chosen: the images that calibrate, and those that are evaluated.
        runtimes: those that serve the quantised model.
        store: reads the images.
        folder: an existing empty folder, for the weights, their card, and the images that calibrate.
    """

    card: ModelCard
    weights: Weights
    job: Job
    asked: Asked
    chosen: Chosen
    runtimes: Sequence[Runtime]
    store: Store
    folder: Path


@dataclass(frozen=True)
class Made:
    """Quantised weights, which are in files of the folder, beside their card.

    Attributes:
        card: without the price.
        files: names of the weights.
        speeds: of source and quantised model.
        notes: what one must know of it.
    """

    card: ModelCard
    files: tuple[str, ...]
    speeds: tuple[RuntimeSpeed, ...]
    notes: tuple[str, ...]


def make(making: Making, *, note: Note, within: Within) -> Made:
    """Quantise weights, run the result on each runtime, and time it; `within` and `note` as of `call_apart`.

    Raises:
        ModelError: the model cannot be quantised, or a runtime cannot run the result.
        UsageError: there are too few images that calibrate, or the quantiser cannot be imported.
        StoreError: the store refused.
    """
    card, weights, chosen, folder = making.card, making.weights, making.chosen, making.folder
    method, store = making.asked.method, making.store
    with within():
        check_graph(weights)
    if method == "nncf":
        from segment.quantization.nncf_ir import import_nncf

        with within(LOAD_SECONDS, "import NNCF"):
            import_nncf()  # before the images are read
    (folder / "calibration").mkdir()
    calibration = Calibration(chosen.calibrating, chosen.reading, card, store, folder / "calibration", note)
    notes = [f"{n} calibration images left out: {why}" for why, n in calibration.unusable.items()]
    if chosen.are_apart and (same := calibration.count_same(chosen.evaluated, making.job, store)):
        notes.append(f"{count(same, 'image')} calibrate and are evaluated: the price may be flattered")
    note(f"quantising with {count(calibration.images, 'image')}")
    with within(_QUANTISER_SECONDS, "quantise the model"):
        files, settings = _quantise(card, weights, calibration, method, _counted(within, len(calibration), note))
    made = quantised_card(card, weights, files, calibration, method, settings, making.asked.seed)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / CARD).write_text(text_of(made), encoding="utf-8")
    note(Passing("running the quantised model"))
    located = parse_card(text_of(made), base=str(folder))
    try_runtimes(folder / CARD, making.runtimes, calibration[0])
    note("measuring the speed")
    candidates = _candidates(card, weights, located, load_weights(located, store=store), making.runtimes)
    return Made(made, tuple(files), tuple(measure(candidates, calibration, within)), tuple(notes))


def _counted(within: Within, images: int, note: Note) -> Within:
    """Return `within` with a note of the image that is begun; a quantiser may pass over all of them again."""
    begun = itertools.count()

    def step() -> AbstractContextManager[None]:
        note(Passing(f"quantising: image {next(begun) % images + 1} of {images}"))
        return within()

    return step


def _quantise(
    card: ModelCard, weights: Weights, calibration: Calibration, method: Method, within: Within
) -> tuple[dict[str, bytes], str]:
    """Return the new files by name, and the settings."""
    name = quantised_name(card)
    if method == "nncf":
        from segment.quantization import nncf_ir

        graph, data = nncf_ir.quantise_ir(card, weights, calibration, within)
        return {f"{name}.xml": graph, f"{name}.bin": data}, nncf_ir.SETTINGS
    from segment.quantization import static_qdq

    return {f"{name}.onnx": static_qdq.quantise_onnx(card, weights, calibration, within)}, static_qdq.SETTINGS


def _candidates(
    card: ModelCard, weights: Weights, made_card: ModelCard, made: Weights, runtimes: Sequence[Runtime]
) -> list[Candidate]:
    """Return what is timed: the source in f32, in bf16 where the CPU has it, and the quantised model."""
    found = []
    for runtime in runtimes:
        found.append(Candidate("f32", card, weights, in_f32(runtime, weights.format)))
        if runtime.name == "openvino" and "openvino:cpu:bf16" in capabilities():
            found.append(Candidate("bf16", card, weights, replace(runtime, precision="bf16")))
        found.append(Candidate("INT8", made_card, made, runtime))
    return found
