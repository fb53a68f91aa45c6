"""A job: what is asked, and the run that does it: plan, rounds, statistics, audit."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import tomllib
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from segment.card import ModelCard, explain, load_card
from segment.engines import Engine
from segment.engines.local import LocalEngine
from segment.errors import SegmentError, TooManyErrors, UsageError
from segment.labels import Encoding, LabelDecoder
from segment.ledger import Ledger, contract_of, fingerprint_of
from segment.names import count
from segment.plan import Plan
from segment.progress import Progress
from segment.report.aggregate import RunReport, load_report, write_report
from segment.rework import forget_errors, known_input
from segment.rounds import Rounds
from segment.sessions import Runtime, resolve
from segment.shards import InputOptions, discover
from segment.stages import Task
from segment.store import Store
from segment.tables import FORMAT_VERSION
from segment.urls import redact_url, to_url
from segment.weights import Weights, load_weights

_LOCAL_IMAGES = 10_000  # `engine = "auto"` without a cluster: more than this is worth Ray's start and its isolation
Workers = Annotated[str, Field(pattern=r"^\d+(:\d+)?$")]


class Job(InputOptions):
    """What is asked. Every field is a key of a job file and a flag of `segment run`.

    Attributes:
        input: images: a path or URL of a folder, tars, Parquet files, or a list file.
        output: path or URL of the prefix to write to.
        model: name of a built-in card, or path or URL of a card.
        weights: path or URL of the weights; the card's own source if not given.
        runtime, device, precision: what computes the masks; `auto` is decided once, by what every node can do.
        batch_size: images a call of the model; `auto` is 1 on CPUs and 8 on GPUs.
        engine: `local` runs in this process, `ray` on a cluster; `auto` picks.
        address: of a Ray cluster.
        workers: models loaded at once: `4`, or `2:8` to let the Ray pool grow.
        mask_size: write masks at the size of the `source` image or of the `model`.
        label_encoding: `index`, `colour`, or `auto`.
        label_remap: from label value or colour to class name, class index or `ignore`.
        max_pixels: images whose header declares more are error rows.
        max_error_rate: share of images that may fail, 0-1; above it the run fails with exit code 3.
        stall_timeout: seconds in which a busy worker must get on by a step (an image, a read, a write); one that does
            not is replaced.
        storage_options: fsspec options for every URL that is not local. Never written anywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    weights: str | None = None
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    engine: Literal["auto", "local", "ray"] = "auto"
    address: str | None = None
    workers: Workers | None = None
    mask_size: Literal["source", "model"] = "source"
    label_encoding: Encoding = "auto"
    label_remap: dict[str, str | int] = Field(default={})
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    stall_timeout: Annotated[float, Field(gt=0)] = 300.0
    storage_options: dict[str, Any] = Field(default={}, exclude=True, repr=False)

    @field_validator("workers", mode="before")
    @classmethod
    def _workers_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("input", "output", "model", "weights", "labels", "label_pattern", "address")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        """Refuse a URL with a secret in it before anything can echo it; not as a ValueError, which quotes it."""
        if value:
            to_url(value)
        return value

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """(minimum, maximum) of `workers`."""
        if self.workers is None:
            return None
        low, _, high = self.workers.partition(":")
        return int(low), int(high or low)

    @property
    def input_options(self) -> InputOptions:
        """The fields that say how the input is read."""
        return InputOptions(**{name: getattr(self, name) for name in InputOptions.model_fields})


def make_job(values: Mapping[str, Any], where: str = "job") -> Job:
    """Check the values of a job.

    Raises:
        UsageError: an unknown key (the nearest known one is named), a missing or wrong value, a secret in a URL.
    """
    try:
        job = Job.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}:\n{explain(error, Job)}") from None
    if job.worker_range and not 1 <= job.worker_range[0] <= job.worker_range[1]:
        raise UsageError(f"workers = {job.workers!r}: give a number from 1 up, or MIN:MAX with MIN no more than MAX")
    return job


def read_job_file(reference: str, store: Store | None = None) -> dict[str, Any]:
    """Read a TOML job file.

    Raises:
        UsageError: it is not there or is no TOML.
    """
    data = (store or Store()).read_if_exists(to_url(reference))
    if data is None:
        raise UsageError(f"no job file at {reference}")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{reference} is not TOML: {error}") from None


