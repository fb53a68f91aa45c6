"""No room for temporary files: it is told as that, and never taken for damage or loss of a stored object."""

import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from segment.errors import SegmentError, TooManyBytes
from segment.inputs.parts import Member, Part, Span
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.store import fetching, spooled_batches
from segment.store.client import Store


def part(number: int) -> Part:
    members = (Member(str(number), Span(os.urandom(40).hex(), 0, 1), None),)
    return Part(f"h-{number}", "in", "files", "s3://b", 9, "e", number, number + 1, -1, members)


PLAN = Plan.of(map(part, range(100)))


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled_batches, "IN_MEMORY", 100)
    monkeypatch.setattr(fetching, "_AT_ONCE", 1000)


@pytest.fixture
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def ledger() -> Ledger:
    place = Ledger(Store(), f"memory://no-room-{os.getpid()}")
    assert place.freeze_plan(PLAN) == PLAN
    return place


@pytest.mark.usefixtures("full_disk")
def test_the_last_bytes_are_on_the_disk_when_a_batch_is_appended() -> None:
    batch = pa.record_batch({"bytes": [os.urandom(5000)]})  # fewer than Python writes at once
    with pytest.raises(SegmentError, match=r"no room for the listing .*File too large"):
        spooled_batches.SpooledBatches(batch.schema).append(batch)


def test_a_plan_that_cannot_be_copied_is_not_called_damaged(ledger: Ledger, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("full_disk")
    with pytest.raises(SegmentError, match=r"no room for a copy of .*plan\.parquet in .*File too large.*: TMPDIR"):
        ledger.read_plan()
    with pytest.raises(SegmentError, match=r"no room for the plan in .*File too large"):
        ledger.replace_plan(PLAN)


def test_a_plan_is_not_lost_for_want_of_a_folder(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(SegmentError, match=r"no room for a copy of .*plan\.parquet in .*gone \(No such file"):
        ledger.read_plan()


def test_a_local_file_that_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_MOST", 1)
    (tmp_path / "a").write_bytes(b"123")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(TooManyBytes) as caught:
        fetching.fetch(Store(), f"file://{tmp_path}/a")
    assert caught  # whose traceback holds what is open
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208
