"""Measure the table of faults in README.md anew: `python -m tests.reliability.table` runs every test of this folder."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def rows(figures: Iterable[dict[str, Any]]) -> list[tuple[str, int, int, float]]:
    """Add up figures by fault, in order of first appearance: fault, injected, survived, longest recovery."""
    table: dict[str, tuple[str, int, int, float]] = {}
    for one in figures:
        _, injected, survived, recovery = table.get(one["kind"], ("", 0, 0, 0.0))
        table[one["kind"]] = (
            one["kind"],
            injected + one["injected"],
            survived + one["survived"],
            max(recovery, one["recovery"]),
        )
    return list(table.values())


def sweep(table: Iterable[tuple[str, int, int, float]]) -> str:
    """The figures of the kill-point sweep: k on both engines."""
    kills = [row for row in table if row[0].startswith(("SIGKILL before a request", "SIGKILL between apply"))]
    local = [row for row in kills if "Ray" not in row[0]]
    ray = [row for row in kills if "Ray's driver" in row[0]]
    told = (f"{sum(r[2] for r in some)} of {sum(r[1] for r in some)}" for some in (local, ray))
    return "Kill points survived: {} on the local engine, {} on Ray.\n".format(*told)


def to_markdown(table: Iterable[tuple[str, int, int, float]]) -> str:
    """The table as Markdown."""
    lines = ["| fault | injected | survived | longest recovery |", "|---|---:|---:|---:|"]
    for kind, injected, survived, recovery in table:
        lines.append(f"| {kind} | {injected} | {survived} | {f'{recovery:.1f} s' if recovery else '–'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the suite (arguments go to pytest), write the table; return pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures"
        path.touch()
        command = [sys.executable, "-m", "pytest", str(README.parent), *sys.argv[1:]]
        code = subprocess.call(command, env={**os.environ, "SEGMENT_FAULT_FIGURES": str(path)})
        figures = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    text = README.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    README.write_text(
        before + BEGIN + to_markdown(rows(figures)) + "\n" + sweep(rows(figures)) + END + after, encoding="utf-8"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
