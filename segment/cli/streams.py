"""What is printed, and what becomes of a command whose print-out goes nowhere.

Output that cannot be written is dropped; it stops no work. How the command ends then depends on what it is for:

- Its work is done (`run`, `export`, `overlay`, `demo`) or its exit code is the answer (`audit`): that stays as it is,
  and standard error says that it could not be printed.
- The print-out is all there is (`report`, `status`, `models`, `plan`, `schema`, `--help`): exit code 1 and a message,
  or 141, the shell's number for SIGPIPE, where the reader went away (`| head`).

A stream that was closed from the beginning (`>&-`) is one that nobody wants to read: like `/dev/null`.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

_ESCAPE = "segment.escape"


class _Sink(io.RawIOBase):
    """A binary stream that takes everything: after the first failure, which it keeps, it drops what it is given."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.name = getattr(stream, "name", "")
        self.failure: Exception | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.failure is None:
            try:
                rest = rest[self._stream.write(rest) :]
            except (OSError, ValueError) as error:  # full, gone, closed
                self.failure = error
        return size

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.failure = error


class _Streams:
    """The guarded streams of this process; until `guard` is called they are those of Python."""

    def __init__(self) -> None:
        self._out: _Sink | None = None
        self._is_work_done = False

    def guard(self) -> None:
        """Let no stream fail: where one is closed nothing is written, what it cannot encode is escaped.

        To be called before anything opens a file: it would get the number of a closed stream, and what libraries
        print would be written into it.
        """
        codecs.register_error(_ESCAPE, _escaped)
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
        self._out = _Sink(_binary(sys.stdout))
        sys.stdout = _text(self._out, sys.stdout)
        sys.stderr = _text(_Sink(_binary(sys.stderr)), sys.stderr)

    def work_is_done(self) -> None:
        """Mark the command's work as done: what is printed from now on only reports it."""
        self._is_work_done = True

    def settle(self, code: int) -> int:
        """Write what is still to be written, and return the exit code of a command that ends with `code`."""
        sys.stdout.flush()
        failure = self._out.failure if self._out else None
        if failure is not None and not isinstance(failure, BrokenPipeError):
            reason = getattr(failure, "strerror", None) or failure
            what = "warning: the work is done, but" if self._is_work_done else "error:"
            say(f"{what} the output could not be printed: {reason}", err=True)
        sys.stderr.flush()
        if failure is None or self._is_work_done or code:
            return code
        return 128 + signal.SIGPIPE if isinstance(failure, BrokenPipeError) else 1


streams = _Streams()


def say(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print a line. All of the command line's own go this way: click's `echo` picks encodings of its own."""
    print(text, file=sys.stderr if err else sys.stdout, end=end)


def _binary(stream: Any) -> IO[bytes]:
    return Path(os.devnull).open("wb") if stream is None else stream.buffer


def _text(sink: _Sink, like: Any) -> io.TextIOWrapper:
    buffered: Any = sink  # it takes all it is given at once, as a buffered writer does
    return io.TextIOWrapper(
        buffered,
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors=_ESCAPE,
        line_buffering=getattr(like, "line_buffering", False),
        write_through=getattr(like, "write_through", False),
    )


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Spell what an encoding does not have as JSON does, which programs can read back."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(json.dumps(c)[1:-1] for c in error.object[error.start : error.end]), error.end
