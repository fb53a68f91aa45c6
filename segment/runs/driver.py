"""The driver: does a job. Plan, engine, rounds, statistics, audit, report."""

from __future__ import annotations

import dataclasses
import logging
import os
from contextlib import ExitStack, closing
from pathlib import Path

from segment.engines import Engine
from segment.engines.local import LocalEngine
from segment.errors import SegmentError, TooManyErrors, UsageError
from segment.images.labels import LabelDecoder
from segment.inputs.discover import Discovery, Known, discover, sign_again
from segment.inputs.findings import images_in_words
from segment.job import Job, make_job
from segment.models.card import ModelCard, load_card
from segment.models.sessions import Runtime
from segment.models.weights import Weights, load_weights
from segment.output import repair
from segment.output.audit import Audit, audit_listing
from segment.output.error_rate import too_many_errors
from segment.output.identity import begin, fingerprint_of, goes_on
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.progress import Progress, ticking, watched_progress
from segment.report.aggregate import RunReport, load_report, write_report
from segment.runs.error_limits import label_advice
from segment.runs.preflight import probe_output
from segment.runs.resolve import (
    choose_batch,
    choose_runtime,
    frozen_batch,
    frozen_runtime,
    run_contract,
    run_record,
    task_of,
)
from segment.runs.rounds import Rounds
from segment.store.client import Store
from segment.store.names import count, shown
from segment.store.retries import retry_log_filter
from segment.store.urls import to_url

log = logging.getLogger("segment.runs.driver")

_LOCAL_IMAGES = 10_000  # `engine = "auto"` without a cluster: more than this is worth Ray's start and its isolation


def run(
    job: Job,
    progress: Progress | None = None,
    *,
    retry_errors: bool = False,
    update: bool = False,
    verify: bool = False,
) -> RunReport:
    """Do a job: whatever of it is not committed yet.

    Args:
        job: what is asked.
        progress: what shows how the run goes. None shows it where a person watches, in a terminal or notebook, and
            elsewhere logs notes and warnings; `segment.Progress()` shows nothing.
        retry_errors: do the parts of a begun run that hold error rows again.
        update: add to a begun run what is new in the input (images, tars, Parquet files), and do again what has been
            replaced there.
        verify: look at the end of every masks file of a begun run, and do what is damaged again.

    Returns:
        The report, also written to `OUTPUT/report/`.

    Raises:
        UsageError: the job cannot be done as asked; nothing was started.
        StoreError, InputChanged: the run broke off; the same job resumes it.
        TooManyErrors: more images failed than `max_error_rate` allows; all others are committed.
    """
    with ExitStack() as stack:
        if progress is None:
            progress = stack.enter_context(closing(watched_progress()))
        stack.enter_context(ticking(progress.tick))
        return _run(job, progress, retry_errors=retry_errors, update=update, verify=verify)


