"""Blocks of parts, as the Ray engine makes them."""

from dataclasses import replace

import pytest

from segment.engines.ray_blocks import cut_blocks
from segment.inputs.parts import Part
from segment.output.plan import Plan


def plan_of(parts: int, parts_a_row_group: int = 0) -> Plan:
    """A plan of one image a part; in row groups if asked."""
    first = Part("p", "s", "parquet", "file:///s", 1, "e", 0, 1, -1, ())
    groups = [i // parts_a_row_group if parts_a_row_group else -1 for i in range(parts)]
    return Plan.of(replace(first, id=f"p-{i}", start=i, stop=i + 1, row_group=group) for i, group in enumerate(groups))


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
@pytest.mark.parametrize("parts", [1, 3, 26, 202, 5000])
@pytest.mark.parametrize("parts_a_row_group", [0, 1, 7])
def test_every_part_is_in_one_block_in_order(parts: int, workers: int, parts_a_row_group: int) -> None:
    blocks = cut_blocks(plan_of(parts, parts_a_row_group), workers, isolate=False)
    assert [i for start, size in blocks for i in range(start, start + size)] == list(range(parts))
    assert len(blocks) >= min(parts, workers)


def test_blocks_get_shorter_to_the_end() -> None:
    sizes = [size for _, size in cut_blocks(plan_of(202), 2, isolate=False)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 4
    assert sizes[-1] == 1
    assert len(sizes) < 70


@pytest.mark.parametrize(("parts", "workers"), [(20_000, 300), (100_000, 16)])
def test_long_blocks_of_a_long_plan_get_shorter_to_the_end_too(parts: int, workers: int) -> None:
    """A worker holds two blocks: long ones at the end would keep some workers busy when others have none."""
    sizes = [size for _, size in cut_blocks(plan_of(parts), workers, isolate=False)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 4
    assert sizes[-workers:] == [1] * workers
    assert len(sizes) < 3 * max(4000, 8 * workers)


def test_isolated_parts_are_alone() -> None:
    assert cut_blocks(plan_of(9, 3), 1, isolate=True) == [(i, 1) for i in range(9)]


def test_row_groups_stay_together_where_there_are_enough() -> None:
    starts = {start for start, _ in cut_blocks(plan_of(210, 7), 2, isolate=False)}
    assert all(start % 7 == 0 for start in starts)
    assert any(start % 7 for start, _ in cut_blocks(plan_of(21, 7), 2, isolate=False))  # else 3 for 2
