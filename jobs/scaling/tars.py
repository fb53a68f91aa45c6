"""`tars`: the time until the first part of a large input of tars is committed, and what is read before."""

import tempfile
import time
import urllib.request
from pathlib import Path

import segment
from jobs.scaling.figures import Figure, Samples, Scale, resident
from jobs.scaling.served import s3_options, served
from jobs.scaling.sparse_store import SparseTar
from segment.progress import Tally

_TARS, _MEMBERS = 1000, 1000  # 100 GB: tars of 100 MB with images of 100 kB


class _FirstPart(Exception):
    """The first part is committed."""


class _UntilFirstPart(Samples):
    """Ends the run with the first part, and says what the store at this URL had sent by then."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def update(self, tally: Tally) -> None:
        if tally.parts:
            raise _FirstPart(int(urllib.request.urlopen(f"{self._url}/bytes").read()))


def measure_tars(scale: Scale) -> list[Figure]:
    """Run until the first part is committed: of a store with 50 ms of latency and 1 Gbit/s."""
    with served("jobs.scaling.sparse_store", _TARS, _MEMBERS) as url, tempfile.TemporaryDirectory() as scratch:
        job = segment.Job(
            **{**scale.job, "input": "s3://sparse/tars"},
            output=str(Path(scratch) / "out"),
            engine="local",
            storage_options=s3_options(url),
        )
        before, start = resident(), time.perf_counter()
        try:
            segment.run(job, _UntilFirstPart(url))
        except _FirstPart as first:
            seconds, (sent,) = time.perf_counter() - start, first.args
    total = _TARS * SparseTar(_MEMBERS).size
    what = f"{_TARS:,} tars of {total / _TARS / 1e6:.0f} MB"
    return [
        Figure(f"{what}, time to the first committed part, s", f"{seconds:.1f}", "20"),
        Figure("read until then, share of the input, %", f"{100 * sent / total:.2f}", "1"),
        Figure("driver memory until then, MB", f"{resident() - before:.0f}"),
    ]
