"""Runs code on models in a process of its own: a file that breaks a runtime breaks no more than that."""

import base64
import ctypes
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

from segment.errors import ModelError, SegmentError
from segment.process.hidden_modules import hide_pandas
from segment.process.temporaries import remove_abandoned

T = TypeVar("T")
Note = Callable[[str], object]  # gets a line on what is done, or one that is `Passing`
Within = Callable[..., AbstractContextManager[None]]
LOADING = "load the model"  # the step, as words after "did not"
LOAD_SECONDS = 300.0  # for a model to load, as long as a worker has
_STEP_SECONDS = 2 * LOAD_SECONDS  # for a step of `call_apart`, which may load a model more than once and run it
_STEP = "load the model or run it on an image"
_TICK = 0.1  # seconds
_PR_SET_PDEATHSIG = 1  # of Linux
_steps: list[tuple[float, str]] = []  # of such a process: those that it is in, the innermost last
_events: list[TextIO] = []  # of such a process: where events go; a library, or `redirect_stdout`, may take `sys.stdout`
# A terminal sends SIGINT to both processes; the other one ends this one. What is given comes by a descriptor of its
# own, as users may name their standard input, or a shell's `<(...)`.
_CODE = (
    "import pickle, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.stdin = open({}); "
    "sys.path[:] = pickle.load(sys.stdin.buffer); from {} import main; main()"
)


class Passing(str):
    """A note that holds until the next one, such as a count."""

    __slots__ = ()


@dataclass(frozen=True)
class Ended:
    """How such a process ended; as text in words, such as "ended by SIGSEGV".

    Attributes:
        code: its exit code; that of a signal is below 0.
        late_at: the step that took too long, for which it was killed, as words after "did not"; empty if none did.
        seconds: that the step had.
    """

    code: int
    late_at: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.late_at:
            return f"did not {self.late_at} within {self.seconds:.0f} s, and was ended"
        return f"ended by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with exit code {self.code}"

    @property
    def likely_cause(self) -> str:
        """What may be behind it, to be put after its words; empty where these say it."""
        if self.late_at:
            return ""
        return ", as for want of memory" if self.code == -signal.SIGKILL else "; is the file damaged?"


def run_apart(
    module: str,
    given: object,
    seconds: float,
    *,
    each: Callable[[dict[str, Any]], object] = lambda event: None,
    errors: int | None = subprocess.DEVNULL,
    temporary: Path | None = None,
) -> tuple[list[dict[str, Any]], Ended]:
    """Run `main()` of a module in a process, which is killed after some seconds.

    Args:
        module: full name of the module; its `main` reads `given` by `given_apart`, and sends events by `tell`.
        given: picklable.
        seconds: after which the process is killed.
        each: gets each event as soon as it is sent.
        errors: where its standard error stream goes, as of `subprocess`.
        temporary: an existing folder, in which it and its libraries make temporary files: killed, it leaves them.

    Returns:
        The events, and how the process ended.
    """
    # A worker multiplies no matrices, and numpy's BLAS would start a thread for each CPU on import.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    if temporary:
        env["TMPDIR"] = str(temporary)
    read, write = os.pipe()
    os.set_inheritable(read, True)
    command = [os.fsdecode(get_executable() or sys.executable), "-P", "-c", _CODE.format(read, module)]
    data = pickle.dumps(sys.path) + pickle.dumps((os.getpid(), given))
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=env, close_fds=False)
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
    assert process.stdout
    limit, events = _Limit(process, seconds), []
    try:
        limit.start()
        threading.Thread(target=_feed, args=(os.fdopen(write, "wb"), data), daemon=True).start()
        del data  # else a copy of the weights is held until the process ends
        for line in process.stdout:
            event = json.loads(line) if line.startswith(b"{") else {}
            if "step" in event:
                limit.step = event["step"]
            elif event:
                events.append(event)
                with limit.paused():
                    each(event)
        process.wait()
    finally:
        limit.ended.set()
        process.kill()  # which does nothing once it has been waited for
        process.wait()
        process.stdout.close()
    return events, Ended(process.returncode, limit.late_at, limit.late_after)


