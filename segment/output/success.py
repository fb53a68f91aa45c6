"""`_SUCCESS`, the last object of a run: its totals, and the digests of manifest, plan and `run.json`."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from segment.errors import SegmentError
from segment.output.damage import DAMAGE, read_checked
from segment.output.faults import Fault, Faults
from segment.output.identity import fingerprint_of, identity_part
from segment.output.ledger import Ledger
from segment.output.manifest import MANIFEST, Digests, planned_names
from segment.output.object_checks import AGAIN, VERIFY
from segment.output.plan import Plan
from segment.output.record import misshapen
from segment.output.run_folder import SUCCESS, to_json
from segment.output.signing import SIGNATURE, PublicKey, Signer
from segment.output.stored import MOST
from segment.store.bounds import MOST_JSON
from segment.store.fetching import digest_of, fetch
from segment.store.names import shown

PLAN, RUN = "plan.parquet", "run.json"
_REMEDIES = {
    MANIFEST: VERIFY,
    PLAN: f"restore it, or delete it and {AGAIN}, which plans the input anew",
    RUN: VERIFY,
}

_DIGEST = re.compile(r"[0-9a-f]{64}")
_OF_ATTEMPT = {"job", "input", "versions", "proof", "weights"}  # of `run.json`, which attempts may find otherwise


def write_success(
    ledger: Ledger, plan: Plan, totals: Mapping[str, int], fingerprint: str, signer: Signer | None = None
) -> Iterator[str]:
    """Write the manifest, the signature if there is a signer, and `_SUCCESS`; yield what the user must know of it.

    A `_SUCCESS` of other files first becomes one that names none: it never names files that are not there.

    Raises SegmentError: the stored plan is another one, or `run.json` is not this run's, or contradicts itself.
    """
    manifest = ledger.digests.to_bytes(planned_names(plan))
    ledger.refuse_replaced(fingerprint)
    sha256 = {PLAN: _plan_digest(ledger, plan)}  # first: another plan explains other numbers in `run.json`
    files = {RUN: _run_bytes(ledger, plan, fingerprint), MANIFEST: manifest}
    sha256 |= {name: _hex(content) for name, content in files.items()}
    data = to_json({**totals, "fingerprint": fingerprint, "sha256": sha256})
    before = ledger.read_record(SUCCESS)
    if before not in (None, data):
        ledger.succeed(totals, fingerprint)
    if before != data and not signer and ledger.signed_by():
        ledger.store.delete(ledger.url(SIGNATURE))
        yield "warning: the run has changed since it was signed: its signature was deleted, sign it again with --sign"
    ledger.store.write(ledger.url(MANIFEST), manifest)
    if signer:
        ledger.store.write(ledger.url(SIGNATURE), signer.sign(data, f"fingerprint {fingerprint}"))
    ledger.store.write(ledger.url(SUCCESS), data)


def _plan_digest(ledger: Ledger, plan: Plan) -> str:
    def read() -> tuple[Plan, str]:
        with fetch(ledger.store, ledger.url(PLAN)) as file:
            digest = digest_of(file)
            file.seek(0)
            return Plan.read(file), digest

    stored, digest = read_checked(ledger.url(PLAN), read)
    if stored != plan:
        place = shown(ledger.output)
        raise SegmentError(f"another driver has updated the plan of {place} (--update): run the same command again")
    return digest


def _run_bytes(ledger: Ledger, plan: Plan, fingerprint: str) -> bytes:
    ledger.record_input(plan, fingerprint)  # another driver, whose plan was older, may have written its own numbers
    data = ledger.store.read(ledger.url(RUN), most=MOST_JSON)
    if wrong := wrong_record(_parsed(data), plan, complete=True):
        _plan_digest(ledger, plan)  # another driver may have updated the plan just now
        raise SegmentError(f"{shown(ledger.url(RUN))}: {wrong[0]}: {VERIFY}")
    return data


def changed_files(ledger: Ledger) -> dict[str, str]:
    """Return a line for each file that is not the one that `_SUCCESS` names, by the file's name."""
    lines = {}
    for name, digest in _named(ledger.read_record(SUCCESS)).items():
        url = ledger.url(name)

        def read(url: str = url) -> str:
            with fetch(ledger.store, url) as file:
                return digest_of(file)

        try:
            how = "" if read_checked(url, read) == digest else "is not the one that _SUCCESS names"
        except FileNotFoundError:
            how = "has been lost"
        if how:
            lines[name] = f"{name} {how}: {_REMEDIES[name]}"
    return lines


def resume_digests(ledger: Ledger, *, verify: bool) -> list[str]:
    """Take the manifest of a run that is resumed; return warnings.

    Raises SegmentError: a file is not the one that `_SUCCESS` names, and `--verify` is not given, or does not help.
    """
    changed = changed_files(ledger)
    if changed and (not verify or PLAN in changed):
        raise SegmentError(f"{shown(ledger.output)}: {changed.get(PLAN) or next(iter(changed.values()))}")
    lines = [f"{line.partition(':')[0]}: it is written anew" for line in changed.values()]
    if why := load_digests(ledger):
        lines.append(f"{why}: all parts are read, and checked by their content")
    return lines


