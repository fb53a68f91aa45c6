"""A damaged `run.json`: every command says so and how to mend it, and that mends it."""

import json
from pathlib import Path
from typing import Any

import pytest

from segment.output.audit import audit_run
from segment.output.record import misshapen
from tests.calls import Call
from tests.reliability.tampering import change_json, ledger_of
from tests.runs import Place

LOST = object()
DAMAGE = [
    ("weights", 7),
    ("weights.origin", None),
    ("job", []),
    ("scored_at", LOST),
    ("versions.segment", {"x": 1}),
    ("proof", {"agreement": "all"}),
]


def damage(output: Path, where: str, value: Any) -> None:
    def change(run: dict[str, Any]) -> None:
        *folders, name = where.split(".")
        for folder in folders:
            run = run[folder]
        run[name] = value
        if value is LOST:
            del run[name]

    change_json(output / "run.json", change)


@pytest.mark.parametrize(("where", "value"), DAMAGE)
def test_every_command_names_the_key(where: str, value: Any, output: Path, tmp_path: Path, segment: Call) -> None:
    damage(output, where, value)
    commands = [
        ["audit", str(output)], ["status", str(output)], ["report", str(output)], ["score", str(output)],
        ["compare", str(output), str(output)], ["label-errors", str(output)],
        ["export", str(output), str(tmp_path / "x")], ["overlay", str(output), "--to", str(tmp_path / "o")],
    ]  # fmt: skip
    for command in commands:
        called = segment(*command)
        assert called.code in (1, 2), command
        assert f"run.json is damaged ({where}" in called.err
        assert "--verify" in called.err


@pytest.mark.parametrize("measure", [None, "mean", "\x1b[2J"])
def test_a_confidence_is_measured_in_one_of_the_ways_there_are(
    measure: str | None, output: Path, segment: Call
) -> None:
    damage(output, "contract.confidence", {"measure": measure, "maps": False})
    for command in ("report", "audit"):
        called = segment(command, str(output))
        assert called.code in (1, 2)
        assert "run.json is damaged (contract.confidence.measure" in called.err


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("where", "value"), DAMAGE)
def test_verify_mends_it(where: str, value: Any, complete: bool, done: Place, output: Path, segment: Call) -> None:
    before = (output / "run.json").read_bytes()
    if not complete:
        (output / "_SUCCESS").unlink()
    damage(output, where, value)
    assert segment(*done.flags(output=str(output)), "--verify").code == 0
    now, then = json.loads((output / "run.json").read_bytes()), json.loads(before)
    assert now.keys() == then.keys()
    assert not misshapen(now)
    assert audit_run(ledger_of(output), deep=True).problems == ()


def test_other_keys_of_other_versions_are_no_damage(output: Path) -> None:
    for where in ("new", "job.new", "weights.new", "contract.runtime.new"):
        damage(output, where, {"x": 1})
    assert not misshapen(json.loads((output / "run.json").read_bytes()))
