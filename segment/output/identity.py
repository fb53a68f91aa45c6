"""The contract of a run: what a resumed one must have in common with it. One output holds one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from segment.errors import UsageError
from segment.models.card import ModelCard
from segment.output.ledger import Ledger, to_json
from segment.store.names import shown


def contract_of(card: ModelCard, **settings: Any) -> dict[str, Any]:
    """Everything that can change a mask or a count, as plain JSON: what a resumed run must have in common."""
    cosmetic = {
        "description": True,
        "licence": True,
        "source": True,
        "gflops": True,
        "mparams": True,
        "weights": True,
    }
    dumped = card.model_dump(mode="json", exclude={**cosmetic, "metric": {"published", "note"}})
    return {"card": dumped, **settings}


def fingerprint_of(contract: Mapping[str, Any]) -> str:
    """SHA-256 of the contract, hexadecimal."""
    return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Name the leaves in which two contracts differ: `runtime.precision: 'bf16' there, 'f32' now`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = sorted({*ours, *theirs})
        return [
            line for k in keys for line in differences(ours.get(k), theirs.get(k), f"{path}.{k}" if path else str(k))
        ]
    return [] if ours == theirs else [f"{path}: {theirs!r} there, {ours!r} now"]


def begin(ledger: Ledger, run: Mapping[str, Any]) -> None:
    """Write `run.json`, unless the very same run is there.

    Raises:
        UsageError: another run is there and has committed something, or begins in this moment; or there are masks
            of an unknown run.
    """
    url, data = ledger.url("run.json"), to_json(run)
    existing = ledger.read_run()
    if existing is None:
        if ledger.has_masks():
            raise UsageError(f"{shown(ledger.output)} holds masks but no run.json: choose another output")
        ledger.store.create(url, data)
    elif not goes_on(ledger, existing, run["contract"]):
        ledger.store.delete(ledger.url("plan.parquet"))
        ledger.store.write(url, data)
    if (ledger.read_run() or run)["fingerprint"] != run["fingerprint"]:
        raise UsageError(f"another run has just begun at {shown(ledger.output)}: choose another output")


def goes_on(ledger: Ledger, run: Mapping[str, Any], contract: Mapping[str, Any]) -> bool:
    """Whether the run that is there is the one asked for; False if it may be replaced, having committed nothing.

    A run that is being begun, or was killed, is not replaced: nobody can tell whether its driver lives.

    Raises:
        UsageError: it is another one, with the differences, and its masks would mix with ours.
    """
    if run["fingerprint"] == fingerprint_of(contract):
        return True
    if not ledger.has_masks():
        if _is_given_up(ledger):
            return False
        raise UsageError(
            f"another run is being begun at {shown(ledger.output)}, or was killed before its first commit. If none "
            f"is at work there, delete {shown(ledger.url('run.json'))} and run again; else choose another output"
        )
    lines = "\n".join(f"  {line}" for line in differences(contract, run["contract"]))
    raise UsageError(
        f"{shown(ledger.output)} holds another run; its masks would mix with these:\n{lines}\n"
        "Choose another output, or ask for what that run was asked for."
    )


def _is_given_up(ledger: Ledger) -> bool:
    """Whether every attempt at the run has ended, and there was one."""
    names = [entry.url.rpartition("/")[2] for entry in ledger.store.list(ledger.url("runs"))]
    begun, ended = ({n.removesuffix(x) for n in names if n.endswith(x)} for x in (".json", ".parquet"))
    return bool(begun) and begun <= ended
