"""Attempts at a run: `runs/<attempt>.json` when one begins, `runs/<attempt>.parquet` with its timings when it ends.

The JSON is written again at the end, with when that was, how often requests to stores were repeated, and what was
noticed of images.

Best effort, and no part of the run's truth. An attempt without timings was killed.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segment.errors import StoreError
from segment.output.ledger import Ledger
from segment.output.results import STAGES, PartResult
from segment.output.tables import to_parquet

log = logging.getLogger("segment.output.attempts")

SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("shard", pa.string()),
        ("host", pa.string()),
        ("began", pa.float64()),
        ("ended", pa.float64()),
        ("memory", pa.int64()),
        ("round", pa.int32()),
        ("images", pa.int32()),
        ("errors", pa.int32()),
        ("skipped", pa.bool_()),
        ("failure", pa.string()),
        ("retries", pa.int32()),
        ("read_bytes", pa.int64()),
        ("written_bytes", pa.int64()),
        *((f"{stage}_seconds", pa.float32()) for stage in STAGES),
    ]
)


@dataclass(frozen=True)
class Attempts:
    """What is known of the attempts at a run.

    Attributes:
        number: how many began.
        ended: how many of them ended, well or not; the others were killed, or are at work.
        retries: requests to stores that were repeated, of all that ended, by kind.
        remarks: images of all that ended by code of `segment.output.remarks.REMARKS`; twice those that were done twice.
    """

    number: int
    ended: int
    retries: Counter[str]
    remarks: Counter[str]


def read_attempts(ledger: Ledger) -> Attempts:
    """Read what `runs/` says."""
    urls = [entry.url for entry in ledger.store.list(ledger.url("runs")) if entry.url.endswith(".json")]
    records = [_record(data) for data in ledger.store.read_many(urls) if data]
    retries: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    for record in records:
        retries.update(record.get("retries", {}))
        remarks.update(record.get("remarks", {}))
    return Attempts(len(records), sum("ended" in record for record in records), retries, remarks)


def was_killed(ledger: Ledger) -> bool:
    """Whether the last attempt began and never ended: killed, by somebody or by a part that took its process along."""
    names = {entry.url.rpartition("/")[2] for entry in ledger.store.list(ledger.url("runs"))}
    begun = sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))
    if not begun or f"{begun[-1]}.parquet" in names:
        return False
    record = _record(ledger.store.read(ledger.url("runs", f"{begun[-1]}.json")))
    return not (record.get("host") == socket.gethostname() and "pid" in record and _is_alive(record["pid"]))


def _record(data: bytes) -> dict[str, Any]:
    """What an attempt noted; nothing where that is damaged: no run may fail for it."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def row_of(result: PartResult, round_number: int = 1) -> dict[str, object]:
    """One row of `SCHEMA`."""
    return {
        "part": result.part,
        "shard": result.shard,
        "host": result.host,
        "began": result.began,
        "ended": result.ended,
        "memory": result.memory,
        "round": round_number,
        "images": result.images,
        "errors": sum(result.errors.values()),
        "skipped": result.skipped,
        "failure": result.failure,
        "retries": sum(result.retries.values()),
        "read_bytes": result.read_bytes,
        "written_bytes": result.written_bytes,
        **{f"{stage}_seconds": result.seconds.get(stage, 0.0) for stage in STAGES},
    }


class Timings:
    """Collects one attempt's results, in Arrow batches, and writes them once.

    Args:
        ledger: of the run; told at once that an attempt begins.
        facts: what to note about the attempt.
    """

    def __init__(self, ledger: Ledger, **facts: object) -> None:
        self._ledger = ledger
        now = datetime.datetime.now(datetime.UTC)
        self.attempt = f"{now:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}"
        self._record = {"began": now.isoformat(), "host": socket.gethostname(), "pid": os.getpid(), **facts}
        self._write("json", json.dumps(self._record, indent=2).encode())
        self._rows: list[dict[str, object]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, result: PartResult, round_number: int) -> None:
        """Note one result."""
        self._rows.append(row_of(result, round_number))
        if len(self._rows) >= 4096:
            self._flush()

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._rows = []

    def close(self, retries: Mapping[str, int], remarks: Mapping[str, int]) -> None:
        """Write `runs/<attempt>.parquet`: the attempt has ended, well or not.

        Args:
            retries: requests to stores that were repeated, by kind.
            remarks: images by code of `segment.output.remarks.REMARKS`.
        """
        ended = datetime.datetime.now(datetime.UTC).isoformat()
        record = {**self._record, "ended": ended, "retries": dict(retries), "remarks": dict(remarks)}
        self._write("json", json.dumps(record, indent=2).encode())
        self._flush()
        table = pa.Table.from_batches(self._batches, schema=SCHEMA)
        self._write("parquet", to_parquet(table))

    def _write(self, suffix: str, data: bytes) -> None:
        try:
            self._ledger.store.write(self._ledger.url("runs", f"{self.attempt}.{suffix}"), data)
        except StoreError as error:
            log.warning("no record of this attempt: %s", error)
