"""`keep`: values of Parquet columns, .json members and list columns, from the input to scores by slice."""

import datetime
import decimal
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import segment as api
from segment.errors import UsageError
from segment.inputs.changes import Known
from segment.inputs.discover import discover
from segment.inputs.metadata import LONGEST, json_values, kept_values
from segment.inputs.parquet.kept_columns import find_kept, kept_column
from segment.job import InputOptions
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.mask_columns import MASKS_SCHEMA, ExtraColumns
from segment.output.plan import Plan
from segment.output.remarks import remark_lines
from segment.pipeline.stages import mean_luma
from segment.scores.image_counts import ImageCounts
from segment.scores.slices import Groups, kept_name, slices_by
from segment.store.client import Store
from segment.store.urls import masked_text
from tests.runs import Outcome, Place, png, scene
from tests.tars import find, refusal, samples, tar

SECRET = "0123abcdSECRET"
SIGNED = f"https://h/a.png?id=7&X-Amz-Expires=9&X-Amz-Signature={SECRET}"
ITEMS: list[dict[str, Any]] = [
    {"weather": "fog", "speed": 30, "video": "a", "source": SIGNED},
    {"weather": "sun", "speed": 9.5, "video": "a", "source": {"url": SIGNED, "of": ["x", None]}},
    {"speed": 120, "video": "b"},
    {"weather": "sun", "speed": 30, "video": "b", "source": "x" * (LONGEST + 1)},
]
KEEP = ("weather", "speed", "video", "source")
NESTED = json.dumps({"url": "https://h/a.png?id=7&X-Amz-Expires=***&X-Amz-Signature=***", "of": ["x", None]})
META = [
    {"weather": "fog", "speed": "30", "video": "a", "source": "https://h/a.png?id=7"},
    {"weather": "sun", "speed": "9.5", "video": "a", "source": NESTED},
    {"weather": None, "speed": "120", "video": "b", "source": None},
    {"weather": "sun", "speed": "30", "video": "b", "source": None},
]


def label_of(n: int) -> bytes:
    label = scene(n)[1].copy()
    label[:, : n + 1] = 255
    return png(label)


def as_tar(place: Place) -> dict[str, Any]:
    files = [
        file
        for n, item in enumerate(ITEMS)
        for file in (
            (f"{n}.png", png(scene(n)[0])),
            (f"{n}.seg.png", label_of(n)),
            (f"{n}.json", json.dumps(item).encode()),
        )
    ]
    return {"input": str(tar(place.folder / "in.tar", *files))}


def as_parquet(place: Place) -> dict[str, Any]:
    table = pa.table({
        "image": [png(scene(n)[0]) for n in range(len(ITEMS))],
        "label": [label_of(n) for n in range(len(ITEMS))],
        "weather": pa.array([item.get("weather") for item in ITEMS]).dictionary_encode(),
        "speed": pa.array([str(item["speed"]) for item in ITEMS]),
        "info": [{"video": item["video"]} for item in ITEMS],
        "source": [s if isinstance(s := item.get("source"), str | None) else json.dumps(s) for item in ITEMS],
    })  # fmt: skip
    pq.write_table(table, place.folder / "in.parquet", row_group_size=3)
    return {"input": str(place.folder / "in.parquet")}


def as_list(place: Place) -> dict[str, Any]:
    lines = []
    for n, item in enumerate(ITEMS):
        place.write(f"{n}.png", png(scene(n)[0]), label_of(n))
        lines.append(json.dumps({"image": f"images/{n}.png", "label": f"labels/{n}.png", **item}))
    (place.folder / "in.jsonl").write_text("\n".join(lines))
    return {"input": str(place.folder / "in.jsonl")}


