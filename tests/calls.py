"""The command line as tests call it: in this process, or as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
        assert "Traceback" not in self.err
        return self


@pytest.fixture
def segment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the command line in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    return Call(capsys, monkeypatch)


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
