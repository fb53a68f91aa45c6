"""The driver: runs a job from plan to `_SUCCESS`, by rounds, statistics, audit and report."""

import dataclasses
import logging
from contextlib import ExitStack, closing
from functools import partial

from segment.errors import SegmentError, UsageError
from segment.inputs.changes import Known
from segment.inputs.discover import sign_again
from segment.inputs.discovery import Discovery
from segment.inputs.findings import images_in_words
from segment.inputs.own_scope import scope_of
from segment.job import Job, make_job
from segment.models.card import ModelCard, load_card
from segment.models.sessions import Runtime
from segment.models.weights import Weights, load_weights
from segment.output import repair
from segment.output.audit import Audit, audit_listing, audit_parts
from segment.output.error_rate import too_many_errors
from segment.output.identity import begin, fingerprint_of, is_resumable
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.plan_scope import outside_of_run
from segment.output.signing import Signer
from segment.output.success import PLAN, changed_files, restore_record, resume_digests, write_success
from segment.pipeline.stages import Task
from segment.process.temporaries import remove_abandoned
from segment.progress import Progress, ticking, watched_progress
from segment.report.aggregate import RunReport, load_report, write_report
from segment.report.dataset_card import write_dataset_card
from segment.report.run_score import with_intervals
from segment.runs.error_limits import failed_by_errors
from segment.runs.growth import planned_so_far
from segment.runs.lazy_engine import LazyEngine
from segment.runs.preflight import check_output, probe_output
from segment.runs.proof import prove
from segment.runs.resolve import (
    check_options,
    choose_batch,
    choose_runtime,
    discover_for,
    frozen_batch,
    frozen_runtime,
    index_for,
    run_identity,
    run_record,
    task_of,
)
from segment.runs.rounds import Rounds
from segment.store.client import Store
from segment.store.local_files import remove_unfinished
from segment.store.names import count, shown
from segment.store.retries import retry_log_filter
from segment.store.urls import to_url

log = logging.getLogger("segment.runs.driver")


def run(
    job: Job,
    progress: Progress | None = None,
    *,
    retry_errors: bool = False,
    update: bool = False,
    verify: bool = False,
    sign: str | None = None,
) -> RunReport:
    """Run a job: segment all images that are not committed yet.

    Args:
        job: the job.
        progress: the display. None takes `watched_progress()`: a display in a terminal or notebook, and log records
            of notes and warnings elsewhere; `segment.Progress()` shows nothing.
        retry_errors: repeat the parts of an existing run that hold error rows.
        update: add new input (images, tars, Parquet files) to an existing run, and repeat replaced input.
        verify: read every masks file of an existing run, compare it with the manifest, check rows and masks, and
            repeat damaged parts.
        sign: file of a secret key of minisign, which signs `_SUCCESS`; needs the extra `sign`. A key with a password
            takes it from the environment variable SEGMENT_SIGN_PASSWORD.

    Returns:
        The report, also written to `OUTPUT/report/`.

    Raises:
        UsageError: the job is impossible; nothing was started.
        StoreError, InputChanged: the run was interrupted; the same job resumes it.
        TooManyErrors: more images failed than `max_error_rate` allows; all others are committed.
    """
    remove_abandoned()
    with ExitStack() as stack:
        if progress is None:
            progress = stack.enter_context(closing(watched_progress()))
        stack.enter_context(ticking(progress.tick))
        signer = Signer(sign) if sign else None  # before a run of days
        return _run(job, progress, signer, retry_errors=retry_errors, update=update, verify=verify)


