"""Attempts at a run: the records under `runs/`, written by the driver and read by reports.

`runs/<attempt>.json` is written when an attempt begins, and again when it ends. `runs/<attempt>.parquet` is written
last: one row per part. An attempt without it was killed or is still running. The records are best effort: they prove
nothing about a run, and a damaged or missing one fails nothing.
"""

import datetime
import json
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from segment.errors import SegmentError, StoreError, TooManyBytes
from segment.output.damage import DAMAGE
from segment.output.ledger import Ledger
from segment.output.results import STAGES, PartResult
from segment.output.tables import read_table, to_parquet
from segment.store.background import in_order
from segment.store.names import shown

log = logging.getLogger("segment.output.attempts")

TIMINGS_SCHEMA = pa.schema(
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
        ("precision", pa.string()),
    ]
)
_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)  # only its parent, which may never look, still sees it
_MOST_RECORD = 1 << 20  # bytes of a record of JSON, which has some thousands
_MOST_TIMINGS = 128 << 20  # bytes of timings: two million parts
_MOST_UNPACKED = 512 << 20
_ROWS_PER_BATCH = 4096  # rows kept as Python objects before they are converted to Arrow


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run.

    Attributes:
        name: file name in `runs/` without its suffix; names sort by time.
        facts: its JSON record, such as `began`, `host`, `pid`, `engine` and `workers`; empty if damaged.
        ended: whether its timings were written.
    """

    name: str
    facts: Mapping[str, Any]
    ended: bool

    @property
    def goes_on(self) -> bool | None:
        """Whether its driver lives; None if that cannot be told, as of another machine, container or user."""
        if self.ended:
            return False
        if any(self.facts.get(key) != value for key, value in _here().items()):
            return None
        try:  # the number of a process that is gone may be another one's by now
            process = psutil.Process(self.facts["pid"])
            if process.status() in _ENDED or not self._is_of(process):
                return False
        except psutil.AccessDenied:
            return None
        except psutil.NoSuchProcess as error:
            return None if _is_hidden(error.pid) else False
        except (psutil.Error, LookupError, TypeError, ValueError):
            return False
        return None if process.pid == os.getpid() else True  # of another thread, or its end could not be written

    def _is_of(self, process: psutil.Process) -> bool:
        """Whether a process of the driver's number is the driver."""
        if "started" in self.facts and (started := _started(process.pid)) is not None:
            return bool(self.facts["started"] == started)
        # of a version that did not record it, or without /proc; the clock may have been set since
        began: float = process.create_time()
        return began <= datetime.datetime.fromisoformat(self.facts["began"]).timestamp() + 1.0

    @property
    def driver_in_words(self) -> str:
        """When it began and where: `03:51 UTC on host (process 17)`."""
        began = datetime.datetime.fromisoformat(self.facts["began"]).astimezone(datetime.UTC)
        return f"{began:%Y-%m-%d %H:%M} UTC on {shown(str(self.facts.get('host')))} (process {self.facts.get('pid')})"


def _here() -> dict[str, Any]:
    """Return what two processes share if one can see the other by its number."""
    space, boot = Path("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else None,
        "pid_namespace": space.stat().st_ino if space.exists() else None,
    }


def _is_hidden(pid: int) -> bool:
    """Whether there is a process of this number that is not shown, as of another user where /proc hides them."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the machine did, so that no step of its clock moves them.

    None where the kernel does not tell.
    """
    try:
        told = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(told.rpartition(b")")[2].split()[19])  # the name in brackets may hold anything


def read_attempts(ledger: Ledger) -> list[Attempt]:
    """Read the records of all attempts, oldest first."""
    names = {entry.url.rpartition("/")[2] for entry in ledger.store.list(ledger.url("runs"))}
    begun = sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))
    read = partial(ledger.read_record, most=_MOST_RECORD)
    records = in_order(read, [f"runs/{name}.json" for name in begun], name="attempts")
    return [
        Attempt(name, _parse(record or b""), f"{name}.parquet" in names)
        for name, record in zip(begun, records, strict=True)
    ]


def count_over_attempts(attempts: Iterable[Attempt], key: str) -> Counter[str]:
    """Sum the counts that the records hold under `retries` or `remarks`, by kind."""
    total: Counter[str] = Counter()
    for attempt in attempts:
        total.update(attempt.facts.get(key, {}))
    return total


def read_timings(ledger: Ledger, attempt: Attempt) -> pa.Table | None:
    """Read the timings of an attempt, as `TIMINGS_SCHEMA`; None if it has none, or if they are damaged (logged)."""
    if not attempt.ended:
        return None
    try:
        data = ledger.store.read(ledger.url("runs", f"{attempt.name}.parquet"), most=_MOST_TIMINGS)
        table = read_table(data, most=_MOST_UNPACKED)
        if "precision" not in table.column_names:  # of a version that did not record it
            table = table.append_column("precision", pa.array([""] * len(table), pa.string()))
        table = table.select(TIMINGS_SCHEMA.names).cast(TIMINGS_SCHEMA)
        _check_timings(table)
        return table
    except (SegmentError, TooManyBytes, *DAMAGE) as error:
        log.warning("runs/%s.parquet cannot be read (%s)", attempt.name, type(error).__name__)
        return None


