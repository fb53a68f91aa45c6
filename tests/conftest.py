"""What every test may use, and an environment of the suite's own: nothing of the user's is read or written."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.browser import browser as browser
from tests.calls import segment as segment
from tests.clusters import engine as engine
from tests.clusters import ray_cluster as ray_cluster
from tests.here import local_engine_here as local_engine_here
from tests.here import models_here as models_here
from tests.here import no_wait_for_the_disk as no_wait_for_the_disk
from tests.here import worker_processes as worker_processes
from tests.parallel import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.parallel import pytest_xdist_auto_num_workers as pytest_xdist_auto_num_workers
from tests.reliability.arena import arena as arena
from tests.s3 import s3_server as s3_server
from tests.scenes import scenes as scenes
from tests.web import web as web

# Would lead tests astray: somebody's credentials, caches, proxies, clusters.
_FOREIGN = ("AWS_", "XDG_", "SEGMENT_CACHE", "RAY_ADDRESS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module, and with it ray or botocore, is imported."""
    for name in list(os.environ):
        if name.upper().startswith(_FOREIGN):
            del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="segment-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    os.environ |= {
        "HOME": home.name,
        "RAY_AUTH_MODE": "disabled",  # with a token, `~/.ray/auth_token` would tie clusters of different tests
        "RAY_worker_niceness": "0",  # at Ray's 15, workers hardly get on beside tests of another process
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",  # no search for credentials on the network
        # rclone answers a range with the checksum of the whole object
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and models, read-only: `$SEGMENT_SHARED`, else `../shared` of the repository."""
    folder = Path(os.environ.get("SEGMENT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"REAL FILES MISSING: {folder} (set SEGMENT_SHARED)")
    return folder


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda seconds: None))
