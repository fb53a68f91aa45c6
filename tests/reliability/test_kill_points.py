"""Kill the process at its k-th S3 request, for every k, before and after the server applied it; run again; compare."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.reliability.arena import Arena, note, proxied
from tests.reliability.proxy import Action, Fault

KINDS: tuple[Action, ...] = ("kill_before", "kill_after")
KILLED = -9
RAY_POINTS = 6
NAMES = {"kill_before": "SIGKILL before a request reaches the store", "kill_after": "SIGKILL between apply and answer"}


@pytest.fixture(scope="module")
def requests(arena: Arena) -> list[str]:
    """The requests of an undisturbed run: `GET /out/...`."""
    with proxied(arena.server) as proxy:
        ended = arena.run("counted", proxy)
    assert ended.code == 0, ended.text
    arena.check("counted")
    return [f"{method} {target}" for method, target in proxy.log]


def test_a_run_through_the_proxy_is_an_undisturbed_run(requests: list[str]) -> None:
    assert len(requests) > 30
    puts = [request.split("/counted/")[1] for request in requests if request.startswith("PUT")]
    assert [put.partition("?")[0].partition("-")[0] for put in puts[:2]] == ["_preflight", "run.json"]
    assert [put.partition("?")[0] for put in puts[-2:]] == [
        "_SUCCESS",
        "report/index.html",
    ]  # a picture of what is done


def kill_and_rerun(arena: Arena, kind: Action, k: int, *flags: str) -> bool:
    """Kill at request `k`, run the same command again, check; False where the run has fewer requests."""
    output = f"{kind}-{k:03d}{'-ray' if flags else ''}"
    with proxied(arena.server, Fault(kind, at=k)) as proxy:
        first = arena.run(output, proxy, *flags)
        fault = proxy.faults[0]
    if not fault.injected:
        assert first.code == 0, first.text
        arena.check(output)
        return False
    assert first.code == KILLED, first.text
    again = arena.run(output, None, *flags) if flags else arena.here(output)
    assert again.code == 0, f"k = {k}, {kind}: {again.text}"
    arena.check(output)
    note(NAMES[kind] + (", Ray's driver" if flags else ""), 1, 1, time.monotonic() - fault.last_at)
    return True


def sweep(arena: Arena, points: list[tuple[Action, int]], *flags: str) -> int:
    """Try kill points, two at once; return how many of them killed."""
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda point: kill_and_rerun(arena, *point, *flags), points))


def turning_points(requests: list[str]) -> list[tuple[Action, int]]:
    """The commit and what is written around it: where a kill could do the most harm."""
    chosen: list[tuple[Action, int]] = []
    for word, kind in (
        ("plan.parquet", "kill_before"), ("/masks/", "kill_after"), ("/stats/", "kill_before"),
        ("manifest.parquet", "kill_after"), ("_SUCCESS", "kill_before"),
    ):  # fmt: skip
        matching = [k for k, text in enumerate(requests, 1) if text.startswith("PUT") and word in text]
        chosen.append((kind, matching[len(matching) // 2]))  # type: ignore[arg-type]
    return chosen


def test_killed_at_its_turning_points(arena: Arena, requests: list[str]) -> None:
    points = turning_points(requests)
    assert sweep(arena, points) == len(points)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_request(kind: Action, arena: Arena, requests: list[str]) -> None:
    every = range(1, len(requests) + 3)  # some more: a run does not always send the very same requests
    killed = sweep(arena, [(kind, k) for k in every])
    print(f"{kind}: {killed} kill points of a run of {len(requests)} requests, all green")
    assert killed >= len(requests) - 3


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_the_driver_of_a_ray_run_is_killed(arena: Arena, requests: list[str]) -> None:
    """The same on a cluster that the driver starts and that dies with it: a sample of k, for each takes a while."""
    sample = range(2, len(requests), max(1, len(requests) // RAY_POINTS))
    points = [(KINDS[number % 2], k) for number, k in enumerate(sample)]
    killed = sum(kill_and_rerun(arena, kind, k, "--engine=ray") for kind, k in points)
    print(f"Ray: {killed} of {len(points)} kill points killed, all green")
    assert killed >= len(points) - 2
