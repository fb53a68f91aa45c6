"""List files: .txt, .csv and .jsonl."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segment.errors import UsageError
from segment.formats.listing import parse_list
from segment.plan import Plan
from segment.shards import Discovery, InputOptions, Sample, discover, read_part
from segment.store import Store

STORE = Store()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images and labels that hold their own names."""
    for name in ("i/a.png", "i/b c.png", "i/d.png", "l/a.png", "l/b c.png", "it's.png", "nl\n.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def find(folder: Path, name: str, text: str) -> Discovery:
    (folder / name).write_bytes(text.encode())
    return discover(str(folder / name), InputOptions(), STORE)


def samples(found: Discovery) -> list[Sample]:
    return [sample for part in found.parts for sample in read_part(part, InputOptions(), STORE)]


def pairs(found: Discovery) -> list[tuple[str, str | None]]:
    return [(s.image.decode(), s.label.decode() if s.label else None) for s in samples(found)]


def refusal(folder: Path, name: str, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        find(folder, name, text)
    return str(caught.value).replace(str(folder), "")


BOTH = [("i/a.png", "l/a.png"), ("i/b c.png", "l/b c.png"), ("i/d.png", None)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", 'i/a.png l/a.png\n"i/b c.png" "l/b c.png"\n\ni/d.png\n'),
        ("l.txt", "i/a.png\tl/a.png\r\ni/b c.png\tl/b c.png\r\ni/d.png"),
        ("l.txt", "\ufeff./i/a.png   l/../l/a.png  \n'i/b c.png' l/b\" \"c.png\ni/d.png\n"),
        ("l.csv", "i/a.png,l/a.png\ni/b c.png,l/b c.png\ni/d.png\n"),
        ("l.csv", 'image,label\ni/a.png,l/a.png\n"i/b c.png", "l/b c.png"\n\ni/d.png,\n'),
        ("l.csv", "split,Mask, FILENAME\nx,l/a.png,i/a.png\nx,l/b c.png,i/b c.png\nx,,i/d.png\n"),
        (
            "l.jsonl",
            '{"image": "i/a.png", "label": "l/a.png", "x": 1}\n{"image": "i/b c.png", "label": "l/b c.png"}\n\n'
            '{"image": "i/d.png", "label": null}',
        ),
    ],
)
def test_lists_of_every_kind(folder: Path, name: str, text: str) -> None:
    found = find(folder, name, text)
    assert pairs(found) == BOTH
    assert [s.id for s in samples(found)] == ["i/a.png", "i/b c.png", "i/d.png"]
    assert (found.images, found.labelled) == (3, 2)
    assert found.warnings == ["1 of 3 images listed without a label: segmented, not scored; e.g. i/d.png"]
    assert found.parts[0].shard.startswith(f"{name}-00000-")


def test_absolute_paths_and_urls(folder: Path) -> None:
    found = find(folder, "l.txt", f"{folder}/i/a.png file://{folder}/l/a.png\n")
    assert (pairs(found), samples(found)[0].id) == (BOTH[:1], "i/a.png")
    (folder / "sub").mkdir()
    found = find(folder / "sub", "l.txt", "../i/a.png ../l/a.png\n")
    assert (pairs(found), samples(found)[0].id) == (BOTH[:1], f"file://{folder}/i/a.png")


def test_listed_ids(folder: Path) -> None:
    found = find(folder, "l.csv", "image,id\ni/a.png,first\ni/d.png,\n")
    assert [s.id for s in samples(found)] == ["first", "i/d.png"]
    found = find(folder, "l.jsonl", '{"image": "i/a.png", "id": 7}')
    assert [s.id for s in samples(found)] == ["7"]


def test_names_with_quotes_and_newlines(folder: Path) -> None:
    assert pairs(find(folder, "l.csv", 'it\'s.png\n"nl\n.png"\n')) == [("it's.png", None), ("nl\n.png", None)]
    assert pairs(find(folder, "l.jsonl", json.dumps({"image": "nl\n.png"}))) == [("nl\n.png", None)]
    assert pairs(find(folder, "l.txt", '"it\'s.png"')) == [("it's.png", None)]
    assert pairs(find(folder, "l.txt", "it's.png\ti/a.png")) == [("it's.png", "i/a.png")]


def test_what_is_listed_but_missing_is_an_error_row(folder: Path) -> None:
    text = "i/a.png l/a.png\ni/no.png l/a.png\ni/d.png l/no.png\n" + "".join(f"gone/{i}.png\n" for i in range(9))
    found = find(folder, "l.txt", text)
    assert [s.fault for s in samples(found)] == [None, "missing", "label_missing"] + ["missing"] * 9
    assert found.warnings[:2] == [
        f"10 of 12 images listed do not exist, e.g. {folder}/i/no.png",
        f"1 listed label does not exist, e.g. {folder}/l/no.png",
    ]
    assert samples(found)[1].image == b""
    (folder / "i" / "no.png").write_text("too late")
    assert samples(found)[1].fault == "missing"


def test_many_images_of_one_folder_are_found_by_listing_it(folder: Path) -> None:
    for i in range(100):
        (folder / "i" / f"{i}.jpg").write_text(str(i))
    found = find(folder, "l.txt", "".join(f"i/{i}.jpg\n" for i in range(120)) + "i/a.png/x.png\n" + "n" * 300 + "\n")
    assert [s.fault for s in samples(found)] == [None] * 100 + ["missing"] * 22


def test_the_same_image_twice_is_a_duplicate(folder: Path) -> None:
    found = find(folder, "l.txt", "i/a.png l/a.png\ni/d.png\ni/../i/a.png\ni/no.png\ni/no.png\n")
    assert [s.fault for s in samples(found)] == [None, None, "duplicate_id", "missing", "duplicate_id"]
    assert found.warnings[-1] == "2 images have the id of an earlier one and will be an error row, e.g. i/a.png"


def test_the_frozen_plan_keeps_what_was_wrong(folder: Path) -> None:
    found = find(folder, "l.txt", "i/a.png l/a.png\ni/a.png\ni/no.png\ni/d.png l/no.png\n")
    frozen = Plan.from_bytes(Plan.of(found.parts).to_bytes())
    assert list(frozen.parts()) == found.parts
    read = [sample for part in frozen.parts() for sample in read_part(part, InputOptions(), STORE)]
    assert [s.fault for s in read] == [None, "duplicate_id", "missing", "label_missing"]


def test_a_whole_list_of_missing_images_is_refused(folder: Path) -> None:
    text = "/SegNet/CamVid/val/0016E5_07959.png /SegNet/CamVid/valannot/0016E5_07959.png\n" * 2
    assert refusal(folder, "l.txt", text) == (
        "/l.txt: none of its 2 images exists, e.g. /SegNet/CamVid/val/0016E5_07959.png"
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "", "/l.txt lists no images"),
        ("l.txt", "\n \n\n", "/l.txt lists no images"),
        ("l.csv", "image,label\n", "/l.csv lists no images"),
        ("l.txt", "\na b c\n", "/l.txt, line 2 has 3 words; expected an image and perhaps a label"),
        ("l.txt", "a.png 'b\n", "/l.txt, line 1: a quote is not closed"),
        ("l.csv", "a.png,b.png,1,2\n", "/l.csv, line 1 has 4 fields; expected 3"),
        ("l.csv", 'a.png\n"b"x,c', "/l.csv, line 2 is no CSV: "),
        ("l.csv", "image,label\n,b.png\n", "/l.csv, line 2 names no image"),
        ("l.jsonl", "{}\n", "/l.jsonl, line 1 is no object with an \"image\""),
        ("l.jsonl", '["a.png"]', "/l.jsonl, line 1 is no object"),
        ("l.jsonl", "{'image': 'a.png'}", "/l.jsonl, line 1 is no JSON"),
        ("l.jsonl", '{"image": "a.png", "label": 3}', '/l.jsonl, line 1: "label" is no text'),
        ("l.jsonl", '{"image": "a.png", "id": true}', '/l.jsonl, line 1: "id" is no text'),
        ("l.jsonl", '{"image": "a\\u0000.png"}', "/l.jsonl, line 1: a name with a NUL byte"),
        ("l.jsonl", '{"image": "a\\ud800.png"}', "/l.jsonl, line 1: a name with a NUL byte or half a surrogate pair"),
        ("l.txt", "s3://me:secret@bucket/a.png", "/l.txt, line 1: s3://***@bucket/a.png: credentials in a URL"),
        ("l.txt", "nosuch://x/a.png", "no store is known for nosuch://"),
    ],
)  # fmt: skip
def test_bad_lists_are_refused_with_the_line(folder: Path, name: str, text: str, message: str) -> None:
    assert message in refusal(folder, name, text)


