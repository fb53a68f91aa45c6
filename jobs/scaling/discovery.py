"""`discovery`: an input is listed; `plan`: a long plan is weighed."""

from jobs.scaling.figures import Figure, Scale, resident, timed
from jobs.scaling.inputs import tiny_images
from segment.inputs.discover import discover
from segment.job import InputOptions
from segment.output.plan import Plan
from segment.store.client import Store


def measure_discovery(scale: Scale) -> list[Figure]:
    """List the shards, and a tenth as many loose files as there are images."""
    figures = []
    loose = scale.folder / "loose"
    for number, picture in enumerate(tiny_images(scale.images // 10)):
        path = loose / f"{number // 1000:06d}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    for name, folder in (("Parquet", scale.folder / "input"), ("loose files", loose)):
        before = resident()
        with timed() as seconds:
            found = discover(f"file://{folder}", InputOptions(), Store())
            plan = Plan.of_discovery(found)
        what = f"discovery and plan of {found.images:,} images, {name}"
        figures.append(Figure(f"{what}, s", f"{seconds[0]:.1f}"))
        figures.append(Figure(f"{what}, MB", f"{resident() - before:.0f}"))
        figures.append(Figure(f"{what}, MB of plan.parquet", f"{len(plan.to_bytes()) / 1e6:.1f}"))
    return figures


def measure_plan(scale: Scale) -> list[Figure]:
    """What the driver keeps of each part while it runs: ten parts of each planned one, to see it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = discover(scale.job["input"], InputOptions(), Store())
    once = Plan.of_discovery(found).rows()
    place = once.schema.get_field_index("id")
    copies = (pc.binary_join_element_wise(once["id"], str(number), "-") for number in range(10))
    data = Plan(pa.concat_tables([once.set_column(place, "id", ids) for ids in copies])).to_bytes()
    start = resident()
    with timed() as reading:
        plan = Plan.from_bytes(data)
    read = resident()
    kept = plan.parts_by_shard()
    waiting = {shard: set(parts) for shard, parts in kept.items()}  # as `segment.runs.rounds.ShardBooks` does
    held = resident()
    assert sum(len(parts) for parts in waiting.values()) == len(plan)
    return [
        Figure(f"plan of {len(plan):,} parts read, s", f"{reading[0]:.2f}"),
        Figure("driver memory a part, the plan, bytes", f"{1e6 * (read - start) / len(plan):.0f}"),
        Figure("driver memory a part, what is open in each shard, bytes", f"{1e6 * (held - read) / len(plan):.0f}"),
    ]
