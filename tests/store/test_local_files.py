"""Temporary files of local writes: none is left, none of a living writer is removed."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from segment.errors import StoreError
from segment.store import local_files
from segment.store.client import Store
from segment.store.local_files import remove_unfinished, write_local


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_file_is_not_removed_between_its_last_byte_and_its_name(
    exclusive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor before it is locked: it is made once more then."""
    removed, link, replace, new = list[int](), local_files._link, Path.replace, local_files._new_file

    def removing(*_: object) -> None:
        removed.append(remove_unfinished(tmp_path.as_uri()))

    monkeypatch.setattr(local_files, "_link", lambda *paths: (removing(), link(*paths)))
    monkeypatch.setattr(Path, "replace", lambda *paths: (removing(), replace(*paths)))

    def made(path: Path) -> object:
        file = new(path)
        if not removed:
            removing()
        return file

    monkeypatch.setattr(local_files, "_new_file", made)
    write_local(tmp_path / "a" / "b", b"whole", exclusive=exclusive)
    assert removed == [1, 0]
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "a").iterdir()] == [("b", b"whole")]
    if exclusive:
        with pytest.raises(FileExistsError):
            write_local(tmp_path / "a" / "b", b"other", exclusive=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("existed", [False, True])
def test_a_folder_that_another_probe_removes_meanwhile_is_made_again(
    existed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the folder is none of the file: an exclusive write would take it for another writer's file."""
    folder, mkdir, left = tmp_path / "out", os.mkdir, [2]
    if existed:
        folder.mkdir()

    def removed(path: str, *args: int) -> None:
        try:
            mkdir(path, *args)
        finally:
            if left[0]:
                left[0] -= 1
                folder.rmdir()

    monkeypatch.setattr(os, "mkdir", removed)
    assert Store().create((folder / "run.json").as_uri(), b"whole") == b"whole"
    assert left == [0]


@pytest.mark.parametrize("name", ["file", "link"])
def test_what_is_in_the_place_of_a_folder_is_no_other_writers_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match=f"{name}"):
        Store().write_if_absent((tmp_path / name / "run.json").as_uri(), b"whole")
    assert (tmp_path / "file").read_bytes() == b"kept"
    assert not (tmp_path / "gone").exists()


def test_a_folder_that_goes_while_leftovers_are_looked_for_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, scandir = tmp_path / "kept" / f".x.tmp-{'0' * 16}", os.scandir
    for folder in (left.parent, tmp_path / "gone"):
        folder.mkdir()
    left.write_bytes(b"half")

    def scanned(path: Any) -> Any:
        if Path(path).name == "gone":
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scanned)
    assert remove_unfinished(tmp_path.as_uri()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_link_that_goes_while_its_folder_is_listed_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "broken").symlink_to("nowhere")
    scandir = os.scandir

    def scanned(path: Any) -> Any:
        found = list(scandir(path))
        (tmp_path / "gone").unlink()
        return iter(found)

    monkeypatch.setattr(os, "scandir", scanned)
    assert [entry.url for entry in Store().list(tmp_path.as_uri(), irregular=True)] == [f"{tmp_path.as_uri()}/broken"]


def test_where_there_are_no_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    left = tmp_path / f".x.tmp-{'0' * 16}"
    left.write_bytes(b"half")
    write_local(tmp_path / "y", b"whole")
    assert remove_unfinished(tmp_path.as_uri()) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, "y"]


@pytest.mark.parametrize("code", [errno.ELOOP, errno.ENOTDIR, errno.ESTALE])
def test_a_link_that_leads_nowhere_is_no_image_and_one_that_cannot_be_followed_now_is_an_error(code: int) -> None:
    def kind() -> bool:
        raise OSError(code, "it failed")

    if code == errno.ESTALE:
        with pytest.raises(OSError, match="it failed"):
            local_files._leads_to(kind)
    else:
        assert not local_files._leads_to(kind)


@pytest.mark.parametrize("write", [Store.write, Store.write_if_absent])
def test_a_file_that_is_gone_is_named_and_its_folder_is_not_blamed(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/out/x.bin"
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match=r"No such file or directory: '.*/gone\.bin'"):
        write(Store(), url, tmp_path / "gone.bin")

    def of_a_killed_one(file: int) -> None:  # as another run takes it for where its locks are not seen
        for unfinished in (tmp_path / "out").iterdir():
            unfinished.unlink()

    monkeypatch.setattr(local_files.os, "fsync", of_a_killed_one)
    with pytest.raises(StoreError, match=r"could not write .*\.tmp-") as caught:
        write(Store(), url, b"x")
    assert "folder" not in str(caught.value)

    monkeypatch.setattr(local_files.os, "fsync", lambda file: shutil.rmtree(tmp_path / "out"))
    with pytest.raises(StoreError, match="could not write") as caught:
        write(Store(), url, b"x")
    assert "cannot be created" not in str(caught.value)


@pytest.mark.parametrize("write", [Store.write, Store.write_if_absent])
def test_a_folder_that_cannot_be_made_is_named(write: Any) -> None:
    with pytest.raises(StoreError, match=r"its folder cannot be created: /proc is of a file system that takes no new"):
        write(Store(), "file:///proc/nowhere/x", b"x")