class _Limit(threading.Thread):
    """Kills a process when its time is over, or the time of its step.

    It counts ticks. Time in which both processes are stopped, as by Ctrl-Z, does not count; a timer of the system, or
    a clock, would go on. Nor does time in which nobody reads its steps: a terminal may be stopped by Ctrl-S.

    Attributes:
        step: seconds that the step has at most, and what it does; None between steps. A new one starts anew.
        late_at, late_after: the step that took too long, and the seconds that it had; empty if none did.
        ended: to be set when the process needs no limit any more.
    """

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        super().__init__(daemon=True)
        self.step: tuple[float, str] | None = None
        self.late_at, self.late_after, self.ended = "", 0.0, threading.Event()
        self._process, self._seconds, self._is_paused = process, seconds, False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count no tick meanwhile: steps of the process may have ended that are still to be read."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def run(self) -> None:
        """Count until the process ends, or is to be killed."""
        step, whole, left = None, self._seconds, 0.0
        while not self.ended.wait(_TICK):
            if self._is_paused:
                continue
            if step is not self.step:
                step = self.step
                left = step[0] if step else 0.0
            whole, left = whole - _TICK, left - _TICK
            if step and left <= 0:
                self.late_after, self.late_at = step
            elif whole <= 0:
                self.late_after, self.late_at = self._seconds, "end"
            if self.late_at:
                self._process.kill()
                return


def _feed(stream: BinaryIO, data: bytes) -> None:
    with suppress(OSError), stream:  # it may have died
        stream.write(data)


def call_apart(function: Callable[..., T], *given: object, note: Note, temporary: Path | None = None) -> T:
    """Return `function(*given, note=..., within=...)`, called in such a process.

    What one that was killed left in the folder for temporary files is removed before.

    Args:
        function: of a module. It does each step on a model of somebody else `within()`: reads it, or runs it on an
            image. A step of another kind says its seconds, and what it does: `within(3600.0, "quantise the model")`.
        note: gets its notes.
        temporary: as of `run_apart`.

    Raises:
        ModelError: the model ended the process, or a step took too long.
        Exception: as the function raises.
    """

    def each(event: dict[str, Any]) -> None:
        if "note" in event:
            note(event["note"])
        elif "passing" in event:
            note(Passing(event["passing"]))

    remove_abandoned()
    events, end = run_apart(__name__, (function, given), float("inf"), each=each, errors=None, temporary=temporary)
    last = events[-1] if events else {}
    if "error" in last:
        raise pickle.loads(base64.b64decode(last["error"]))
    if "result" in last:
        return pickle.loads(base64.b64decode(last["result"]))  # type: ignore[no-any-return]
    raise ModelError(f"the model cannot be used: the process that tried it {end}{end.likely_cause}")


def main() -> None:
    """Call a function in the process; print its notes, and at last what it returns or raises."""
    function, given = given_apart()
    try:
        result = function(*given, note=_tell_note, within=_within_step)
        found = {"result": pickle.dumps(result)}
    except Exception as error:
        found = {"error": _pickled(error)}
    tell(**{name: base64.b64encode(data).decode() for name, data in found.items()})
    os._exit(0)  # as worker processes do: threads of libraries may abort the regular end


def _tell_note(line: str) -> None:
    tell(**{"passing" if isinstance(line, Passing) else "note": line})


def _within_step(seconds: float = _STEP_SECONDS, what: str = _STEP) -> AbstractContextManager[None]:
    return within(seconds, what)


def _pickled(error: Exception) -> bytes:
    """Return an error that another process can raise, with its traceback if it is a bug."""
    if isinstance(error, SegmentError):
        return pickle.dumps(error)
    error.add_note(traceback.format_exc())
    with suppress(Exception):
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    return pickle.dumps(RuntimeError("\n".join(traceback.format_exception(error))))


def given_apart() -> Any:
    """Return, in such a process, what it was given. From now on it ends with the process that started it.

    What libraries write to the standard output goes to the standard error stream: the output is for events.
    """
    _events.append(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    sys.stdout = sys.stderr
    with suppress(OSError):  # there may be none
        os.dup2(2, 1)
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    hide_pandas()
    parent, given = pickle.load(sys.stdin.buffer)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)
    return given


@contextmanager
def within(seconds: float = LOAD_SECONDS, what: str = LOADING) -> Iterator[None]:
    """End such a process if the block, a step on a model, takes longer, in native code too.

    A step within another one is progress: after it the other one has its seconds again.

    Args:
        what: says what the step does, after "did not".
    """
    _steps.append((seconds, what))
    tell(step=_steps[-1])
    try:
        yield
    finally:
        _steps.pop()
        tell(step=_steps[-1] if _steps else None)


def tell(**event: object) -> None:
    """Send an event to the process that started this one."""
    print(json.dumps(event), file=_events[0], flush=True)
