"""Standard streams that never raise, and the exit code of a command whose output cannot be printed.

Output that cannot be written is dropped and stops no work. The exit code then depends on the command:

- A command with other results (`run`, `export`, `overlay`, `demo`), or whose exit code is the result (`audit`), keeps
  its exit code; a message on stderr says that the output could not be printed.
- A command whose only result is its output (`report`, `status`, `models`, `plan`, `schema`, `--help`) ends with 1 and a
  message, or with 141, the shell's code for SIGPIPE, if the reader is gone (`| head`).

A stream that is closed at the start (`>&-`) counts as `/dev/null`.
"""

import codecs
import io
import json
import os
import re
import signal
import sys
import textwrap
from pathlib import Path
from typing import IO, Any

from segment.store.foreign_text import on_terminal

_ESCAPE = "segment.escape"
_NARROWEST = 16  # columns of a last cell; fewer break every word


class _Sink(io.RawIOBase):
    """A binary stream that never raises: it keeps the first failure and drops everything after it."""

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
            except (OSError, ValueError) as error:  # full disk, no reader, closed stream
                self.failure = error
        return size

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.failure = error


class _Streams:
    """The standard streams of this process; Python's own until `guard` is called."""

    def __init__(self) -> None:
        self._out: _Sink | None = None
        self._is_work_done = False

    def guard(self) -> None:
        """Replace the streams by ones that never raise and that escape characters outside their encoding.

        Call this before anything opens a file: the file would get the descriptor of a closed stream, and the output
        of libraries would be written into it.
        """
        codecs.register_error(_ESCAPE, _escaped)
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free descriptor: `number`
        self._out = _Sink(_binary(sys.stdout))
        sys.stdout = _text(self._out, sys.stdout)
        sys.stderr = _text(_Sink(_binary(sys.stderr)), sys.stderr)

    def work_is_done(self) -> None:
        """Mark the command's work as done: a failure to print no longer changes the exit code."""
        self._is_work_done = True

    def settle(self, code: int) -> int:
        """Flush the streams, and return the exit code of a command that ends with `code`."""
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


def say(text: str, *, err: bool = False, is_failure: bool = False, fits: bool = False) -> None:
    """Print a message, made safe for a terminal, which wraps it between words; a failure is red there.

    What `fits` is wrapped elsewhere, too: at `COLUMNS`, or 80.

    Commands use `say` and `put` instead of click's `echo`, which chooses encodings itself.
    """
    stream, words = sys.stderr if err else sys.stdout, on_terminal(text)
    if fits or stream.isatty():
        words = "\n".join(_wrapped(line, columns(stream)) for line in words.split("\n"))
    if is_failure and stream.isatty():
        words = f"\x1b[31m{words}\x1b[0m"
    print(words, file=stream)


def put(text: str, end: str = "\n") -> None:
    """Print data, such as JSON, CSV, TOML or a path: made safe for a terminal, and never wrapped."""
    print(on_terminal(text), end=end)


def _wrapped(line: str, width: int) -> str:
    """Break a line between words; a table's row goes on below its last cell, of which two blanks are the border."""
    if len(line) <= width:
        return line
    cell = re.match(r".*\S {2,}(?=\S)", line)
    indent = " " * (cell.end() if cell and cell.end() <= width - _NARROWEST else len(line) - len(line.lstrip(" ")))
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


def columns(stream: Any) -> int:
    """Return the width of a terminal: `COLUMNS`, or its own, or 80."""
    columns = os.environ.get("COLUMNS", "")
    try:
        return int(columns) if columns.isdecimal() and int(columns) else os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 80


def _binary(stream: Any) -> IO[bytes]:
    return Path(os.devnull).open("wb") if stream is None else stream.buffer


def _text(sink: _Sink, like: Any) -> io.TextIOWrapper:
    buffered: Any = sink  # writes everything at once, as a buffered writer does
    return io.TextIOWrapper(
        buffered,
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors=_ESCAPE,
        line_buffering=getattr(like, "line_buffering", False),
        write_through=getattr(like, "write_through", False),
    )


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return characters outside an encoding as JSON escapes, which programs can decode."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(json.dumps(c)[1:-1] for c in error.object[error.start : error.end]), error.end