def test_a_list_that_is_no_text(folder: Path) -> None:
    (folder / "l.txt").write_bytes(b"a.png\n\xff\xfe")
    with pytest.raises(UsageError, match=r"l\.txt is not UTF-8 text \(byte 6\)"):
        discover(str(folder / "l.txt"), InputOptions(), STORE)


def test_a_list_by_format_whatever_its_name(folder: Path) -> None:
    (folder / "val.lst").write_text("i/a.png\n")
    found = discover(str(folder / "val.lst"), InputOptions(format="list"), STORE)
    assert [s.id for s in samples(found)] == ["i/a.png"]


@settings(max_examples=200, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)),
    suffix=st.sampled_from([".txt", ".csv", ".jsonl"]),
)
def test_any_bytes_are_a_list_or_refused(data: bytes, suffix: str) -> None:
    try:
        lines = parse_list(data, suffix, "list")
    except UsageError:
        return
    assert all(line.image for line in lines)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=80), suffix=st.sampled_from([".txt", ".csv", ".jsonl"]))
def test_any_list_on_disk_is_planned_or_refused(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"list{suffix}"
    path.write_bytes(text.encode("utf-8", "replace"))
    (tmp_path / "0").write_text("there")
    try:
        found = discover(str(path), InputOptions(), STORE)
    except UsageError:
        return
    for part in found.parts:
        assert len(read_part(part, InputOptions(), STORE)) == len(part)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.tsv", "image\tlabel\n# a comment\ni/a.png\tl/a.png\n"),
        ("l.tsv", "i/a.png\tl/a.png\n"),
        ("l.csv", "image;label\ni/a.png;l/a.png\n"),
        ("l.csv", "#Bilder;Masken\ni/a.png;l/a.png\n"),
        ("l.csv", "# images, labels\ni/a.png,l/a.png\n"),
        ("l.txt", "# images and labels\n\ni/a.png l/a.png\n#i/b.png l/b.png\n"),
        ("l.json", '[{"image": "i/a.png", "label": "l/a.png"}]'),
    ],
)
def test_other_ways_to_write_a_list(name: str, text: str) -> None:
    (line,) = parse_list(text.encode(), Path(name).suffix, name)
    assert (line.image, line.label, line.id) == ("i/a.png", "l/a.png", None)


def test_json_that_is_no_list_of_images() -> None:
    assert [line.image for line in parse_list(b'["a.png", "b.png"]', ".json", "l.json")] == ["a.png", "b.png"]
    wrong = {
        b'{"images": []}': "l.json is no list of images: expected an array as ",
        b'{"image": "a"}\n{"image": "b"}': "l.json is no JSON; with an object a line it is a .jsonl file",
        b'[{"file_name": "a"}]': 'l.json, item 1 is no object with an "image"',
        b"[]": "l.json lists no images",
    }
    for data, text in wrong.items():
        with pytest.raises(UsageError) as caught:
            parse_list(data, ".json", "l.json")
        assert str(caught.value).startswith(text)
