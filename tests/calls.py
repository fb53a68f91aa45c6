"""The command line as tests call it: in this process, or as a process of its own."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from segment.cli import main

ROOT = Path(__file__).parents[1]


class Call:
    """`segment ...` in this process: exit code, stdout, stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str) -> Call:
        self._monkeypatch.setattr(sys, "argv", ["segment", *arguments])
        self._monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
        self._capsys.readouterr()
        try:
            main()
            self.code: Any = 0
        except SystemExit as ended:
            self.code = ended.code or 0
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err, self.err[-900:]
        return self


@pytest.fixture
def segment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the command line in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    return Call(capsys, monkeypatch)


_ONE_AT_A_TIME = threading.Lock()


def here(*arguments: str, env: Mapping[str, str | None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `segment ...` in this process with another environment, None for a variable that is not set.

    A process of its own takes two seconds of CPU to start, its worker's another two. Threads take turns: environment
    and streams are the process's.
    """
    code, out, err = 0, io.StringIO(), io.StringIO()
    with _ONE_AT_A_TIME, pytest.MonkeyPatch.context() as patch, logging_as_before():
        S3FileSystem.clear_instance_cache()  # a client keeps the environment that it was made in
        for name, value in {"COLUMNS": "80", **(env or {})}.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        patch.setattr(sys, "argv", ["segment", *arguments])
        patch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        S3FileSystem.clear_instance_cache()
    return subprocess.CompletedProcess(["segment", *arguments], code, out.getvalue(), err.getvalue())


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Undo what a command, or the set-up of a worker process, does to the logging of this process."""
    loggers = [logging.getLogger(name) for name in ("segment", "segment.store.client")]
    before = [(list(logger.handlers), list(logger.filters), logger.propagate) for logger in loggers]
    try:
        yield
    finally:
        for logger, (handlers, filters, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.filters, logger.propagate = handlers, filters, propagate


def process(*command: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository to its end."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def ended(started: subprocess.Popen[bytes], log: Path, patience: float) -> tuple[int, str]:
    """Wait for a process, in bounded time; return its exit code and what it wrote to its log."""
    try:
        code = started.wait(patience)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
        pytest.fail(f"{log} did not end within {patience:.0f} s:\n{log.read_text(errors='replace')[-3000:]}")
    return code, log.read_text(errors="replace")
