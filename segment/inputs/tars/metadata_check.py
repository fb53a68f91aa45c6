"""Check at plan time, by a few samples, that the .json members of tars hold the keys to keep."""

from __future__ import annotations

from collections.abc import Sequence

from segment.errors import UsageError, did_you_mean
from segment.inputs.findings import Findings
from segment.inputs.metadata import json_keys, json_values
from segment.inputs.tars.tar_findings import Tar
from segment.store.bounds import MOST_JSON
from segment.store.client import Store
from segment.store.names import count, listed, shown

METADATA_KEY = "json"
_SAMPLED = 8  # samples that are read


def check_metadata(tars: Sequence[Tar], keep: Sequence[str], store: Store, findings: Findings) -> None:
    """Refuse metadata of tars without any; warn of keys to keep that no sampled member has.

    Raises:
        UsageError: no sample has a .json member.
    """
    if not keep:
        return
    held = [(tar, member.meta_span) for tar in tars for member in tar.members if member.meta_span]
    if not held and any(tar.members for tar in tars):
        where = shown(tars[0].entry.url) if len(tars) == 1 else f"{len(tars)} tars"
        raise UsageError(f"keep = {listed(keep)}: no sample of {where} has a .{METADATA_KEY} member to keep it from")
    some = [(tar, span) for tar, span in held[:: max(1, len(held) // _SAMPLED)][:_SAMPLED] if span.size <= MOST_JSON]
    read = [store.read(tar.entry.url, span.start, span.start + span.size, tar.entry.etag) for tar, span in some]
    found = [json_values(keep, data)[0] for data in read]
    known = list(dict.fromkeys(key for data in read for key in json_keys(data)))
    for index, column in enumerate(keep):
        if found and all(values[index] is None for values in found):
            sampled = count(len(found), f"sampled .{METADATA_KEY} member")
            have = f" They have {listed(known)}" if known else ""
            findings.warnings.append(
                f"no value of '{shown(column)}' to keep in {sampled}.{did_you_mean(column, known)}{have}"
            )
