"""Temporary folders: none outlives its process for long, and none is taken from a process that lives."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segment.errors import ModelError
from segment.process.temporaries import LENGTH, PREFIX, TemporaryFolder, remove_abandoned
from tests.calls import ROOT
from tests.here import call_apart
from tests.reliability import calls_apart
from tests.reliability.trouble import street

KEEP = """
import sys, time
from pathlib import Path
from segment.process.temporaries import TemporaryFolder
folder = TemporaryFolder(Path(sys.argv[1]))
(folder.path / "model.tflite").write_bytes(bytes(1000))
print(folder.path, flush=True)
time.sleep(60)
"""


def held_by_another_process(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", KEEP, str(parent)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_a_folder_of_its_own_that_goes_with_its_use(tmp_path: Path) -> None:
    with TemporaryFolder(tmp_path / "new") as one, TemporaryFolder(tmp_path / "new") as two:
        assert one.path != two.path
        assert (one.path.stat().st_mode & 0o777, len(one.path.name)) == (0o700, LENGTH)
        (one.path / "deep").mkdir()
        (one.path / "deep" / "file").write_bytes(b"x")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_parent_that_another_probe_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, left = os.mkdir, [2]

    def removed(path: Path, *args: int) -> None:
        mkdir(path, *args)
        if left[0] and Path(path) == tmp_path / "new":
            left[0] -= 1
            Path(path).rmdir()  # as the probe of another process does, which has made it

    monkeypatch.setattr(os, "mkdir", removed)
    with TemporaryFolder(tmp_path / "new") as own:
        assert (own.path.parent, left) == (tmp_path / "new", [0])
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for place in ("link", "link/new"):
        with pytest.raises(FileNotFoundError, match="the folder cannot be made"):
            TemporaryFolder(tmp_path / place)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    process, left = held_by_another_process(tmp_path)
    with TemporaryFolder(tmp_path):
        assert (left / "model.tflite").exists()  # its process lives
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (left / "model.tflite").exists()
    with TemporaryFolder(tmp_path) as own:
        assert list(tmp_path.iterdir()) == [own.path]


def test_a_folder_that_was_given_up_stays_until_the_next(tmp_path: Path) -> None:
    first = TemporaryFolder(tmp_path)
    first.close(remove=False)
    assert first.path.is_dir()
    assert remove_abandoned(tmp_path) == 1
    assert not first.path.exists()


def test_every_run_removes_what_others_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    TemporaryFolder().close(remove=False)
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    street(tmp_path / "place", 1).run()
    assert list((tmp_path / "tmp").glob(f"{PREFIX}*")) == []


def test_a_check_and_a_draft_remove_what_others_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As whatever is called in a process of its own, which a model may end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    TemporaryFolder().close(remove=False)
    with pytest.raises(ModelError, match="within 1 s"):  # the last step never ends
        call_apart(calls_apart.steps, [], note=print)
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


def test_what_is_not_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{PREFIX}other").mkdir()  # of another program: no lock
    (tmp_path / f"{PREFIX}file").write_bytes(b"x")
    elsewhere = TemporaryFolder(tmp_path / "elsewhere")
    elsewhere.close(remove=False)
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere.path)
    assert remove_abandoned(tmp_path) == 0
    assert elsewhere.path.is_dir()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert remove_abandoned(tmp_path / "elsewhere") == 0  # another user's


def test_where_the_file_system_has_no_locks_nothing_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with TemporaryFolder(tmp_path) as folder:
        assert remove_abandoned(tmp_path) == 0
        monkeypatch.undo()
        assert remove_abandoned(tmp_path) == 0
        assert folder.path.is_dir()
    assert list(tmp_path.iterdir()) == []
