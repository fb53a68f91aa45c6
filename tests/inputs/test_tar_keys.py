"""Keys of tar members: where they end, which member is the image or the label, and messages about the others."""

import doctest
from pathlib import Path

import pytest

from segment.inputs import roles
from segment.inputs.changes import Known
from segment.inputs.discover import discover
from segment.inputs.tars import grouping, suffixes
from segment.job import InputOptions
from tests.tars import STORE, find, refusal, samples, tar, triples

Rows = list[tuple[str, str, str | None]]


def rows(keys: str, image: str = "jpg", label: str | None = "seg.png") -> Rows:
    return [(key, f"{key}.{image}", f"{key}.{label}" if label else None) for key in keys.split()]


def members(keys: str, *suffixes: str) -> list[str]:
    return [f"{key}.{suffix}" for key in keys.split() for suffix in suffixes]


def test_doctests() -> None:
    assert [doctest.testmod(module).failed for module in (grouping, roles, suffixes)] == [0, 0, 0]


# Keys with dots: each image is one sample, with its label.
DOTTED = [
    "frame.0000 frame.0001",
    "frame.0000",  # its label shows it
    "img.v2.0001 img.v2.0002",
    "2024.01.05_12.30 2024.01.05_12 2024.01.06",
    "v1.0/a.b.001 v1.0/a.b.002",
    "cam1.0000 cam1.0001 cam2.0000 cam2.0001",
    "scene.kitchen scene.bath",
    "a.left a.right",
    "plain frame.0000 frame.0001",
    "photo photo.1 photo.2",
    "x.3fa9c2 x.77be10",
]


@pytest.mark.parametrize("keys", DOTTED)
def test_keys_with_dots(tmp_path: Path, keys: str) -> None:
    found = find(tar(tmp_path / "a.tar", *members(keys, "jpg", "seg.png", "json")))
    assert triples(found) == rows(keys)
    assert (found.labelled, found.warnings, found.left_out) == (len(keys.split()), [], [])
    (note,) = found.notes
    assert note.startswith("keys of tar members contain dots: ")
    assert "(--image-key overrides)" in note


@pytest.mark.parametrize("keys", [keys for keys in DOTTED if len(keys.split()) > 1 and "left" not in keys])
def test_keys_with_dots_and_no_labels(tmp_path: Path, keys: str) -> None:
    """`scene.kitchen.jpg` and `scene.bath.jpg` may be two views of `scene`: one is used, the other is reported."""
    found = find(tar(tmp_path / "a.tar", *members(keys, "JPG")))
    if "scene" in keys:
        assert triples(found) == [("scene", "scene.bath.JPG", None)]
        assert [(left.reason, left.number) for left in found.left_out] == [("unused_member", 1)]
    else:
        assert triples(found) == rows(keys, "JPG", None)
        assert (found.warnings, found.left_out, len(found.notes)) == ([], [], 1)


def test_more_images_than_a_sample_has_are_samples(tmp_path: Path) -> None:
    keys = " ".join(f"scene.{letter}" for letter in "abcdefghijklmn")
    assert triples(find(tar(tmp_path / "a.tar", *members(keys, "png")))) == rows(keys, "png", None)


# Keys by WebDataset's rule although suffixes contain dots: image, label, and members that are left out.
PLAIN = [
    ("jpg seg.png depth.png v1.json", "jpg", "seg.png", {"depth.png": 2}),
    ("left.jpg right.jpg seg.png", "left.jpg", "seg.png", {"right.jpg": 2}),
    ("left.jpg right.jpg", "left.jpg", None, {"right.jpg": 2}),
    ("cam0.jpg cam1.jpg seg.png", "cam0.jpg", "seg.png", {"cam1.jpg": 2}),
    ("depth.png rgb.png seg.png", "rgb.png", "seg.png", {"depth.png": 2}),
    ("v2.jpeg mask.png txt cls", "v2.jpeg", "mask.png", {}),
    ("B02.tif B03.tif label.png", "B02.tif", "label.png", {"b03.tif": 2}),
    ("jpg jpeg seg.png", "jpeg", "seg.png", {"jpg": 2}),
    ("jpg 1.png 2.png", "jpg", None, {"1.png": 2, "2.png": 2}),
    ("jpg seg.png mask.png", "jpg", "seg.png", {"mask.png": 2}),
    ("jpg jpg.gz npy json", "jpg", None, {"jpg.gz": 2, "npy": 2}),
]


