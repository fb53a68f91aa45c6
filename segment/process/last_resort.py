"""The end of this process some seconds after a signal that stops it, whatever native code does.

Python runs its handler of a signal only once native code returns, which may be never, and a thread of Python may not
run either. But the interpreter writes the number of each signal into a pipe at once, and another process, which does
nothing else, reads it.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Collection

_POLL_SECONDS = 1.0  # between two looks whether the process has ended by itself


def end_after_signal(signals: Collection[int], seconds: float) -> None:
    """Kill this process if it still runs so many seconds after one of some signals; to be called before any thread.

    Where no process can be started, nothing is killed.
    """
    parent = os.getpid()
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        return
    if not child:
        try:
            os.close(writer)
            _watch(reader, parent, signals, seconds)
        finally:
            os._exit(0)
    os.close(reader)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _keep_from_copies(signals)


def _keep_from_copies(signals: Collection[int]) -> None:
    """Let forked copies of this process, which get signals of their own, not write these into the pipe."""
    held = threading.local()

    def hold() -> None:
        held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)

    def forget() -> None:
        if (writer := signal.set_wakeup_fd(-1)) != -1:
            os.close(writer)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=forget)


def _watch(reader: int, parent: int, signals: Collection[int], seconds: float) -> None:
    for number in signals:  # a terminal sends them to all its processes
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # whoever waits for the end of the parent's streams does not wait for this process
        os.dup2(nowhere, stream)
    while (received := os.read(reader, 1)) and received[0] not in signals:
        pass
    deadline = time.monotonic() + seconds
    while received and os.getppid() == parent and time.monotonic() < deadline:
        if select.select([reader], [], [], _POLL_SECONDS)[0]:
            received = os.read(reader, 4096)
    if received and os.getppid() == parent:
        os.kill(parent, signal.SIGKILL)
