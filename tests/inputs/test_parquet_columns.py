"""Parquet columns: detection of image and label by type, name and first rows, and errors of others."""

import base64
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.parts import Sample
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.client import Store
from tests.datasets import encoded

PICTURES = [encoded(np.full((4, 6, 3), 10 * i, np.uint8)) for i in range(3)]
BINARY = pa.array(PICTURES, pa.binary())
NAMES = pa.array(["a.png", "b.png", "c.png"])


def write(path: Path, columns: dict[str, Any] | pa.Table, row_group_size: int = 1000) -> Path:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def find(where: object, **options: Any) -> Discovery:
    return discover(str(where), InputOptions(**options), Store())


def read(where: object, **options: Any) -> list[Sample]:
    parts = find(where, **options).parts
    return [sample for part in parts for sample in read_part(part, InputOptions(**options), Store())]


def refusal(where: object, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        find(where, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def struct(**fields: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays(list(fields.values()), list(fields))


def annotated(values: pa.Array, extension: str) -> pa.Table:
    """Return a column of an extension type that is not registered here."""
    metadata = {"ARROW:extension:name": extension, "ARROW:extension:metadata": ""}
    return pa.Table.from_arrays([values], schema=pa.schema([pa.field("image", values.type, metadata=metadata)]))


# --- types that are read ---------------------------------------------------------------------------------------------

ENCODINGS = {
    "binary": BINARY,
    "large": BINARY.cast(pa.large_binary()),
    "view": BINARY.cast(pa.binary_view()),
    "dictionary": BINARY.dictionary_encode(),
    "fixed": pa.array([PICTURES[0]] * 3, pa.binary(len(PICTURES[0]))),
    "bytes, path": struct(bytes=BINARY, path=NAMES),
    "path, bytes": struct(path=NAMES.cast(pa.large_string()), bytes=BINARY.cast(pa.large_binary())),
    "dictionaries within": struct(bytes=BINARY.dictionary_encode(), path=NAMES.dictionary_encode()),
    "bytes only": struct(bytes=BINARY),
    "struct within struct": struct(bytes=struct(bytes=BINARY, path=NAMES), path=NAMES),
    "struct within struct, reversed": struct(path=NAMES, bytes=struct(path=NAMES, bytes=BINARY)),
    "list within struct": struct(path=NAMES, bytes=pa.array([list(data) for data in PICTURES], pa.list_(pa.uint8()))),
    "lists of bytes": pa.array([list(data) for data in PICTURES], pa.list_(pa.uint8())),
    "lists of signed bytes": pa.array([np.frombuffer(data, np.int8) for data in PICTURES], pa.large_list(pa.int8())),
    "extension type": pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "image", "vendor"), BINARY),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_every_encoding_of_encoded_images_is_read(tmp_path: Path, kind: str) -> None:
    column = ENCODINGS[kind]
    expected = [PICTURES[0]] * 3 if kind == "fixed" else PICTURES
    path = write(tmp_path / "a.parquet", {"image": column, "png": column, "n": [1, 2, 3]}, row_group_size=2)
    options = {"image_column": "image", "label_column": "png"}
    assert [(s.image, s.label, s.fault) for s in read(path, **options)] == [(data, data, None) for data in expected]
    write(path, {"image": column})
    assert [s.image for s in read(path)] == expected


@pytest.mark.parametrize("kind", [kind for kind in ENCODINGS if kind != "fixed"])
def test_nulls_at_every_level_are_rows_without_an_image(tmp_path: Path, kind: str) -> None:
    nothing = pa.nulls(1, ENCODINGS[kind].type)
    column = pa.chunked_array([ENCODINGS[kind], nothing])
    samples = read(write(tmp_path / "a.parquet", {"image": column}), id_column=":row")
    assert [(s.image, s.fault) for s in samples] == [*((data, None) for data in PICTURES), (b"", "empty")]


def test_null_bytes_and_empty_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[2])
    rows = [
        {"bytes": PICTURES[0], "path": None}, {"bytes": None, "path": "a.png"}, {"bytes": b"", "path": "a.png"},
        {"bytes": None, "path": None}, None,
    ]  # fmt: skip
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    samples = read(write(tmp_path / "t.parquet", {"image": pa.array(rows, kind)}), id_column=":row")
    assert [(s.image, s.fault) for s in samples] == [
        (PICTURES[0], None), (PICTURES[2], None), (b"", "empty"), (b"", "empty"), (b"", "empty"),
    ]  # fmt: skip


def test_columns_with_dots_and_fields_of_columns(tmp_path: Path) -> None:
    other = pa.array(PICTURES[::-1], pa.binary())
    table = pa.Table.from_arrays(
        [BINARY, struct(c=other, b=other), struct(image=struct(bytes=BINARY, path=NAMES), mask=other)],
        ["a.b", "a", "sample"],
    )
    path = write(tmp_path / "t.parquet", table)
    assert [s.image for s in read(path, image_column="a.b")] == PICTURES  # the column of this name, not a's field b
    assert [s.image for s in read(path, image_column="a.c")] == PICTURES[::-1]
    options = {"image_column": "sample.image", "label_column": "sample.mask"}
    assert [(s.image, s.label, s.id) for s in read(path, **options)] == list(
        zip(PICTURES, PICTURES[::-1], NAMES.to_pylist(), strict=True)
    )
    assert [s.id for s in read(path, image_column="a.b", id_column="sample.image.path")] == NAMES.to_pylist()
    told = refusal(write(path, table.drop_columns("a.b")))
    assert (
        "if one of these is it, name it with --image-column: 'a.c', 'a.b', 'sample.image', 'sample.mask'. Its columns"
        in told
    )


# --- types that are refused, named or detected -----------------------------------------------------------------------

TENSOR = pa.fixed_shape_tensor(pa.uint8(), (2, 2))
REFUSED = {
    "lists of lists": (pa.array([[[1, 2], [3, 4]]] * 3, pa.list_(pa.list_(pa.uint8()))), "holds numbers"),
    "fixed lists": (pa.array([[1, 2, 3]] * 3, pa.list_(pa.uint8(), 3)), "holds numbers"),
    "a tensor": (
        pa.ExtensionArray.from_storage(TENSOR, pa.array([[1, 2, 3, 4]] * 3, pa.list_(pa.uint8(), 4))),
        "holds numbers",
    ),
    "Spark's image source": (
        pa.array([{"origin": "a", "height": 1, "width": 1, "nChannels": 3, "mode": 16, "data": b"123"}] * 3),
        "holds numbers",
    ),
    "a tensor as a struct": (pa.array([{"data": [1, 2], "shape": [1, 2]}] * 3), "holds numbers"),
    "lists of images": (pa.array([[data] for data in PICTURES]), "holds several images per row"),
    "lists of structs": (
        pa.array([[{"bytes": data, "path": ""}] for data in PICTURES]), "holds several images per row"
    ),
    "a map": (pa.array([[("a", data)] for data in PICTURES], pa.map_(pa.string(), pa.binary())), "cannot hold images"),
    "numbers": (pa.array([1, 2, 3]), "cannot hold images"),
    "booleans": (pa.array([True, False, None]), "cannot hold images"),
    "nulls": (pa.nulls(3), "cannot hold images"),
    "hashes": (pa.array([b"12345678"] * 3, pa.binary(8)), "is too short for an image"),
    "text as bytes": (struct(bytes=NAMES, path=NAMES), "has text as its bytes"),
    "another struct": (pa.array([{"jpeg": data, "n": 1} for data in PICTURES]), "may hold images: 'image.jpe"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_unreadable_columns_are_refused_when_a_run_is_planned(tmp_path: Path, kind: str) -> None:
    column, words = REFUSED[kind]
    path = write(tmp_path / "a.parquet", {"image": column, "photo": BINARY})
    told = refusal(path, image_column="image")
    assert told.startswith(f"{path}: the image column 'image' is ")
    assert words in told
    assert words in refusal(path, image_column="photo", label_column="image")
    assert words in refusal(write(path, {"image": column}))


@pytest.mark.parametrize(
    ("extension", "storage", "words"),
    [
        ("ray.data.arrow_tensor_v2", pa.array([[1, 2, 3]] * 3, pa.large_list(pa.uint8())), "holds numbers"),
        ("geoarrow.wkb", BINARY, "holds geometries (geoarrow.wkb)"),
    ],
)
def test_extension_types_are_known_by_name_where_no_library_knows_them(
    tmp_path: Path, extension: str, storage: pa.Array, words: str
) -> None:
    if extension.startswith("ray.") and "ray.data" in sys.modules:  # another test of this process has loaded it
        words = "is no readable Parquet file: Unable to deser"
    assert words in refusal(write(tmp_path / "a.parquet", annotated(storage, extension)))


@pytest.mark.parametrize(
    ("prefix", "words", "decoded"),
    [
        ("", "holds base64 text", '"image"'),
        ("data:image/png;base64,", "holds data URIs", "split_part(\"image\", ',', 2)"),
    ],
)
def test_images_in_text_are_refused_with_a_statement_that_decodes_them(
    tmp_path: Path, prefix: str, words: str, decoded: str
) -> None:
    duckdb = pytest.importorskip("duckdb")
    texts = [prefix + base64.b64encode(data).decode() for data in PICTURES]
    path = write(tmp_path / "in.parquet", {"image": texts})
    for options in ({}, {"image_column": "image"}):
        told = refusal(path, **options)
        assert words in told
        assert decoded in told
    statement = told.partition("DuckDB: ")[2]
    made = tmp_path / "out.parquet"
    duckdb.sql(statement.replace("'in.parquet'", f"'{path}'").replace("'out.parquet'", f"'{made}'"))
    assert [s.image for s in read(made)] == PICTURES


def test_columns_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.Table.from_arrays([BINARY, BINARY, BINARY], ["image", "image", "photo"]))
    assert "has 2 columns 'image', which cannot be told apart" in refusal(path, image_column="image")
    assert [s.image for s in read(path, image_column="photo")] == PICTURES
    write(path, pa.Table.from_arrays([BINARY, BINARY], ["image", "image"]))
    assert "there are 2 columns 'image', which cannot be told apart" in refusal(path)


def test_one_column_for_image_and_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": BINARY, "label": BINARY})
    assert "'image' is named as the image column and as the label column" in refusal(path, label_column="image")
    assert find(path, image_column="label").labelled == 0


def test_an_encrypted_file(tmp_path: Path) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc, name-defined]
        def __init__(self, config: object) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, name: str) -> str:
            return base64.b64encode(key).decode()

        def unwrap_key(self, key: str, name: str) -> bytes:
            return base64.b64decode(key)

    factory, table = encryption.CryptoFactory(Keys), pa.table({"image": BINARY})
    for plaintext_footer in (False, True):
        how = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["image"]}, plaintext_footer=plaintext_footer
        )
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
        with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)
        assert f"{tmp_path}/a.parquet is encrypted Parquet, which is not read" in refusal(tmp_path)
    data = (tmp_path / "a.parquet").read_bytes()  # its footer is no secret: without the signature it looks sound
    length = int.from_bytes(data[-8:-4], "little") - 28
    (tmp_path / "a.parquet").write_bytes(data[:-36] + length.to_bytes(4, "little") + data[-4:])
    for options in ({}, {"max_row_group_bytes": 1}):  # which asks for the sizes of columns
        assert f"{tmp_path}/a.parquet is encrypted Parquet, which is not read" in refusal(tmp_path, **options)


