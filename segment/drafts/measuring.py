"""A draft's guesses, decided by labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from segment.drafts.contract import Draft, Said
from segment.readings.checking import Checked
from segment.readings.search import Found, Tried
from segment.readings.verdict import comparison, no_evidence, percent, resize_table, table_lines

T = TypeVar("T")


def decided(draft: Draft, checked: Checked) -> Draft:
    """Return a draft with what the labels decide; guesses that they leave open stay guesses, and say so.

    Args:
        draft: the draft.
        checked: the check of its card.
    """
    found = checked.found
    remark, *_ = table_lines(checked)
    if not found.over_chance.matters:
        return replace(draft, remarks=(*draft.remarks, remark, no_evidence(found)))
    best = found.best.reading
    resize = draft.resize.value if best.resize == found.card.reading.resize else resize_table(best.resize)
    return replace(
        draft,
        channels=_decided(draft.channels, best.channels, "channels", found),
        scaling=_decided(draft.scaling, best.scaling, "scaling", found),
        resize=_decided(draft.resize, resize, "resize", found),
        classes=_numbered(draft.classes, found),
        remarks=(*draft.remarks, remark, *_remarks(found)),
    )


def _decided(said: Said[T], value: T, setting: str, found: Found) -> Said[T]:
    """Return a setting as it was measured; as it was said where no other value was tried, or none is worse."""
    rival = found.rival(setting)
    if rival is not None and found.best.against(rival).is_better:
        return Said(value, f"measured on {_evidence(found.best)}, next {_evidence(rival, setting)}")
    if rival is None or not said.guessed:
        return Said(value, said.why, said.guessed, said.otherwise)
    level = f"measured on {_evidence(found.best)}, not told apart from {_evidence(rival, setting)}"
    return Said(value, f"{said.why}; {level}", guessed=True, otherwise=said.otherwise)


def _evidence(item: Tried, setting: str = "") -> str:
    seen = f"{len(item.evidence)} labelled images"
    return f"{item.reading.words([setting])}: {percent(item)} (on {seen})" if setting else f"{seen}: {percent(item)}"


def _numbered(said: Said[Any], found: Found) -> Said[Any]:
    if "labels" not in found.best.reading.changes(found.card.reading):
        return said
    why = f"{said.why}; the labels are {found.best.reading.labels.name}, so give a run {found.best.reading.labels.toml}"
    return Said(said.value, why, said.guessed, said.otherwise)


def _remarks(found: Found) -> Iterator[str]:
    changed = found.best.reading.changes(found.card.reading)
    if changed:
        yield f"measured: {comparison(found, changed).replace('the card says', 'guessed was')}"
    if "labels" in changed:
        yield f"read the labels so, in a job file: {found.best.reading.labels.toml}"
