"""How long things took, attempt by attempt: `runs/<attempt>.parquet`. Best effort; no part of the run's truth."""

from __future__ import annotations

import datetime
import secrets

import pyarrow as pa

from segment.ledger import Ledger
from segment.stages import STAGES, PartResult
from segment.tables import to_parquet

SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("shard", pa.string()),
        ("host", pa.string()),
        ("round", pa.int32()),
        ("images", pa.int32()),
        ("errors", pa.int32()),
        ("skipped", pa.bool_()),
        ("failure", pa.string()),
        ("read_bytes", pa.int64()),
        ("written_bytes", pa.int64()),
        *((f"{stage}_seconds", pa.float32()) for stage in STAGES),
    ]
)


class Timings:
    """Collects one attempt's results, in Arrow batches, and writes them once."""

    def __init__(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self.attempt = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._rows: list[dict[str, object]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, result: PartResult, round_number: int) -> None:
        """Note one result."""
        self._rows.append(
            {
                "part": result.part,
                "shard": result.shard,
                "host": result.host,
                "round": round_number,
                "images": result.images,
                "errors": sum(result.errors.values()),
                "skipped": result.skipped,
                "failure": result.failure,
                "read_bytes": result.read_bytes,
                "written_bytes": result.written_bytes,
                **{f"{stage}_seconds": result.seconds.get(stage, 0.0) for stage in STAGES},
            }
        )
        if len(self._rows) >= 4096:
            self._flush()

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._rows = []

    def write(self, ledger: Ledger) -> None:
        """Write `runs/<attempt>.parquet` if anything was done."""
        self._flush()
        table = pa.Table.from_batches(self._batches, schema=SCHEMA)
        if len(table):
            ledger.store.write(ledger.url("runs", f"{self.attempt}.parquet"), to_parquet(table))
