"""`tars`: the time until the first part of a large input of tars is committed, and what is read before."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import segment
from jobs.scaling.figures import Figure, Samples, Scale, resident
from jobs.scaling.sparse_store import SparseTar
from segment.progress import Tally

_TARS, _MEMBERS = 1000, 1000  # 100 GB: tars of 100 MB with images of 100 kB


class _FirstPart(Exception):
    """The first part is committed."""


class _UntilFirstPart(Samples):
    def update(self, tally: Tally) -> None:
        if tally.parts:
            raise _FirstPart


@contextmanager
def _served() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(port), str(_TARS), str(_MEMBERS)]
    server = subprocess.Popen([sys.executable, "-m", "jobs.scaling.sparse_store", *arguments])
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/bytes").close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def measure_tars(scale: Scale) -> list[Figure]:
    """Run until the first part is committed: of a store with 50 ms of latency and 1 Gbit/s."""
    options = {"key": "k", "secret": "s", "client_kwargs": {"region_name": "us-east-1"}}
    with _served() as url, tempfile.TemporaryDirectory() as scratch:
        job = segment.Job(
            **{**scale.job, "input": "s3://sparse/tars"},
            output=str(Path(scratch) / "out"),
            engine="local",
            storage_options={**options, "endpoint_url": url},
        )
        before, start = resident(), time.perf_counter()
        try:
            segment.run(job, _UntilFirstPart())
        except _FirstPart:
            seconds = time.perf_counter() - start
        sent = int(urllib.request.urlopen(f"{url}/bytes").read())
    total = _TARS * SparseTar(_MEMBERS).size
    what = f"{_TARS:,} tars of {total / _TARS / 1e6:.0f} MB"
    return [
        Figure(f"{what}, time to the first committed part, s", f"{seconds:.1f}", "20"),
        Figure("read until then, share of the input, %", f"{100 * sent / total:.2f}", "1"),
        Figure("driver memory until then, MB", f"{resident() - before:.0f}"),
    ]
