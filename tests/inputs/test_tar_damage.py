"""Damaged, truncated and concatenated tars, and tars with links: lost images are counted and not read."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from segment.inputs.changes import Known
from segment.inputs.discover import discover
from segment.inputs.tars.archive import read_headers
from segment.job import InputOptions
from segment.store.client import Entry
from tests.tars import STORE, find, lost, refusal, samples, tar, triples


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def flip(path: Path, *places: int) -> Path:
    """Flip a bit of some bytes of a file."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 1
    path.write_bytes(data)
    return path


def four(path: Path, **options: Any) -> Path:
    """Write a tar of four images, 2,560 bytes each."""
    return tar(path, *((f"{i}.jpg", bytes([i + 1]) * 2000) for i in range(4)), **options)


# --- truncated tars ---------------------------------------------------------------------------------------------------


def test_a_truncated_tar_keeps_whole_members_and_loses_the_rest(tmp_path: Path) -> None:
    path = four(tmp_path / "a.tar")
    tar(tmp_path / "b.tar", "9.jpg")
    cut(path, 2 * (512 + 2048) + 512 + 1000)
    found = find(tmp_path)
    assert [s.id for s in samples(found)] == ["0", "1", "9"]
    assert found.warnings == [f"{path} is truncated within 2.jpg: 2 images before that, at least 1 lost"]
    (left,) = found.left_out
    assert (left.reason, left.number, left.exact, left.examples) == ("damaged", 1, False, ("2.jpg",))
    assert left.place == f"file://{path}"


def test_a_tar_truncated_within_another_member(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", "1.jpg", ("1.json", bytes(3000)), "2.jpg")
    cut(path, 1024 + 512 + 100)
    found = find(path)
    assert found.warnings == [f"{path} is truncated within 1.json: 1 image before that, an unknown number is lost"]
    assert lost(found) == [(0, False)]
    assert "left out: an unknown number of images after the damage" in str(found.left_out[0])


@pytest.mark.parametrize("size", [2560 + 100, 2560 - 10])
def test_a_tar_truncated_at_a_header_or_in_padding(tmp_path: Path, size: int) -> None:
    path = four(tmp_path / "a.tar")
    cut(path, size)
    found = find(path)
    assert [s.image for s in samples(found)] == [b"\1" * 2000]
    assert found.warnings == [
        f"{path} is truncated at byte {min(size, 2560)}: 1 image before that, an unknown number is lost"
    ]
    assert lost(found) == [(0, False)]


def test_a_missing_end_mark_loses_nothing(tmp_path: Path) -> None:
    path = four(tmp_path / "a.tar")
    cut(path, 4 * 2560)
    found = find(path)
    assert (found.images, found.left_out) == (4, [])
    assert found.warnings == [f"{path} ends at byte 10240 without an end mark: 4 images before that, 0 lost"]


def test_a_tar_truncated_in_the_first_image_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("1.jpg", bytes(2000)))
    cut(path, 700)
    assert refusal(path) == f"no image in {path}: there are no files; {path} is truncated within 1.jpg"


# --- damaged headers --------------------------------------------------------------------------------------------------


# Damaged bytes of a header: checksum, owner, date, and the stem of the name.
@pytest.mark.parametrize("place", [150, 110, 140, 0])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_after_a_damaged_header_are_counted(tmp_path: Path, form: int, place: int) -> None:
    path = flip(four(tmp_path / "a.tar", format=form), 2560 + place)
    found = find(path)
    assert found.images == 1
    assert found.warnings == [f"{path} is damaged at byte 2560: 1 image before that, 3 lost"]
    assert lost(found) == [(3, True)]


def test_labels_and_metadata_after_damage_are_no_images(tmp_path: Path) -> None:
    names = [f"{i}.{suffix}" for i in range(5) for suffix in ("jpg", "seg.png", "json")]
    path = flip(tar(tmp_path / "a.tar", *names), 1024 * 4 + 150)  # 1.seg.png
    found = find(path)
    assert [(s.id, bool(s.label)) for s in samples(found)] == [("0", True), ("1", False)]
    assert lost(found) == [(3, True)]
    assert found.warnings[0] == f"{path} is damaged at byte 4096: 2 images before that, 3 lost"
    path = flip(tar(tmp_path / "a.tar", *names), 1024 * 13 + 150)  # 4.seg.png: no image follows
    found = find(path)
    assert (found.images, lost(found)) == (5, [])
    assert found.warnings[0] == f"{path} is damaged at byte 13312: 5 images before that, 0 lost"