# --- detected columns ------------------------------------------------------------------------------------------------

OTHER_CONTENT = {
    "pickled Python objects": [pickle.dumps(i) for i in range(3)],
    "NumPy arrays (.npy)": [b"\x93NUMPY" + bytes(100)] * 3,
    "text": [b'{"a": 1}'] * 3,
    "GIF images": [b"GIF89a" + bytes(100)] * 3,
    "AVIF, HEIC or video files": [b"\0\0\0 ftypavif" + bytes(100)] * 3,
    "other bytes": [bytes(4 * 6 * 3)] * 3,
}


@pytest.mark.parametrize("content", OTHER_CONTENT)
@pytest.mark.parametrize("name", ["image", "bytes", "embedding"])
def test_a_detected_image_column_with_other_content_is_refused_and_a_named_one_gives_a_warning(
    tmp_path: Path, name: str, content: str
) -> None:
    path = write(tmp_path / "a.parquet", {name: pa.array(OTHER_CONTENT[content], pa.binary())})
    told = refusal(path)
    assert f"'{name}' was detected as the image column, but the 3 sampled rows hold {content}" in told
    found = find(path, image_column=name)
    assert [w for w in found.warnings if f"'{name}': the 3 sampled rows hold {content}, not JPEG" in w]


def test_a_contradicted_guess_names_the_column_that_holds_images(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"bytes": OTHER_CONTENT["other bytes"], "photo": BINARY, "n": [1, 2, 3]})
    assert "--image-column (images are in: 'photo')" in refusal(path)
    assert [s.image for s in read(path, image_column="photo")] == PICTURES