def _run(
    job: Job, progress: Progress, signer: Signer | None, *, retry_errors: bool, update: bool, verify: bool
) -> RunReport:
    progress.phase("reading the output")
    retry_log_filter.reset()
    if update and (job.limit or job.sample):
        raise UsageError(
            "--update works on a whole input, but this run is of a fixed choice (--limit, --sample). If its images or "
            "labels have changed, delete the output. For another choice, or for all images, use another output"
        )
    store = Store(job.storage_options, seconds=job.stall_timeout)
    store.limit_inputs(scope_of(job.input, job.input_options))
    ledger = Ledger(store, to_url(job.output))
    check_output(job, store)
    card = load_card(job.model, store)
    check_options(job, card)
    planned = ledger.is_planned()
    found = None if planned else _discover(job, card, store, progress)  # before weights are fetched in vain
    deletes = update or retry_errors or verify
    was_complete = planned and ledger.is_complete()
    if deletes or not was_complete:
        progress.phase("testing the output")
        for line in probe_output(store, ledger.output, deletes=deletes):
            progress.note(line)
    weights = load_weights(card, job.weights, store=store, progress=progress.download)
    existing = _existing_run(job, card, weights, ledger)
    if existing:
        _sign_again(job, existing[0], store)
    plan = existing[0] if existing else found or _discover(job, card, store, progress)
    progress.phase("starting the workers")
    with closing(LazyEngine(job, plan)) as engine:
        runtime = existing[1] if existing else choose_runtime(job, card, weights, engine.get(), progress)
        engine.warm_up(runtime)
        given = (job, card, weights, runtime, plan)
        runtime, proof = (runtime, None) if existing else prove(*given, engine.get(), store, progress)
        progress.phase("starting the workers")
        batch = existing[2] if existing else choose_batch(job, card, weights, runtime, plan, engine.get, progress)
        identity = run_identity(job, card, weights, runtime, batch)
        task = task_of(job, card, runtime, batch, store, fingerprint_of(identity))
        record = run_record(job, card, weights, identity, task.fingerprint, plan, proof)
        begin(ledger, record)
        if existing:
            remove_unfinished(ledger.output)
            for line in resume_digests(ledger, verify=verify):
                progress.note(f"warning: {line}")
            if verify:
                restore_record(ledger, record)
                damaged = repair.reopen_damaged(ledger)
                progress.note(f"verified: {count(damaged, 'damaged or lost part')} done again")
            plan = _repair(job, card, ledger, plan, progress, retry_errors=retry_errors, update=update)
        else:
            plan = ledger.freeze_plan(plan)
        ledger.record_input(plan, task.fingerprint)
        index = partial(index_for, job, card, store)
        rounds = Rounds(task, weights, plan, ledger, progress, job.max_error_rate, index)
        has_worked = rounds.run(engine.get)
        if existing and not (has_worked or deletes or job.limit or job.sample):
            progress.note("the input is not listed again: --update adds what is new in it")
        if plan.unindexed:
            plan = rounds.plan
            ledger.record_input(plan, task.fingerprint)
        progress.phase("checking the committed parts")
        audit = _finish_shards(plan, ledger, card, task.fingerprint, progress)
        if audit.problems and (lost := ledger.reopen_lost(plan)):
            progress.note(f"{count(lost, 'committed part')} of finished shards has been lost: done again")
            has_worked = rounds.run(engine.get)
            audit = _finish_shards(plan, ledger, card, task.fingerprint, progress)
    failure = too_many_errors(audit.errors, audit.images, plan.left_out, job.max_error_rate)
    report = _finish_run(plan, ledger, task.fingerprint, audit, failure, signer, progress)
    for warning in report.label_warnings:  # other warnings were reported when the run was planned
        progress.note(f"warning: {warning}")
    # drawing a page reads masks and images; one of a run that failed says so
    has_page = was_complete and not (has_worked or failure) and store.exists(ledger.url("report", "index.html"))
    report = _show(ledger, report, task, plan, progress, page=not has_page)
    if failure:
        raise failed_by_errors(failure, report)
    return report


def _show(ledger: Ledger, report: RunReport, task: Task, plan: Plan, progress: Progress, *, page: bool) -> RunReport:
    """Return the report with its intervals, and write `report/index.html` if asked.

    Every image is done, so a failure here is only a warning.
    """
    from segment.report.page import QUICK, write_page  # jinja2 is not needed before

    try:
        report = with_intervals(ledger, plan, report, most_parts=QUICK)
        if page:
            write_page(ledger, report, task, plan, most_parts=QUICK)
    except Exception as error:
        what = "no report/index.html" if page else "no intervals"
        progress.note(f"warning: {what}, run `segment report` to retry ({type(error).__name__}: {error})")
    return report


def _existing_run(job: Job, card: ModelCard, weights: Weights, ledger: Ledger) -> tuple[Plan, Runtime, int] | None:
    """Return plan, runtime and batch size of the run in the output that this job resumes, if there is one."""
    run = ledger.read_run()
    plan = ledger.read_plan() if run else None
    if run is None or plan is None:
        return None
    runtime = frozen_runtime(job, run)
    batch = frozen_batch(job, run["contract"], runtime)
    if not is_resumable(ledger, run, run_identity(job, card, weights, runtime, batch)):
        return None
    if outside := outside_of_run(plan, ledger):
        why = changed_files(ledger).get(PLAN) or (
            "It has been changed since the run was planned, or an earlier version of segment has planned "
            "it: choose another output, and check the input before you allow more"
        )
        raise UsageError(f"{outside}. {why}")
    return plan, runtime, batch


