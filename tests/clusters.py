"""The Ray cluster that the tests marked `ray` share."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.trouble import environment


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster in this process: 2 CPUs whatever the machine has, and a GPU in name only. `RayEngine` joins it.

    Yields a file that is not there: what is written to it happens to the workers, see `reliability/site`.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # read when ray is first imported
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    trouble = tmp_path_factory.mktemp("cluster") / "trouble"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(f"@{trouble}").items():
            patch.setenv(name, value)
        ray.init(
            "local",
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield trouble
    ray.shutdown()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine in `tests.jobs.ENGINES`; see `tests.jobs.on`."""
    name: str = request.param
    if name.startswith("ray"):
        request.getfixturevalue("ray_cluster")
    return name