def load_digests(ledger: Ledger) -> str:
    """Take the manifest of a run as what is known of its objects, unless `_SUCCESS` names another one.

    Returns:
        Why it was not taken, in words; `""` if it was, or if there is none.
    """
    url = ledger.url(MANIFEST)
    data = read_checked(url, lambda: ledger.store.read_if_exists(url, most=MOST))
    if data is None:
        return ""
    if _named(ledger.read_record(SUCCESS)).get(MANIFEST, _hex(data)) != _hex(data):
        return f"{MANIFEST} is not the one that _SUCCESS names"
    try:
        ledger.digests = Digests.from_bytes(data)
    except DAMAGE:
        return f"{MANIFEST} is damaged"
    return ""


def restore_record(ledger: Ledger, record: Mapping[str, Any]) -> None:
    """Write `run.json` again if it is not the one that `_SUCCESS` names, or differs from what an attempt writes.

    What the first attempt found on its first images (`proof`) stays, unless that is damaged.
    """
    data = ledger.store.read(ledger.url(RUN), most=MOST_JSON)
    named = _named(ledger.read_record(SUCCESS)).get(RUN)
    existing = _parsed(data)
    differs = any(existing.get(name) != value for name, value in record.items() if name not in _OF_ATTEMPT)
    if differs or misshapen(existing) or (named and named != _hex(data)):
        kept = {**record, **{name: existing[name] for name in ("proof",) if name in existing}}
        ledger.store.write(ledger.url(RUN), to_json(record if misshapen(kept) else kept))


def check_success(ledger: Ledger, key: PublicKey | None, faults: Faults) -> tuple[bool, Mapping[str, Any]]:
    """Check `_SUCCESS`, its signature if a key is given, and what it names; take the manifest.

    Returns:
        Whether there is a manifest to compare with, and the content of `_SUCCESS`; empty if there is none, or damage.
    """
    data = ledger.read_record(SUCCESS)
    success = _parsed(data) if data else {}
    if key:
        faults.add(_wrong_signature(ledger, data, key))
    changed = changed_files(ledger)
    lines = list(changed.values())
    why = load_digests(ledger)
    has_manifest = any(True for _ in ledger.digests.objects())
    if data is not None and not success:
        lines.append(f"{SUCCESS} is damaged: {AGAIN}")
    elif success and has_manifest and not _named(data):
        lines.append(f"{SUCCESS} does not name {MANIFEST}: {AGAIN}")
    if why and MANIFEST not in changed:
        lines.append(f"{why}: {VERIFY}")
    faults.add(Fault("files of the run that were changed", line) for line in lines)
    return has_manifest, success


def check_totals(success: Mapping[str, Any], totals: Mapping[str, int], fingerprint: str, faults: Faults) -> None:
    """Compare what `_SUCCESS` says beside digests with what was found; one of an earlier version may say less."""
    expected = {**totals, "fingerprint": fingerprint}
    said = {name: value for name, value in success.items() if name != "sha256"}
    names = expected.keys() | said.keys() if "sha256" in success else said.keys()
    wrong = sorted(name for name in names if to_json({"": said.get(name)}) != to_json({"": expected.get(name)}))
    if wrong:
        listed = ", ".join(map(shown, wrong))
        faults.add([Fault("wrong totals", f"_SUCCESS says other {listed} than were found: {AGAIN}")])


def check_record(run: Mapping[str, Any], plan: Plan, *, complete: bool, faults: Faults) -> None:
    """Check that `run.json` agrees with itself: its card and its figures are those of the fingerprint and the plan."""
    wrong = wrong_record(run, plan, complete=complete)
    faults.add(Fault("contradictions in run.json", f"run.json: {words}: {VERIFY}") for words in wrong)


def wrong_record(run: Mapping[str, Any], plan: Plan, *, complete: bool) -> list[str]:
    """Return what contradicts itself in `run.json`, in words; of a complete run also its numbers of images."""
    try:
        return list(_contradictions(run, plan, complete))
    except DAMAGE:
        return ["it is damaged"]


def _contradictions(run: Mapping[str, Any], plan: Plan, complete: bool) -> Iterator[str]:
    contract = run["contract"]
    if fingerprint_of(contract) != run["fingerprint"]:
        yield "its contract is not that of its fingerprint"
    if identity_part(run["card"]) != contract.get("card"):
        yield "its card is not the one of the fingerprint"
    elif run.get("scored_at") != run["card"]["metric"]["resolution"]:
        yield "the size at which pixels are counted (scored_at) is not the card's"
    if run.get("weights", {}).get("sha384") != contract.get("weights_sha384"):
        yield "its weights are not those of the fingerprint"
    if complete and run.get("input") != json.loads(json.dumps(plan.summary())):
        yield "its numbers of images and shards (input) are not those of plan.parquet"


def _wrong_signature(ledger: Ledger, data: bytes | None, key: PublicKey) -> Iterator[Fault]:
    signature = ledger.read_record(SIGNATURE)
    if data is None or signature is None:
        missing = SUCCESS if data is None else SIGNATURE
        yield Fault("signatures", f"the run is not signed: there is no {missing}")
    elif why := key.fault(data, signature):
        yield Fault("signatures", f"{SIGNATURE} is no signature of _SUCCESS by this key ({why})")


def _named(data: bytes | None) -> dict[str, str]:
    """Return the digests that `_SUCCESS` names; empty if one is missing, or if an earlier version wrote it."""
    found = _parsed(data).get("sha256") if data else None
    named = {name: str(found.get(name)) for name in _REMEDIES} if isinstance(found, dict) else {}
    return named if all(map(_DIGEST.fullmatch, named.values())) else {}


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
