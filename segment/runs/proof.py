"""The proof of what `auto` has chosen: the first images of a run, before any is committed, against f32 on a CPU."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from segment.engines import Engine
from segment.errors import ModelError
from segment.inputs.parts import Part
from segment.job import Job
from segment.models.card import ModelCard
from segment.models.sessions import BF16, LAST_RUN, Runtime, fastest, resolve_runtime
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.pipeline.agreement import Tried, try_runtimes
from segment.progress import Progress
from segment.report.percents import percent
from segment.runs.resolve import task_of
from segment.store.client import Store
from segment.store.names import count

_IMAGES = 4  # that are tried, whatever time they take, so that equal runs choose the same
_WORTH = 180.0  # seconds of all work, from which on other runtimes are measured, too
_SLOW = 5.0  # seconds an image; few models are slower, so that a run of few images is not worth a measurement
_GAIN = 1.05  # another runtime has to be so many times as fast: less may be chance

Proof = dict[str, Any]  # as in `run.json`


def prove(
    job: Job,
    card: ModelCard,
    weights: Weights,
    chosen: Runtime,
    plan: Plan,
    engine: Engine,
    store: Store,
    progress: Progress,
) -> tuple[Runtime, Proof | None]:
    """Try a runtime on the first images, and compare its masks with those of f32 on a CPU.

    Where less than `min_agreement` of the pixels are the same (0: nothing is tried), `precision = "auto"` falls back to
    f32. On CPUs and in long runs, `runtime = "auto"` takes another runtime if it agrees and is faster. A choice of the
    user is not replaced. In a run of mixed precision the fastest one is tried, on a node that has it.

    Returns:
        The runtime of the run; and what was found, None if there was nothing to compare.

    Raises:
        ModelError: a GPU disagrees, or cannot run the model.
    """
    if chosen.device != "cpu" and not LAST_RUN[chosen.device]:
        progress.note(
            f"warning: {chosen.device} was never run on a real GPU when this version was made; `jobs/gpu_check.sh` in "
            "the repository tries all of it on yours"
        )
    if not job.min_agreement:
        return chosen, None
    machines = engine.nodes()
    nodes, mixed, chosen = [machine.can for machine in machines], chosen, fastest(chosen)
    runtime = "auto" if chosen.device != "cpu" else job.runtime
    reference = resolve_runtime(weights.format, runtime, "cpu", "f32", nodes=nodes)
    rivals = _rivals(job, weights, [chosen, reference], nodes)
    if card.input.tiles:
        if chosen != reference:
            name, its = _names(chosen, reference)
            progress.note(f"{name} is not compared with {its}, as images are segmented in tiles")
        return mixed, None
    if chosen == reference and not rivals:
        return chosen, None
    task = task_of(job, card, chosen, 1, store, "proof")
    task = dataclasses.replace(task, output="memory://segment-proof")
    worth = _WORTH * engine.workers(chosen.device) / max(1, plan.expected_images)
    runtimes = [chosen] if chosen == reference else [chosen, reference]
    if chosen == reference and worth > _SLOW:
        return chosen, None
    progress.phase("trying the model on the first images")
    images = _first_part(plan)
    trial = (task, weights, images, runtimes, rivals, worth)
    if mixed != chosen:
        able = next((machine for machine in machines if BF16 in machine.can), machines[0])
        tried, other = engine.call_on(able, try_runtimes, *trial)
    else:
        tried, other = engine.call(chosen.device, try_runtimes, *trial)
    best = _choose(job, tried, other, progress)
    return mixed if best == chosen else best, _record(job, tried, best, other)


def _rivals(job: Job, weights: Weights, others: Sequence[Runtime], nodes: Sequence[frozenset[str]]) -> list[Runtime]:
    """Return the runtimes for CPUs that `auto` could take as well."""
    if job.runtime != "auto" or weights.format != "onnx" or others[0].device != "cpu":
        return []
    found = (
        resolve_runtime(weights.format, name, "cpu", job.precision, nodes=nodes)
        for name in ("onnxruntime", "openvino")
        if all(f"{name}:cpu" in node for node in nodes) and job.precision in ("auto", "f32")
    )
    return [runtime for runtime in found if runtime not in others]


def _first_part(plan: Plan) -> Part:
    part = plan.between(0, 1)[0]
    stop = min(part.stop, part.start + _IMAGES)
    return dataclasses.replace(part, stop=stop, members=part.members[: stop - part.start])


def _choose(job: Job, tried: Sequence[Tried], reference: Tried, progress: Progress) -> Runtime:
    """Return the first runtime, or the fastest one that agrees with the reference."""
    first = tried[0]
    for each in tried:
        if each.runtime != reference.runtime:
            for line in _lines(each, reference):
                progress.note(line)
    if first.runtime.device != "cpu" and (first.reason or _disagrees(first, job)):
        raise ModelError(
            f"{_lines(first, reference)[0]}. Use --device cpu, or lower --min-agreement ({job.min_agreement:g})"
        )
    name, other = _names(first.runtime, reference.runtime)
    if first.agreement is None:
        if first.runtime == reference.runtime:
            return first.runtime
        why = first.reason or reference.reason or "no image could be segmented"
        progress.note(f"warning: {name} is not compared with {other}: {why}")
        return first.runtime
    if _disagrees(first, job):
        less = f"than --min-agreement ({job.min_agreement:g})"
        if job.precision != "auto":
            progress.note(f"warning: {name} agrees less with {other} {less}")
            return first.runtime
        progress.note(f"warning: {other} is used, as {name} agrees less {less}")
        first = reference
    best = first
    for each in tried[1:]:
        if _can_replace(each, first, job) and not _disagrees(each, job) and each.seconds * _GAIN < best.seconds:
            best = each
    if best is not first:
        name, other = _names(best.runtime, first.runtime)
        progress.note(f"{name} is used: {first.seconds / best.seconds:.1f} times as fast as {other}")
    return best.runtime


def _can_replace(tried: Tried, first: Tried, job: Job) -> bool:
    """Return whether a runtime may take the place of the first: it was compared, and the job leaves its change open."""
    asked = [(job.runtime, "name"), (job.device, "device"), (job.precision, "precision")]
    fixed = [field for value, field in asked if value != "auto"]
    alike = all(getattr(tried.runtime, field) == getattr(first.runtime, field) for field in fixed)
    return alike and tried.agreement is not None


def _disagrees(tried: Tried, job: Job) -> bool:
    """Return whether a runtime is known to give too few pixels the class of the reference."""
    return tried.agreement is not None and tried.agreement < job.min_agreement


def _names(one: Runtime, other: Runtime) -> tuple[str, str]:
    return one.beside(other), other.beside(one)


def _lines(tried: Tried, reference: Tried) -> list[str]:
    """Say how a runtime did: `bf16: 99.72 % of pixels as f32, 7.1 times as fast (8 images)`."""
    name, other = _names(tried.runtime, reference.runtime)
    if tried.agreement is None:
        return [f"{name}: {tried.reason or 'not compared'}"]
    words, images = f"{name}: {percent(tried.agreement)} % of pixels as {other}", count(tried.images, "image")
    if tried.seconds:
        words += f", {reference.seconds / tried.seconds:.1f} times as fast"
    lines = [f"{words} ({images})"]
    if tried.miou is not None and reference.miou is not None:
        lines.append(f"mIoU on {images}: {name} {100 * tried.miou:.2f} %, {other} {100 * reference.miou:.2f} %")
    return lines


def _record(job: Job, tried: Sequence[Tried], best: Runtime, reference: Tried) -> Proof | None:
    """Return what `run.json` keeps, without times: of the runtime that is used, or of the one that f32 replaces."""
    is_refused = best == reference.runtime and _disagrees(tried[0], job)
    found = tried[0] if is_refused else next(each for each in tried if each.runtime == best)
    if found.agreement is None or found.runtime == reference.runtime:
        return None
    return {
        "images": found.images,
        "agreement": found.agreement,
        "miou": found.miou,
        "reference": {**dataclasses.asdict(reference.runtime), "miou": reference.miou},
        **({"refused": dataclasses.asdict(found.runtime)} if is_refused else {}),
    }
