"""Rows of `manifest.parquet` that no run writes are told, also where `_SUCCESS` names this manifest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.output.audit import audit_run
from segment.output.manifest import FIGURES, MANIFEST
from segment.output.success import _hex
from tests.calls import Call
from tests.reliability.tampering import change_json, ledger_of
from tests.runs import Place

Rows = list[dict[str, Any]]


def of(prefix: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Rows], Any]:
    return lambda rows: [change(row) for row in rows if row["path"].startswith(prefix)]


def without(prefix: str) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[:] = [row for row in rows if not row["path"].startswith(prefix)]

    return change


WAYS: dict[str, Callable[[Rows], Any]] = {
    "nothing": lambda rows: rows.clear(),
    "an object twice": lambda rows: rows.append(rows[0]),
    "an object twice, first with another digest": lambda rows: rows.insert(0, {**rows[-1], "sha256": "00" * 32}),
    "no digest of a part": of("masks/", lambda row: row.update(sha256="zz")),
    "no digest of figures": of("report/", lambda row: row.update(sha256="")),
    "another size of figures": of("report/shards", lambda row: row.update(size=1)),
    "no statistics": without("stats/"),
    **{f"no {path}": without(path) for path in FIGURES},
    "an object outside": lambda rows: rows.append({**rows[0], "path": "../x"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_told_and_the_advice_mends_it(way: str, done: Place, output: Path, segment: Call) -> None:
    table = pq.read_table(output / MANIFEST)
    rows = table.to_pylist()
    WAYS[way](rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), output / MANIFEST)
    digest = _hex((output / MANIFEST).read_bytes())
    change_json(output / "_SUCCESS", lambda success: success["sha256"].update({MANIFEST: digest}))
    assert audit_run(ledger_of(output), deep=True).problems
    if way not in ("no digest of figures",):  # of the right size: only `--deep` reads it
        assert audit_run(ledger_of(output)).problems
    assert segment(*done.flags(output=str(output)), "--verify").code == 0
    assert audit_run(ledger_of(output), deep=True).problems == ()


def test_figures_cut_off_are_told_without_reading_them(output: Path) -> None:
    for path in FIGURES:
        (output / path).write_bytes((output / path).read_bytes()[:-1])
    assert len(audit_run(ledger_of(output)).problems) == len(FIGURES)
