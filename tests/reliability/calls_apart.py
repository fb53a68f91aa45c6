"""What tests call in a process of its own, which imports it by name."""

from __future__ import annotations

import io
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from segment.drafts.drafting import DraftedCard, draft_card
from segment.errors import ModelError
from segment.models.sessions import apart_process
from segment.models.sessions.apart_process import Note
from segment.models.sessions.inspection import inspect_graph
from segment.models.sessions.tflite_facts import tflite_facts
from segment.models.sessions.tflite_graph import tflite_metadata
from segment.models.weights import Weights
from segment.quantization.quiet import quiet

if TYPE_CHECKING:
    from segment.quantization.making import Made, Making


def short(seconds: float = 0.0, what: str = "load the model or run it on an image") -> AbstractContextManager[None]:
    return apart_process.within(1.0, what)


def draft_within_a_second(model: str, *, note: Note, within: object) -> DraftedCard:
    return draft_card(model, size=(24, 32), note=note, within=short)


def makes_within_a_second(making: Making, *, note: Note, within: object) -> Made:
    from segment.quantization.making import make  # the other functions do not wait for what it imports

    return make(making, note=note, within=short)


def is_killed_while_it_calibrates(making: Making, *, note: Note, within: object) -> Made:
    from segment.quantization.making import make

    steps = itertools.count()

    @contextmanager
    def image(*_: object) -> Iterator[None]:
        if next(steps) == 3:  # after the graph, the quantisation around all images, and the first of them
            os.kill(os.getpid(), signal.SIGKILL)
        yield

    return make(making, note=note, within=image)


def steps(seconds: Sequence[float], *, note: Note, within: object) -> None:
    """Steps of some seconds, each a second at most, within another one that is endless at its end."""
    with short():
        for each in seconds:
            with short():
                time.sleep(each)
        note("past them")
        time.sleep(600)


def quantises_for_ever(*given: object) -> None:
    time.sleep(600)


def makes_for_ever(making: Making, *, note: Note, within: object) -> Made:
    from segment.quantization import making as module

    module._quantise = quantises_for_ever  # type: ignore[assignment]
    return module.make(making, note=note, within=short)


def steps_once(*, note: Note, within: object) -> None:
    with apart_process.within(3.0):
        note("begun")
        time.sleep(1)
    note("ended")


def steps_of_a_quantiser(quietly: object, seconds: Sequence[float], *, note: Note, within: object) -> None:
    """Steps of some seconds, each a second at most, within another one of two, while a quantiser is kept quiet."""
    printed = {"onnxruntime": io.StringIO, "nncf": lambda: sys.stderr}[str(quietly)]()
    with apart_process.within(2.0, "quantise the model"), quiet(None, logging.CRITICAL, printed):
        for each in seconds:
            with short():
                time.sleep(each)
    note("past them")


def prints(*, note: Note, within: object) -> None:
    print("a library's remark", end="")  # a line that is not ended
    os.write(1, b", and one of its native code\n")
    note("a note")


def main() -> None:
    """For `run_apart`: load a model for as many seconds as given, half a second at most."""
    seconds = apart_process.given_apart()
    with apart_process.within(0.5):
        time.sleep(seconds)


def passes(*, note: Note, within: object) -> None:
    note(apart_process.Passing("1 of 2"))
    note("a line")


def step_that_tells(*, note: Note, within: object) -> str:
    with short():
        note("hello")
    time.sleep(3)
    return "innocent"


def waits(*, note: Note, within: object) -> None:
    note(str(os.getpid()))
    signal.pause()


def reads_tflite(files: list[bytes], *, note: Note, within: object) -> int:
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


def imported_by_arrow(*, note: Note, within: object) -> list[str]:
    """Convert a list, as labels are, and return which modules came with it."""
    before = set(sys.modules)
    pa.array([1, 2])
    return sorted(set(sys.modules) - before)


def counts(data: bytes, *, note: Note, within: object) -> None:
    note(str(len(data)))


def dies(*, note: Note, within: object) -> None:
    note("a note with an ESC: \x1b")
    os.kill(os.getpid(), signal.SIGSEGV)


def fails(kind: type[Exception], *, note: Note, within: object) -> None:
    raise kind("why")


def raises_unpicklable(*, note: Note, within: object) -> None:
    class Local(Exception):
        pass

    raise Local("cannot be pickled")
