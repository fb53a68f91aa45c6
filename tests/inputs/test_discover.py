"""Discovery: loose files, detection of formats, globs and braces, cutting, and errors of bad input."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from segment.errors import InputChanged, StoreError, UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.parts import Sample
from segment.inputs.patterns import _expand_braces
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store import sorted_rows
from segment.store.client import Store

STORE = Store()
ODD_NAMES = [
    "a b.png", "p%20q.png", "ü漢.png", "new\nline.png", "h#x.png", "q?y.png", "sub/deep dir/z.PNG", "plus+.png",
    "star*.png", "br{1..2}.png", "tab\t.png", " lead.png", "a&b=c.png", "quo'te\".png",
    "back\\slash.png", "[x].png", "~tilde.png",
]  # fmt: skip


def write(folder: Path, *names: str, data: bytes | None = None) -> Path:
    """Write files that hold their own names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if data is None else data)
    return folder


def find(where: object, **options: object) -> Discovery:
    return discover(str(where), InputOptions(**options), STORE)


def ids(found: Discovery) -> list[str]:
    return [member.id for part in found.parts for member in part.members]


def samples(found: Discovery, **options: object) -> list[Sample]:
    return [sample for part in found.parts for sample in read_part(part, InputOptions(**options), STORE)]


def refusal(where: object, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        find(where, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- loose files -----------------------------------------------------------------------------------------------------


def test_loose_images_of_any_case_and_depth_in_sorted_order(tmp_path: Path) -> None:
    write(tmp_path, "b.JPG", "a.png", "x/c.jpeg", "x/y/d.WebP", "e.bmp", "f.tif", "g.TIFF", "notes.txt", "h.gif")
    found = find(tmp_path)
    assert ids(found) == ["a.png", "b.JPG", "e.bmp", "f.tif", "g.TIFF", "x/c.jpeg", "x/y/d.WebP"]
    assert (found.images, found.labelled, found.warnings) == (7, 0, [])
    assert [(s.id, s.image.decode(), s.label, s.index, s.fault) for s in samples(found)] == [
        (name, name, None, index, None) for index, name in enumerate(ids(found))
    ]
    assert samples(found)[0].url == f"file://{tmp_path}/a.png"


def test_an_input_may_itself_lie_in_a_hidden_folder(tmp_path: Path) -> None:
    assert ids(find(write(tmp_path / ".cache", "a.png"))) == ["a.png"]


def test_odd_names_survive(tmp_path: Path) -> None:
    found = find(write(tmp_path, *ODD_NAMES))
    assert sorted(ids(found)) == sorted(ODD_NAMES)
    assert all(sample.image.decode() == sample.id for sample in samples(found))


def test_a_folder_with_pattern_characters_in_its_name_is_read_as_spelled(tmp_path: Path) -> None:
    folder = write(tmp_path / "set[1] {a,b} *", "a.png")
    write(tmp_path / "set1 a x", "b.png")
    assert ids(find(folder)) == ["a.png"]


def test_names_that_are_not_unicode_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    assert "1 file name is not UTF-8" in refusal(tmp_path)
    assert "\\xff.png: rename" in refusal(tmp_path)


def test_one_image_is_an_input(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    found = find(tmp_path / "b.png")
    assert [(s.id, s.image) for s in samples(found)] == [("b.png", b"b.png")]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "real", "a.png")
    folder = write(tmp_path / "in", "b.png")
    (folder / "linked").symlink_to(tmp_path / "real")
    (folder / "circle").symlink_to(folder)
    (folder / "c.png").symlink_to(tmp_path / "real" / "a.png")
    (folder / "dead.png").symlink_to(tmp_path / "nowhere")
    found = find(folder)
    assert ids(found) == ["b.png", "c.png", "linked/a.png"]
    assert [sample.image for sample in samples(found)] == [b"b.png", b"a.png", b"a.png"]
    assert [(item.reason, item.examples) for item in found.left_out] == [("irregular", ("dead.png",))]


def test_folders_that_link_to_each_other_are_refused(tmp_path: Path) -> None:
    """Of 9 folders there would be a million paths."""
    for one in range(9):
        (tmp_path / f"{one}").mkdir()
        for other in {*range(9)} - {one}:
            (tmp_path / f"{one}" / f"to{other}").symlink_to(f"../{other}")
    with pytest.raises(UsageError, match="links lead to the same folders again and again"):
        discover(str(tmp_path), InputOptions(), Store())


def test_any_number_of_links_may_lead_to_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.store.local_files._MOST_AGAIN", 100)
    write(tmp_path / "real", *(f"{number}.png" for number in range(20)))
    for number in range(20):
        (tmp_path / "in" / f"{number // 4}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{number // 4}" / f"{number}").symlink_to(tmp_path / "real")
    assert len(ids(find(tmp_path / "in"))) == 400
    for level in range(8):  # of which the last one would come 2 ** 8 times
        (tmp_path / f"{level}").mkdir()
        for side in "ab":
            (tmp_path / f"{level}" / side).symlink_to(f"../{level + 1}" if level < 7 else "real")
    with pytest.raises(UsageError, match="links lead to the same folders again and again"):
        find(tmp_path / "0")


def test_zero_bytes_and_too_many_bytes_are_faults_of_the_sample(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    write(tmp_path, "empty.png", data=b"")
    write(tmp_path, "large.png", data=bytes(101))
    found = find(tmp_path)
    assert [(s.id, s.fault, s.image) for s in samples(found, max_image_bytes=100)] == [
        ("a.png", None, b"a.png"),
        ("empty.png", "empty", b""),
        ("large.png", "too_many_bytes", b""),
    ]


def test_too_large_an_image_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "large.png", data=bytes(101))
    found = find(tmp_path)
    (tmp_path / "large.png").unlink()
    assert [sample.fault for sample in samples(found, max_image_bytes=100)] == ["too_many_bytes"]


def test_a_file_that_changed_or_vanished_ends_the_run(tmp_path: Path) -> None:
    found = find(write(tmp_path, "a.png", "b.png"))
    (tmp_path / "b.png").write_bytes(b"longer than it was")
    with pytest.raises(InputChanged, match=r"b\.png has changed since the run was planned"):
        samples(found)
    (tmp_path / "b.png").unlink()
    with pytest.raises(InputChanged, match=r"b\.png has vanished since the run was planned"):
        samples(found)


# --- labels of loose files -------------------------------------------------------------------------------------------


def test_labels_are_matched_by_relative_stem(tmp_path: Path) -> None:
    write(tmp_path / "i", "a.jpg", "x/b.JPG", "x/c.d.jpeg")
    write(tmp_path / "l", "a.png", "x/b.PNG", "x/c.d.png")
    found = find(tmp_path / "i", labels=str(tmp_path / "l"))
    assert [(s.id, s.label) for s in samples(found)] == [
        ("a.jpg", b"a.png"),
        ("x/b.JPG", b"x/b.PNG"),
        ("x/c.d.jpeg", b"x/c.d.png"),
    ]
    assert (found.labelled, found.warnings) == (3, [])


def test_a_label_folder_within_the_input_holds_no_images(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "images/b.png", "labels/a.png", "labels/images/b.png")
    found = find(tmp_path, labels=str(tmp_path / "labels"))
    assert ids(found) == ["a.png", "images/b.png"]
    assert [sample.label for sample in samples(found)] == [b"labels/a.png", b"labels/images/b.png"]


def test_an_input_within_the_label_folder_holds_no_labels(tmp_path: Path) -> None:
    write(tmp_path, "images/a.jpg", "a.png")
    found = find(tmp_path / "images", labels=str(tmp_path))
    assert ([s.label for s in samples(found)], found.warnings) == ([b"a.png"], [])


def test_png_is_preferred_among_labels_of_one_stem(tmp_path: Path) -> None:
    write(tmp_path / "i", "a.jpg")
    write(tmp_path / "l", "a.bmp", "a.png")
    found = find(tmp_path / "i", labels=str(tmp_path / "l"))
    assert [sample.label for sample in samples(found)] == [b"a.png"]
    assert found.lines == ["warning: left out: 1 label file that no image uses: .bmp x 1; e.g. a.bmp"]


def test_images_without_label_and_labels_without_image_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "i", *(f"{i}.png" for i in range(5)))
    write(tmp_path / "l", "0.png", "2.png", "x.png", "y.png")
    found = find(tmp_path / "i", labels=str(tmp_path / "l"))
    assert found.labelled == 2
    assert found.lines == [
        f"warning: 3 of 5 images have no label in {tmp_path}/l: segmented, not scored; e.g. 1.png",
        "warning: left out: 2 label files that no image uses: .png x 2; e.g. x.png, y.png",
    ]
    assert [sample.label for sample in samples(found)] == [b"0.png", None, b"2.png", None, None]


def test_no_label_at_all_is_refused_with_an_expected_path(tmp_path: Path) -> None:
    write(tmp_path / "i", "a.png", "b.png")
    write(tmp_path / "l", "a_label.png", "b_label.png")
    text = refusal(tmp_path / "i", labels=str(tmp_path / "l"))
    assert text == (
        f"none of the 2 images has a label: looked for {tmp_path}/l/a.png (or another image suffix); "
        f"2 images there, e.g. {tmp_path}/l/a_label.png. If these are the labels, add "
        "--label-pattern '{dir}/{stem}_label.png'"
    )
    assert "no images there" in refusal(tmp_path / "i", labels=str(tmp_path / "nowhere"))


def test_labels_in_the_input_itself_need_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    assert "every image would be its own label" in refusal(tmp_path, labels=str(tmp_path))


def test_label_pattern_beside_the_images_as_camvid_has_it(tmp_path: Path) -> None:
    write(tmp_path, "0001.png", "0001_L.png", "x/2.png", "x/2_L.png", "x/3.png")
    found = find(tmp_path, label_pattern="{dir}/{stem}_L.png")
    assert [(s.id, s.label) for s in samples(found)] == [
        ("0001.png", b"0001_L.png"),
        ("x/2.png", b"x/2_L.png"),
        ("x/3.png", None),
    ]
    assert found.warnings == [f"1 of 3 images has no label in {tmp_path}: segmented, not scored; e.g. x/3.png"]


def test_a_label_that_is_no_file_is_none(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b.jpg", "b.png")
    (tmp_path / "a.png").symlink_to("nowhere")
    found = find(tmp_path, label_pattern="{stem}.png")
    assert [(s.id, s.label) for s in samples(found)] == [("a.jpg", None), ("b.jpg", b"b.png")]
    assert [(item.reason, item.examples) for item in found.left_out] == [("irregular", ("a.png",))]
    assert found.warnings == [f"1 of 2 images has no label in {tmp_path}: segmented, not scored; e.g. a.jpg"]


def test_label_pattern_of_the_same_stem_beside_the_images(tmp_path: Path) -> None:
    found = find(write(tmp_path, "a.jpg", "a.png", "x/b.jpg", "x/b.png"), label_pattern="{dir}/{stem}.png")
    assert [(s.id, s.label) for s in samples(found)] == [("a.jpg", b"a.png"), ("x/b.jpg", b"x/b.png")]


@pytest.mark.parametrize("piece", [2, 1000])
def test_label_pattern_whose_labels_are_images_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """In another order than the images, one shared, one image its own label, one both image and label."""
    monkeypatch.setattr(sorted_rows, "_PIECE", piece)
    monkeypatch.setattr(sorted_rows, "_BLOCK", 1)
    write(tmp_path, *(f"{name}.png" for name in ("1_a", "1_b", "2_a", "2_b", "3_a", "3_b", "4_c")), "note.txt")
    found = find(tmp_path, label_pattern="{stem%_a}_b.png")
    assert [(s.id, s.label) for s in samples(found)] == [
        ("1_a.png", b"1_b.png"), ("2_a.png", b"2_b.png"), ("3_a.png", b"3_b.png"), ("4_c.png", None),
    ]  # fmt: skip
    assert "left out: 1 file of another kind: .txt x 1; e.g. note.txt" in found.lines
    found = find(tmp_path, label_pattern="{dir}/1_b.png")
    assert [s.label for s in samples(found)] == [None, *[b"1_b.png"] * 6][1:]
    assert "warning: 5 images have the label file of another image, e.g. " in "\n".join(found.lines)


def test_label_pattern_outside_the_input(tmp_path: Path) -> None:
    write(tmp_path, "images/a.jpg", "images/x/b.jpg", "labels/a.png", "labels/x/b.png", "l2/a.jpg.png", "l2/unused.png")
    for pattern in ("../labels/{dir}/{stem}.png", str(tmp_path / "labels") + "/{dir}/{stem}.png"):
        found = find(tmp_path / "images", label_pattern=pattern)
        assert [s.label for s in samples(found)] == [b"labels/a.png", b"labels/x/b.png"]
    found = find(tmp_path / "images", label_pattern="{name}.png", labels=str(tmp_path / "l2"))
    assert [s.label for s in samples(found)] == [b"l2/a.jpg.png", None]
    assert found.lines[1:] == ["warning: left out: 1 label file that no image uses: .png x 1; e.g. unused.png"]


def test_a_label_pattern_that_finds_nothing_names_an_expected_path(tmp_path: Path) -> None:
    write(tmp_path, "x/a.png")
    text = refusal(tmp_path, label_pattern="{dir}/{stem}_L.png")
    assert text.endswith(f"looked for {tmp_path}/x/a_L.png as the label of {tmp_path}/x/a.png")


@pytest.mark.parametrize("pattern", ["{step}_L.png", "{}_L.png", "{stem!r}.png", "{stem:3}.png", "label.png"])
def test_a_label_pattern_has_known_fields(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"expected \{stem\}, \{dir\} and \{name\}"):
        InputOptions(label_pattern=pattern)


@pytest.mark.parametrize("pattern", ["{stem", "stem}_L"])
def test_a_label_pattern_has_closed_braces(pattern: str) -> None:
    with pytest.raises(ValidationError):
        InputOptions(label_pattern=pattern)


# --- shards, parts, ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "size"), [(1, 4), (101, 4), (1024, 4), (1025, 5), (5000, 20), (16384, 64)])
def test_auto_part_size_follows_from_the_number_of_images(tmp_path: Path, images: int, size: int) -> None:
    listing = tmp_path / "list.txt"
    write(tmp_path, "a.png")
    listing.write_text("a.png\n" * images)
    found = find(listing)
    assert found.images == images
    assert max(len(part) for part in found.parts) == min(size, images)


def test_shards_hold_4096_images_and_positions_start_anew(tmp_path: Path) -> None:
    write(tmp_path / "my set!", *(f"{i:05d}.png" for i in range(4100)))
    found = find(tmp_path / "my set!", part_size=64)
    assert [part.shard[:16] for part in found.parts[::64]] == [
        "my-set-00000-" + found.parts[0].id[:3],
        "my-set-00001-" + found.parts[-1].id[:3],
    ]
    assert [(part.start, part.stop) for part in found.parts[-2:]] == [(4032, 4096), (0, 4)]
    last = found.parts[-1]
    assert last.id == f"{last.shard[-12:]}-000000-000004"
    assert read_part(last, InputOptions(), STORE)[3].id == "04099.png"
    assert len({part.id for part in found.parts}) == len(found.parts)


def test_ids_follow_from_the_input_alone(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    first = find(tmp_path)
    assert find(tmp_path).parts == first.parts
    os.utime(tmp_path / "b.png", (1, 1))
    assert find(tmp_path).parts[0].id != first.parts[0].id


def test_ids_change_with_the_labels(tmp_path: Path) -> None:
    write(tmp_path / "i", "a.png")
    write(tmp_path / "l", "a.png")
    options = {"labels": str(tmp_path / "l")}
    first = find(tmp_path / "i", **options)
    os.utime(tmp_path / "l" / "a.png", (1, 1))
    assert find(tmp_path / "i", **options).parts[0].id != first.parts[0].id


def test_part_bytes_caps_a_part_but_never_empties_it(tmp_path: Path) -> None:
    for name, size in (("a", 10), ("b", 10), ("c", 50), ("d", 10), ("e", 10), ("f", 10)):
        write(tmp_path, f"{name}.png", data=bytes(size))
    found = find(tmp_path, part_size=4, part_bytes=30)
    assert [(part.start, part.stop) for part in found.parts] == [(0, 2), (2, 3), (3, 6)]


def test_a_large_image_is_alone_where_it_has_to_be(tmp_path: Path) -> None:
    for name, size in (("a", 10), ("b", 10), ("c", 50), ("d", 40), ("e", 10), ("f", 10)):
        write(tmp_path, f"{name}.png", data=bytes(size))
    parts = {
        alone: discover(str(tmp_path), InputOptions(part_size=10), Store(), alone=alone).parts
        for alone in (None, 40, 10)
    }
    assert [(part.start, part.stop) for part in parts[None]] == [(0, 6)]
    assert [(part.start, part.stop) for part in parts[40]] == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert [(part.start, part.stop) for part in parts[10]] == [(i, i + 1) for i in range(6)]


def test_part_size_is_at_least_one() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        InputOptions(part_size=0)
    with pytest.raises(ValidationError):
        InputOptions(colour="red")


def test_twelve_thousand_files(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / str(i)).mkdir()
        for j in range(4000):
            (tmp_path / str(i) / f"{j}.png").touch()
    found = find(tmp_path)
    assert (found.images, len({part.shard for part in found.parts})) == (12_000, 3)
    assert ids(found) == sorted(ids(found))


# --- detection of formats --------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"nothing at {tmp_path}/nowhere"
    assert refusal(tmp_path / "nowhere.tar") == f"nothing at {tmp_path}/nowhere.tar"
    assert refusal(tmp_path / "*.tar") == f"nothing at {tmp_path}/*.tar"
    assert refusal(tmp_path) == f"{tmp_path} is empty: no image"
    assert "empty string" in refusal("")
    assert "memory://nowhere" in refusal("memory://nowhere")


def test_no_images_is_refused_with_the_content(tmp_path: Path) -> None:
    write(tmp_path, *(f"{i}.txt" for i in range(10)), "a.json", "README")
    assert refusal(tmp_path) == (
        f"{tmp_path}: 12 files, none of them an image (.txt x 10, no suffix x 1, .json x 1), e.g. {tmp_path}/0.txt"
    )
    assert refusal(tmp_path / "README") == f"{tmp_path}/README is no image by its name; if it is one, use --format"


def test_only_hidden_files(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, ".a.png")) == (
        f"{tmp_path} holds no image; left out: 1 hidden file (its name or a folder of it begins with '.' or '_'): "
        ".png x 1; e.g. .a.png (--include-hidden reads such files)"
    )
    assert ids(find(tmp_path, include_hidden=True)) == [".a.png"]


def test_mixed_input_needs_a_format(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", "c.tar", "d.parquet")
    assert refusal(tmp_path) == (
        f"{tmp_path} holds 2 images and 1 tar and 1 Parquet file: select one kind "
        "(--format files, --format webdataset, --format parquet)"
    )
    assert ids(find(tmp_path, format="files")) == ["a.png", "b.png"]


def test_a_format_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    assert "1 file, none of them a tar (.png x 1)" in refusal(tmp_path, format="webdataset")
    assert "none of them a Parquet file" in refusal(tmp_path, format="parquet")
    assert "takes one list file" in refusal(tmp_path, format="list")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"label_key": "seg.png"}, "--label-key is for tars; this input is images (files)"),
        ({"image_column": "x"}, "--image-column is for Parquet files and list files; this input is images (files)"),
        ({"id_column": "x"}, "--id-column is for Parquet files and list files; this input is images (files)"),
    ],
)
def test_options_of_another_format_are_refused(tmp_path: Path, options: dict[str, str], text: str) -> None:
    assert refusal(write(tmp_path, "a.png"), **options) == text


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    assert "hunter2" not in refusal("s3://user:hunter2@bucket/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_a_store_error(tmp_path: Path) -> None:
    write(tmp_path / "locked", "a.png")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(StoreError, match="permission denied"):
            find(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_an_unreadable_folder_within_the_input_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match="permission denied: check"):
        find(tmp_path)


def test_globs_and_braces_over_images_and_folders(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png", "train/x/b.png", "val/c.png", "test/d.png", "train/n.txt")
    assert ids(find(tmp_path / "{train,val}")) == ["train/a.png", "train/x/b.png", "val/c.png"]
    assert ids(find(tmp_path / "t*")) == ["test/d.png", "train/a.png", "train/x/b.png"]
    assert ids(find(tmp_path / "*" / "*.png")) == ["test/d.png", "train/a.png", "val/c.png"]
    assert ids(find(tmp_path / "**" / "b.png")) == ["train/x/b.png"]
    assert ids(find(tmp_path / "t?st")) == ["test/d.png"]
    assert ids(find(tmp_path / "train" / "[a-c].png")) == ["a.png"]


@pytest.mark.parametrize(
    ("braces", "expanded"),
    [
        ("x-{000..002}.tar", ["x-000.tar", "x-001.tar", "x-002.tar"]),
        ("x-{8..11}.tar", ["x-8.tar", "x-9.tar", "x-10.tar", "x-11.tar"]),
        ("x-{08..11}.tar", ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a}", ["{a}"]),
    ],
)
def test_brace_expansion(braces: str, expanded: list[str]) -> None:
    assert list(_expand_braces(braces)) == expanded


def test_a_brace_range_must_be_complete(tmp_path: Path) -> None:
    write(tmp_path, "0.png", "2.png")
    assert refusal(tmp_path / "{0..3}.png") == f"nothing at {tmp_path}/1.png: 2 of 4 are not there"
    assert "at most 1000000" in refusal(tmp_path / "{0..9999999999}.png")


def test_an_object_named_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "0.png", "1.png")
    found = find(tmp_path / "{0,0,1}.png")
    assert (ids(found), found.warnings) == (["0.png", "1.png"], ["1 file is named twice and read once"])