def test_a_few_bad_rows_do_not_contradict_a_guess(tmp_path: Path) -> None:
    rows = [b"<html>", b"", None, b"x"] * 20 + PICTURES
    found = find(write(tmp_path / "a.parquet", {"image": pa.array(rows, pa.binary())}, row_group_size=4))
    assert (found.images, found.warnings) == (83, [])
    found = find(write(tmp_path / "a.parquet", {"image": pa.nulls(3, pa.binary())}))
    assert (found.images, found.warnings) == (3, [])


def test_a_detected_label_column_with_other_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": BINARY, "annotation": OTHER_CONTENT["text"]})
    told = refusal(path)
    assert "'annotation' was detected as the label column, but the 3 sampled rows hold text" in told
    assert "or read none with --label-column :none" in told
    found = find(path, label_column=":none")
    assert (found.labelled, found.warnings) == (0, [])
    assert [s.label for s in read(path, label_column=":none")] == [None] * 3
    gif = [b"GIF89a" + bytes(100)] * 3
    assert [s.label for s in read(write(path, {"image": BINARY, "mask": gif}))] == gif


def test_columns_of_numbers_give_way_to_columns_of_bytes(tmp_path: Path) -> None:
    numbers = pa.array([[0] * 100] * 3, pa.list_(pa.uint8()))
    path = write(tmp_path / "a.parquet", {"image": numbers, "jpg": BINARY})
    assert [s.image for s in read(path)] == PICTURES
    write(path, {"image": numbers})
    assert "the 3 sampled rows hold other bytes" in refusal(path)