def _sign_again(job: Job, plan: Plan, store: Store) -> None:
    """Read the URL signatures of a planned input again; without them, public and committed images still work."""
    try:
        sign_again(job.input, job.input_options, store, plan.is_signed)
    except SegmentError as error:
        log.warning("no signed URLs of the list: %s", error)


def _discover(job: Job, card: ModelCard, store: Store, progress: Progress) -> Plan:
    progress.phase("listing the input")
    found = discover_for(job, card, store, without=to_url(job.output), early=True)
    _note_findings(found, progress)
    plan = Plan.of_discovery(found)
    shards = count(len(plan.parts_by_shard()), "shard")
    progress.note(f"{images_in_words(found.images, found.left_out)} in {shards}, {count(len(plan), 'part')}")
    if plan.unindexed:
        progress.note(planned_so_far(plan))
    return plan


def _repair(
    job: Job, card: ModelCard, ledger: Ledger, plan: Plan, progress: Progress, *, retry_errors: bool, update: bool
) -> Plan:
    """Apply --update and --retry-errors; return the frozen plan."""
    if update:
        known = Known(plan)
        found = discover_for(job, card, ledger.store, known, to_url(job.output))
        _note_findings(found, progress)
        for line in repair.changes(known, found):
            progress.note(line)
        plan = repair.follow_input(ledger, plan, known, found)
    if retry_errors:
        reopened, changed = repair.reopen_errors(ledger, plan, job.input_options)
        progress.note(f"{count(reopened, 'error row')} done again, with their parts")
        if changed:
            left = f"{count(changed, 'error row')} left as {'it is' if changed == 1 else 'they are'}"
            progress.note(f"{left}: the input has changed; use --update to plan it again")
    return plan


def _note_findings(found: Discovery, progress: Progress) -> None:
    for line in found.lines:
        progress.note(line)


def task_and_plan(ledger: Ledger) -> tuple[Task, Plan]:
    """Return task and plan of an existing run, from its output alone. Raises UsageError: no run, or no plan yet."""
    run, plan = ledger.read_run_and_plan()
    card, runtime = ledger.card_of(run), Runtime(**run["contract"]["runtime"])
    job = make_job(run["job"], "run.json")
    batch = frozen_batch(job, run["contract"], runtime)
    if outside := outside_of_run(plan, ledger):
        log.warning("%s: they are read only with --allow-input PREFIX (in Python: allow_input)", outside)
    _sign_again(job, plan, ledger.store)
    return task_of(job, card, runtime, batch, ledger.store, run["fingerprint"]), plan


def _finish_shards(plan: Plan, ledger: Ledger, card: ModelCard, fingerprint: str, progress: Progress) -> Audit:
    """Write missing statistics of shards, then audit the run, and read what other attempts committed, for its digests.

    Raises:
        SegmentError: another run has replaced this one.
    """
    ledger.refuse_replaced(fingerprint)
    finished = ledger.finished_shards()
    for shard, parts in plan.parts_by_shard().items():
        if shard not in finished:
            ledger.finish_shard(shard, parts, card, fingerprint)
    audit = audit_listing(ledger, plan, card)
    unknown = plan.without(ledger.known_parts(plan))
    if audit.problems or not len(unknown):
        return audit
    progress.note(f"reading {count(len(unknown), 'part')} of other attempts once, for manifest.parquet")
    return dataclasses.replace(audit, wrong=audit_parts(ledger, card, unknown))


def _finish_run(
    plan: Plan,
    ledger: Ledger,
    fingerprint: str,
    audit: Audit,
    failure: str,
    signer: Signer | None,
    progress: Progress,
) -> RunReport:
    """Write the report, then the manifest, then `_SUCCESS`; of a run that has failed (`failure`), the report alone.

    Raises:
        SegmentError: the audit found problems.
    """
    place = shown(ledger.output)
    if audit.problems:
        ledger.remove_success()
        listed = "\n".join(f"  {problem}" for problem in audit.problems[:20])
        raise SegmentError(f"the audit of {place} found {count(len(audit.problems), 'problem')}:\n{listed}")
    report = dataclasses.replace(load_report(ledger), complete=not failure)
    write_report(ledger, report)
    write_dataset_card(ledger)
    if failure:
        ledger.remove_success()
        return report
    for line in write_success(ledger, plan, audit.totals, fingerprint, signer):
        progress.note(line)
    return dataclasses.replace(report, signed_by=ledger.signed_by())