def job_to_toml(job: Job) -> str:
    """Write a job as a TOML job file: what differs from the defaults. Storage options are left out."""
    values = job.model_dump(mode="json", exclude_defaults=True)
    remap = values.pop("label_remap", {})
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    if remap:
        lines += ["", "[label_remap]", *(f"{_toml(key)} = {_toml(value)}" for key, value in remap.items())]
    return "\n".join(lines) + "\n"


def _toml(value: str | float) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML forbids what JSON does not


def run(job: Job, progress: Progress | None = None, *, retry_errors: bool = False, update: bool = False) -> RunReport:
    """Do a job: whatever of it is not committed yet.

    Args:
        job: what is asked.
        progress: who watches.
        retry_errors: do the parts of a begun run that hold error rows again.
        update: add to a begun run what is new in the input: images, tars, Parquet files.

    Returns:
        The report, also written to `OUTPUT/report/`.

    Raises:
        UsageError: the job cannot be done as asked; nothing was started.
        StoreError, InputChanged: the run broke off; the same job resumes it.
        TooManyErrors: more images failed than `max_error_rate` allows; all others are committed.
    """
    progress = progress or Progress()
    store = Store(job.storage_options)
    ledger = Ledger(store, to_url(job.output))
    card = load_card(job.model, store)
    _check_labels(job, card)
    weights = load_weights(card, job.weights, store=store, progress=progress.download)
    started = ledger.read_run()
    frozen = ledger.read_plan() if started else None
    plan = frozen or _discover(job, store, progress)
    with closing(_LazyEngine(job, plan.images)) as engine:
        runtime = _frozen_runtime(job, started) if frozen and started else _resolve(job, weights, engine.get())
        contract = _contract(job, card, weights, runtime)
        task = _task(job, card, runtime, store, fingerprint_of(contract))
        ledger.begin(_run_record(job, card, weights, contract, task.fingerprint))
        if frozen:
            plan = _rework(job, ledger, frozen, progress, retry_errors=retry_errors, update=update)
        else:
            plan = ledger.freeze_plan(plan)
        Rounds(task, weights, plan, ledger, progress, job.max_error_rate * plan.images).run(engine.get)
    return _finish(job, plan, ledger, card, task.fingerprint)


def _discover(job: Job, store: Store, progress: Progress) -> Plan:
    found = discover(job.input, job.input_options, store)
    for warning in found.warnings:
        progress.note(f"warning: {warning}")
    plan = Plan.of(found.parts)
    shards = count(len(plan.parts_by_shard()), "shard")
    progress.note(f"{count(found.images, 'image')} in {shards}, {count(len(plan), 'part')}")
    return plan


def _rework(job: Job, ledger: Ledger, plan: Plan, progress: Progress, *, retry_errors: bool, update: bool) -> Plan:
    if retry_errors:
        progress.note(f"{forget_errors(ledger, plan)} error rows are done again, with their parts")
    if not update:
        return plan
    found = discover(job.input, job.input_options, ledger.store, known_input(plan))
    progress.note(f"{found.images} images are new in the input")
    return ledger.extend_plan(plan, Plan.of(found.parts)) if found.parts else plan


def _check_labels(job: Job, card: ModelCard) -> None:
    try:
        LabelDecoder(card.classes, job.label_encoding, job.label_remap)
    except ValueError as error:
        raise UsageError(f"label_remap: {error}") from None


class _LazyEngine:
    """Starts the engine when it is first needed: a run with nothing left to do starts none."""

    def __init__(self, job: Job, images: int) -> None:
        self._job = job
        self._images = images
        self._engine: Engine | None = None

    def get(self) -> Engine:
        """The engine, started."""
        if self._engine is None:
            self._engine = make_engine(self._job, self._images)
        return self._engine

    def close(self) -> None:
        """End it if it was started."""
        if self._engine is not None:
            self._engine.close()


def make_engine(job: Job, images: int) -> Engine:
    """Choose and start the engine.

    `auto` takes Ray where a cluster is named (`address`, RAY_ADDRESS) or the work is large, else this process.
    """
    named = job.address or os.environ.get("RAY_ADDRESS")
    if job.engine == "local" and job.address:
        raise UsageError("--address names a Ray cluster, --engine local uses none: drop one of them")
    if job.engine == "ray" or (job.engine == "auto" and (named or images > _LOCAL_IMAGES)):
        from segment.engines.ray import RayEngine  # ray takes seconds to import: only who needs it pays

        return RayEngine(job.address, job.worker_range, device=job.device)
    if job.worker_range and job.worker_range[0] != job.worker_range[1]:
        raise UsageError(f"--workers {job.workers}: the local engine's pool is fixed, give one number")
    return LocalEngine(job.worker_range[0] if job.worker_range else None)


