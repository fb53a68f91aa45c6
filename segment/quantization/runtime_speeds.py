"""CPU time of an image, by runtime and precision: one thread each, in turns, so that a busy machine slows all alike."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segment.models.card import ModelCard
from segment.models.sessions import Runtime, Session, open_session
from segment.models.sessions.apart_process import Within
from segment.models.sessions.cpu import cpu_facts, cpu_flags
from segment.models.weights import Weights
from segment.quantization.calibration import Calibration

_SECONDS = 20.0  # of CPU, after which no further turn begins
_FEWEST_TURNS, _MOST_TURNS = 3, 15

# What makes INT8 and bf16 fast, by the names in /proc/cpuinfo.
_EXTENSIONS = {
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX",
}


@dataclass(frozen=True)
class Candidate:
    """A model on a runtime.

    Attributes:
        numbers: what it computes in: `f32`, `bf16` or `INT8`.
    """

    numbers: str
    card: ModelCard
    weights: Weights
    runtime: Runtime


@dataclass(frozen=True)
class RuntimeSpeed:
    """The time of a candidate.

    Attributes:
        numbers: what it computes in.
        milliseconds: CPU time of an image: median of the turns.
    """

    runtime: str
    numbers: str
    milliseconds: float
    turns: int


def measure(candidates: Sequence[Candidate], calibration: Calibration, within: Within) -> list[RuntimeSpeed]:
    """Time the candidates on the same images, in turns: each segments one image, then each the next one.

    `within` is entered for each step; see `call_apart`.
    """
    opened = []
    for one in candidates:
        with within():
            opened.append(open_session(one.card, one.weights, one.runtime, threads=1, sanity_check=False))
            _seconds(opened[-1], calibration, 0)  # the first call compiles
    times: list[list[float]] = [[] for _ in candidates]
    start = time.process_time()
    for turn in range(_MOST_TURNS):
        if turn >= _FEWEST_TURNS and time.process_time() - start > _SECONDS:
            break
        for session, seconds in zip(opened, times, strict=True):
            with within():
                seconds.append(_seconds(session, calibration, turn))
    return [_speed(one, seconds) for one, seconds in zip(candidates, times, strict=True)]


def _speed(one: Candidate, seconds: Sequence[float]) -> RuntimeSpeed:
    milliseconds = 1000 * float(np.median(seconds))
    return RuntimeSpeed(f"{one.runtime.name} {one.runtime.version}", one.numbers, milliseconds, len(seconds))


def _seconds(session: Session, calibration: Calibration, turn: int) -> float:
    images = calibration[turn % len(calibration)]
    start = time.process_time()
    session.predict(images)
    return time.process_time() - start


def processor() -> str:
    """Return the name of this machine's CPU, and what speeds INT8 and bf16 up that it has."""
    name = cpu_facts().get("model name") or platform.processor() or platform.machine()
    flags = cpu_flags()
    return ", ".join([name, *(words for flag, words in _EXTENSIONS.items() if flag in flags)])