@pytest.mark.parametrize("stretch", [bytes(512), bytes(4096), b"\xff" * 4096], ids=["512", "4096", "ff"])
def test_an_illegible_stretch_loses_an_unknown_number_of_images(tmp_path: Path, stretch: bytes) -> None:
    path = four(tmp_path / "a.tar")
    data = bytearray(path.read_bytes())
    data[2560 : 2560 + len(stretch)] = stretch
    path.write_bytes(data)
    found = find(path)
    assert found.images == 1
    assert lost(found) == [(2 if len(stretch) == 512 else 1, False)]
    assert "before that, at least " in found.warnings[0]


def test_damage_in_the_last_header(tmp_path: Path) -> None:
    assert lost(find(flip(four(tmp_path / "a.tar"), 3 * 2560 + 150))) == [(1, True)]


def test_a_damaged_suffix_does_not_hide_an_image(tmp_path: Path) -> None:
    path = four(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes().replace(b"2.jpg\0", b"2.jqg\0"))
    assert lost(find(path)) == [(1, False)]
    path = tar(tmp_path / "a.tar", "1.jpg", "1.json", "2.jpg", "2.json")
    assert lost(find(flip(path, 1024 + 150))) == [
        (1, True)
    ]  # the header of 1.json; 2.json shows that its kind is no image


def test_damage_twice(tmp_path: Path) -> None:
    path = flip(tar(tmp_path / "a.tar", *(f"{i}.jpg" for i in range(9))), 2048 + 150, 5120 + 150)
    found = find(path)
    assert (found.images, lost(found)) == (2, [(7, True)])


def test_a_damaged_size_hides_how_many(tmp_path: Path) -> None:
    path = flip(tar(tmp_path / "a.tar", *(f"{i}.jpg" for i in range(5))), 1024 + 130)
    assert lost(find(path)) == [(3, False)]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_damaged_long_name_hides_what_it_was(tmp_path: Path, form: int) -> None:
    names = [f"{'d' * 120}/{i}.jpg" for i in range(4)]
    path = flip(tar(tmp_path / "a.tar", *names, format=form), 2048 + 150)
    found = find(path)
    assert found.images == 1
    ((number, exact),) = lost(found)
    assert number >= 2
    assert not exact


def test_many_damaged_tars_are_few_lines(tmp_path: Path) -> None:
    for i in range(8):
        flip(tar(tmp_path / f"{i}.tar", "1.jpg", "2.jpg"), 1024 + 150)
    found = find(tmp_path)
    assert len(found.warnings) == 6
    assert found.warnings[-1] == "3 more tars are damaged"
    assert lost(found) == [(1, True)] * 8


# --- after the end mark -----------------------------------------------------------------------------------------------


def test_concatenated_tars_are_counted_after_the_end_mark(tmp_path: Path) -> None:
    """They may be stale: `tarfile`, tar and WebDataset do not read them either."""
    first = tar(tmp_path / "a.tar", "1.jpg", "1.seg.png", "2.jpg").read_bytes()
    second = tar(tmp_path / "b.tar", "1.jpg", "1.seg.png", "2.jpg", "3.jpg").read_bytes()
    path = tmp_path / "joined.tar"
    path.write_bytes(first + second + first)
    found = find(path)
    assert [s.id for s in samples(found)] == ["1", "2"]
    assert lost(found) == [(5, True)]
    assert found.warnings[0] == (
        f"{path} continues after its end mark, at byte 10240, as concatenated tars do: 2 images before that, 5 lost"
    )


def test_a_lone_block_of_zeros_ends_a_tar(tmp_path: Path) -> None:
    data = tar(tmp_path / "a.tar", "1.jpg", "2.jpg", "3.jpg").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:1024] + bytes(512) + data[1024:])
    found = find(tmp_path / "a.tar")
    assert (found.images, lost(found)) == (1, [(2, True)])


