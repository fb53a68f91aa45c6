"""What the check found, as Markdown for BENCHMARKS.md."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]  # an `Outcome` as plain data


def in_markdown(records: Sequence[Record]) -> str:
    """Say what was run, on what, with which result."""
    by_name = {record["name"]: record for record in records}
    lines = [*_machine(by_name.get("machine", {}).get("found")), ""]
    measured = [record for record in records if record["facts"] and record["found"]]
    if measured:
        lines += [
            "| graph | provider | batch | session, images/s | job, images/s | GPU busy | pixels as CPU f32 |",
            "|---|---|---:|---:|---:|---:|---:|",
            *(row for record in measured for row in _rows(record)),
            "",
        ]
    if found := by_name.get("kill and resume", {}).get("found"):
        lines += [
            f"Killed when {found['committed_when_killed']} of {found['parts']} parts were committed, and resumed: "
            f"{found['audit'].splitlines()[0] if found['audit'] else 'no audit'}",
            "",
        ]
    lines += ["| step | result | s | |", "|---|---|---:|---|"]
    lines += [f"| {one['name']} | {one['status']} | {one['seconds']} | {_last_line(one['said'])} |" for one in records]
    return "\n".join(lines) + "\n"


def _machine(facts: Record | None) -> Iterator[str]:
    if not facts:
        yield "The machine could not be described."
        return
    where = "; ".join(facts["gpus"]) or "**No GPU: nothing below was measured on one**"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    yield f"{facts['date']}, {where}; {facts['cores']} CPU cores, Python {facts['python']}, {versions}."


def _rows(record: Record) -> Iterator[str]:
    found, facts = record["found"], record["facts"]
    for batch in sorted({*found["rates"], *found["jobs"]}, key=int):
        job = found["jobs"].get(batch, {})
        agreement = job.get("agreement")
        cells = [
            facts["graph"],
            f"{facts['device']} {facts['precision']}",
            batch,
            _number(found["rates"].get(batch)),
            _number(job.get("rate")),
            job.get("busy", "-"),
            "-" if agreement is None else f"{100 * agreement:.3f} %",
        ]
        yield f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _last_line(text: str) -> str:
    return (text.splitlines() or [""])[-1].replace("|", "/")[:120]