@pytest.mark.parametrize(("suffixes", "image", "label", "unused"), PLAIN)
def test_suffixes_with_dots(
    tmp_path: Path, suffixes: str, image: str, label: str | None, unused: dict[str, int]
) -> None:
    found = find(tar(tmp_path / "a.tar", *members("000001 d/000002", *suffixes.split())))
    assert triples(found) == rows("000001 d/000002", image, label)
    assert found.notes == []
    assert [(left.reason, left.kinds) for left in found.left_out] == ([("unused_member", unused)] if unused else [])
    assert all(left.matters and "--image-key and --label-key" in str(left) for left in found.left_out)


def test_members_apart_are_joined(tmp_path: Path) -> None:
    found = find(tar(tmp_path / "a.tar", *members("1 2 3", "jpg"), *members("3 1 2", "seg.png"), "4.jpg", "4.seg.png"))
    assert triples(found) == rows("1 2 3 4")
    assert found.notes == ["2 samples have members apart from each other in the tar: joined by key"]
    frames = find(tar(tmp_path / "b.tar", *members("f.1 f.2", "seg.png"), *members("f.1 f.2", "jpg")))
    assert triples(frames) == rows("f.1 f.2")


def test_upper_case_and_dotted_folders(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", "v1.0/1.JPG", "v1.0/1.Seg.PNG", "v1.1/1.JPG", "v1.1/1.SEG.png")
    assert triples(find(path)) == [
        ("v1.0/1", "v1.0/1.JPG", "v1.0/1.Seg.PNG"),
        ("v1.1/1", "v1.1/1.JPG", "v1.1/1.SEG.png"),
    ]


def test_duplicates_of_dotted_keys(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *members("f.1 f.2", "jpg", "seg.png"), *members("f.1", "jpg", "seg.png"))
    assert [(s.id, s.fault) for s in samples(find(path))] == [("f.1", None), ("f.2", None), ("f.1", "duplicate_id")]


def test_images_without_a_suffix_and_in_other_formats(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", "0001", "0002", "3.jpg", "4.jpg.gz", "5.gif", "6.heic", "README.md")
    found = find(path)
    assert [s.id for s in samples(found)] == ["3"]
    assert {left.reason: (left.number, left.kinds) for left in found.left_out} == {
        "keyless_member": (2, {"no suffix": 2}),
        "sample_without_image": (4, {"jpg.gz": 1, "gif": 1, "heic": 1, "md": 1}),
    }
    (line,) = (line for line in found.lines if line.startswith("warning: "))
    assert "left out: 4 tar members of samples without an image: gif x 1, heic x 1, jpg.gz x 1, md x 1" in line


def test_one_rule_for_all_tars_of_an_input(tmp_path: Path) -> None:
    """The last tar holds one frame: by itself it does not show that its key contains a dot."""
    tar(tmp_path / "a.tar", *members("frame.0000 frame.0001", "jpg"))
    tar(tmp_path / "b.tar", *members("frame.0002", "jpg"))
    assert triples(find(tmp_path)) == rows("frame.0000 frame.0001 frame.0002", label=None)
    assert triples(find(tmp_path / "b.tar")) == [("frame", "frame.0002.jpg", None)]


def test_an_update_goes_by_the_planned_keys(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", *members("frame.0000 frame.0001", "jpg"))
    known = Known(find(tmp_path).parts)
    tar(tmp_path / "b.tar", *members("frame.0002", "jpg"))
    found = discover(str(tmp_path), InputOptions(), STORE, known)
    assert triples(found) == rows("frame.0002", label=None)


# --- image and label keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["right.jpg", ".RIGHT.JPG"])
def test_image_key(tmp_path: Path, key: str) -> None:
    found = find(tar(tmp_path / "a.tar", *members("1 2", "left.jpg", "right.jpg", "seg.png")), image_key=key)
    assert triples(found) == rows("1 2", "right.jpg")
    assert [(left.reason, left.kinds) for left in found.left_out] == [("unused_member", {"left.jpg": 2})]


@pytest.mark.parametrize(
    ("names", "key", "want"),
    [
        (members("f.1 f.2", "rgb.jpg", "depth.png", "seg.png"), "rgb.jpg", rows("f.1 f.2", "rgb.jpg")),
        (members("s.bath s.hall", "jpg"), "jpg", rows("s.bath s.hall", label=None)),
        (members("1 2", "jpg", "thumb.jpg", "1.jpg"), "jpg", rows("1 2", label=None)),
        (members("t1 t2", "B02.tif", "B03.tif"), "b03.tif", rows("t1 t2", "B03.tif", None)),
        (members("1 2", "bin", "jpg", "seg.png"), "bin", rows("1 2", "bin")),
        (members("1 2", "seg.png", "mask.png"), "seg.png", rows("1 2", "seg.png", "mask.png")),
        (members("1 2", "gt.png"), "gt.png", rows("1 2", "gt.png", None)),
    ],
)
def test_an_image_key_decides_where_keys_end(tmp_path: Path, names: list[str], key: str, want: Rows) -> None:
    found = find(tar(tmp_path / "a.tar", *names), image_key=key)
    assert triples(found) == want
    assert found.notes == []


def test_keys_that_nothing_has_or_that_are_the_same(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *members("1 2", "jpg", "seg.png"))
    assert refusal(path, image_key="left.jpg") == (
        f"no member of {path} ends in .left.jpg (--image-key): there are .jpg x 2, .seg.png x 2"
    )
    assert refusal(path, image_key="jpg", label_key=".JPG") == (
        "--image-key and --label-key are the same (jpg): an image is not its own label"
    )


def test_labels_alone_are_no_images(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *members("1 2", "annotation.png", "json"))
    assert refusal(path) == (
        f"no image in {path}: there are .annotation.png x 2, .json x 2. --image-key names the member that is the image"
    )


def test_a_label_without_its_image_is_no_image(tmp_path: Path) -> None:
    found = find(tar(tmp_path / "a.tar", "1.jpg", "1.gt.png", "2.gt.png"))
    assert [s.id for s in samples(found)] == ["1"]
    assert {left.reason: left.kinds for left in found.left_out} == {
        "sample_without_image": {"gt.png": 1},
        "unused_member": {"gt.png": 1},
    }


# Members beside a `jpg` that may be labels, and the label key that selects them.
UNUSED = [
    ("annotation.png", "annotation.png"),
    ("gt.png", "gt.png"),
    ("segmentation.png", "segmentation.png"),
    ("seg.gif", "seg.gif"),
    ("seg.tif", "seg.tif"),
    ("mask.jpg", "mask.jpg"),
    ("png", "png"),
    ("out.png", "out.png"),
]


@pytest.mark.parametrize(
    ("suffix", "key", "keys"),
    [(suffix, key, keys) for suffix, key in UNUSED for keys in ("1 2", "f.1 f.2")]
    + [("1.seg.png", "1.seg.png", "1 2")],
)
def test_labels_there_and_not_used(tmp_path: Path, suffix: str, key: str, keys: str) -> None:
    path = tar(tmp_path / "a.tar", *members(keys, "jpg", suffix, "depth.png", "json"))
    found = find(path)
    assert triples(found) == rows(keys, label=None)
    assert found.warnings == [
        f"labels not used: {key} x 2 could be the labels of images that have none. If so, use --label-key {key}"
    ]
    assert {left.reason: left.kinds for left in found.left_out} == {"unused_member": {suffix: 2, "depth.png": 2}}
    assert triples(find(path, label_key=key)) == rows(keys, label=suffix)


@pytest.mark.parametrize("suffixes", ["jpg depth.png thumb.jpg json", "jpg right.jpg", "jpg seg.png gt.png", "jpg npy"])
def test_members_that_cannot_be_labels_are_not_suggested(tmp_path: Path, suffixes: str) -> None:
    assert find(tar(tmp_path / "a.tar", *members("1 2", *suffixes.split()))).warnings == []


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (members("images/1 images/2", "jpg") + members("labels/1 labels/2", "png"), "a.tar/labels/1.png"),
        (members("train/img/1", "jpg") + members("train/gt/1", "png"), "a.tar/train/gt/1.png"),
        (members("1 2", "jpg") + members("1_mask 2_mask", "png"), "a.tar/1_mask.png"),
    ],
)
def test_images_that_are_named_like_labels_of_others(tmp_path: Path, names: list[str], label: str) -> None:
    (warning,) = find(tar(tmp_path / "a.tar", *names)).warnings
    assert warning.startswith("labels not used: ")
    assert f"e.g. {label}. If these are labels, write each as member seg.png of the sample of its image" in warning


def test_a_tar_of_images_and_one_of_labels(tmp_path: Path) -> None:
    tar(tmp_path / "images.tar", *members("1 2", "jpg"))
    tar(tmp_path / "labels.tar", *members("1 2", "png"))
    (warning,) = find(tmp_path).warnings
    assert (
        "2 images are named like the label of another one and segmented like any image, e.g. labels.tar/1.png"
        in warning
    )
    assert find(tmp_path / "labels.tar").warnings == []


def test_masks_with_numbers_are_no_images(tmp_path: Path) -> None:
    found = find(tar(tmp_path / "a.tar", *members("1 2", "png", "mask.0.png", "mask.1.png")))
    assert triples(found) == rows("1 2", "png", None)
    assert [left.kinds for left in found.left_out] == [{"mask.0.png": 2, "mask.1.png": 2}]
    assert triples(find(tar(tmp_path / "a.tar", "the.mask.1994.jpg"))) == [("the", "the.mask.1994.jpg", None)]


def test_labels_for_some_images(tmp_path: Path) -> None:
    """`--label-key gt.png` would remove the labels of the others: it is suggested only if it labels more images."""
    names = members("1 2", "jpg", "seg.png") + members("3", "jpg", "gt.png")
    found = find(tar(tmp_path / "a.tar", *names))
    assert found.warnings == ["1 of 3 images without a label: segmented, not scored; e.g. 3"]
    assert {left.reason: left.kinds for left in found.left_out} == {"unused_member": {"gt.png": 1}}
    found = find(tar(tmp_path / "a.tar", *names, *members("4 5", "jpg", "gt.png")))
    assert found.warnings[1].endswith("use --label-key gt.png")


def test_a_label_key_that_labels_no_image_gives_a_warning(tmp_path: Path) -> None:
    found = find(tar(tmp_path / "a.tar", "1.jpg", "2.jpg", "3.gt.png"), label_key="gt.png")
    assert found.warnings == ["2 of 2 images without a label: segmented, not scored; e.g. 1"]


def test_labels_that_are_not_used_are_found_in_the_tar_that_has_them(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", *members("a b", "jpg", "seg.png", "gt.png"))
    tar(tmp_path / "b.tar", *members("c d", "jpg", "gt.png"))
    warnings = find(tmp_path).warnings
    assert any(line.startswith("labels not used: gt.png x 2 could be") for line in warnings)
