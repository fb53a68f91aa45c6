"""`resume`: what a run does before its first round."""

import segment
from jobs.scaling.figures import Figure, Scale, resident, timed
from segment.output.plan import Plan
from segment.progress import Progress, Tally
from segment.store.client import Store


class Stop(Exception):
    """Ends a run where its first round would begin."""


class StopAtBegin(Progress):
    """Lets a run plan, look at what is committed, and no more."""

    def begin(self, tally: Tally) -> None:
        """See `Progress.begin`."""
        raise Stop


def measure_resume(scale: Scale) -> list[Figure]:
    """Up to the first round of a run of a hundred parts a shard, 99 % of whose shards are finished."""
    output = scale.output("resume")
    part_size = max(1, scale.images // scale.shards // 100)
    job = segment.Job(output=str(output), engine="local", part_size=part_size, **scale.job)
    begin_only(job)
    plan = Plan.from_bytes((output / "plan.parquet").read_bytes())
    shards = plan.parts_by_shard()
    (output / "stats").mkdir(exist_ok=True)
    for number, (shard, parts) in enumerate(shards.items()):
        folder = output / "masks" / shard
        folder.mkdir(parents=True, exist_ok=True)
        finished = number >= max(1, len(shards) // 100)
        for part in parts if finished else parts[::2]:
            (folder / f"{part}.parquet").touch()
        if finished:
            (output / "stats" / f"{shard}.parquet").touch()
    before = resident()
    with timed() as resumed:
        begin_only(job)
    with timed() as listing:
        held = resident()
        entries = Store().list(f"file://{output}/masks")
        held, keys = resident() - held, len(entries)
    return [
        Figure("listed masks files, bytes of memory each", f"{1e6 * held / keys:.0f}"),
        Figure(f"resume: {len(plan):,} parts in {len(shards):,} shards, 99 % finished, s", f"{resumed[0]:.1f}", "≤ 10"),
        Figure("its memory, MB more", f"{resident() - before:.0f}"),
        Figure(f"full listing of {keys:,} masks files, s", f"{listing[0]:.2f}"),
        Figure("plan.parquet, bytes a part", f"{(output / 'plan.parquet').stat().st_size / len(plan):.0f}"),
    ]


def begin_only(job: segment.Job) -> None:
    """Run a job up to its first round."""
    try:
        segment.run(job, StopAtBegin())
    except Stop:
        return
    raise AssertionError("nothing was left to do")
