"""List files: .txt, .csv and .jsonl."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segment.errors import BadReference, UsageError
from segment.inputs import lookup
from segment.inputs.changes import Known
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.lists import list_file
from segment.inputs.lists.list_rows import parse_rows
from segment.inputs.parts import Sample
from segment.inputs.reads import read_part
from segment.inputs.references import absolute_url
from segment.inputs.roles import names_label_path
from segment.job import InputOptions
from segment.output.plan import Plan
from segment.store import sorted_rows, spooled_batches
from segment.store.client import Store
from tests.datasets import encoded

STORE = Store()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a folder with images and labels whose content is their name."""
    for name in ("i/a.png", "i/b c.png", "i/d.png", "l/a.png", "l/b c.png", "it's.png", "nl\n.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def find(folder: Path, name: str, text: str, **options: Any) -> Discovery:
    (folder / name).write_bytes(text.encode())
    return discover(str(folder / name), InputOptions(**options), STORE)


def samples(found: Discovery) -> list[Sample]:
    return [sample for part in found.parts for sample in read_part(part, InputOptions(), STORE)]


def pairs(found: Discovery) -> list[tuple[str, str | None]]:
    return [(s.image.decode(), s.label.decode() if s.label else None) for s in samples(found)]


def refusal(folder: Path, name: str, text: str, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        find(folder, name, text, **options)
    return str(caught.value).replace(str(folder), "")


BOTH = [("i/a.png", "l/a.png"), ("i/b c.png", "l/b c.png"), ("i/d.png", None)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", 'i/a.png l/a.png\n"i/b c.png" "l/b c.png"\n\ni/d.png\n'),
        ("l.txt", "i/a.png\tl/a.png\r\ni/b c.png\tl/b c.png\r\ni/d.png"),
        ("l.txt", "\ufeff./i/a.png   l/../l/a.png  \n'i/b c.png' l/b\" \"c.png\ni/d.png\n"),
        ("l.csv", "i/a.png,l/a.png\ni/b c.png,l/b c.png\ni/d.png\n"),
        ("l.csv", "i/a.png,l/a.png,,\ni/b c.png,l/b c.png,,\ni/d.png,,,\n"),
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
    found = find(folder / "sub", "l.txt", "../i/a.png ../l/a.png\n", allow_input=[str(folder)])
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


def test_a_listed_but_missing_image_is_an_error_row(folder: Path) -> None:
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


def test_a_list_for_which_memory_is_too_small_is_planned_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(70):
        (folder / "i" / f"{number}.png").write_text("x" * number)
    names = [f"i/{number}.png" for number in (*range(72), 5, 6)] + ["i", "/etc/x.png", "", "i/it is.png"]
    labels = ["l/a.png", "", "i/7.png", "no.png"] * len(names)
    lines = [f"{name},{label}\n" for name, label in zip(names, labels, strict=False)]
    planned = find(folder, "l.csv", "".join(["image,mask\n", *lines])).parts

    def plans() -> list[object]:
        found = find(folder, "l.csv", "".join(["image,mask\n", *lines]))
        known = Known(planned)
        (folder / "l.csv").write_text("".join(["image,mask\n", *lines[:3:-1], "i/d.png,\n"]))
        new = discover(str(folder / "l.csv"), InputOptions(), STORE, known)
        changes = (known.new, known.replaced, known.gone, known.renamed, known.dropped, known.stale)
        return [found.parts, found.lines, new.parts, changes]

    whole = plans()
    for module, constant, value in (
        (lookup, "_AT_ONCE", 20), (sorted_rows, "_PIECE", 16), (sorted_rows, "_BLOCK", 4), (list_file, "_BLOCK", 512),
        (spooled_batches, "_ROWS", 8), (spooled_batches, "IN_MEMORY", 64),
    ):  # fmt: skip
        monkeypatch.setattr(module, constant, value)
    assert plans() == whole
    assert whole[3][:4] == (2, 2, 5, 0)  # an empty cell is known by its line


def test_the_same_image_twice_is_a_duplicate(folder: Path) -> None:
    found = find(folder, "l.txt", "i/a.png l/a.png\ni/d.png\ni/../i/a.png\ni/no.png\ni/no.png\n")
    assert [s.fault for s in samples(found)] == [None, None, "duplicate_id", "missing", "duplicate_id"]
    assert found.warnings[-1] == "2 images have the id of an earlier one and will be error rows, e.g. i/a.png"


def test_a_run_of_some_images_warns_of_these_only(folder: Path) -> None:
    text = "i/a.png\ni/no.png\ni/d.png\ni/d.png\nnosuch://x/a.png\ni/d.png\n"
    assert len(find(folder, "l.txt", text).warnings) == 3
    assert find(folder, "l.txt", text, limit=1).warnings == []
    assert find(folder, "l.txt", text, limit=2).warnings == [
        f"1 of 2 images listed do not exist, e.g. {folder}/i/no.png"
    ]
    twins = "i/d.png\n" * 20
    for number in (1, 2):
        found = find(folder, "l.txt", twins, sample=number)
        assert [s.fault for s in samples(found)] == [None, "duplicate_id"][:number]
        assert len(found.warnings) == number - 1


def test_the_stored_plan_keeps_faults(folder: Path) -> None:
    found = find(folder, "l.txt", "i/a.png l/a.png\ni/a.png\ni/no.png\ni/d.png l/no.png\n")
    frozen = Plan.from_bytes(Plan.of(found.parts).to_bytes())
    assert list(frozen.parts()) == found.parts
    read = [sample for part in frozen.parts() for sample in read_part(part, InputOptions(), STORE)]
    assert [s.fault for s in read] == [None, "duplicate_id", "missing", "label_missing"]


def test_a_whole_list_of_missing_images_is_refused(folder: Path) -> None:
    text = "/SegNet/CamVid/val/0016E5_07959.png /SegNet/CamVid/valannot/0016E5_07959.png\n" * 2
    assert refusal(folder, "l.txt", text) == (
        "/l.txt: all of its 2 images lie outside of what this run may read, e.g. /SegNet/CamVid/val/0016E5_07959.png; "
        "where that is meant, --allow-input /SegNet/CamVid/val allows it"
    )
    assert refusal(folder, "l.txt", text, allow_input=["/SegNet"]) == (
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
        ("l.txt", "'" + "\\" * (1 << 20), "/l.txt, line 1 is longer than any name"),
        ("l.csv", "a.png,b.png,1,2\n", "/l.csv, line 1 has 4 fields; expected 3"),
        ("l.csv", 'a.png\n"b"x,c', "/l.csv, line 2 is no CSV: "),
        ("l.csv", "image,label\n,b.png\n", "/l.csv: none of its 1 image can be read, e.g. line 2: it is empty"),
        ("l.csv", "image,label\na.png,b.png,c\n", "/l.csv, line 2 has 3 fields; its header names 2"),
        ("l.jsonl", "{}\n", "/l.jsonl has no image column: name it with --image-column. Its columns: "),
        ("l.jsonl", '{"a": 1, "b": 2}', "no image column: name it with --image-column. Its columns: 'a', 'b'"),
        ("l.jsonl", '["a.png"]', "/l.jsonl, line 1 is no object"),
        ("l.jsonl", "{'image': 'a.png'}", "/l.jsonl, line 1 is no JSON"),
        ("l.jsonl", '{"image": "a\\u0000.png"}', "e.g. line 1: a\\0.png: a name with a NUL byte"),
        ("l.jsonl", '{"image": "a\\ud800.png"}', "line 1: a\\ud800.png: a name with a NUL byte or half a surrogate"),
        ("l.txt", "s3://me:secret@bucket/a.png", "line 1: s3://***@bucket/a.png: credentials in a URL"),
        ("l.txt", "nosuch://x/a.png", "unknown protocol nosuch://"),
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
        rows = parse_rows(lambda: io.BytesIO(data), suffix, "list")
    except UsageError:
        return
    assert len(list(rows.each)) == rows.number > 0
    assert all(row.cells.keys() <= {*rows.names} for row in rows.each)


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
        ("l.csv", "image\tlabel\ni/a.png\tl/a.png\n"),
        ("l.csv", "#Bilder;Masken\ni/a.png;l/a.png\n"),
        ("l.csv", "# images, labels\ni/a.png,l/a.png\n"),
        ("l.txt", "# images and labels\n\ni/a.png l/a.png\n#i/b.png l/b.png\n"),
        ("l.txt", "image label\ni/a.png l/a.png\n"),
        ("l.json", '[{"image": "i/a.png", "label": "l/a.png"}]'),
    ],
)
def test_other_ways_to_write_a_list(folder: Path, name: str, text: str) -> None:
    assert pairs(find(folder, name, text)) == BOTH[:1]


def test_json_that_is_no_list_of_images(folder: Path) -> None:
    assert pairs(find(folder, "l.json", '["i/a.png", "i/d.png"]')) == [("i/a.png", None), ("i/d.png", None)]
    wrong = {
        '{"images": []}': "/l.json is no list of images: expected an array as ",
        '{"images": [{"file_name": "a.png"}], "annotations": [], "categories": []}': "/l.json is a COCO file, whose ",
        '{"image": "a"}\n{"image": "b"}': "/l.json is no JSON; a file with an object per line is named .jsonl",
        '["a.png", ["b.png"]]': '/l.json, item 2 is no object with an "image"',
        "[]": "/l.json lists no images",
        "[[[[": "/l.json is no JSON",
    }
    for data, text in wrong.items():
        assert refusal(folder, "l.json", data).startswith(text)


# --- detection of columns ---------------------------------------------------------------------------------------------

HEADERS = [
    ("image", "label"), ("image_path", "annotation_path"), ("image", "seg_map"), ("img_file", "gt"),
    ("img_path", "seg_map_path"), ("file_name", "mask_file_name"), ("Image Path", "Label Path"),
    ("imageFile", "maskFile"), ("IMAGE-URL", "GROUND_TRUTH"), ("filename", "segmentation"), ("path", "target"),
    ("photo", "segmap"), ("rgb", "semantic"), ("url", "label_url"), ("image_filename", "annotation"),
    ("img", "labelIds"), ("path_to_image", "path_to_mask"), ("file_name", "sem_seg_file_name"), ("im", "lbl"),
]  # fmt: skip


def written(kind: str, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return the same rows in one of the list formats."""
    if kind == "csv":
        return "".join(",".join(f'"{cell}"' for cell in row) + "\r\n" for row in [names, *rows])
    if kind == "tsv":
        return "".join("\t".join(row) + "\n" for row in [names, *rows])
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    return json.dumps(objects) if kind == "json" else "".join(json.dumps(each) + "\n" for each in objects)


KINDS = ["csv", "tsv", "json", "jsonl"]
PATHS = [("i/a.png", "l/a.png"), ("i/b c.png", "l/b c.png")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", HEADERS)
def test_one_table_of_names_for_all_kinds_of_lists(folder: Path, kind: str, names: tuple[str, str]) -> None:
    found = find(folder, f"l.{kind}", "\ufeff" * (kind == "csv") + written(kind, names, PATHS))
    assert pairs(found) == PATHS
    header = [f"the first line is taken as the header: '{names[0]}', '{names[1]}'"] if kind in ("csv", "tsv") else []
    assert found.notes == [*header, f"columns read, image: {names[0]}, label: {names[1]}, id: the image's path"]
    assert found.warnings == []


@pytest.mark.parametrize("names", HEADERS)
def test_one_table_of_names_for_lists_and_parquet(folder: Path, names: tuple[str, str]) -> None:
    """Text labels are detected by the same names except those that may be a class; encoded labels by all of them."""
    table = pa.table({"image_path": [image for image, _ in PATHS], names[1]: [label for _, label in PATHS]})
    pq.write_table(table, folder / "t.parquet")
    found = discover(str(folder / "t.parquet"), InputOptions(), STORE)
    if names_label_path(names[1]):
        assert pairs(found) == PATHS
    else:
        assert f"name it with --label-column: '{names[1]}'" in found.warnings[0]
    picture = encoded(np.zeros((4, 6), np.uint8))
    pq.write_table(pa.table({"image": [picture], names[1]: [picture]}), folder / "e.parquet")
    (sample,) = samples(discover(str(folder / "e.parquet"), InputOptions(), STORE))
    assert sample.label == picture


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [("uri", "instance mask"), ("image", "Wahrheit"), ("image", "second")])
def test_an_unread_column_of_paths_gives_a_warning(folder: Path, kind: str, names: tuple[str, str]) -> None:
    found = find(folder, f"l.{kind}", written(kind, names, PATHS))
    assert (found.labelled, [image for image, _ in pairs(found)]) == (0, ["i/a.png", "i/b c.png"])
    assert found.warnings == [
        f"a column that holds paths and is not read: '{names[1]}', e.g. l/a.png. If it is the label, use "
        f"--label-column '{names[1]}'"
    ]
    again = find(folder, f"l.{kind}", written(kind, names, PATHS), label_column=names[1])
    assert (pairs(again), again.warnings) == (PATHS, [])


def test_a_column_that_is_not_read_and_holds_names_without_suffix(folder: Path) -> None:
    (folder / "l" / "bare").write_text("l/bare")
    found = find(folder, "l.csv", "image,truthful,split\ni/a.png,l/bare,train\ni/d.png,l/bare,val\n")
    assert found.warnings == [
        "a column that holds paths and is not read: 'truthful', e.g. l/bare. If it is the label, use "
        "--label-column 'truthful'"
    ]


def test_cells_of_a_column_without_a_known_name_are_not_looked_up_elsewhere(folder: Path) -> None:
    """Looking up a host that does not answer would be slowest."""
    rows = "".join(f"i/{name}.png,http://127.0.0.1:1/{name},a dog.,7\n" for name in "ad")
    found = find(folder, "l.csv", f"image,source page,text,nr\n{rows}")
    assert (found.images, found.warnings) == (2, [])


def test_an_unread_column_beside_labels_is_a_note(folder: Path) -> None:
    found = find(folder, "l.csv", "image,mask,depth\ni/a.png,l/a.png,l/a.png\n")
    assert (pairs(found), found.warnings) == (BOTH[:1], [])
    assert found.notes[-1].startswith("a column that holds paths and is not read: 'depth'")


@pytest.mark.parametrize("kind", KINDS)
def test_columns_by_option(folder: Path, kind: str) -> None:
    rows = [("i/a.png", "l/a.png", "17", "x"), ("i/d.png", "", "18", "x")]
    text = written(kind, ("mask", "image", "nr", "id"), rows)
    options = {"image_column": "mask", "label_column": "image", "id_column": "nr"}
    found = find(folder, f"l.{kind}", text, **options)
    assert pairs(found) == [BOTH[0], BOTH[2]]
    assert [s.id for s in samples(found)] == ["17", "18"]
    assert "has no label column 'mesk'. Did you mean 'mask'? Its columns: 'mask', 'image', 'nr', 'id'" in refusal(
        folder, f"l.{kind}", text, label_column="mesk"
    )


def test_columns_of_a_list_without_header_by_number(folder: Path) -> None:
    text = "train,0,l/a.png,i/a.png\ntrain,1,l/b c.png,i/b c.png\n"
    assert "line 1 has 4 fields; expected 3: image, label and id." in refusal(folder, "l.csv", text)
    found = find(folder, "l.csv", text, image_column="4", label_column="3", id_column="2")
    assert (pairs(found), [s.id for s in samples(found)]) == (PATHS, ["0", "1"])
    assert pairs(find(folder, "l.txt", "l/a.png i/a.png", image_column="2", label_column="1")) == BOTH[:1]
    assert "has no image column '5'" in refusal(folder, "l.csv", text, image_column="5")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
@pytest.mark.parametrize("titles", [("foto", "maske"), ("foto", "mask"), ("1st", "2nd")])
def test_an_unknown_header_is_refused_and_no_image(folder: Path, suffix: str, titles: tuple[str, str]) -> None:
    mark = {"csv": ",", "tsv": "\t", "txt": "\t"}[suffix]
    text = "\n".join(mark.join(row) for row in [titles, *PATHS])
    told = refusal(folder, f"l.{suffix}", text)
    assert told.startswith(f"/l.{suffix}: its first line is no image and looks like a header, '{titles[0]}', ")
    found = find(folder, f"l.{suffix}", text, image_column=titles[0], label_column=titles[1])
    assert pairs(found) == PATHS


def test_a_first_image_that_is_missing_is_no_header(folder: Path) -> None:
    assert [s.fault for s in samples(find(folder, "l.csv", "gone.png,l/a.png\ni/a.png,l/a.png\n"))] == ["missing", None]
    assert [s.fault for s in samples(find(folder, "l.csv", "gone.png\ni/a.png\n"))] == ["missing", None]


@pytest.mark.parametrize("first", ["img", "image", "path/to/image", "img/file", "0001.rgb", "url"])
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_a_first_image_that_is_called_like_a_column_is_no_header(folder: Path, first: str, suffix: str) -> None:
    (folder / first).parent.mkdir(parents=True, exist_ok=True)
    (folder / first).write_text(first)
    found = find(folder, f"l.{suffix}", f"{first}\ni/a.png\ni/d.png\n")
    assert ([s.id for s in samples(found)], found.notes) == ([first, "i/a.png", "i/d.png"], [])


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_a_header_is_noted_and_a_folder_of_its_name_is_no_file(folder: Path, suffix: str) -> None:
    (folder / "img").mkdir()
    found = find(folder, f"l.{suffix}", "img\ni/a.png\ni/d.png\n")
    assert ([s.id for s in samples(found)], found.notes) == (
        ["i/a.png", "i/d.png"],
        ["the first line is taken as the header: 'img'"],
    )


def test_a_header_that_is_a_path_is_refused(folder: Path) -> None:
    assert "looks like a header, 'path/to/image', without" in refusal(folder, "l.txt", "path/to/image\ni/a.png\n")


def test_a_header_of_several_that_could_be_meant(folder: Path) -> None:
    text = "image_path,img,mask,gt\ni/a.png,i/a.png,l/a.png,l/a.png\n"
    assert refusal(folder, "l.csv", text) == (
        "/l.csv: 'image_path', 'img' could each be the image column: name the one with --image-column"
    )
    assert refusal(folder, "l.csv", text, image_column="img") == (
        "/l.csv: 'mask', 'gt' could each be the label column: name the one with --label-column"
    )
    assert pairs(find(folder, "l.csv", text, image_column="img", label_column="gt")) == BOTH[:1]
    twice = "image,image\ni/a.png,l/a.png\n"
    assert refusal(folder, "l.csv", twice) == "/l.csv: its header names the column 'image' 2 times: rename them"
    assert pairs(find(folder, "l.csv", "x,image,x\n1,i/a.png,2\n")) == [("i/a.png", None)]


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_columns_the_one_that_holds_paths(folder: Path, kind: str) -> None:
    names = ("image", "file", "label", "mask", "image_path")
    rows = [("1", "nowhere/1.png", "cat", "l/a.png", "i/a.png"), ("2", "nowhere/2.png", "dog", "", "i/d.png")]
    found = find(folder, f"l.{kind}", written(kind, names, rows))
    assert pairs(found) == [BOTH[0], BOTH[2]]
    assert "columns read, image: image_path, label: mask, id: the image's path" in found.notes
    assert any(note.startswith("column 'label' of") and "but holds no paths, e.g. cat" in note for note in found.notes)


def test_a_guessed_image_column_that_holds_no_paths(folder: Path) -> None:
    text = "image,where\n1,i/a.png\n2,i/d.png\n"
    assert refusal(folder, "l.csv", text) == (
        "/l.csv: which column names the images? 'image' holds no path that exists, e.g. 1; 'where' holds paths. "
        "Name it with --image-column"
    )
    assert refusal(folder, "l.csv", "0,i/a.png\n1,i/d.png\n") == (
        "/l.csv: which column names the images? '1' holds no path that exists, e.g. 0; '2' holds paths. "
        "Name it with --image-column"
    )


@pytest.mark.parametrize(
    ("name", "text", "column"),
    [
        ("l.csv", "image,label\ni/a.png,cat\ni/d.png,dog\n", "label"),
        ("l.csv", "i/a.png,0\ni/d.png,1\n", "2"),
        ("l.txt", "i/a.png 0\ni/d.png 1\n", "2"),
        ("l.jsonl", '{"image": "i/a.png", "label": 3}\n{"image": "i/d.png", "label": 4}\n', "label"),
        ("l.jsonl", '{"image": "i/a.png", "label": {"size": [2, 2], "counts": "1"}}\n{"image": "i/d.png"}', ""),
    ],
)
def test_labels_that_are_no_paths_are_not_read(folder: Path, name: str, text: str, column: str) -> None:
    found = find(folder, name, text)
    assert (found.labelled, [s.fault for s in samples(found)]) == (0, [None, None])
    told = [w for w in found.warnings if f"--label-column '{column}' reads it anyway" in w]
    assert len(told) == 1 or not column
    if column:
        assert "none of its 2 labels exists" in refusal(folder, name, text, label_column=column)


def test_labels_none_of_which_exists_are_refused(folder: Path) -> None:
    text = "image,mask\ni/a.png,m/a.png\ni/d.png,m/d.png\n"
    assert refusal(folder, "l.csv", text) == "/l.csv: none of its 2 labels exists, e.g. /m/a.png"


@pytest.mark.parametrize("kind", KINDS)
def test_a_detected_id_that_repeats_loses_no_image(folder: Path, kind: str) -> None:
    rows = [("i/a.png", "s1", "l/a.png"), ("i/b c.png", "s1", "l/b c.png"), ("i/d.png", "s2", "")]
    text = written(kind, ("image", "id", "mask"), rows)
    found = find(folder, f"l.{kind}", text)
    assert (pairs(found), [s.id for s in samples(found)]) == (BOTH, ["i/a.png", "i/b c.png", "i/d.png"])
    assert found.warnings[0].replace(str(folder), "") == (
        f"column 'id' of /l.{kind} repeats 1 of 3 values, so that it cannot tell images apart: their paths are the "
        "ids. --id-column 'id' uses it anyway"
    )
    strict = find(folder, f"l.{kind}", text, id_column="id")
    assert [(s.id, s.fault) for s in samples(strict)] == [("s1", None), ("s1", "duplicate_id"), ("s2", None)]
    assert find(folder, "l.csv", "i/a.png,,train\ni/d.png,,train\n").images == 2


def test_an_id_that_begins_to_repeat_doubles_nothing(folder: Path) -> None:
    planned = find(folder, "l.csv", "image,id\ni/a.png,1\ni/b c.png,2\n")
    (folder / "l.csv").write_text("image,id\ni/a.png,1\ni/b c.png,2\ni/d.png,2\n")
    known = Known(planned.parts)
    found = discover(str(folder / "l.csv"), InputOptions(), STORE, known)
    assert [m.id for part in found.parts for m in part.members] == ["i/d.png"]
    assert (known.new, known.renamed, known.gone, known.stale) == (1, 2, 0, set())


def test_columns_that_are_empty_and_rows_that_are_short(folder: Path) -> None:
    found = find(folder, "l.csv", "image,mask,id,note\ni/a.png\ni/d.png,,\n")
    assert [(s.id, s.label, s.fault) for s in samples(found)] == [("i/a.png", None, None), ("i/d.png", None, None)]
    assert found.warnings == [f"column 'mask' of {folder}/l.csv is empty in every row: no labels"]
    found = find(folder, "l.jsonl", '{"image": "i/a.png", "mask": null}\n')
    assert found.warnings == [f"column 'mask' of {folder}/l.jsonl is empty in every row: no labels"]
    assert pairs(find(folder, "l.csv", "image,mask\ni/a.png,l/a.png,,\n")) == BOTH[:1]
    assert pairs(find(folder, "l.csv", ",image,mask\n0,i/a.png,l/a.png\n")) == BOTH[:1]  # pandas writes an index column


def test_objects_within_objects(folder: Path) -> None:
    rows = [
        {
            "image": {"path": "i/a.png", "bytes": None},
            "mask": {"path": "l/a.png"},
            "meta": {"id": 7, "deep": {"x": {}}},
        },
        {"image": {"url": "i/d.png"}, "meta": {"id": 8}},
    ]
    found = find(folder, "l.json", json.dumps(rows))
    assert pairs(found) == [BOTH[0], BOTH[2]]
    assert [s.id for s in samples(found)] == ["7", "8"]
    found = find(folder, "l.jsonl", '{"data": {"img_path": "i/a.png", "seg_map_path": "l/a.png"}, "ids": [1, 2]}')
    assert pairs(found) == BOTH[:1]


@pytest.mark.parametrize("names", ["a.tar\nb.TAR", "a.parquet"])
def test_a_list_of_tars_or_tables_is_refused(folder: Path, names: str) -> None:
    with pytest.raises(UsageError, match=r"names tars or Parquet files, e\.g\."):
        find(folder, "l.txt", names)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("EncodedPixels", '"1 3 7 9"', "Polygons and run lengths have to be drawn"),
        ("segmentation", '"[[1, 2, 3, 4]]"', "Polygons and run lengths have to be drawn"),
        ("segmentation", "street", "--label-column 'segmentation' reads it anyway"),
    ],
)
def test_label_columns_of_shapes_or_names_give_a_warning(folder: Path, name: str, value: str, advice: str) -> None:
    (warning,) = find(folder, "l.csv", f"image,{name}\ni/a.png,{value}\n").warnings
    assert "could be the label, but holds no paths" in warning
    assert advice in warning


def test_metadata_of_hugging_face(folder: Path) -> None:
    found = find(folder, "metadata.jsonl", '{"file_name": "i/a.png", "mask_file_name": "l/a.png", "text": "a dog"}')
    assert (pairs(found), found.warnings) == (BOTH[:1], [])
    found = find(folder, "metadata.csv", "file_name,label\ni/a.png,0\n")
    assert (found.labelled, "could be the label, but holds no paths, e.g. 0" in found.warnings[0]) == (0, True)


# --- lines that cannot be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("nosuch://x/a.png", "bad_reference"),
        ("a\0.png", "bad_reference"),
        ("a\ud800.png", "bad_reference"),
        ("http://[bad/a.png", "bad_reference"),
        ("http:///a.png", "bad_reference"),
        ("i/a.png?X-Amz-Signature=HUSH", "bad_reference"),
        ("s3://bucket/a.png?X-Amz-Signature=HUSH", "bad_reference"),
        ("s3://me:HUSH@bucket/a.png", "bad_reference"),
        ("", "bad_reference"),
        ("n" * 300 + ".png", "missing"),
        ("x/" * 3000 + "a.png", "missing"),
        ("i", "missing"),
        ("i/", "missing"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_fault_of_its_row(folder: Path, reference: str, fault: str) -> None:
    rows = [
        {"image": "i/a.png", "label": "l/a.png"},
        {"image": reference, "label": "l/a.png"},
        {"image": "i/d.png", "label": reference},
    ]
    found = find(folder, "l.json", json.dumps(rows))
    read = samples(found)
    assert [s.fault for s in read] == [None, fault, f"label_{fault}" if reference else None]
    assert (read[1].image, read[2].image) == (b"", b"i/d.png")
    frozen = Plan.from_bytes(Plan.of(found.parts).to_bytes())
    assert list(frozen.parts()) == found.parts
    assert "HUSH" not in repr((found, read))
    if fault == "bad_reference":
        assert sum("cannot be read and will be error rows, e.g. line" in w for w in found.warnings) == 1 + bool(
            reference
        )


def test_a_signature_belongs_to_an_http_url() -> None:
    signed = "a.png?X-Amz-Signature=HUSH"
    for folder in ("s3://bucket/d", "file:///d"):
        with pytest.raises(BadReference, match="a signature on a URL that is not http") as caught:
            absolute_url(signed, folder)
        assert "HUSH" not in str(caught.value)
    assert absolute_url(signed, "https://host/d") == f"https://host/d/{signed}"
    assert absolute_url("./x/../what?.png", "s3://bucket/d") == "s3://bucket/d/what?.png"
    assert absolute_url("file:/x/a.png", "file:///d") == "file:///x/a.png"


@pytest.mark.parametrize("reference", ["i/a.png?X-Amz-Signature=HUSH", "s3://me:HUSH@bucket/a.png", "http:///a.png"])
def test_a_table_takes_the_references_of_a_list(folder: Path, reference: str) -> None:
    pq.write_table(pa.table({"image_path": ["i/a.png", reference]}), folder / "t.parquet")
    read = samples(discover(str(folder / "t.parquet"), InputOptions(), STORE))
    assert [s.fault for s in read] == [None, "bad_reference"]
    assert "HUSH" not in repr(read)


def test_an_empty_cell_among_images(folder: Path) -> None:
    found = find(folder, "l.csv", "image,label\ni/a.png,l/a.png\n,l/a.png\ni/d.png,\n")
    assert [(s.id, s.fault) for s in samples(found)] == [
        ("i/a.png", None),
        ("l.csv#3", "bad_reference"),
        ("i/d.png", None),
    ]
    assert "1 of 3 images listed cannot be read and will be error rows, e.g. line 3: it is empty" in found.warnings
