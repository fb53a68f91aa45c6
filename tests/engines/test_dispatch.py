"""Which parts the workers of a pool are given, and how many at a time."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from segment.engines.dispatch import Dispatch
from tests.engines.test_ray_blocks import plan_of


def play(dispatch: Dispatch, speeds: dict[str, int], seed: int = 0) -> dict[str, list[str]]:
    """Let workers, each picked as often as it is fast, tell of their oldest part and be given more."""
    random = Random(seed)
    held: dict[str, list[str]] = {worker: [] for worker in speeds}
    done: dict[str, list[str]] = {worker: [] for worker in speeds}
    while dispatch.left or any(held.values()):
        (worker,) = random.choices(list(speeds), list(speeds.values()))
        told = held[worker][:1]
        done[worker] += told
        del held[worker][:1]
        held[worker] += [
            part.id for part in dispatch.take(worker, dispatch.room(len(held[worker]), len(told), len(speeds)))
        ]
    return done


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize(("parts", "parts_a_row_group"), [(1, 0), (3, 0), (202, 0), (210, 7), (100, 100), (5, 1)])
def test_every_part_is_done_once(parts: int, parts_a_row_group: int, workers: int, alone: bool) -> None:
    dispatch = Dispatch(plan_of(parts, parts_a_row_group), alone=alone)
    assert dispatch.left == parts
    done = play(dispatch, dict.fromkeys("abcdefg"[:workers], 1))
    assert sorted(itertools.chain(*done.values())) == sorted(f"p-{i}" for i in range(parts))


def test_parts_go_to_whoever_is_free() -> None:
    done = play(Dispatch(plan_of(400), alone=False), {"slow": 1, "fast": 3})
    assert len(done["slow"]) == pytest.approx(100, abs=25)


def test_a_worker_keeps_a_row_group_while_there_are_others() -> None:
    done = play(Dispatch(plan_of(4 * 32, 32), alone=False), {"a": 1, "b": 1})
    groups = [[int(part[2:]) // 32 for part in parts] for parts in done.values()]
    assert all(len(set(numbers)) <= 3 for numbers in groups)  # two of its own, and the end of another one
    assert sum(len(set(numbers)) for numbers in groups) < 8


def test_one_long_row_group_is_shared() -> None:
    done = play(Dispatch(plan_of(300, 300), alone=False), {"a": 1, "b": 1, "c": 1})
    assert all(len(parts) > 60 for parts in done.values())


@pytest.mark.parametrize(("held", "told", "room"), [(0, 0, 2), (2, 0, 0), (2, 3, 6), (0, 1000, 27)])
def test_who_tells_of_many_parts_is_given_many(held: int, told: int, room: int) -> None:
    assert Dispatch(plan_of(100), alone=False).room(held, told, 2) == room


def test_the_last_parts_and_isolated_ones_wait_for_who_is_free() -> None:
    assert Dispatch(plan_of(2), alone=False).room(1, 5, workers=3) == 0
    assert Dispatch(plan_of(2), alone=False).room(0, 5, workers=3) == 1
    assert Dispatch(plan_of(100), alone=True).room(0, 5, workers=3) == 1


def test_what_a_dead_worker_held_comes_last_alone_and_not_for_ever() -> None:
    dispatch = Dispatch(plan_of(70), alone=False)
    killer, *_ = dispatch.take("a", 2)
    dispatch.give_back("a", [killer])
    rest = dispatch.take("b", 100)
    assert {part.id for part in rest} == {f"p-{i}" for i in range(70)} - {"p-0", "p-1"}  # of which its worker has told
    assert (dispatch.room(1, 9, 2), dispatch.room(0, 9, 2)) == (0, 1)
    for worker in "bc":
        assert (dispatch.left, dispatch.take(worker, 9)) == (1, [killer])
        dispatch.give_back(worker, [killer])
    assert (dispatch.left, dispatch.take("d", 9)) == (0, [])


def test_what_came_back_is_not_given_by_the_dozen() -> None:
    dispatch = Dispatch(plan_of(5), alone=False)
    held = dispatch.take("a", 5)
    dispatch.give_back("a", held)
    assert dispatch.take("b", dispatch.room(0, 9, 1)) == held[:1]