@pytest.mark.parametrize("write", [as_tar, as_parquet, as_list])
def test_metadata_goes_from_the_input_to_scores_by_slice(write: Any, tmp_path: Path) -> None:
    place = Place(tmp_path)
    names = [name.replace("video", "info.video") if write is as_parquet else name for name in KEEP]
    if write is as_list:  # a value of a nested object is a column of its own there
        names[3] = "source"
    outcome = place.run(**write(place), keep=tuple(names))
    expected = [dict(zip(names, meta.values(), strict=True)) for meta in META]
    if write is as_list:
        expected[1]["source"] = "https://h/a.png?id=7"  # as lists read objects with a path
    got = [{name: row["meta"][name] for name in names} for row in outcome.all_rows]
    assert got == expected
    check_told(outcome)
    for n, row in enumerate(outcome.all_rows):
        luma = scene(n)[0] @ [0.299, 0.587, 0.114]
        assert row["brightness"] == pytest.approx(luma.mean(), rel=1e-6)
    assert not audit_run(Ledger(Store(), str(place.output)), deep=True).problems
    holding = [path for path in place.output.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert holding == []
    found = api.score(place.output, by="weather", resamples=20)
    assert list(found.slices) == ["fog", "sun"]
    assert [one.images for one in found.slices.values()] == [1, 2]
    assert found.sliced.without == 1
    assert found.slices["sun"].intervals["miou"] is not None
    assert api.score(place.output, group_by=names[2], resamples=20).overall.units == 2
    assert list(api.score(place.output, by="speed:20,60", resamples=0).slices) == ["below 20", "20 to 60", "60 or more"]
    images = list(api.open_run(place.output).masks())
    assert [image.meta["weather"] for image in images] == ["fog", "sun", None, "sun"]
    query = f"SELECT count(*) FROM '{place.output}/masks/*/*.parquet' WHERE meta.weather = 'sun'"
    assert duckdb.sql(query).fetchall() == [(2,)]


def check_told(outcome: Outcome) -> None:
    """What lacks is told once, whether by the plan or by the rows."""
    text = "\n".join(outcome.warnings)
    assert "1 image: no value to keep in 'weather'" in text
    assert "1 image: a value of more than 1,000 bytes, which is left out, in 'source'" in text
    assert not [line for line in outcome.warnings if "not read" in line]


def test_other_values_to_keep_are_another_run(tmp_path: Path) -> None:
    place = Place(tmp_path)
    given = as_list(place)
    assert place.run(**given).report.run["contract"]["input"].keys().isdisjoint({"keep"})
    assert pq.read_schema(next(place.output.glob("masks/*/*.parquet"))).equals(MASKS_SCHEMA)
    with pytest.raises(UsageError, match=r"input.keep: None there, \['weather'\] now"):
        place.run(**given, keep=("weather",))
    with pytest.raises(UsageError, match="the run keeps no such metadata"):
        api.score(place.output, by="meta:weather")
    with pytest.raises(UsageError, match="metadata of the input is there only if the run keeps it"):
        api.score(place.output, by="weather")


def test_values_become_text() -> None:
    given = ["fog", "", None, 3, 0.1, True, float("nan"), ["a", {"b": "ü"}], 10**20, "\ud800"]
    texts, remarks = kept_values([str(n) for n in range(10)], given)
    assert texts == ("fog", None, None, "3", "0.1", "true", None, '["a", {"b": "ü"}]', str(10**20), "\\ud800")
    assert remarks == ("value_absent:1", "value_absent:2", "value_absent:6")
    assert kept_values(["a"], ["é" * (LONGEST // 2)]) == (("é" * (LONGEST // 2),), ())
    assert kept_values(["a"], ["é" * (LONGEST // 2) + "x"]) == ((None,), ("value_long:a",))
    assert remark_lines({"value_absent:a": 12}) == ["12 images: no value to keep in 'a'"]
    assert remark_lines({"of_old": 1}) == ["1 image: a remark of another version of segment, 'of_old'"]


def test_json_members() -> None:
    held = json.dumps({"a.b": 1, "a": {"b": 2, "c": {"d": "x"}}, "e": [1]}).encode()
    assert json_values(["a.b", "a.c.d", "e", "a.x", "a"], held)[0] == (
        "1", "x", "[1]", None, '{"b": 2, "c": {"d": "x"}}'
    )  # fmt: skip
    for bad in (b"", b"[1]", b"{", b"[" * 100_000, b"\xff"):
        assert json_values(["a"], bad) == ((None,), ("metadata_damaged",))
    assert json_values(["a"], None) == ((None,), ("value_absent:a",))


@pytest.mark.parametrize(
    "text",
    [
        SIGNED,
        f"see {SIGNED} for it",
        f'{{"url": "https://h/?a=1\\u0026X-Amz-Signature={SECRET}"}}',
        f"<a href='https://h/?a=1&amp;token={SECRET}'>",
        f"https://other/?to=https%3A%2F%2Fh%2F%3Fsig%3D{SECRET}",
        f"http://a/?id=1,http://b/?Signature={SECRET}",
        f"s3://key:{SECRET}@bucket/a.png",
        f"a.png?sv=2024&sig={SECRET}#x",
    ],
)
def test_no_secret_is_kept(text: str) -> None:
    masked = masked_text(text)
    assert SECRET not in masked
    assert masked_text(masked) == masked


def test_text_without_secrets_stays() -> None:
    for text in ("fog", "a=1; b=2", "why? x=5&y=6", "https://h/?id=7#sign", "100 %", "a?b"):
        assert masked_text(text) == text


def test_parquet_types() -> None:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    columns = {
        "float": pa.array([0.1, None], pa.float32()),
        "time": pa.array([moment, None], pa.timestamp("ns", "Europe/Berlin")),
        "day": pa.array([moment.date(), None]),
        "list": pa.array([[1, 2], None]),
        "text": pa.array(["a", None]).dictionary_encode(),
        "price": pa.array([decimal.Decimal("1.50"), decimal.Decimal("-20.00")]),
        "gap": pa.array([datetime.timedelta(seconds=5), None]),
        "far": pa.array([1 << 58, None], pa.timestamp("s")),
        "far inside": pa.array([[1 << 58], None], pa.list_(pa.timestamp("s"))),
        "odd": pa.ListArray.from_arrays([0, 1, 2], pa.array([b"\xff", b"a"]).view(pa.string())),
        "bytes": pa.array([b"a", b"b"]),
        "inner": pa.array([{"image": {"bytes": b"a"}, "x": 1}, None]),
    }
    table = pa.table(columns)
    names = ["float", "time", "day", "list", "text", "none", "inner.x", "odd", "price", "gap", "far", "far inside"]
    places = find_kept(table.schema, names, "t")
    rows = [kept_values(names, row)[0] for row in zip(*(kept_column(table, place) for place in places), strict=True)]
    moment_text = "2024-01-02T03:04:05.000000000Z"
    wanted = ("0.1", moment_text, "2024-01-02", "[1, 2]", "a", None, "1", None, "1.50", "0:00:05", None, None)
    assert rows[0] == wanted
    assert rows[1] == (*(None,) * 7, '["a"]', "-20.00", None, None, None)
    for column in ("bytes", "inner", "inner.image"):
        with pytest.raises(UsageError, match="images or other bytes, which are not kept"):
            find_kept(table.schema, [column], "t")
    with pytest.raises(UsageError, match="2 columns 'a'"):
        find_kept(pa.schema([("a", pa.string()), ("a", pa.string())]), ["a"], "t")


def test_columns_that_exist_nowhere_are_refused(tmp_path: Path) -> None:
    images = [png(scene(0)[0])]
    for n, more in enumerate(({"weather": ["fog"]}, {})):
        pq.write_table(pa.table({"image": images, **more}), tmp_path / f"{n}.parquet")
    found = find(tmp_path, keep=("weather",))
    assert "the column 'weather' to keep is in 1 of 2 Parquet files" in found.warnings
    assert [sample.meta for sample in samples(found, keep=("weather",))] == [("fog",), (None,)]
    assert "there is no column 'wether' in any of 2 Parquet files. Did you mean 'weather'?" in refusal(
        tmp_path, keep=("wether",)
    )
    assert "read, image: image, id: the row number, kept: weather" in "\n".join(found.notes)
    (tmp_path / "in.csv").write_text("image,weather\n0.parquet,fog\n")
    assert "has no kept column 'wether'. Did you mean 'weather'?" in refusal(tmp_path / "in.csv", keep=("wether",))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(images[0])
    assert "loose files come without metadata" in refusal(tmp_path / "a", keep=("weather",))


def test_tars_without_metadata(tmp_path: Path) -> None:
    bare = tar(tmp_path / "bare.tar", "a.png", "b.png")
    assert "no sample of" in refusal(bare, keep=("weather",))
    some = tar(tmp_path / "some.tar", "a.png", ("a.json", b'{"wether": 1}'), "b.png")
    found = find(some, keep=("weather",))
    told = "no value of 'weather' to keep in 1 sampled .json member. Did you mean 'wether'? They have 'wether'"
    assert told in found.warnings
    assert [(s.meta, s.remarks) for s in samples(found, keep=("wether",))] == [
        (("1",), ()),
        ((None,), ("value_absent:wether",)),
    ]
    assert Plan.from_bytes(Plan.of(found.parts).to_bytes()) == Plan.of(found.parts)


def test_update_sees_other_values_of_a_list(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.png").write_bytes(png(scene(n)[0]))
    listed = tmp_path / "in.csv"
    options = InputOptions(keep=("weather",), part_size=1)
    listed.write_text("image,weather\n0.png,fog\n1.png,sun\n")
    plan = Plan.from_bytes(Plan.of(discover(str(listed), options, Store()).parts).to_bytes())
    listed.write_text("image,weather\n0.png,fog\n1.png,rain\n")
    known = Known(list(plan.parts()))
    found = discover(str(listed), options, Store(), known)
    assert (known.replaced, known.new, len(known.stale)) == (1, 0, 1)
    assert [member.meta for part in found.parts for member in part.members] == [("rain",)]


def test_scores_by_brightness_need_no_option(tmp_path: Path) -> None:
    place = Place(tmp_path)
    brightness = [row["brightness"] for row in place.run(**as_list(place)).all_rows]
    low, high = sorted(brightness)[1] + 0.01, sorted(brightness)[2] + 0.01
    found = api.score(place.output, by=f"brightness:{low:.2f},{high:.2f}", resamples=20)
    assert [one.images for one in found.slices.values()] == [2, 1, 1]
    assert sum(one.images for one in api.score(place.output, by="brightness", resamples=0).slices.values()) == 4
    with pytest.raises(UsageError, match="no bounds"):
        api.score(place.output, by="brightness:dark")
    with pytest.raises(UsageError, match="says nothing about what is taken from an id"):
        api.score(place.output, group_by="brightness")


def test_a_row_that_was_not_read_has_no_metadata() -> None:
    (column,) = ExtraColumns(meta=("a", "b")).arrays([None, None], [("x", None), ()])
    assert column.to_pylist() == [{"a": "x", "b": None}, None]


def test_options() -> None:
    assert InputOptions(keep=("a, b", "c")).keep == ("a", "b", "c")
    for wrong, why in (
        (("a,",), "empty"),
        (("a", "a"), "twice"),
        ((":row",), "is no column"),
        ((":brightness",), "measured of every image without it"),
    ):
        with pytest.raises(ValueError, match=why):
            InputOptions(keep=wrong)


def test_brightness_is_the_mean_luma() -> None:
    assert mean_luma(np.full((4, 5, 3), (255, 0, 0), np.uint8)) == pytest.approx(0.299 * 255)
    large = np.random.default_rng(2).integers(0, 256, (1300, 1700, 3), dtype=np.uint8)
    assert mean_luma(large) == pytest.approx((large[::2, ::2] @ [0.299, 0.587, 0.114]).mean())
    assert mean_luma(large[:1024, :1024]) == pytest.approx((large[:1024, :1024] @ [0.299, 0.587, 0.114]).mean())


def counts_with(**meta: list[str | None]) -> ImageCounts:
    """Images of one labelled pixel each, with metadata."""
    number = len(next(iter(meta.values())))
    texts = {name: pa.chunked_array([pa.array(values, pa.string())]) for name, values in meta.items()}
    ids = pa.chunked_array([pa.array([f"d/{n}" for n in range(number)])])
    ones = np.ones(number, np.int64)
    return ImageCounts(2, ids, ones, np.arange(number + 1), ones.astype(np.uint16) * 0, ones.astype(np.uint32), texts)


def divided(counts: ImageCounts, by: str) -> tuple[list[str], list[int]]:
    """The values of slices, and the index of that of each image, -1 where there is none."""
    slices = slices_by(by, ["x", "y"], list(counts.meta))
    numbers = slices.numbers_of(counts).tolist()
    values = slices.in_order()
    place = {number: index for index, (_, number) in enumerate(values)} | {-1: -1}
    return [value for value, _ in values], [place[number] for number in numbers]


def test_slices_and_groups_of_values() -> None:
    counts = counts_with(size=["b", "a", None, "b"], speed=["10", "9.5", "1e2", None], mixed=["10", "9", "x", None])
    assert divided(counts, "meta:size") == (["a", "b"], [1, 0, -1, 1])
    assert divided(counts, "size")[0] == ["below 0.25 MP"]
    assert divided(counts, "speed") == (["9.5", "10", "1e2"], [1, 0, 2, -1])
    assert divided(counts, "mixed")[0] == ["10", "9", "x"]
    assert divided(counts, "speed:10,50") == (["below 10", "10 to 50", "50 or more"], [1, 0, 2, -1])
    some = counts.take(np.array([3, 0]))
    assert divided(some, "meta:size")[1] == [0, 0]
    units = Groups("meta:size", ["size"]).units_of(some).tolist()
    assert units[0] == units[1] == Groups("size_of", ["size_of"]).units_of(counts_with(size_of=["b"]))[0]
    assert divided(counts, "folder")[0] == ["d"]
    assert divided(counts, r"(\d)")[0] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("sped", "by = 'sped': the run keeps no such metadata (segment run --keep). Did you mean 'speed'?"),
        ("meta:none", "It keeps: 'speed', 'word', 'empty'"),
        ("speed", "by = 'speed' has 60 distinct values, such as '0', '1', '2': give bounds between slices, as --by "
                  "'speed:20,40'"),
        ("speed:5,2", "'5,2' are no bounds; give ascending numbers"),
        ("speed:x", "'x' are no bounds"),
        ("word:5", "the value 'w0' of 'word' is no number"),
        ("empty", "by = 'empty': no image has a value of it"),
    ],
)  # fmt: skip
def test_slices_that_cannot_be_had(by: str, said: str) -> None:
    counts = counts_with(speed=[str(n) for n in range(60)], word=[f"w{n}" for n in range(60)], empty=[None] * 60)
    with pytest.raises(UsageError, match=re.escape(said)):
        divided(counts, by)


def test_groups_that_cannot_be_had() -> None:
    counts = counts_with(video=["a", None, None])
    with pytest.raises(UsageError, match="image 'd/1' has no value of it: images without a group cannot be resampled"):
        Groups("video", ["video"]).units_of(counts)
    with pytest.raises(UsageError, match="more than 1,000 distinct values, such as 'n0', 'n1', 'n10': slices are"):
        divided(counts_with(name=[f"n{n}" for n in range(1001)]), "name")
    assert kept_name("video", ["video"], "by") == kept_name("meta:video", ["video"], "by") == "video"
    assert [kept_name(by, ["video"], "by") for by in ("folder", "size", "label:x", "(.)")] == [None] * 4


def kept_counts(values: list[str]) -> ImageCounts:
    """Images with these values of `v`, each of one pixel."""
    number = len(values)
    ids, texts = (pa.chunked_array([pa.array(some)]) for some in ([f"{n}.png" for n in range(number)], values))
    cells, counts = np.zeros(number, np.uint16), np.ones(number, np.uint32)
    return ImageCounts(2, ids, np.ones(number, np.int64), np.arange(number + 1), cells, counts, {"v": texts})


@pytest.mark.parametrize("values", [[str(1_700_000_000 + n) for n in range(60)], [f"{n / 7:.9f}" for n in range(90)]])
def test_bounds_that_a_message_advises_make_slices(values: list[str]) -> None:
    counts = kept_counts([*values, f"0{values[0]}"])  # one number in two ways
    with pytest.raises(UsageError) as refused:
        divided(counts, "v")
    advised = re.findall(r"--by '(.*)'", str(refused.value))[0]
    sizes = np.bincount(divided(counts, advised)[1])
    assert len(sizes) == 3
    assert sizes.max() - sizes.min() <= 2


def test_groups_have_no_bounds() -> None:
    with pytest.raises(UsageError, match="a group has one value of 'v', and no bounds"):
        Groups("v:1,2", ["v"])
