"""The identity of a run: every setting that can change a mask or a count, and its fingerprint.

One output holds one run; a resumed run must have the same identity. `run.json` stores it under `contract`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from segment.errors import UsageError
from segment.models.card import ModelCard
from segment.output.attempts import read_attempts
from segment.output.ledger import Ledger
from segment.output.run_folder import to_json
from segment.store.names import shown

_COSMETIC = dict.fromkeys(("description", "licence", "source", "gflops", "mparams", "weights", "ensemble"), True)

_OF_METRIC = {"published", "note"}


def identity_of(card: ModelCard, **settings: Any) -> dict[str, Any]:
    """Return the identity of a run as plain JSON: the card without its cosmetic fields, and the settings."""
    dumped = card.model_dump(mode="json", exclude={**_COSMETIC, "metric": _OF_METRIC})
    return {"card": dumped, **settings}


def identity_part(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the identity of a run holds of a card, given the card as plain JSON."""
    metric = {name: value for name, value in card["metric"].items() if name not in _OF_METRIC}
    return {name: value for name, value in card.items() if name not in _COSMETIC} | {"metric": metric}


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an identity, hexadecimal."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return a line for each value that differs: `runtime.precision: 'bf16' there, 'f32' now`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = sorted({*ours, *theirs})
        return [
            line for k in keys for line in differences(ours.get(k), theirs.get(k), f"{path}.{k}" if path else str(k))
        ]
    return [] if ours == theirs else [f"{path}: {theirs!r} there, {ours!r} now"]


def begin(ledger: Ledger, run: Mapping[str, Any]) -> None:
    """Write `run.json`, unless the output holds the same run already.

    Raises UsageError: the output holds another run with committed parts, another run begins at the same time, or there
    are masks without a `run.json`.
    """
    url, data = ledger.url("run.json"), to_json(run)
    existing = ledger.read_run()
    if existing is None:
        if ledger.has_masks():
            raise UsageError(f"{shown(ledger.output)} holds masks but no run.json: choose another output")
        ledger.store.create(url, data)
    elif not is_resumable(ledger, existing, run["contract"]):
        ledger.store.delete(ledger.url("plan.parquet"))
        ledger.store.write(url, data)
    if (ledger.read_run() or run)["fingerprint"] != run["fingerprint"]:
        raise UsageError(f"another run has just begun at {shown(ledger.output)}: choose another output")


def is_resumable(ledger: Ledger, run: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Return whether the run in the output has this identity; False if it has another one but may be replaced.

    A run may be replaced if it has committed nothing and all of its attempts have ended. One that is starting or was
    killed is not replaced: its driver may still be alive.

    Raises UsageError: it has another identity and may not be replaced; the message lists the differences.
    """
    if run["fingerprint"] == fingerprint_of(identity):
        return True
    if not ledger.has_masks():
        attempts = read_attempts(ledger)
        if attempts and all(attempt.ended for attempt in attempts):
            return False
        if running := [attempt.driver_in_words for attempt in attempts if attempt.goes_on]:
            raise UsageError(
                f"another run is at work at {shown(ledger.output)}, with other settings, since "
                f"{' and '.join(running)}: choose another output"
            )
        delete = f"delete {shown(ledger.url('run.json'))} and run again"
        if attempts and all(attempt.goes_on is False for attempt in attempts):  # workers outlive it by a heartbeat
            raise UsageError(
                f"another run at {shown(ledger.output)}, with other settings, was killed before its first commit: "
                f"{delete}, or choose another output"
            )
        raise UsageError(
            f"another run is starting at {shown(ledger.output)}, or was killed before its first commit. If no run "
            f"is active there, {delete}; else choose another output"
        )
    lines = "\n".join(f"  {line}" for line in differences(identity, run["contract"]))
    same_format = run["contract"].get("format") == identity.get("format")
    other = "or use the options of that run" if same_format else "since another version of segment began that run"
    raise UsageError(
        f"{shown(ledger.output)} holds another run; its masks would mix with these:\n{lines}\n"
        f"Choose another output, {other}."
    )