def _resolve(job: Job, weights: Weights, engine: Engine) -> Runtime:
    return resolve(weights.format, job.runtime, job.device, job.precision, nodes=engine.nodes())


def _frozen_runtime(job: Job, started: Mapping[str, Any]) -> Runtime:
    """The runtime a begun run was frozen with; what the job names itself stays (and is refused if it differs)."""
    frozen = Runtime(**started["contract"]["runtime"])
    name = frozen.name if job.runtime == "auto" else job.runtime
    return Runtime(
        name,
        frozen.device if job.device == "auto" else job.device,
        frozen.precision if job.precision == "auto" else job.precision,
        version(name) if name == "openvino" else frozen.version,
    )


def _task(job: Job, card: ModelCard, runtime: Runtime, store: Store, fingerprint: str) -> Task:
    return Task(
        card=card,
        runtime=runtime,
        output=to_url(job.output),
        input=job.input_options,
        store=store,
        label_encoding=job.label_encoding,
        label_remap=tuple(sorted(job.label_remap.items())),
        mask_size=job.mask_size,
        max_pixels=job.max_pixels,
        batch_size=job.batch_size if job.batch_size != "auto" else 1 if runtime.device == "cpu" else 8,
        fingerprint=fingerprint,
        stall_timeout=job.stall_timeout,
    )


def open_run(ledger: Ledger) -> tuple[Task, Plan]:
    """Return what a begun run was asked for and its plan, from its output alone.

    Raises:
        UsageError: there is no run at this place, or it has not planned yet.
    """
    run, plan = ledger.read_begun()
    card, runtime = ModelCard.model_validate(run["card"]), Runtime(**run["contract"]["runtime"])
    return _task(make_job(run["job"], "run.json"), card, runtime, ledger.store, run["fingerprint"]), plan


def _contract(job: Job, card: ModelCard, weights: Weights, runtime: Runtime) -> dict[str, Any]:
    return contract_of(
        card,
        format=FORMAT_VERSION,
        input={"url": to_url(job.input), **job.input_options.model_dump(mode="json")},
        labels={"encoding": job.label_encoding, "remap": job.label_remap},
        mask_size=job.mask_size,
        max_pixels=job.max_pixels,
        runtime=dataclasses.asdict(runtime),
        weights_sha384=weights.sha384,
    )


def _run_record(
    job: Job, card: ModelCard, weights: Weights, contract: Mapping[str, Any], fingerprint: str
) -> dict[str, Any]:
    """`run.json`. The job's storage options are left out by their field: they may be secrets."""
    return {
        "job": job.model_dump(mode="json"),
        "card": card.model_dump(mode="json"),
        "weights": {"origin": weights.origin, "format": weights.format, "sha384": weights.sha384},
        "contract": contract,
        "fingerprint": fingerprint,
        "scored_at": card.metric.resolution,
        "versions": {"segment": version("segment-job"), "python": platform.python_version()},
    }


def _finish(job: Job, plan: Plan, ledger: Ledger, card: ModelCard, fingerprint: str) -> RunReport:
    """Statistics, audit, report, `_SUCCESS`, in this order.

    Raises:
        SegmentError: the audit found something.
        TooManyErrors: the share of failed images is above the limit.
    """
    finished = ledger.finished_shards()
    for shard, parts in plan.parts_by_shard().items():
        if shard not in finished:
            ledger.finish_shard(shard, parts, card)
    audit = ledger.audit(plan, card)
    if audit.problems:
        shown = "\n".join(f"  {problem}" for problem in audit.problems[:20])
        raise SegmentError(f"the audit of {redact_url(ledger.output)} found {len(audit.problems)} problems:\n{shown}")
    too_many = audit.errors > job.max_error_rate * audit.images
    if not too_many:
        ledger.succeed(audit, fingerprint)
    report = load_report(ledger)
    write_report(ledger, report)
    if too_many:
        raise TooManyErrors(
            f"{audit.errors} of {audit.images} images failed, more than --max-error-rate {job.max_error_rate:g} allows."
            f" All others are done: `segment report {redact_url(ledger.output)}` lists them."
        )
    return report
