"""WebDataset tars: planned from headers, read by byte range."""

import io
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment.errors import InputChanged, UsageError
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.bounds import MOST_BYTES
from segment.store.client import Store
from tests.tars import STORE, find, refusal, samples, tar, triples


class CountingStore(Store):
    """A store that records `(start, stop)` of every read and the URL of every look-up."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int | None, int | None]] = []
        self.infos: list[str] = []

    def read(
        self, url: str, start: int | None = None, stop: int | None = None, etag: str = "", most: int = MOST_BYTES
    ) -> bytes:
        self.reads.append((start, stop))
        return super().read(url, start, stop, etag, most)

    def info(self, url: str) -> Any:
        self.infos.append(url)
        return super().info(url)


def test_samples_by_key(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", "x/1.jpg", "x/1.json", "x/1.seg.png", "x/2.PNG", "y/1.v2.jpeg", "y/1.mask.png")
    found = find(tmp_path / "a.tar")
    assert triples(found) == [
        ("x/1", "x/1.jpg", "x/1.seg.png"),
        ("x/2", "x/2.PNG", None),
        ("y/1", "y/1.v2.jpeg", "y/1.mask.png"),
    ]
    assert (found.images, found.labelled) == (3, 2)
    assert found.warnings == ["1 of 3 images without a label: segmented, not scored; e.g. x/2"]
    assert samples(found)[0].url == f"file://{tmp_path}/a.tar#x/1"
    assert found.parts[0].shard.startswith("a.tar-")


def test_a_plain_suffix_is_the_image_before_a_double_one(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", "1.depth.png", "1.jpg", "1.label.png")
    assert triples(find(tmp_path / "a.tar")) == [("1", "1.jpg", "1.label.png")]


@pytest.mark.parametrize("key", ["png", ".PNG"])
def test_label_key(tmp_path: Path, key: str) -> None:
    tar(tmp_path / "a.tar", "1.png", "1.jpg", "1.seg.png")
    assert triples(find(tmp_path / "a.tar", label_key=key)) == [("1", "1.jpg", "1.png")]


def test_a_label_key_that_nothing_has(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", "1.jpg", "1.seg.png", "2.jpg", "2.seg.png")
    assert refusal(path, label_key="cls.png") == (
        f"no member of {path} ends in .cls.png (--label-key): there are .jpg x 2, .seg.png x 2"
    )


def test_globs_braces_and_folders_of_tars(tmp_path: Path) -> None:
    for i in range(3):
        tar(tmp_path / f"s-{i:06d}.tar", f"{i}.jpg")
    (tmp_path / "readme.txt").touch()
    every = [("0", "0.jpg", None), ("1", "1.jpg", None), ("2", "2.jpg", None)]
    for where in (tmp_path, tmp_path / "*.tar", tmp_path / "s-{000000..000002}.tar", f"file://{tmp_path}/s-*.tar"):
        assert triples(find(where)) == every
    assert triples(find(tmp_path / "s-{000000..000001}.tar")) == every[:2]
    found = find(tmp_path / "s-{000000,000000}.tar")
    assert (found.images, found.warnings) == (1, ["1 file is named twice and read once"])
    assert len({part.shard for part in find(tmp_path).parts}) == 3


def test_a_repeated_key_is_a_duplicate(tmp_path: Path) -> None:
    found = find(
        tar(tmp_path / "a.tar", "1.jpg", "2.jpg", ("1.jpg", b"other"), "3.jpg", ("3.jpg", b"other")), part_size=2
    )
    assert [(s.id, s.fault, s.image) for s in samples(found)] == [
        ("1", None, b"1.jpg"), ("2", None, b"2.jpg"), ("1", "duplicate_id", b""),
        ("3", None, b"3.jpg"), ("3", "duplicate_id", b""),
    ]  # fmt: skip
    assert found.warnings == ["2 images have the id of an earlier one and will be error rows, e.g. 1"]


def test_the_same_key_in_two_tars_is_fine(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", "1.jpg")
    tar(tmp_path / "b.tar", "1.jpg")
    found = find(tmp_path)
    assert [s.fault for s in samples(found)] == [None, None]
    assert len({part.id for part in found.parts}) == 2


def test_samples_without_image_are_counted(tmp_path: Path) -> None:
    found = find(tar(tmp_path / "a.tar", "1.jpg", "2.json", "3.seg.png", "4.jpg", "5.txt"))
    assert (found.images, found.notes, found.warnings) == (2, [], [])
    (left,) = found.left_out
    assert (left.reason, left.number, left.kinds) == ("sample_without_image", 3, {"json": 1, "seg.png": 1, "txt": 1})
    assert (left.examples, left.place) == (("2.json", "3.seg.png", "5.txt"), f"file://{tmp_path}/a.tar")
    assert left.matters


def test_tars_without_images_are_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", "1.json", "2.json", "readme")
    assert refusal(path) == (
        f"no image in {path}: there are .json x 2; left out: 1 tar member without a suffix: no suffix x 1; e.g. readme"
    )
    tar(tmp_path / "b.tar", "1.json")
    assert refusal(tmp_path).startswith("no image in the 2 tars: there are .json x 3; left out: ")
    assert refusal(tar(tmp_path / "empty.tar")) == f"no image in {tmp_path}/empty.tar: there are no files"


def test_unsafe_members_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("l.jpg", tarfile.SYMTYPE),
            ("h.jpg", tarfile.LNKTYPE),
            ("n.jpg", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for name in ("/abs/1.jpg", "../2.jpg", "x/../../3.jpg", "./4.jpg", "._4.jpg", "__MACOSX/4.jpg", "noext"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    found = find(path)
    assert triples(found) == [("4", "x", None)]
    assert found.warnings == []
    assert sorted((left.reason, left.number, left.kinds, left.matters) for left in found.left_out) == [
        ("keyless_member", 1, {"no suffix": 1}, False),
        ("special_member", 6, {".jpg": 6}, True),
        ("system", 2, {".jpg": 2}, False),
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_names(tmp_path: Path, form: int) -> None:
    names = ["d" * 90 + "/" + "e" * 90 + "/1.jpg", "ü漢 %20#?.jpg", "new\nline.jpg"]
    found = find(tar(tmp_path / "a.tar", *names, format=form))
    assert [s.image.decode() for s in samples(found)] == names
    assert [s.id for s in samples(found)] == [name.removesuffix(".jpg") for name in names]


def test_names_that_are_no_unicode_become_storable_ids(tmp_path: Path) -> None:
    found = find(tar(tmp_path / "a.tar", (os.fsdecode(b"a\xff.jpg"), b"x"), format=tarfile.GNU_FORMAT))
    assert [s.id for s in samples(found)] == ["a\\xff"]


def test_empty_and_large_members(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("1.jpg", b""), ("2.jpg", bytes(101)), "3.jpg", ("3.seg.png", b""))
    found = find(path)
    assert [(s.id, s.fault, s.label) for s in samples(found, max_image_bytes=100)] == [
        ("1", "empty", None),
        ("2", "too_many_bytes", None),
        ("3", None, b""),
    ]


def test_a_part_is_one_range_of_the_tar(tmp_path: Path) -> None:
    files = [(f"{i:03d}.{suffix}", os.urandom(3000)) for i in range(64) for suffix in ("jpg", "json", "seg.png")]
    found = find(tar(tmp_path / "a.tar", *files), part_size=16)
    store = CountingStore()
    read = read_part(found.parts[2], InputOptions(), store)
    assert [(s.image, s.label) for s in read] == [(files[i * 3][1], files[i * 3 + 2][1]) for i in range(32, 48)]
    assert [(stop or 0) - (start or 0) < 16 * 3 * 4096 for start, stop in store.reads] == [True]


def test_large_members_between_images_are_skipped(tmp_path: Path) -> None:
    files = [(f"{i}.{suffix}", os.urandom(size)) for i in range(4) for suffix, size in (("jpg", 100), ("npy", 3 << 20))]
    found = find(tar(tmp_path / "a.tar", *files))
    store = CountingStore()
    assert [s.image for s in samples(found, store)] == [data for name, data in files if name.endswith("jpg")]
    assert len(store.reads) == 4
    assert sum((stop or 0) - (start or 0) for start, stop in store.reads) == 4 * 100


def test_planning_skips_the_data() -> None:
    store = CountingStore()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for i in range(5):
            member = tarfile.TarInfo(f"{i}.jpg")
            member.size = 4 << 20
            archive.addfile(member, io.BytesIO(bytes(4 << 20)))
    store.write("memory://planning/a.tar", data.getvalue())
    found = find("memory://planning/a.tar", store)
    assert found.images == 5
    assert sum((stop or 0) - (start or 0) for start, stop in store.reads) < 8 << 20
    assert store.infos.count("memory://planning/a.tar") == 1
    store.reads.clear()
    assert [len(s.image) for s in samples(found, store)] == [4 << 20] * 5
    assert len(store.reads) == len(found.parts)


def test_a_remote_tar_is_looked_up_once_a_part(tmp_path: Path) -> None:
    store = CountingStore()
    store.write("memory://once/a.tar", tar(tmp_path / "a.tar", *(f"{i}.jpg" for i in range(20))).read_bytes())
    found = find("memory://once/a.tar", store)
    store.infos.clear()
    assert len(samples(found, store)) == 20
    assert len(store.infos) == len(found.parts) == 5


def test_a_changed_tar_ends_the_run(tmp_path: Path) -> None:
    found = find(tar(tmp_path / "a.tar", "1.jpg", "2.jpg"))
    os.utime(tmp_path / "a.tar", (1, 1))
    with pytest.raises(InputChanged, match=r"a\.tar has changed since the run was planned"):
        samples(found)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(InputChanged, match=r"a\.tar has vanished since the run was planned"):
        samples(found)


# --- hostile tars ----------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"not a tar, that much is certain" * 100)
    assert f"no image in {tmp_path}/a.tar: there are no files; {tmp_path}/a.tar is damaged at byte" in refusal(
        tmp_path / "a.tar"
    )
    (tmp_path / "b.tar").touch()
    assert f"{tmp_path}/b.tar is damaged at byte 0" in refusal(tmp_path / "b.tar")


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [
        ("a.tar.gz", "w:gz", "gzip"),
        ("a.tgz", "w:gz", "gzip"),
        ("a.tar", "w:xz", "xz"),
        ("a.tar.bz2", "w:bz2", "bzip2"),
    ],
)
def test_compressed_tars_are_refused(tmp_path: Path, name: str, mode: Any, kind: str) -> None:
    with tarfile.open(tmp_path / name, mode) as archive:
        archive.addfile(tarfile.TarInfo("1.jpg"))
    for where in (tmp_path / name, tmp_path):
        text = refusal(where)
        assert text.startswith(f"{tmp_path}/{name} is compressed ({kind}), so byte ranges cannot be read.")


def hostile(size: bytes, kind: bytes = b"0", name: bytes = b"1.jpg") -> bytes:
    """Return a tar header with a raw size field and a valid checksum."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108], header[124:136], header[156:157] = b"0000644\0", size, kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("kind", [b"0", b"L", b"K", b"x", b"g", b"S", b"D"])