# --- columns that are not read ---------------------------------------------------------------------------------------


def test_columns_that_could_be_labels_are_named(tmp_path: Path) -> None:
    columns = {
        "image": BINARY,
        "Depth": BINARY,
        "GT_npy": OTHER_CONTENT["NumPy arrays (.npy)"],
        "embedding": OTHER_CONTENT["other bytes"],
        "Mask_Path": ["m/0.png", "m/1.png", None],
        "target": ["labels/0.png"] * 3,
        "label": ["cat", "dog", "cow"],
        "file_name": ["0.png", "1.png", "2.png"],
        "length": [b"x"] * 3,
    }
    path = write(tmp_path / "a.parquet", columns)
    assert find(path).warnings == [
        "no label column is read; if one of these is it, name it with --label-column: 'Depth', 'GT_npy', "
        "'Mask_Path', 'target'"
    ]
    assert find(path, label_column="Depth").warnings == []
    named = find(path, label_column="Mask_Path")
    assert [w for w in named.warnings if "not read" in w] == [
        "columns with images that are not read: 'Depth' (--image-column and --label-column select others)"
    ]
    assert find(path, label_column=":none").warnings == [
        "columns with images that are not read: 'Depth' (--image-column and --label-column select others)"
    ]


@pytest.mark.parametrize("column", [[[[0.0, 1.0]]] * 3, [[[1, 2], [3, 4]]] * 3, [{"counts": "a", "size": [1, 2]}] * 3])
def test_labels_in_a_form_that_is_not_read_are_named(tmp_path: Path, column: Any) -> None:
    (warning,) = find(write(tmp_path / "a.parquet", {"image": BINARY, "Segmentation": column})).warnings
    assert warning.startswith("no labels are used, but the column 'Segmentation' could hold them: it is ")


# --- images by path or URL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rle", "mask_rle", "EncodedPixels", "polygons"])
def test_labels_in_text_that_is_drawn_from_are_named(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"image": BINARY, name: ["1 3 7 9"] * 3}), tmp_path / "a.parquet")
    (line,) = find(tmp_path / "a.parquet").warnings
    assert line.startswith(f"no labels are used, but the column '{name}' could hold them")


