"""How the suite is spread over processes: `make test` runs `pytest -n auto`; a plain `pytest` runs in one."""

import os

import pytest

from segment.pipeline.resources import available_cpus, node_memory
from tests.slow import mark_further_cases

MOST = 4  # many tests start processes of their own
MEMORY = 4 << 30  # bytes for one of them with what its tests start; the Ray cluster takes most


def pytest_xdist_auto_num_workers() -> int | None:
    """`-n auto`: three processes for two CPUs, as tests wait, too, as far as memory goes; one CPU: only pytest."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:  # xdist's own variable
        return None
    cpus = available_cpus()
    workers = min(MOST, cpus + cpus // 2, node_memory()[1] // MEMORY)
    return workers if workers > 1 else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the further cases, and put the tests with Ray in front.

    The first process gets the first of the list, and so starts the only cluster.
    A process that has nothing left takes tests from the end of another's list (`--dist worksteal`).
    """
    mark_further_cases(items, are_all=config.args_source is pytest.Config.ArgsSource.TESTPATHS)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("ray") is None)
