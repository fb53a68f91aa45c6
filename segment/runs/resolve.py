"""Resolution of a job: engine, runtime, batch size and identity of the run, the task of its workers, `run.json`."""

import dataclasses
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from segment.engines import Engine, Node
from segment.engines.local import LocalEngine
from segment.errors import UsageError
from segment.images.label_sources import parse_source
from segment.images.labels import LabelDecoder
from segment.inputs.changes import Known
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery, Unindexed
from segment.inputs.tars.instalments import Spread, index_more
from segment.job import Job, job_record
from segment.models.card import ModelCard
from segment.models.sessions import BF16, LARGEST, MIXED, Extras, Runtime, find_batch, runtime_for, runtime_version
from segment.models.sessions.extras import extras_of
from segment.models.weights import Weights
from segment.output.identity import identity_of
from segment.output.plan import Plan
from segment.output.tables import FORMAT_VERSION
from segment.pipeline.stages import Task
from segment.pipeline.tiling import session_extras
from segment.progress import Progress
from segment.store.client import Store
from segment.store.names import count, shown
from segment.store.urls import to_url, unsigned, without_query

_NAMED = 5  # nodes at most

_ALONE = 16 << 20  # encoded bytes of an image that is a part by itself, if it is segmented in tiles
_LOCAL_IMAGES = 10_000  # with more images, `engine = "auto"` starts a local Ray cluster for its isolation


def check_options(job: Job, card: ModelCard) -> None:
    """Check `label_remap`, `mask_size`, and what is written beside masks, against the card.

    Raises:
        UsageError: they do not fit the card.
    """
    LabelDecoder(card.classes, job.label_encoding, job.label_remap)
    if card.input.tiles and job.mask_size == "model":
        raise UsageError(
            f"--mask-size model: the card {card.name} segments images in tiles (input.tiles), so a mask has the "
            "size of its image; leave the option out"
        )
    session_extras(card, job_extras(job, card))


def discover_for(
    job: Job,
    card: ModelCard,
    store: Store,
    known: Known | None = None,
    without: str | None = None,
    *,
    early: bool = False,
) -> Discovery:
    """Find the images of a job and cut them into parts; see `discover`."""
    return discover(job.input, job.input_options, store, known, without, _alone(card), early=early)


def index_for(job: Job, card: ModelCard, store: Store, spread: Spread, unindexed: Unindexed, number: int) -> Discovery:
    """Index the next tars of a job; see `index_more`."""
    return index_more(unindexed, number, job.input_options, store, _alone(card), spread)


def _alone(card: ModelCard) -> int | None:
    return _ALONE if card.input.tiles else None


def job_extras(job: Job, card: ModelCard) -> Extras:
    """Return what sessions return beside masks; raises as `extras_of`."""
    return extras_of(card, job.confidence, job.probabilities)


def make_engine(job: Job, images: int) -> Engine:
    """Choose and start the engine.

    `auto` takes Ray if a cluster is named (`address`, RAY_ADDRESS) or the job is large, else the local engine.

    Raises:
        UsageError: the options exclude each other.
    """
    named = job.address or os.environ.get("RAY_ADDRESS")
    if job.engine == "local" and job.address:
        raise UsageError("--address names a Ray cluster, --engine local uses none: drop one of them")
    if job.engine == "ray" or (job.engine == "auto" and (named or images > _LOCAL_IMAGES)):
        from segment.engines.ray import RayEngine  # importing ray takes seconds

        return RayEngine(job.address, job.worker_range, device=job.device)
    if job.worker_range and job.worker_range[0] != job.worker_range[1]:
        raise UsageError(f"--workers {job.workers}: the local engine's pool is fixed, give one number")
    return LocalEngine(job.worker_range[0] if job.worker_range else None)


def choose_runtime(job: Job, card: ModelCard, weights: Weights, engine: Engine, progress: Progress) -> Runtime:
    """Resolve `auto` in runtime, device and precision, by what all nodes can do; see `runtime_for`.

    Nodes that keep the run from a faster choice are told.
    """
    asked, nodes = (job.runtime, job.device, job.precision), engine.nodes()
    able, mixed = [node.can for node in nodes], job.allow_mixed_precision
    chosen = runtime_for(card, weights, *asked, nodes=able, mixed=mixed, note=progress.note)
    for line in remarks_on_nodes(nodes, job, weights, chosen):
        progress.note(line)
    return chosen


def frozen_runtime(job: Job, started: Mapping[str, Any]) -> Runtime:
    """Return the runtime of an existing run; options that the job sets replace it, and are refused if they differ."""
    try:
        frozen = Runtime(**started["contract"]["runtime"])
    except (LookupError, TypeError):
        raise UsageError("run.json is damaged, as it says no runtime: restore it, or choose another output") from None
    name = frozen.name if job.runtime == "auto" else job.runtime
    return Runtime(
        name,
        frozen.device if job.device == "auto" else job.device,
        frozen.precision if job.precision == "auto" else job.precision,
        runtime_version(name),
    )


def choose_batch(
    job: Job,
    card: ModelCard,
    weights: Weights,
    runtime: Runtime,
    plan: Plan,
    engine: Callable[[], Engine],
    progress: Progress,
) -> int:
    """Return the number of images per call of the model; `auto` is 1 on CPUs and is measured on one GPU."""
    if job.batch_size != "auto":
        return job.batch_size
    if runtime.device == "cpu":
        return 1
    most = LARGEST if card.input.tiles else min(LARGEST, plan.largest_part)
    extras = session_extras(card, job_extras(job, card))
    found = engine().call(runtime.device, find_batch, card, weights, runtime, most, extras)
    progress.note(str(found))
    return found.best


