"""Calls that are spread over the nodes of a Ray cluster, beside the actors that segment there."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from segment.engines.ray_cluster import within
from segment.inputs.lookup import in_threads

_AT_ONCE = 2  # tasks a node; each calls from many threads
_ITEMS = 16  # of a task, as many as it has threads
_REST_SECONDS = 1.0  # between two looks whether to stop, and whether the cluster still answers

A = TypeVar("A")
T = TypeVar("T")


def spread_over_nodes(function: Callable[[A], T], items: Sequence[A], stopped: Callable[[], bool]) -> list[T]:
    """Return `[function(item) for item in items]`, computed in tasks on all nodes.

    The tasks take no CPU: actors that segment hold all of them until a round ends.

    Raises:
        CancelledError: it was `stopped`.
        HeadLost: the cluster does not answer any more.
        ray.exceptions.RayError: the function raised, or a task was lost too often.
    """
    import ray

    task = ray.remote(num_cpus=0, max_retries=3, scheduling_strategy="SPREAD")(in_threads)
    shared = ray.put(function)  # by reference: it holds a store with its credentials
    blocks = [items[start : start + _ITEMS] for start in range(0, len(items), _ITEMS)]
    most = _AT_ONCE * max(1, sum(node["Alive"] for node in within(ray.nodes)))
    results: dict[int, list[T]] = {}
    running: dict[Any, int] = {}
    try:
        while len(results) < len(blocks):
            if stopped():
                raise CancelledError
            while len(running) < most and (number := len(results) + len(running)) < len(blocks):
                running[task.remote(shared, blocks[number])] = number
            ended, _ = ray.wait(list(running), timeout=_REST_SECONDS)
            for block in ended:
                results[running.pop(block)] = ray.get(block)
            within(ray.nodes)
    finally:
        for block in running:
            ray.cancel(block, force=True)
    return [result for number in range(len(blocks)) for result in results[number]]
