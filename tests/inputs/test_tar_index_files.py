"""Index files beside tars, as DALI's `wds2idx` writes them."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from segment.errors import InputChanged
from segment.inputs.tars import index_files
from segment.store.client import Store
from tests.tars import find, tar, triples

FILES = ("a.jpg", "a.seg.png", "d/b.jpg", "./c.jpg", "d/b.seg.png")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_files, "_LEAST_BYTES", 0)


def write_index(path: Path) -> Path:
    """As `wds2idx` does: a line for each run of members of one sample, with suffix, offset, size and name of each."""
    samples: list[tuple[str, list[str]]] = []
    with tarfile.open(path) as archive:
        for member in filter(tarfile.TarInfo.isreg, archive):
            stem, _, suffix = member.name.rpartition("/")[2].partition(".")
            key = member.name[: len(member.name) - len(suffix)]
            words = f"{suffix} {member.offset_data} {member.size} {member.name}"
            if samples and samples[-1][0] == key:
                samples[-1][1].append(words)
            else:
                samples.append((key, [words]))
            assert stem
    lines = [f"v1.2 {len(samples)}", *(" ".join(words) for _, words in samples)]
    index = path.with_suffix(".idx")
    index.write_text("\n".join(lines) + "\n")
    return index


def test_an_index_file_takes_the_place_of_the_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "a.tar", *FILES)
    plain = find(tmp_path)
    assert write_index(path).read_text().splitlines()[:2] == ["v1.2 4", "jpg 512 5 a.jpg seg.png 1536 9 a.seg.png"]
    monkeypatch.setattr("segment.inputs.tars.archive._walk", None)  # the tar is not walked through
    found = find(tmp_path)
    assert {part.format for part in found.parts} == {"webdataset-index"}
    parts = [replace(part, format="webdataset") for part in found.parts]
    assert (parts, found.left_out, found.warnings) == ([*plain.parts], plain.left_out, plain.warnings)
    assert "1 of 1 tar indexed by the .idx file beside it" in "".join(found.notes)
    assert triples(found) == [
        ("a", "a.jpg", "a.seg.png"), ("d/b", "d/b.jpg", "d/b.seg.png"), ("c", "./c.jpg", None),
    ]  # fmt: skip


def other_version(index: Path) -> None:
    index.write_text(index.read_text().replace("v1.2", "v1.1"))


def truncated(index: Path) -> None:
    index.write_text(index.read_text().rpartition("d/b")[0])


def moved(index: Path) -> None:
    index.write_text(index.read_text().replace(" 512 5 ", " 520 5 "))


def resized(index: Path) -> None:
    index.write_text(index.read_text().replace(" 512 5 ", " 512 4 "))


def renamed(index: Path) -> None:
    index.write_text(index.read_text().replace("a.jpg", "z.jpg"))


def too_long(index: Path) -> None:
    index.write_text(index.read_text().replace(" 11 d/b.seg.png", " 99999999 d/b.seg.png"))


def negative(index: Path) -> None:
    index.write_text(index.read_text().replace(" 512 5 ", " -512 5 "))


def binary(index: Path) -> None:
    index.write_bytes(b"\xff\x00" * 9)


def empty(index: Path) -> None:
    index.write_bytes(b"")


def of_another_tar(index: Path) -> None:
    other = tar(index.parent / "other.tar", "q.jpg", *FILES)
    index.write_bytes(write_index(other).read_bytes())
    other.unlink()
    other.with_suffix(".idx").unlink()


def appended_to(index: Path) -> None:
    with tarfile.open(index.with_suffix(".tar"), "a") as archive:
        archive.addfile(tarfile.TarInfo("later.jpg"))


def concatenated(index: Path) -> None:
    other = tar(index.parent / "other.tar", "q.jpg")
    with index.with_suffix(".tar").open("ab") as file:
        file.write(other.read_bytes())
    other.unlink()


def lacking_one(index: Path) -> None:
    _, *lines = index.read_text().splitlines()
    kept = [line for line in lines if "c.jpg" not in line]
    index.write_text("\n".join([f"v1.2 {len(lines) - 1}", *kept]))


def a_link_was_left_out(index: Path) -> None:
    path = index.with_suffix(".tar")
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("e.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("f.jpg"))
    write_index(path)


def a_folder(index: Path) -> None:
    index.unlink()
    index.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        other_version,
        truncated,
        moved,
        resized,
        renamed,
        too_long,
        negative,
        binary,
        empty,
        of_another_tar,
        a_folder,
        appended_to,
        concatenated,
        lacking_one,
        a_link_was_left_out,
    ],
)
def test_an_index_that_the_tar_contradicts_is_not_used(
    tmp_path: Path, spoil: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar(tmp_path / "a.tar", *FILES)
    spoil(write_index(path))
    found = find(tmp_path)
    monkeypatch.setattr("segment.inputs.tars.archive.read_index", lambda *_: None)
    assert found.parts == find(tmp_path).parts
    assert not any("idx" in line for line in found.lines)


LONG = "d/" + "b" * 120


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_an_index_gives_no_other_image_or_label(tmp_path: Path, step: int) -> None:
    """Most are between the headers that planning compares with the tar; reading compares the others."""
    names = [f"{name}.{suffix}" for name in "abcdefghijklm" for suffix in ("jpg", "seg.png")]
    path = tar(tmp_path / "a.tar", *names)
    truth = {name: (image, label) for name, image, label in triples(find(tmp_path))}
    index = write_index(path)
    data, told = index.read_bytes(), []
    assert {name: (image, label) for name, image, label in triples(find(tmp_path))} == truth
    for at in range(0, len(data), step):
        index.write_bytes(flipped(data, at))
        found = find(tmp_path)
        if at % (2 * step):  # what was planned by it stays wrong, whether or not it is there
            index.unlink()
        try:
            read = triples(found)
        except InputChanged as error:
            told.append(str(error))
            continue
        whole = len(read) == len(truth) and all(label for *_, label in read)
        assert whole or found.left_out, at  # members of other names belong to no sample, and are counted
        for name, image, label in read:  # a second one of a name is an error row without an image
            assert not image or (image, label or truth[name][1]) == truth[name], at
    assert len(told) > len(data) // (50 * step)
    assert all(
        line.startswith(f"{index}, by which this run was planned, is not the index of the tar beside it, which has no ")
        for line in told
    )


def test_links_and_other_letters_are_no_wrong_index(tmp_path: Path) -> None:
    """Their headers differ from what is planned, as the tar itself is read; beside it is the index of another one."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.jpg", "\u00e4\u00f6.jpg", f"{LONG}.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(link)
    write_index(path)
    found = find(tmp_path)
    assert not any("idx" in line for line in found.lines)
    assert sorted(name for name, *_ in triples(found)) == sorted(["a", "\u00e4\u00f6", LONG, "b"])


