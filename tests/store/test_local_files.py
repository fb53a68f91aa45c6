"""Temporary files of local writes: none is left, none of a living writer is removed."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from segment.store import local_files
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