@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 11 + b"\x00",  # -256
        (-512).to_bytes(12, "big", signed=True),
        (-1024).to_bytes(12, "big", signed=True),
        b"\x80" + b"\x7f" * 11,
        b"77777777777\0",
        b"99999999999\0",
    ],
)
def test_hostile_sizes_neither_hang_nor_crash(tmp_path: Path, size: bytes, kind: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(tar(tmp_path / "good.tar", "0.jpg").read_bytes()[:1024] + hostile(size, kind) * 3)
    found = find(tmp_path / "a.tar")
    assert [s.id for s in samples(found)] == ["0"]
    faults = (" is damaged at byte ", " is truncated ", " without an end mark")
    assert any(fault in found.warnings[0] for fault in faults)


def test_a_chain_of_long_names_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    good = tar(tmp_path / "good.tar", "0.jpg").read_bytes()[:1024]
    (tmp_path / "a.tar").write_bytes(good + hostile(b"00000000000\0", b"L") * 5000)
    assert find(tmp_path / "a.tar").images == 1


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), flips=st.integers(0, 12), keep=st.floats(0, 1), noise=st.binary(max_size=600))
def test_any_bytes_are_samples_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, flips: int, keep: float, noise: bytes
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = tar(
        folder / "a.tar",
        "1.jpg",
        "1.seg.png",
        "n" * 150 + ".jpg",
        "é.jpg",
        format=tarfile.PAX_FORMAT if seed % 2 else tarfile.GNU_FORMAT,
    )
    data = bytearray(path.read_bytes()[: 512 * 16])
    chance = random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(bytes(data[: int(len(data) * keep)]) + noise)
    try:
        found = find(path)
    except UsageError:
        return
    for part in found.parts:
        assert len(read_part(part, InputOptions(), STORE)) == len(part)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=2000))
def test_noise_is_no_tar(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.tar"
    path.write_bytes(data)
    with pytest.raises(UsageError):
        find(path)
