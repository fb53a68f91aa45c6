"""What a run is frozen with: runtime, batch and contract, the task that workers are given, `run.json`."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from segment.engines import Engine
from segment.images.labels import LabelDecoder, parse_source
from segment.job import Job, job_record
from segment.models.card import ModelCard
from segment.models.sessions import LARGEST, Runtime, find_batch, resolve_runtime, runtime_version
from segment.models.weights import Weights
from segment.output.identity import contract_of
from segment.output.plan import Plan
from segment.output.tables import FORMAT_VERSION
from segment.pipeline.stages import Task
from segment.progress import Progress
from segment.store.client import Store
from segment.store.urls import to_url, unsigned, without_query


def choose_runtime(job: Job, weights: Weights, engine: Engine) -> Runtime:
    """What computes the masks, decided from what every node can do."""
    return resolve_runtime(weights.format, job.runtime, job.device, job.precision, nodes=engine.nodes())


def frozen_runtime(job: Job, started: Mapping[str, Any]) -> Runtime:
    """The runtime a begun run was frozen with; what the job names itself stays (and is refused if it differs)."""
    frozen = Runtime(**started["contract"]["runtime"])
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
    """Images a call of the model. Where nobody says, a CPU gets one at a time; for a GPU it is measured, on one."""
    if job.batch_size != "auto":
        return job.batch_size
    if runtime.device == "cpu":
        return 1
    found = engine().call(runtime.device, find_batch, card, weights, runtime, min(LARGEST, plan.largest_part))
    progress.note(str(found))
    return found.best


def frozen_batch(job: Job, contract: Mapping[str, Any], runtime: Runtime) -> int:
    """The batch a begun run was frozen with; on CPUs it changes no mask, so every attempt may have its own."""
    if job.batch_size != "auto":
        return job.batch_size
    return 1 if runtime.device == "cpu" else int(contract["batch_size"] or 1)


def task_of(job: Job, card: ModelCard, runtime: Runtime, batch: int, store: Store, fingerprint: str) -> Task:
    """Return what every worker gets."""
    return Task(card, runtime, to_url(job.output), job.settings, store, batch, fingerprint)


def run_contract(job: Job, card: ModelCard, weights: Weights, runtime: Runtime, batch: int) -> dict[str, Any]:
    """The run's contract; see `contract_of`."""
    return contract_of(
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
        batch_size=None if runtime.device == "cpu" else batch,  # GPUs choose other kernels for other batches
        weights_sha384=weights.sha384,
    )


def _normal_options(job: Job) -> dict[str, Any]:
    """The input options, one spelling for what means the same."""
    options = job.input_options.model_dump(mode="json")
    return {**options, "labels": unsigned(to_url(job.labels)) if job.labels else None}


def _remap_by_index(job: Job, card: ModelCard) -> dict[str, int]:
    decoder = LabelDecoder(card.classes, job.label_encoding, job.label_remap)  # or it is not understood
    return {_normal_source(key): decoder.parse_target(target) for key, target in sorted(job.label_remap.items())}


def _normal_source(key: str) -> str:
    """One spelling of a value or colour that is remapped: `7`, `64,0,128` for `#400080`, `*`."""
    text = key.strip()
    if text == "*":
        return text
    source = parse_source(text)
    return ",".join(map(str, (source,) if isinstance(source, int) else source))


def run_record(
    job: Job, card: ModelCard, weights: Weights, contract: Mapping[str, Any], fingerprint: str, plan: Plan
) -> dict[str, Any]:
    """`run.json`: nothing in it is a secret."""
    return {
        "job": job_record(job),
        "card": card.model_dump(mode="json"),
        "weights": {
            "origin": without_query(weights.origin),
            "format": weights.format,
            "sha384": weights.sha384,
            "files": weights.file_digests,
        },
        "contract": contract,
        "fingerprint": fingerprint,
        "scored_at": card.metric.resolution,
        "input": plan.summary(),
        "versions": {"segment": version("segment-job"), "python": platform.python_version()},
    }
