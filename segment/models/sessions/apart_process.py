"""Runs code on models in a process of its own: a file that breaks a runtime breaks no more than that."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.spawn import get_executable
from typing import Any

NOT_LOADED = "did not load the model in time"  # how a process ended
LOAD_SECONDS = 300.0  # for a model to load, as long as a worker has
_CODE = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from {} import main; main()"


def run_apart(module: str, given: object, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """Run `main()` of a module in a process, which is killed after some seconds.

    Args:
        module: full name of the module; its `main` reads `given` by `given_apart`, and prints events by `tell`.
        given: picklable.
        seconds: after which the process is killed.

    Returns:
        The events, and how the process ended, as in "ended by SIGSEGV".
    """
    # A worker multiplies no matrices, and numpy's BLAS would start a thread for each CPU on import.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [os.fsdecode(get_executable() or sys.executable), "-P", "-c", _CODE.format(module)]
    data = pickle.dumps(sys.path) + pickle.dumps(given)
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=seconds, env=env, check=False)
        printed, end = done.stdout, _end(done.returncode)
    except subprocess.TimeoutExpired as error:
        printed, end = error.stdout or b"", f"took more than {seconds:.0f} s"
    return [json.loads(line) for line in printed.splitlines() if line.startswith(b"{")], end


def given_apart() -> Any:
    """Return, in such a process, what it was given."""
    return pickle.load(sys.stdin.buffer)


@contextmanager
def loading(seconds: float = LOAD_SECONDS) -> Iterator[None]:
    """End such a process if the block, which loads a model, takes longer, in native code too."""
    signal.setitimer(signal.ITIMER_REAL, seconds)  # by default SIGALRM ends a process
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def tell(**event: object) -> None:
    """Print an event, in such a process."""
    print(json.dumps(event), flush=True)


def _end(code: int) -> str:
    if code == -signal.SIGALRM:
        return NOT_LOADED
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
