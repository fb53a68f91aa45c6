"""Delta, Iceberg and Hudi tables: find the Parquet files of the current version of a table."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from segment.errors import StoreError, TooManyBytes, UsageError
from segment.inputs.findings import Findings
from segment.inputs.parquet.bounded_reads import BoundedFile
from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.inputs.parquet.row_batches import read_row_group
from segment.store.bounds import MOST_JSON
from segment.store.client import Entry, Store
from segment.store.names import basename, count, shown
from segment.store.urls import join_url, parent_url, relative_url

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10}))?\.parquet")
_METADATA = re.compile(r"(?:v(\d{1,20})|(\d{1,20})-[0-9a-f-]+)\.metadata\.json")
# Raised for a log that is damaged. FileNotFoundError: a clean-up has deleted a file of it since it was listed.
_LOG_DAMAGE = (
    pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, FileNotFoundError,
    RecursionError,
)  # fmt: skip
_BEYOND_BOUND = (TooManyBytes, UnpacksTooLarge)  # raised for one that may be intact
_MOST_COMMIT = 256 << 20  # bytes of a commit, whose lines are MOST_JSON at most
_MOST_METADATA = 64 << 20  # bytes of the metadata of an Iceberg table, which lists each snapshot that it keeps
_MOST_CHECKPOINT = 1 << 30  # bytes of a row group of a checkpoint, unpacked
_ROWS = 4096  # of a checkpoint that are Python objects at once
_EXPORT = "Write the table's current version as plain Parquet files and name these"


def current_files(
    base: str, entries: Sequence[Entry], everything: Mapping[str, Entry], store: Store, findings: Findings
) -> list[Entry]:
    """Return the Parquet files that belong to the current version of their table; count the others.

    Args:
        base: URL of the input's folder, to which names in messages are relative.
        everything: all objects of the input by URL, hidden ones too.

    Raises:
        UsageError: the current rows cannot be determined, or some of them are outside the input.
    """
    kept = list(entries)
    for table, listed in _delta_tables(base, everything).items():
        log = _delta_log(table, listed, store, findings)
        if not log:
            continue
        own = {entry.url for entry in kept if entry.url.startswith(f"{table}/")}
        current = _delta_files(table, log, store)
        if current is None:
            findings.warnings.append(
                f"{shown(table)} is a Delta table whose log is damaged, incomplete or in an unknown form: "
                f"all of its {count(len(own), 'Parquet file')} are read, including those that its current version "
                "does not hold"
            )
            continue
        if any(url.endswith(".json") for url in listed):  # otherwise the input is a part of the table
            _refuse_lost(table, current - own)
        findings.leave_out("removed", sorted(relative_url(url, base) for url in own - current))
        kept = [entry for entry in kept if entry.url not in own - current]
    if entries and not kept:
        raise UsageError(f"{shown(base)}: the current version of this Delta table holds none of the files")
    _refuse_iceberg(kept, everything, store)
    for url in everything:
        if url.endswith("/.hoodie/hoodie.properties"):
            raise UsageError(
                f"{shown(parent_url(parent_url(url)))} is a Hudi table: its files also hold earlier versions of rows, "
                f"and its log is not read. {_EXPORT}"
            )
    return kept


def _refuse_lost(table: str, lost: set[str]) -> None:
    if lost:
        raise UsageError(
            f"{shown(table)} is a Delta table, and {count(len(lost), 'file')} of its current version cannot be found, "
            f"such as {shown(min(lost))}: restore the table, or name the files that are there: "
            f"{shown(table)}/**/*.parquet"
        )


def _delta_tables(base: str, everything: Mapping[str, Entry]) -> dict[str, list[str]]:
    """Return the listed log files of each Delta table in the input, or else the table that contains the input."""
    listed: dict[str, list[str]] = {}
    for url in everything:
        if basename(parent_url(url)) == "_delta_log":
            listed.setdefault(parent_url(parent_url(url)), []).append(url)
    if listed or base.startswith(("http://", "https://")):
        return listed
    while "=" in basename(base):  # a partition of the table
        base = parent_url(base)
    return {base: []}


def _delta_log(table: str, listed: Sequence[str], store: Store, findings: Findings) -> Sequence[str]:
    """Return the URLs of all files of a log, whichever of them a pattern matched; empty if there is none.

    Raises StoreError: the store fails, or refuses more than this folder.
    """
    if table.startswith(("http://", "https://")):
        return listed
    try:
        return [entry.url for entry in store.list_folder(join_url(table, "_delta_log"))]
    except StoreError as error:  # permission to read the named files does not imply permission to list
        if not error.object_specific:
            raise
        findings.warnings.append(
            f"if {shown(table)} is a Delta table, files that its current version does not hold are read, too: its log "
            f"cannot be listed ({error})"
        )
        return listed


def _delta_files(table: str, log: Sequence[str], store: Store) -> set[str] | None:
    """Return the URLs of the files of a Delta table's current version; None if its log cannot be read.

    Raises UsageError: deletion vectors remove rows within files, or the log is too large to be read.
    """
    try:
        held = _replayed(log, store)
    except _BEYOND_BOUND as error:
        raise UsageError(f"{shown(table)} is a Delta table whose log is too large: {error}. {_EXPORT}") from None
    except _LOG_DAMAGE:
        return None
    if marked := sum(held.values()):
        raise UsageError(
            f"{shown(table)} is a Delta table, and {count(marked, 'file holds', 'files hold')} rows that are removed "
            "by deletion vectors, which are not read. Remove them from the files with REORG TABLE ... APPLY (PURGE)"
        )
    return {join_url(table, path) for path, _ in held}


def _replayed(log: Sequence[str], store: Store) -> dict[tuple[str, str], bool]:
    """Apply the commits after the last checkpoint of a log.

    Returns:
        The files by `_file_key`, and whether a deletion vector removes rows of each.

    Raises:
        ValueError, LookupError and others of `_LOG_DAMAGE`: the log is damaged, incomplete or in another form.
    """
    names = {basename(url): url for url in log}
    since, checkpoint = _last_checkpoint(names)
    versions = sorted(int(match[1]) for name in names if (match := _COMMIT.fullmatch(name)))
    later = [version for version in versions if version > since]
    if later != list(range(since + 1, since + 1 + len(later))) or (since < 0 and not later):
        raise LookupError("a commit is missing")
    held: dict[tuple[str, str], bool] = {}
    for url in checkpoint:
        held |= {_file_key(add): bool(add.get("deletionVector")) for add in _checkpoint_files(url, store)}
    for version in later:
        for action in _actions(names[f"{version:020d}.json"], store):
            if remove := action.get("remove"):
                held.pop(_file_key(remove), None)
            if add := action.get("add"):
                held[_file_key(add)] = bool(add.get("deletionVector"))
    return held


def _last_checkpoint(urls: Mapping[str, str]) -> tuple[int, list[str]]:
    """Return the version of the last complete checkpoint and the URLs of its parts; -1 if there is none."""
    parts: dict[tuple[int, int], list[str]] = {}
    for name, url in urls.items():
        if match := _CHECKPOINT.fullmatch(name):
            parts.setdefault((int(match[1]), int(match[3] or 1)), []).append(url)
    complete = [(version, files) for (version, number), files in parts.items() if len(files) == number]
    return max(complete, default=(-1, []))


def _checkpoint_files(url: str, store: Store) -> Iterator[dict[str, Any]]:
    file = BoundedFile(BytesIO(store.read(url)), _MOST_CHECKPOINT)
    opened = file.opened()
    for group in range(opened.metadata.num_row_groups):
        table = read_row_group(opened, file, group, ["add.path", "add.deletionVector", "sidecar"])  # not statistics
        if "sidecar" in table.column_names and table["sidecar"].null_count < len(table):
            raise ValueError("a checkpoint with sidecar files")
        for batch in table.select(["add"]).to_batches(_ROWS):
            yield from (add for add in batch["add"].to_pylist() if add and add.get("path"))


def _actions(url: str, store: Store) -> Iterator[dict[str, Any]]:
    for line in BytesIO(store.read(url, most=_MOST_COMMIT)):
        if len(line) > MOST_JSON:
            raise TooManyBytes(f"could not read {shown(url)}: a line of it has more than {MOST_JSON} bytes")
        if line.strip():
            yield json.loads(line)


def _file_key(action: Mapping[str, Any]) -> tuple[str, str]:
    """Return the identity of a file in the log: its path and its deletion vector."""
    vector = action.get("deletionVector") or {}
    return unquote(action["path"]), f"{vector.get('pathOrInlineDv', '')}@{vector.get('offset', '')}"


def _refuse_iceberg(entries: Sequence[Entry], everything: Mapping[str, Entry], store: Store) -> None:
    """Refuse Iceberg tables with files outside the current snapshot: only Avro manifests name its files.

    Raises UsageError: there are other files, or delete files remove rows.
    """
    latest: dict[str, tuple[int, str]] = {}
    for url in everything:
        match = _METADATA.fullmatch(basename(url))
        if match and basename(parent_url(url)) == "metadata":
            table = parent_url(parent_url(url))
            latest[table] = max(latest.get(table, (-1, "")), (int(match[1] or match[2]), url))
    for table, (_, url) in latest.items():
        there = sum(entry.url.startswith(f"{table}/") for entry in entries)
        try:
            held, deletes = _iceberg_files(store.read(url, most=_MOST_METADATA))
        except TooManyBytes as error:
            raise UsageError(f"{shown(table)} is an Iceberg table: {error}. {_EXPORT}") from None
        except _LOG_DAMAGE:
            raise UsageError(f"{shown(url)} is no valid metadata of an Iceberg table. {_EXPORT}") from None
        if held != there or deletes:
            raise UsageError(
                f"{shown(table)} is an Iceberg table of {count(there, 'Parquet file')}, and its current snapshot "
                f"holds {held}, with {count(deletes, 'delete file')}: which rows are current is in "
                f"Avro manifests, which are not read. {_EXPORT}"
            )


def _iceberg_files(metadata: bytes) -> tuple[int, int]:
    """Return the numbers of data files and delete files of the current snapshot of an Iceberg table."""
    table = json.loads(metadata)
    current = [snapshot for snapshot in table["snapshots"] if snapshot["snapshot-id"] == table["current-snapshot-id"]]
    summary = current[0]["summary"] if current else {"total-data-files": 0}
    return int(summary["total-data-files"]), int(summary.get("total-delete-files", 0))