def test_bytes_after_the_end_mark_that_are_no_member(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", "1.jpg")
    path.write_bytes(path.read_bytes() + b"signature" * 100)
    found = find(path)
    assert (found.images, lost(found)) == (1, [(0, False)])
    assert "has bytes after its end mark, at byte" in found.warnings[0]


@pytest.mark.parametrize("zeros", [512, 1024, 3 << 20, 100])
def test_an_end_mark_of_any_length_is_no_damage(tmp_path: Path, zeros: int) -> None:
    path = tar(tmp_path / "a.tar", "1.jpg")
    path.write_bytes(path.read_bytes()[:1024] + bytes(zeros))
    found = find(path)
    assert (found.images, found.lines) == (1, [])


def test_a_tar_in_a_tar_is_not_searched(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar", "1.jpg", "2.jpg").read_bytes()
    found = find(tar(tmp_path / "a.tar", "0.jpg", ("more.tar", inner), "3.jpg"))
    assert [s.id for s in samples(found)] == ["0", "3"]
    (left,) = found.left_out
    assert (left.reason, left.kinds, left.matters) == ("sample_without_image", {"tar": 1}, True)


def test_a_tar_of_unknown_size_is_not_damaged(tmp_path: Path) -> None:
    """An HTTP server may report no size."""
    data = tar(tmp_path / "a.tar", "1.jpg", "2.jpg").read_bytes()
    STORE.write("memory://unknown/a.tar", data)
    archive = read_headers(Entry("memory://unknown/a.tar", -1, ""), STORE)
    assert [name for name, *_ in archive.files] == ["1.jpg", "2.jpg"]
    assert (archive.damage, archive.is_open) == ("", False)


def test_an_update_with_a_tar_that_holds_nothing(tmp_path: Path) -> None:
    """A warning is shown and nothing is refused: the committed parts stay valid."""
    tar(tmp_path / "a.tar", "1.jpg", "1.seg.png")
    known = Known(find(tmp_path, label_key="seg.png").parts)
    (tmp_path / "b.tar").write_bytes(b"")
    found = discover(str(tmp_path), InputOptions(label_key="seg.png"), STORE, known)
    assert (found.images, lost(found)) == (0, [(0, False)])


# --- links and other members that are no files ------------------------------------------------------------------------


def linked(path: Path, *members: tuple[str, bytes, str] | str) -> Path:
    """Write a tar of files, given by name, and of links, given by name, type and target."""
    with tarfile.open(path, "w") as archive:
        for one in members:
            member = tarfile.TarInfo(one if isinstance(one, str) else one[0])
            if isinstance(one, str):
                member.size = len(one)
                archive.addfile(member, io.BytesIO(one.encode()))
            else:
                member.type, member.linkname = one[1:]
                archive.addfile(member)
    return path


HARD, SOFT = tarfile.LNKTYPE, tarfile.SYMTYPE


def test_links_within_the_tar_are_the_files_they_lead_to(tmp_path: Path) -> None:
    path = linked(
        tmp_path / "a.tar",
        "a/1.jpg", "l/1.seg.png", ("a/2.jpg", HARD, "a/1.jpg"), ("b/3.jpg", SOFT, "../a/1.jpg"),
        ("a/1.seg.png", SOFT, "../l/1.seg.png"), ("b/4.jpg", SOFT, "3.jpg"), ("b/5.jpg", HARD, "./a/1.jpg"),
    )  # fmt: skip
    found = find(path)
    assert sorted(triples(found)) == [
        ("a/1", "a/1.jpg", "l/1.seg.png"), ("a/2", "a/1.jpg", None), ("b/3", "a/1.jpg", None),
        ("b/4", "a/1.jpg", None), ("b/5", "a/1.jpg", None),
    ]  # fmt: skip
    assert [(left.reason, left.examples) for left in found.left_out] == [("sample_without_image", ("l/1.seg.png",))]


def test_links_that_lead_to_no_file_of_the_tar_are_counted(tmp_path: Path) -> None:
    path = linked(
        tmp_path / "a.tar",
        "1.jpg", "twice.jpg", "twice.jpg", ("2.jpg", SOFT, "/1.jpg"), ("3.jpg", SOFT, "../1.jpg"),
        ("4.jpg", SOFT, "5.jpg"), ("5.jpg", SOFT, "4.jpg"), ("6.jpg", HARD, "twice.jpg"), ("../7.jpg", HARD, "1.jpg"),
        ("8.jpg", HARD, "none.jpg"),
    )  # fmt: skip
    found = find(path)
    assert [s.id for s in samples(found)] == ["1", "twice", "twice"]
    (left,) = found.left_out
    assert (left.reason, left.number, left.kinds) == ("special_member", 7, {".jpg": 7})


def test_hidden_members_and_those_of_systems(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", "1.jpg", ".2.jpg", "_tmp/3.jpg", "@eaDir/4.jpg", "a/.5.jpg")
    found = find(path)
    assert [s.id for s in samples(found)] == ["1"]
    assert [(left.reason, left.number) for left in found.left_out] == [("hidden_member", 3), ("system", 1)]
    found = find(path, include_hidden=True)
    assert [s.id for s in samples(found)] == ["1", ".2", "_tmp/3", "a/.5"]
    assert [(left.reason, left.number) for left in found.left_out] == [("system", 1)]


def test_a_volume_name_is_no_data(tmp_path: Path) -> None:
    path = linked(tmp_path / "a.tar", ("backup.jpg", b"V", ""), "1.jpg")
    found = find(path)
    assert (found.images, found.lines) == (1, [])
