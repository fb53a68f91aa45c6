"""The plan as a source of Ray Data: read tasks, schema, sizes; and which operators a job has."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from segment.engines.ray_blocks import PACKED_SCHEMA, cut_blocks, unpacked
from segment.inputs.parts import Part
from segment.output.plan import Plan
from segment.output.plan_rows import parts_of

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # read when ray is first imported

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Seven parts of three images each."""
    first = Part("p", "s", "parquet", "file:///s", 1, "e", 0, 3, -1, ())
    return Plan.of(replace(first, id=f"p-{i}", start=3 * i, stop=3 * i + 3) for i in range(7))


def test_the_read_tasks_are_the_blocks_of_the_plan_in_order(plan: Plan) -> None:
    from segment.engines.ray_parts import PartSource

    blocks = cut_blocks(plan, 1, isolate=False)
    tasks = PartSource(plan, blocks).get_read_tasks(99)
    tables = [table for task in tasks for table in task()]
    assert [len(unpacked(table)) for table in tables] == [length for _, length in blocks]
    assert [part for table in tables for part in parts_of(unpacked(table))] == list(plan.parts())
    assert all(table.schema == PACKED_SCHEMA == task.schema for table, task in zip(tables, tasks, strict=True))


def test_what_is_read_in_a_worker_has_a_row_for_each_part(plan: Plan) -> None:
    from segment.engines.ray_parts import PartSource

    def ids(rows: pa.Table) -> Iterator[pa.Table]:
        for part in parts_of(rows):
            yield pa.table({"part": [part.id]})

    tasks = PartSource(plan, [(0, 4), (4, 3)], ids).get_read_tasks(2)
    assert [[table["part"][0].as_py() for table in task()] for task in tasks] == [
        ["p-0", "p-1", "p-2", "p-3"],
        ["p-4", "p-5", "p-6"],
    ]


def test_sizes_are_known_before_anything_is_read(plan: Plan) -> None:
    from segment.engines.ray_parts import PartSource

    def never(_: pa.Table) -> Iterator[pa.Table]:
        raise AssertionError("read")

    described = PartSource(plan, [(0, 4), (4, 3)])
    decoded = PartSource(plan, [(0, 4), (4, 3)], never, image_bytes=1000)
    for source, each, rows in ((described, 0, [1, 1]), (decoded, 1000, [4, 3])):
        tasks = source.get_read_tasks(2)
        assert [task.metadata.num_rows for task in tasks] == rows
        sizes = [task.metadata.size_bytes for task in tasks]
        assert all(size > images * each for size, images in zip(sizes, (12, 9), strict=True))
        assert source.estimate_inmemory_data_size() >= 21 * each
    assert decoded.estimate_inmemory_data_size() - described.estimate_inmemory_data_size() == 21 * 1000
    assert decoded.get_read_tasks(2)[0].schema is None


@pytest.mark.usefixtures("ray_cluster")
def test_a_read_task_takes_its_own_parts_along_and_no_others() -> None:
    import ray
    from ray.experimental.locations import get_object_locations

    from segment.engines.ray_parts import PartSource

    first = Part("p", "s", "parquet", "file:///s", 1, "e", 0, 1, -1, ())
    long = Plan.of(replace(first, id=f"{i:040d}") for i in range(10_000))
    whole, one = (PartSource(long, blocks).get_read_tasks(1)[0] for blocks in ([(0, 10_000)], [(5000, 1)]))
    refs = [ray.put(whole), ray.put(one)]
    sizes = [found["object_size"] for found in get_object_locations(refs).values()]
    assert sizes[0] > 10_000 * 40
    assert sizes[1] < 40_000
