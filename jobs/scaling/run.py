"""`run`: a job on the Ray engine; `finished`: its rerun, aggregation and audit."""

import time

import segment
from jobs.scaling.figures import Figure, Samples, Scale, timed
from segment.models.card import load_card
from segment.output.audit import audit_listing
from segment.output.ledger import Ledger
from segment.report.aggregate import load_report
from segment.store.client import Store


def measure_run(scale: Scale) -> list[Figure]:
    """The whole job on the Ray engine."""
    import pyarrow.parquet as pq

    output, samples = scale.output("run"), Samples()
    segment.run(segment.Job(output=str(output), engine="ray", batch_size=16, **scale.job), samples)
    finish = time.perf_counter() - samples.ended
    growth = samples.growth(min(10_000, scale.images // 10))
    assert growth < 200, f"the driver's memory is not flat: it grew by {growth:.0f} MB"
    timings = pq.read_table(next((output / "runs").glob("*.parquet")))
    stages = {name: timings[name].to_numpy().sum() for name in timings.column_names if name.endswith("_seconds")}
    spent = ", ".join(f"{k.removesuffix('_seconds')} {1e6 * v / scale.images:.0f}" for k, v in stages.items())
    return [
        Figure("Ray engine, images/s", f"{samples.rate():,.0f}", "≥ 5,000"),
        Figure("CPU of all processes an image, µs", f"{1e6 * samples.cpu_an_image():.0f}"),
        Figure("driver memory, growth from 10⁴ images (or a tenth) on, MB", f"{growth:.0f}", "< 200"),
        Figure("driver memory at the end, MB", f"{samples.points[-1][2]:.0f}"),
        Figure("driver CPU a part, ms", f"{1e3 * samples.cpu() / len(timings):.2f}"),
        Figure("driver CPU an image, µs", f"{1e6 * samples.cpu() / scale.images:.1f}"),
        Figure("worker, µs an image by stage", spent),
        Figure("statistics, audit and report after the last part, s", f"{finish:.1f}"),
    ]


def measure_finished(scale: Scale) -> list[Figure]:
    """A rerun of what is complete, its report, its audit; statistics from masks. Needs `run` before it."""
    output = scale.output("run")
    job = segment.Job(output=str(output), engine="local", batch_size=16, **scale.job)
    ledger, card = Ledger(Store(), f"file://{output}"), load_card(job.model)
    with timed() as rerun:
        segment.run(job)
    with timed() as report:
        assert load_report(ledger).total.images == scale.images
    run, plan = ledger.read_run_and_plan()
    with timed() as listing:
        keys = len(ledger.store.list(ledger.url("masks")))
    with timed() as audit:
        assert not audit_listing(ledger, plan, card).problems
    parts = plan.parts_by_shard()
    few = list(parts)[: max(1, len(parts) // 10)]
    with timed() as folded:
        images = sum(ledger.finish_shard(shard, parts[shard], card, run["fingerprint"]).images for shard in few)
    return [
        Figure("rerun of a finished run, audit and report again, s", f"{rerun[0]:.1f}"),
        Figure("aggregation from stats/, s", f"{report[0]:.2f}", "≤ 15"),
        Figure("aggregation from masks/, s (a tenth measured, times ten)", f"{folded[0] * scale.images / images:.1f}"),
        Figure(f"listing of {keys:,} masks files, s", f"{listing[0]:.2f}"),
        Figure("audit, s", f"{audit[0]:.1f}"),
    ]