def test_only_readable_columns_are_suggested(tmp_path: Path) -> None:
    hexed = pa.array([picture.hex() for picture in PICTURES])
    write(tmp_path / "a.parquet", {"image": struct(bytes=hexed, path=NAMES), "x": struct(image=struct(bytes=BINARY))})
    said = refusal(tmp_path / "a.parquet")
    assert "name it with --image-column: 'x.image'. " in said
    assert len(read(tmp_path / "a.parquet", image_column="x.image")) == 3


def test_columns_of_paths_are_read(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "t").mkdir()
    (tmp_path / "i" / "a.png").write_bytes(PICTURES[0])
    (tmp_path / "i" / "b c.png").write_bytes(PICTURES[1])
    (tmp_path / "i" / "m.png").write_bytes(PICTURES[2])
    rows = ["../i/a.png", str(tmp_path / "i" / "b c.png"), "../i/none.png", None, "", "what://is/this.png"]
    columns = {"image_path": rows, "mask_path": ["../i/m.png", None, "../i/m.png", None, None, None]}
    path = write(tmp_path / "t" / "a.parquet", columns)
    found = find(path, allow_input=[tmp_path])
    assert found.notes == [
        "columns read, image: image_path (paths or URLs), label: mask_path (paths or URLs), id: image_path"
    ]
    assert [(s.id, s.image, s.label, s.fault) for s in read(path, allow_input=[tmp_path])] == [
        ("../i/a.png", PICTURES[0], PICTURES[2], None),
        (str(tmp_path / "i" / "b c.png"), PICTURES[1], None, None),
        ("../i/none.png", b"", None, "missing"),
        ("row-00000003", b"", None, "empty"),
        ("row-00000004", b"", None, "empty"),
        ("what://is/this.png", b"", None, "bad_reference"),
    ]


@pytest.mark.parametrize("name", ["image", "Image_Path", "img_url", "path", "file_name", "filename", "url", "uri"])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_columns_of_paths_are_known_by_name(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    path = write(tmp_path / "a.parquet", {name: pa.array(["a.png"]).cast(kind), "label": ["cat"]})
    assert [(s.image, s.label) for s in read(path)] == [(PICTURES[0], None)]


def test_parts_of_images_by_path_are_cut_as_if_each_had_some_megabytes(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(PICTURES[0])
    path = write(tmp_path / "a.parquet", {"image_path": ["0.png"] * 300})
    assert {len(part) for part in find(path, part_size=1000).parts} == {64, 44}


def test_a_label_by_path_of_an_image_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(PICTURES[1])
    path = write(tmp_path / "a.parquet", {"image": BINARY, "mask_file": ["m.png", "none.png", None]})
    options = {"label_column": "mask_file"}
    assert [(s.label, s.fault) for s in read(path, **options)] == [
        (PICTURES[1], None), (None, "label_missing"), (None, None),
    ]  # fmt: skip


def test_paths_none_of_which_exists(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image_path": [f"{i}.png" for i in range(100)]})
    told = refusal(path)
    assert "'image_path' was detected as the image column, but the 4 sampled paths name no file, such as " in told
    assert f"{tmp_path}/0.png (a path is relative to the Parquet file)" in told
    found = find(path, image_column="image_path")
    assert [w for w in found.warnings if "the 4 sampled paths name no file" in w]
    (tmp_path / "32.png").write_bytes(PICTURES[0])
    assert find(path).images == 100


def test_text_that_is_no_path_is_not_read_as_images(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"caption": ["a dog", "a cat"]})
    assert "has no image column; if one of these is it, name it with --image-column: 'caption'." in refusal(path)
    write(path, {"image": ["a dog on the grass", "two cats"]})
    assert "'image' was detected as the image column, but the 2 sampled paths name no file" in refusal(path)
    write(path, {"path": ["a.png"], "url": ["b.png"]})
    assert "'path', 'url' could each be the image column" in refusal(path)


def test_signatures_and_passwords_of_urls_are_in_no_id(tmp_path: Path) -> None:
    rows = [
        "nowhere://a.org/a.png",
        "https://u:pass@127.0.0.1:1/b.png",
        "https://127.0.0.1:1/c.png?X-Amz-Signature=abc",
    ]
    path = write(tmp_path / "a.parquet", {"n": [1, 2, 3], "image": struct(bytes=BINARY, path=pa.array(rows))})
    ids = [s.id for s in read(path)]
    assert ids == ["nowhere://a.org/a.png", "https://***@127.0.0.1:1/b.png", "https://127.0.0.1:1/c.png"]