def _run(job: Job, progress: Progress, *, retry_errors: bool, update: bool, verify: bool) -> RunReport:
    progress.phase("looking at the output")
    retry_log_filter.reset()
    if update and (job.limit or job.sample):
        raise UsageError(
            "--update follows a whole input, and this run is of a choice (--limit, --sample) that stays as it is. "
            "If images or labels of it have changed, delete it. For another choice, or for all, take another output"
        )
    store = Store(job.storage_options)
    ledger = Ledger(store, to_url(job.output))
    _check_places(job, store)
    card = load_card(job.model, store)
    check_labels(job, card)
    planned = ledger.is_planned()
    found = None if planned else _discover(job, store, progress)  # before weights are fetched in vain
    deletes = update or retry_errors or verify
    if deletes or not (planned and ledger.is_complete()):
        progress.phase("trying the output")
        for line in probe_output(store, ledger.output, deletes=deletes):
            progress.note(line)
    weights = load_weights(card, job.weights, store=store, progress=progress.download)
    begun = _begun(job, card, weights, ledger)
    if begun:
        _sign_again(job, begun[0], store)
    plan = begun[0] if begun else found or _discover(job, store, progress)
    progress.phase("starting the workers")
    with closing(_LazyEngine(job, plan.images)) as engine:
        runtime = begun[1] if begun else choose_runtime(job, weights, engine.get())
        batch = begun[2] if begun else choose_batch(job, card, weights, runtime, plan, engine.get, progress)
        contract = run_contract(job, card, weights, runtime, batch)
        task = task_of(job, card, runtime, batch, store, fingerprint_of(contract))
        begin(ledger, run_record(job, card, weights, contract, task.fingerprint, plan))
        if begun:
            if verify:
                again = repair.verify(ledger, plan, task.fingerprint)
                progress.note(f"verified: {count(again, 'damaged or lost part')} done again")
            plan = _rework(job, ledger, plan, progress, retry_errors=retry_errors, update=update)
        else:
            plan = ledger.freeze_plan(plan)
        ledger.record_input(plan, task.fingerprint)
        rounds = Rounds(task, weights, plan, ledger, progress, job.max_error_rate * plan.images)
        worked = rounds.run(engine.get)
        progress.phase("checking what is committed")
        audit = _settle(plan, ledger, card, task.fingerprint)
        if audit.problems and (lost := ledger.reopen_lost(plan)):
            progress.note(f"{count(lost, 'committed part')} of finished shards has been lost: done again")
            worked = rounds.run(engine.get)
            audit = _settle(plan, ledger, card, task.fingerprint)
    report = _finish(job, plan, ledger, task.fingerprint, audit)
    for doubt in report.doubts:  # what is left out has been told when the run was planned
        progress.note(f"warning: {doubt}")
    if worked or not store.exists(ledger.url("report", "index.html")):  # it reads masks and images: not once more
        _draw_page(ledger, report, task, plan, progress)
    return report


def _draw_page(ledger: Ledger, report: RunReport, task: Task, plan: Plan, progress: Progress) -> None:
    """Write `report/index.html`. The run is done and proven: whatever fails here is a note and no failure."""
    from segment.report.page import QUICK, write_page  # jinja2 is for the end

    try:
        write_page(ledger, report, task, plan, most_parts=QUICK)
    except Exception as error:
        progress.note(f"warning: no report/index.html, `segment report` tries again ({type(error).__name__}: {error})")


def _check_places(job: Job, store: Store) -> None:
    source, output = to_url(job.input), to_url(job.output)
    if f"{source}/".startswith(f"{output}/"):
        raise UsageError(f"the output {shown(output)} is, or holds, the input {shown(source)}: choose another output")
    if output.startswith(("http://", "https://")):
        raise UsageError(
            f"the output {shown(output)}: nothing can be written to a web server. Give a folder, or a prefix "
            "of a store such as s3://, gs:// or az://"
        )
    if store.exists(output):
        raise UsageError(f"the output {shown(output)} is a file: give a folder or prefix")
    folders = Path(output.removeprefix("file://")).parents if output.startswith("file://") else ()
    if file := next((folder for folder in folders if folder.exists() and not folder.is_dir()), None):
        raise UsageError(f"the output {shown(output)}: {shown(str(file))} is a file, not a folder")


def _begun(job: Job, card: ModelCard, weights: Weights, ledger: Ledger) -> tuple[Plan, Runtime, int] | None:
    """Return plan, runtime and batch of the run that is there and goes on, if there is one."""
    run = ledger.read_run()
    plan = ledger.read_plan() if run else None
    if run is None or plan is None:
        return None
    runtime = frozen_runtime(job, run)
    batch = frozen_batch(job, run["contract"], runtime)
    same = goes_on(ledger, run, run_contract(job, card, weights, runtime, batch))
    return (plan, runtime, batch) if same else None


def _sign_again(job: Job, plan: Plan, store: Store) -> None:
    """Find the signatures of a planned input. Without them what is public, or committed already, can still be had."""
    try:
        sign_again(job.input, job.input_options, store, plan.is_signed)
    except SegmentError as error:
        log.warning("no signed URLs of the list: %s", error)


