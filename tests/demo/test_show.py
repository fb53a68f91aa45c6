"""What `segment demo` deletes and what it refuses."""

from pathlib import Path

import pytest

from segment.demo.show import run_demo
from segment.errors import UsageError
from tests.calls import Call

OURS = ("masks-webdataset", "masks-parquet", "scenes-parquet", "scenes-webdataset")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The folder of an earlier demo, with files of the user's beside it."""
    folder = tmp_path / "demo"
    names = [f"{name}/old" for name in OURS]
    for name in (*names, "overlays.png", "masks-mine/run.json", "scenes-mine/a.tar", "masks-notes.txt", "x/masks-x/y"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_second_demo_replaces_its_own_files_only(demo: Path, segment: Call) -> None:
    before = tree(demo)
    called = segment("demo", str(demo), "--engine", "local", "--scenes", "4")
    assert called.code == 0, called.err
    after = tree(demo)
    users = {name: text for name, text in before.items() if not name.startswith(OURS) and name != "overlays.png"}
    assert len(users) == 4
    assert users.items() <= after.items()
    assert not [name for name in after if name.endswith("/old")]
    assert after["overlays.png"].startswith(b"\x89PNG")
    assert {name.split("/")[0] for name in after} == {*OURS, "overlays.png", *(name.split("/")[0] for name in users)}


@pytest.mark.parametrize("engine", ["rya", "auto", ""])
def test_a_wrong_engine_deletes_nothing(demo: Path, segment: Call, engine: str) -> None:
    before = tree(demo)
    called = segment("demo", str(demo), "--engine", engine)
    assert called.code == 2
    assert "'local', 'ray'" in called.err
    if engine != "auto":
        with pytest.raises(UsageError, match="segment demo:\n  engine: expected"):
            run_demo(demo, engine=engine, scenes=4)
    assert tree(demo) == before


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
@pytest.mark.parametrize("name", [*OURS, "overlays.png"])
def test_what_is_in_the_way_is_named_before_anything_is_deleted(
    demo: Path, segment: Call, name: str, kind: str
) -> None:
    taken = demo / name
    taken.rename(demo / "elsewhere")
    if name == "overlays.png":
        taken.mkdir()
    elif kind == "file":
        taken.write_text("mine")
    else:
        taken.symlink_to(demo / ("masks-mine" if kind == "link" else "nowhere"))
    before = tree(demo)
    called = segment("demo", str(demo), "--engine", "local", "--scenes", "4")
    assert called.code == 2
    assert called.err.startswith(f"error: {taken} is in the way of the demo's own: move it")
    assert tree(demo) == before


def test_a_folder_that_is_none_or_of_others_is_refused(tmp_path: Path, segment: Call) -> None:
    (tmp_path / "file").write_text("mine")
    for folder, words in (
        ("s3://bucket/demo", "is a URL: give the demo a folder of this machine"),
        (tmp_path / "file", "is not a folder: choose another one for the demo"),
        (tmp_path / "file" / "below", "Not a directory. Choose another FOLDER for the demo"),
        (tmp_path, "is not empty and not the folder of a demo: choose another folder"),
    ):
        called = segment("demo", str(folder), "--engine", "local", "--scenes", "4")
        assert (called.code, called.out) == (2, "")
        assert called.err.startswith(f"error: {Path(folder)}")
        assert words in called.err
    assert tree(tmp_path) == {"file": b"mine"}
