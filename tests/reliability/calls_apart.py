"""What tests call in a process of its own, which imports it by name."""

import os
import signal
from contextlib import suppress

from segment.drafts.drafting import DraftedCard, draft_card
from segment.errors import ModelError
from segment.models.sessions import apart_process
from segment.models.sessions.inspection import inspect_graph
from segment.models.sessions.tflite_facts import tflite_facts
from segment.models.sessions.tflite_graph import tflite_metadata
from segment.models.weights import Weights
from segment.readings.search import Note


def draft_within_a_second(model: str, *, note: Note, loading: object) -> DraftedCard:
    return draft_card(model, size=(24, 32), note=note, loading=lambda: apart_process.loading(1.0))


def waits(*, note: Note, loading: object) -> None:
    note(str(os.getpid()))
    signal.pause()


def reads_tflite(files: list[bytes], *, note: Note, loading: object) -> int:
    """Read what files say, and return how many are refused in words; anything else is raised, or ends the process."""
    refused = 0
    for data in files:
        tflite_metadata(data)
        for read in (lambda data: inspect_graph(Weights("tflite", data, b"", "0", "m.tflite")), tflite_facts):
            with suppress(ModelError):
                read(data)
                continue
            refused += 1
    return refused


def dies(*, note: Note, loading: object) -> None:
    note("a note with an ESC: \x1b")
    os.kill(os.getpid(), signal.SIGSEGV)


def fails(kind: type[Exception], *, note: Note, loading: object) -> None:
    raise kind("why")


def raises_unpicklable(*, note: Note, loading: object) -> None:
    class Local(Exception):
        pass

    raise Local("cannot be pickled")