def frozen_batch(job: Job, contract: Mapping[str, Any], runtime: Runtime) -> int:
    """Return the batch size of an existing run; on CPUs it changes no mask, so each attempt may have its own."""
    if job.batch_size != "auto":
        return job.batch_size
    return 1 if runtime.device == "cpu" else int(contract["batch_size"] or 1)


def task_of(job: Job, card: ModelCard, runtime: Runtime, batch: int, store: Store, fingerprint: str) -> Task:
    """Return the task, which every worker gets."""
    return Task(card, runtime, to_url(job.output), job.settings, store, batch, fingerprint)


def run_identity(job: Job, card: ModelCard, weights: Weights, runtime: Runtime, batch: int) -> dict[str, Any]:
    """Return the identity of the run; see `identity_of`."""
    return identity_of(
        card,
        format=FORMAT_VERSION,
        input={"url": unsigned(to_url(job.input)), **_normal_options(job)},
        labels={
            "encoding": job.label_encoding,
            "remap": _remap_by_index(job, card),
            "allow_lossy": job.allow_lossy_labels,
        },
        mask_size=job.mask_size,
        max_pixels=job.max_pixels,
        runtime=dataclasses.asdict(runtime),
        batch_size=None if runtime.device == "cpu" else batch,  # GPU kernels depend on the batch size
        weights_sha384=weights.sha384,
        **_options_identity(job, card),
    )


def _options_identity(job: Job, card: ModelCard) -> dict[str, Any]:
    """Return nothing where these options are off, so that the identity of such runs stays as it was."""
    extras = job_extras(job, card)
    identity: dict[str, Any] = {}
    if extras.confidence:
        identity["confidence"] = {"measure": extras.confidence, "maps": job.confidence_maps}
    if extras.probabilities:
        identity["probabilities"] = list(extras.probabilities)
    if job.boundary is not None:
        identity["boundary"] = job.boundary
    if job.decode != "exact":
        identity["decode"] = job.decode
    return identity


def _normal_options(job: Job) -> dict[str, Any]:
    """Return the input options in a normal form: equal inputs have equal options."""
    options = job.input_options.model_dump(mode="json")
    if not job.keep:  # so that the identity of such runs stays as it was
        del options["keep"]
    allowed = sorted({to_url(prefix) for prefix in options.pop("allow_input")})
    if allowed:  # as above
        options["allow_input"] = allowed
    return {**options, "labels": unsigned(to_url(job.labels)) if job.labels else None}


def _remap_by_index(job: Job, card: ModelCard) -> dict[str, int]:
    decoder = LabelDecoder(card.classes, job.label_encoding, job.label_remap)  # checks the targets
    return {_normal_source(key): decoder.parse_target(target) for key, target in sorted(job.label_remap.items())}


def _normal_source(key: str) -> str:
    """Return the normal form of a remapped value or colour: `7`, `64,0,128` for `#400080`, `*`."""
    text = key.strip()
    if text == "*":
        return text
    source = parse_source(text)
    return ",".join(map(str, (source,) if isinstance(source, int) else source))


def run_record(
    job: Job,
    card: ModelCard,
    weights: Weights,
    identity: Mapping[str, Any],
    fingerprint: str,
    plan: Plan,
    proof: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of `run.json`, without secrets."""
    return {
        **({"proof": proof} if proof else {}),
        "job": job_record(job),
        "card": card.model_dump(mode="json"),
        "weights": {
            "origin": " + ".join(without_query(model.origin) for model in weights.models),
            "format": weights.format,
            "sha384": weights.sha384,
            "files": weights.file_digests,
        },
        "contract": identity,
        "fingerprint": fingerprint,
        "scored_at": card.metric.resolution,
        "input": plan.summary(),
        "versions": {"segment": version("segment-job"), "python": platform.python_version()},
    }


def remarks_on_nodes(nodes: Sequence[Node], job: Job, weights: Weights, runtime: Runtime) -> list[str]:
    """Return a line on each choice of `auto` that would be another one without some of the nodes, and says which.

    Args:
        nodes: all that may run the model.
        job, weights: what was asked for, and of which model.
        runtime: what was chosen.
    """
    lines = []
    if job.device == "auto" and job.runtime in ("auto", "onnxruntime") and weights.format == "onnx":
        lines += _lacking(
            nodes, "onnxruntime:cuda", "cpu for the whole run", "have no GPU that onnxruntime can use",
            "--device cuda leaves only reading and writing to them",
        )  # fmt: skip
    if job.runtime == "auto" and runtime.name == "onnxruntime" and runtime.device == "cpu":
        lines += _lacking(
            nodes, "openvino:cpu", "onnxruntime for the whole run", "lack openvino", "pip install openvino there"
        )
    if job.precision != "auto" or runtime.name != "openvino":
        return lines
    if runtime.precision == MIXED:
        lines += _lacking(nodes, BF16, "mixed precision", "compute in f32", "the others in bf16; masks differ a little")
    elif runtime.precision == "f32" and weights.format != "tflite":  # of quantised graphs f32 is the choice anyway
        lines += _lacking(
            nodes, BF16, "f32 for the whole run", "do not compute in bf16", "with --allow-mixed-precision the others do"
        )
    return lines


def _lacking(nodes: Sequence[Node], capability: str, choice: str, what: str, then: str) -> list[str]:
    without = [node.name for node in nodes if capability not in node.can]
    if not without or len(without) == len(nodes):
        return []
    names = ", ".join(map(shown, without[:_NAMED])) + (f" and {len(without) - _NAMED} more" * (len(without) > _NAMED))
    return [f"{choice}: {len(without)} of {count(len(nodes), 'node')} {what} ({names}); {then}"]
