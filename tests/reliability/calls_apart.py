"""What tests call in a process of its own, which imports it by name."""

from __future__ import annotations

import os
import signal

from segment.drafts.drafting import DraftedCard, draft_card
from segment.models.sessions import apart_process
from segment.readings.search import Note


def draft_within_a_second(model: str, *, note: Note, loading: object) -> DraftedCard:
    return draft_card(model, size=(24, 32), note=note, loading=lambda: apart_process.loading(1.0))


def waits(*, note: Note, loading: object) -> None:
    note(str(os.getpid()))
    signal.pause()


def dies(*, note: Note, loading: object) -> None:
    note("a note with an ESC: \x1b")
    os.kill(os.getpid(), signal.SIGSEGV)


def fails(kind: type[Exception], *, note: Note, loading: object) -> None:
    raise kind("why")
