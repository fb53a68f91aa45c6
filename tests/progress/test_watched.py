"""`segment.run` shows its progress where a person watches, and logs what matters elsewhere."""

import io
import logging
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

import segment
from segment.progress import console_progress, watched_progress
from segment.progress.lines import LogProgress
from tests.calls import ROOT
from tests.scenes import Scenes


def write_script(scenes: Scenes, output: Path, name: str, more: str = "") -> Path:
    script = output.parent / f"{name}.py"
    places = f"input={str(scenes.folder / 'photos')!r}, output={str(output)!r}"
    job = f"segment.Job({places}, model='demo-streets', engine='local', workers=1, min_agreement=0)"
    script.write_text(f"import segment\nif __name__ == '__main__':\n    segment.run({job}{more})\n")
    return script


def on_a_terminal(script: Path) -> str:
    """Run a script whose stderr is a terminal; return what came there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 1 << 16)
        except OSError:  # the process has ended
            break
    os.close(ours)
    assert process.wait(60) == 0, text.decode()
    return text.decode()


def test_a_terminal_shows_the_run_unless_it_is_told_not_to(scenes: Scenes, tmp_path: Path) -> None:
    shown = on_a_terminal(write_script(scenes, tmp_path / "out", "shown"))
    assert "100 %" in shown
    assert "6 images" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor comes back
    assert on_a_terminal(write_script(scenes, tmp_path / "again", "silent", ", segment.Progress()")) == ""


def test_a_notebook_shows_the_run(scenes: Scenes, tmp_path: Path) -> None:
    code = f"""
import segment
report = segment.run(segment.Job(input={str(scenes.folder / "photos")!r}, output={str(tmp_path / "out")!r},
                                 model="demo-streets", engine="local", workers=1, min_agreement=0))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120).execute()
    shown = [out.data["text/html"] for out in notebook.cells[0].outputs if out.output_type == "display_data"]
    assert len(shown) == 1
    assert "6 of 6" in shown[0]


def test_elsewhere_notes_and_warnings_are_logged(
    scenes: Scenes, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, data in scenes.photos.items():
        (photos / name).write_bytes(data)
    (photos / "clip.mp4").write_bytes(b"no image")
    job = {"input": photos, "model": "demo-streets", "engine": "local", "workers": 1, "min_agreement": 0}
    with caplog.at_level(logging.INFO, "segment"):
        segment.run(segment.Job(output=tmp_path / "out", **job))
    said = {(record.levelname, record.getMessage()) for record in caplog.records}
    assert any(level == "INFO" and text.startswith("6 images in 1 shard") for level, text in said)
    assert any("clip.mp4" in text for _, text in said)
    caplog.clear()
    with caplog.at_level(logging.INFO, "segment"):
        segment.run(segment.Job(output=tmp_path / "silent", **job), segment.Progress())
    assert not [record for record in caplog.records if record.name.startswith("segment.progress")]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
@pytest.mark.parametrize(
    "streams", ["sys.stdin = sys.stdout = sys.stderr = None", pytest.param("", marks=pytest.mark.slow)]
)
def test_a_program_without_standard_streams(scenes: Scenes, tmp_path: Path, engine: str, streams: str) -> None:
    """Daemons: the streams are None, because a library took them or because their descriptors are closed."""
    output = tmp_path / "out"
    script = write_script(scenes, output, "daemon")
    code = script.read_text().replace("engine='local'", f"engine={engine!r}")
    script.write_text(f"import sys\n{streams}\nassert sys.stderr is None\n{code}")
    closed = "" if streams else "<&- >&- 2>&-"
    line = f"exec {shlex.join([sys.executable, str(script)])} {closed}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert (output / "_SUCCESS").exists()


@pytest.mark.parametrize("kind", ["none", "closed", "writes only"])
def test_where_stderr_is_no_stream_lines_go_nowhere(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = io.StringIO()
    closed.close()
    only = SimpleNamespace(write=lambda text: len(text), flush=lambda: None)
    monkeypatch.setattr(sys, "stderr", {"none": None, "closed": closed, "writes only": only}[kind])
    for log_format in ("auto", "plain", "json"):
        for quiet in (False, True):
            console_progress(quiet, log_format).note("warning: it is late")
    assert isinstance(watched_progress(), LogProgress)
    assert capsys.readouterr().out == ""
