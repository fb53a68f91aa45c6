"""Plans of more parts than are packed together: what is left of them, what is added, and how they are stored."""

import io
import pickle
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from segment.inputs.parts import Member, Part, Span
from segment.output import plan as plans
from segment.output.part_members import AT_ONCE
from segment.output.plan import Plan
from segment.output.plan_scope import places_outside
from segment.store import spooled_batches
from segment.store.client import Store
from segment.store.scope import Scope

MANY = 2 * AT_ONCE + 50


def part(number: int, images: int = 2) -> Part:
    members = tuple(
        Member(f"{number}-{at}.jpg", Span(f"s3://b/{number % 3}/{number}-{at}.jpg", 0, 10 + at, f"{number:032x}"), None)
        for at in range(images)
    )
    start = number * max(1, images)
    shard = f"in-{number // 100}"
    return Part(f"h-{number}", shard, "files", "s3://b", 9, "e", start, start + max(1, images), -1, members)


PARTS = [part(number, number % 4) for number in range(MANY)]
STORED = [each if each.members else replace(each, format="parquet") for each in PARTS]  # others name their images


@pytest.fixture(autouse=True)
def spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled_batches, "IN_MEMORY", 1000)


def test_parts_come_back_wherever_they_are() -> None:
    plan = Plan.of(PARTS)
    assert list(plan.parts()) == list(plan.parts()) == PARTS
    assert plan.between(AT_ONCE - 3, 2 * AT_ONCE + 3) == PARTS[AT_ONCE - 3 : 2 * AT_ONCE + 3]
    picked = [MANY - 1, 3, 4, 5, AT_ONCE, AT_ONCE + 1, 0]
    assert list(plan.taking(picked).parts()) == [PARTS[number] for number in picked]
    done = {each.id for each in PARTS[::3]}
    left = plan.without(done)
    assert list(left.parts()) == [each for each in PARTS if each.id not in done]
    assert left.input_bytes == sum(m.image.size for each in PARTS if each.id not in done for m in each.members)


def test_plans_are_joined_whatever_they_were_cut_from() -> None:
    plan, other = Plan.of(PARTS[: MANY // 2]), Plan.of(PARTS[MANY // 2 :])
    odd = {each.id for each in PARTS[1::2]}
    joined = plan.without(odd).extended_by(other.without(odd)).extended_by(plan.taking([1]))
    assert list(joined.parts()) == [*PARTS[::2], PARTS[1]]
    assert joined == pickle.loads(pickle.dumps(joined)) == Plan.of([*PARTS[::2], PARTS[1]])
    assert joined != Plan.of([*PARTS[::2], replace(PARTS[1], members=(Member("x", PARTS[1].members[0].image, None),))])
    assert list(plan.parts()) == PARTS[: MANY // 2]


def test_a_long_plan_is_stored_in_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.of(STORED)
    short = plan.to_bytes()
    monkeypatch.setattr(plans, "_ROW_GROUP", 200)
    long = plan.to_bytes()
    assert [pq.ParquetFile(io.BytesIO(data)).num_row_groups for data in (short, long)] == [1, 3]
    assert Plan.from_bytes(short) == Plan.from_bytes(long) == plan
    assert list(Plan.from_bytes(long).parts()) == STORED
    twice = Plan.of([*STORED, STORED[0]]).to_bytes()
    with pytest.raises(ValueError, match="planned twice"):
        Plan.from_bytes(twice)


def test_every_folder_is_held_against_the_scope() -> None:
    assert places_outside(Plan.of(PARTS), Scope.of(["s3://b/0", "s3://b/2"])) == ["s3://b/1/"]


def test_a_plan_of_the_store_is_read_by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    from segment.output import ledger
    from segment.store import fetching

    monkeypatch.setattr(fetching, "_AT_ONCE", 1000)
    monkeypatch.setattr(ledger, "_PLAN_IN_MEMORY", 1000)
    place, plan = ledger.Ledger(Store(), "memory://long-plan"), Plan.of(STORED)
    assert place.read_plan() is None
    assert place.freeze_plan(plan) == plan
    assert place.freeze_plan(Plan.of(STORED[:1])) == plan  # the first one stays
    assert place.replace_plan(Plan.of(STORED[:1])) == place.read_plan()


def test_an_object_that_is_replaced_while_it_is_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from segment.store import fetching

    monkeypatch.setattr(fetching, "_AT_ONCE", 1000)
    url, reads = "memory://replaced/plan.parquet", []  # this store has no etags
    Store().write(url, b"a" * 3500)

    class Replaced(Store):
        def read(self, *place: Any, **how: Any) -> bytes:
            reads.append(place)
            if len(reads) == 3:
                self.write(url, b"b" * 4000)
            return super().read(*place, **how)

    with pytest.raises(OSError, match="was replaced while it was read"):
        fetching.fetch(Replaced(), url)


def test_ray_is_sent_the_rows_of_a_block_alone() -> None:
    from ray import cloudpickle  # imported late: it takes seconds

    from segment.engines.ray_blocks import unpacked
    from segment.engines.ray_parts import PartSource
    from segment.output.plan_rows import parts_of

    tasks = PartSource(Plan.of(PARTS), [(0, 2), (AT_ONCE - 1, 3)]).get_read_tasks(1)
    sent = [cloudpickle.dumps(task) for task in tasks]
    blocks = [unpacked(block) for data in sent for block in cloudpickle.loads(data)()]
    assert [list(parts_of(rows)) for rows in blocks] == [PARTS[:2], PARTS[AT_ONCE - 1 : AT_ONCE + 2]]
    assert max(map(len, sent)) < 20_000