def timings_table(results: Iterable[PartResult]) -> pa.Table:
    """Convert the results of one round to a table of `TIMINGS_SCHEMA`."""
    return pa.Table.from_pylist([_timing(result, 1) for result in results], schema=TIMINGS_SCHEMA)


def _parse(data: bytes) -> dict[str, Any]:
    """Return a record; empty if it is damaged."""
    try:
        _Facts.model_validate_json(data)
        return dict(json.loads(data))
    except DAMAGE:
        return {}


def _time(text: str) -> str:
    datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)  # which overflows at the ends of the calendar
    return text


_Time = Annotated[str, AfterValidator(_time)]


class _Facts(BaseModel):
    """What readers of a record rely on; other versions write more, or less."""

    model_config = ConfigDict(strict=True, defer_build=True)

    began: _Time
    ended: _Time = "1970-01-01"
    engine: str = ""
    device: str = ""
    workers: int = Field(1, gt=0, lt=1 << 31)
    expected_memory: int | None = Field(None, ge=0, lt=1 << 63)
    retries: dict[str, int] = {}
    remarks: dict[str, int] = {}


def _check_timings(table: pa.Table) -> None:
    """Raise ValueError if a value is missing, below 0 or not finite."""
    for field in TIMINGS_SCHEMA:
        column = table[field.name]
        is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        possible = pc.and_(pc.is_finite(column), pc.greater_equal(column, 0)) if is_number else pc.is_valid(column)
        if field.name != "failure" and not pc.all(possible, skip_nulls=False, min_count=0).as_py():
            raise ValueError(f"impossible values of {field.name}")


def _timing(result: PartResult, round_number: int) -> dict[str, object]:
    """Return a row of `TIMINGS_SCHEMA`: attributes of the result, but for sums and seconds by stage."""
    made: dict[str, object] = {
        "round": round_number,
        "errors": sum(result.errors.values()),
        "retries": sum(result.retries.values()),
    }
    made |= {f"{stage}_seconds": result.seconds.get(stage, 0.0) for stage in STAGES}
    return {name: made[name] if name in made else getattr(result, name) for name in TIMINGS_SCHEMA.names}


class AttemptWriter:
    """Writes the records of one attempt. A store that refuses them is logged and fails nothing.

    Args:
        ledger: of the run; `runs/<attempt>.json` is written at once.
        facts: JSON values to record, such as engine and workers.
    """

    def __init__(self, ledger: Ledger, **facts: object) -> None:
        self._ledger = ledger
        now = datetime.datetime.now(datetime.UTC)
        self._name = f"{now:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}"
        self._facts = {
            "began": now.isoformat(),
            **_here(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            **facts,
        }
        self._write("json", json.dumps(self._facts, indent=2).encode())
        self._rows: list[dict[str, object]] = []
        self._batches: list[pa.RecordBatch] = []

    def others(self) -> list[str]:
        """Return a line on each other attempt that is at work, and on the latest one if that may be."""
        try:
            others = [one for one in read_attempts(self._ledger) if one.facts and one.name != self._name]
        except SegmentError as error:
            log.warning("other attempts at this run are not known: %s", error)
            return []
        states = [(one, one.goes_on) for one in others]
        return [
            f"warning: another `segment run` {'is' if goes_on else 'may be'} at work on this output, since "
            f"{one.driver_in_words}: no mask is wrong by that, but much is computed twice: one of them is enough"
            for one, goes_on in states
            if goes_on or (goes_on is None and one is others[-1])
        ]

    def add(self, result: PartResult, round_number: int) -> None:
        """Add the result of a part."""
        self._rows.append(_timing(result, round_number))
        if len(self._rows) >= _ROWS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=TIMINGS_SCHEMA))
        self._rows = []

    def close(self, retries: Mapping[str, int], remarks: Mapping[str, int]) -> None:
        """Write the record and the timings of an attempt that ended, whether it succeeded or failed.

        Args:
            retries: repeated requests to stores, by kind.
            remarks: images by code of `segment.output.remarks.REMARKS`.
        """
        ended = datetime.datetime.now(datetime.UTC).isoformat()
        facts = {**self._facts, "ended": ended, "retries": dict(retries), "remarks": dict(remarks)}
        self._write("json", json.dumps(facts, indent=2).encode())
        self._flush()
        self._write("parquet", to_parquet(pa.Table.from_batches(self._batches, schema=TIMINGS_SCHEMA)))

    def _write(self, suffix: str, data: bytes) -> None:
        try:
            self._ledger.store.write(self._ledger.url("runs", f"{self._name}.{suffix}"), data)
        except StoreError as error:
            log.warning("no record of this attempt: %s", error)
