"""Tries a model on several runtimes, in a process of its own: a file that breaks a runtime breaks no more than that."""

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from segment.errors import SegmentError
from segment.models.buckets import USUAL
from segment.models.card import ModelCard
from segment.models.sessions.apart_process import given_apart, run_apart, tell, within
from segment.models.sessions.base import Runtime, Session, first_line
from segment.models.sessions.sanity_check import random_images
from segment.models.weights import Weights

_SECONDS = 300.0  # after which the process is killed
_MEASURED = 2.0  # seconds of CPU, after which no round begins
_FEWEST, _MOST = 3, 8  # rounds after the first, which warms up


class Tried(NamedTuple):
    """How a model does on a runtime.

    Attributes:
        seconds: CPU seconds an image of one thread, the least of some; None if the runtime does not serve the model,
            or it was not tried, as the runtime before it took the process along.
        reason: why the runtime does not serve the model; empty if it does.
    """

    seconds: float | None
    reason: str = ""


def contest(card: ModelCard, weights: Weights, runtimes: Sequence[Runtime]) -> list[Tried]:
    """Load a model on each runtime and run it on a generated image, the runtimes taking turns."""
    lines, end = run_apart(__name__, (card, weights, list(runtimes)), _SECONDS)
    if lines and "tried" in lines[-1]:
        return [Tried(*each) for each in lines[-1]["tried"]]
    begun = lines[-1]["begun"] if lines else 0
    reason = f"{runtimes[begun].name} cannot run the graph: the process that tried it {end}{end.likely_cause}"
    return [Tried(None, reason if place == begun else "") for place in range(len(runtimes))]


def main() -> None:
    """Run in the process: print the place of the runtime in use, a line each, and at last how each did."""
    card, weights, runtimes = given_apart()
    sessions = [_opened(card, weights, runtime, place) for place, runtime in enumerate(runtimes)]
    spec = card.input.at(USUAL)
    image = random_images(1, spec.height, spec.width, spec.planes)
    tried = [Tried(None, found if isinstance(found, str) else "") for found in sessions]
    began = time.process_time()
    for number in range(1 + _MOST):
        if number > _FEWEST and time.process_time() - began > _MEASURED:
            break
        for place, session in enumerate(sessions):
            if not isinstance(session, str) and not tried[place].reason:
                tried[place] = _run(session, image, place, tried[place] if number > 1 else Tried(None))
    tell(tried=tried)
    os._exit(0)  # as worker processes do: threads of libraries may abort the regular end


def _opened(card: ModelCard, weights: Weights, runtime: Runtime, place: int) -> Session | str:
    from segment.models.sessions import open_session

    tell(begun=place)
    try:
        with within():
            return open_session(card, weights, runtime, sanity_check=False)
    except (SegmentError, ImportError) as error:
        return str(error)


def _run(session: Session, image: Any, place: int, before: Tried) -> Tried:
    tell(begun=place)
    began = time.process_time()
    try:
        session.predict(image)
    except Exception as error:  # each runtime has its own types
        return Tried(None, first_line(error))
    seconds = time.process_time() - began
    return Tried(seconds if before.seconds is None else min(seconds, before.seconds))