def _discover(job: Job, store: Store, progress: Progress) -> Plan:
    progress.phase("listing the input")
    found = discover(job.input, job.input_options, store, without=to_url(job.output))
    _tell(found, progress)
    plan = Plan.of(found.parts, found.left_out)
    shards = count(len(plan.parts_by_shard()), "shard")
    progress.note(f"{images_in_words(found.images, found.left_out)} in {shards}, {count(len(plan), 'part')}")
    return plan


def _rework(job: Job, ledger: Ledger, plan: Plan, progress: Progress, *, retry_errors: bool, update: bool) -> Plan:
    if update:
        known = Known(list(plan.parts()))
        found = discover(job.input, job.input_options, ledger.store, known, to_url(job.output))
        _tell(found, progress)
        for line in repair.changes(known, found):
            progress.note(line)
        plan = repair.follow_input(ledger, plan, known, found)
    if retry_errors:
        again, changed = repair.forget_errors(ledger, plan, job.input_options)
        progress.note(f"{count(again, 'error row')} done again, with their parts")
        if changed:
            left = f"{count(changed, 'error row')} left as {'it is' if changed == 1 else 'they are'}"
            progress.note(f"{left}: the input has changed, and --update is what plans it anew")
    return plan


def _tell(found: Discovery, progress: Progress) -> None:
    for line in found.lines:
        progress.note(line)


def check_labels(job: Job, card: ModelCard) -> None:
    """Refuse, as a UsageError, a `label_remap` that does not fit the card."""
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


def task_and_plan(ledger: Ledger) -> tuple[Task, Plan]:
    """Return what a begun run was asked for and its plan, from its output alone.

    Raises:
        UsageError: there is no run at this place, or it has not planned yet.
    """
    run, plan = ledger.read_begun()
    card, runtime = ModelCard.model_validate(run["card"]), Runtime(**run["contract"]["runtime"])
    job = make_job(run["job"], "run.json")
    batch = frozen_batch(job, run["contract"], runtime)
    _sign_again(job, plan, ledger.store)
    return task_of(job, card, runtime, batch, ledger.store, run["fingerprint"]), plan


def _settle(plan: Plan, ledger: Ledger, card: ModelCard, fingerprint: str) -> Audit:
    """Write the statistics that are missing, then audit.

    Raises:
        SegmentError: another run has taken this one's place.
    """
    ledger.refuse_replaced(fingerprint)
    finished = ledger.finished_shards()
    for shard, parts in plan.parts_by_shard().items():
        if shard not in finished:
            ledger.finish_shard(shard, parts, card, fingerprint)
    return audit_listing(ledger, plan, card)


def _finish(job: Job, plan: Plan, ledger: Ledger, fingerprint: str, audit: Audit) -> RunReport:
    """Report and `_SUCCESS`, in this order.

    Raises:
        SegmentError: the audit found something.
        TooManyErrors: the share of failed images is above the limit.
    """
    place = shown(ledger.output)
    if audit.problems:
        ledger.take_back_success()
        listed = "\n".join(f"  {problem}" for problem in audit.problems[:20])
        raise SegmentError(f"the audit of {place} found {count(len(audit.problems), 'problem')}:\n{listed}")
    failure = too_many_errors(audit.errors, audit.images, plan.left_out, job.max_error_rate)
    report = dataclasses.replace(load_report(ledger), complete=not failure)
    write_report(ledger, report)
    if failure:
        ledger.take_back_success()
        first = f"; the first is {shown(report.errors[0].id)}, {report.errors[0].error}" if report.errors else ""
        raise TooManyErrors(
            f"{failure}{first}. All others are done: `segment report {place}` lists what failed and what is left out."
            + ("" if report.is_scored else label_advice((e.error for e in report.errors), report.output))
        )
    if ledger.read_plan() != plan:
        raise SegmentError(f"the plan of {place} was extended meanwhile, by --update: run the same command again")
    ledger.succeed(audit.totals, fingerprint)
    return report