OTHERS = {"other letters": "\u00e4", "cut off": LONG, "abbreviated": f"{'folder/' * 20}c"}


@pytest.mark.parametrize("place", ["planning compares it", "it does not"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_name_that_its_header_tells_otherwise_is_read_by_an_index(tmp_path: Path, kind: str, place: str) -> None:
    """The attributes before the header tell it: the header holds question marks, or libarchive's short form of it."""
    path, name = tmp_path / "a.tar", f"{OTHERS[kind]}.jpg"
    others = [f"{number:02}.jpg" for number in range(40)]
    names = [name, *others] if place == "planning compares it" else [*others, name, "x.jpg", "y.jpg", "z.jpg"]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for each in names:
            member = tarfile.TarInfo(each)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"jpg"))
    if kind == "abbreviated":
        abbreviate(path, name)
    write_index(path)
    found = find(tmp_path)
    assert any("idx" in line for line in found.lines)
    assert OTHERS[kind] in [name for name, *_ in triples(found)]


@pytest.mark.parametrize("kind", OTHERS)
def test_names_that_headers_tell_otherwise_cost_no_request_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    names = [f"{number:02}{OTHERS[kind]}" for number in range(40)]
    expected = [(name, f"{name}.jpg", f"{name}.seg.png") for name in names]
    write_index(tar(tmp_path / "a.tar", *(name for _, *files in expected for name in files)))
    found, requests, read = find(tmp_path), 0, Store.read
    assert any("idx" in line for line in found.lines)

    def counted(*args: object, **kwargs: object) -> bytes:
        nonlocal requests
        requests += 1
        return read(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "read", counted)
    assert triples(found) == expected
    assert requests == len(found.parts)


def abbreviate(path: Path, name: str) -> None:
    """Write the header of a member as libarchive does: the name without some of its folders."""
    with tarfile.open(path) as archive:
        place = archive.getmember(name).offset_data - 512
    data = bytearray(path.read_bytes())
    short = b"folder/" * 10 + b"c.jpg"
    data[place : place + 100] = short.ljust(100, b"\0")
    data[place + 148 : place + 156] = b" " * 8
    data[place + 148 : place + 156] = b"%06o\0 " % sum(data[place : place + 512])
    path.write_bytes(data)


@pytest.mark.parametrize("exchanged", [("seg.png", "jpg"), ("json", "jpg"), ("seg.png", "json")])
def test_members_of_equal_size_that_an_index_exchanges_are_told(tmp_path: Path, exchanged: tuple[str, str]) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in (f"{key}.{suffix}" for key in "abcdefghijklmnop" for suffix in ("jpg", "json", "seg.png")):
            member = tarfile.TarInfo(name)
            member.size = 14
            archive.addfile(member, io.BytesIO(b'{"weather": 1}'))
    options = {"keep": ("weather",)}
    index = write_index(path)
    assert len(triples(find(tmp_path, **options), **options)) == 16
    one, other = exchanged
    lines = index.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("jpg") and "h.jpg" in line)
    words = lines[place].split(" ")
    first, second = words.index(one) + 1, words.index(other) + 1
    words[first], words[second] = words[second], words[first]
    lines[place] = " ".join(words)
    index.write_text("\n".join(lines) + "\n")
    found = find(tmp_path, **options)
    assert any("idx" in line for line in found.lines)
    with pytest.raises(InputChanged, match="by which this run was planned, is not the index of the tar beside it"):
        triples(found, **options)


@pytest.mark.parametrize("kind", ["pax", "gnu"])
def test_attributes_long_names_and_folders_are_no_contradiction(tmp_path: Path, kind: str) -> None:
    """WebDataset's writer stores a time with a fraction, so that each member has attributes before its header."""
    formats = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=formats[kind]) as archive:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("d/a.jpg", f"d/{'b' * 120}.jpg", "d/c.jpg"):
            member = tarfile.TarInfo(name)
            member.mtime, member.size = 1.5, 3
            archive.addfile(member, io.BytesIO(b"jpg"))
    write_index(path)
    found = find(tmp_path)
    assert found.images == 3
    assert any("idx" in line for line in found.lines)


def test_a_small_tar_is_read_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "a.tar", *FILES)
    write_index(path)
    monkeypatch.setattr(index_files, "_LEAST_BYTES", path.stat().st_size + 1)
    assert not any("idx" in line for line in find(tmp_path).lines)
