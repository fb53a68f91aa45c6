"""Outputs and schemas in other tools: datasets, DuckDB, pandas, editors, shells."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from segment.cli.schema import json_schema
from segment.errors import UsageError
from segment.job import make_job, read_job_file
from segment.models.card import built_in_cards
from tests.calls import ROOT, Call, process
from tests.runs import CARD, Place, scene


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("interfaces"))
    for n in range(5):
        place.add(f"{n}.png", n)
    place.write("bad.png", b"")
    place.run()
    return place


# --- masks/ in other tools -------------------------------------------------------------------------------------------


def test_masks_open_in_hugging_face_datasets_as_pictures(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import datasets

    files = [str(path) for path in sorted(place.output.glob("masks/*/*.parquet"))]
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(rows.features["mask"], datasets.Image)
    found = {row["id"]: row["mask"] for row in rows}
    assert found.pop("bad.png") is None
    assert len(found) == 5
    for n in range(5):
        assert found[f"{n}.png"].mode == "L"
        assert np.array_equal(np.asarray(found[f"{n}.png"]), scene(n)[1])


def test_duckdb_reads_masks_and_statistics(place: Place) -> None:
    import duckdb

    rows = duckdb.sql(
        f"select id, miou, octet_length(mask.bytes) > 0 from read_parquet('{place.output}/masks/*/*.parquet') "
        "where status = 'ok' order by id"
    ).fetchall()
    assert rows == [(f"{n}.png", 1.0, True) for n in range(5)]
    pixels = duckdb.sql(
        f"select class_name, sum(tp) from read_parquet('{place.output}/stats/*.parquet') group by class_name"
    )
    expected = {name: sum(int((scene(n)[1] == i).sum()) for n in range(5)) for i, name in enumerate(CARD.classes.names)}
    assert dict(pixels.fetchall())["Road"] == expected["Road"]


def test_pandas_and_pillow_read_masks(place: Place) -> None:
    import io

    import pandas as pd
    from PIL import Image

    frame = pd.read_parquet(place.output / "masks").set_index("id")
    assert frame.loc["bad.png", "error"] == "empty: the image has no bytes"
    mask = Image.open(io.BytesIO(frame.loc["3.png", "mask"]["bytes"]))
    assert np.array_equal(np.asarray(mask), scene(3)[1])
    shares = pd.read_parquet(place.output / "report" / "classes.parquet")
    assert list(shares["class_name"]) == list(CARD.classes.names)


# --- editors ---------------------------------------------------------------------------------------------------------


def validator(segment: Call, kind: str) -> Draft202012Validator:
    printed = json.loads(segment("schema", kind).out)
    Draft202012Validator.check_schema(printed)
    return Draft202012Validator(printed)


def test_every_built_in_card_fits_the_schema(segment: Call) -> None:
    check = validator(segment, "card")
    for name in built_in_cards():
        check.validate(tomllib.loads((ROOT / "segment" / "models" / "cards" / f"{name}.toml").read_text()))


def test_every_job_file_fits_the_schema(segment: Call) -> None:
    check = validator(segment, "job")
    files = sorted((ROOT / "jobs").glob("*.toml"))
    assert files
    for file in files:
        check.validate(tomllib.loads("#:schema ./job.schema.json\n" + file.read_text()))


NAMES = {"input": "a", "output": "b", "model": "c"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "worker_memory = 4000000000",
        'worker_memory = "4000000000"',
        'worker_memory = "0.5 GiB"',
        'workers = "2:8"\nbatch_size = 4\npart_size = "auto"',
        "stall_timeout = 30\nprice_per_hour = 0.5",
        "max_error_rate = 1",
        'limit = 3\nlabel_remap = {"64,0,128" = "Vehicle", "7" = 3}',
        "sample = 3\nstorage_options = {anon = true, port = 9000}",
        "include_hidden = true\nmax_pixels = 1",
    ],
)
def test_schema_and_code_take_the_same_job_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(text)
    values = read_job_file(str(tmp_path / "job.toml"))
    Draft202012Validator(json_schema("job")).validate(values)  # the names may come from the command line
    assert make_job({**NAMES, **values})


@pytest.mark.parametrize(
    "text",
    [
        'worker_memory = "0"',
        "worker_memory = 0",
        'worker_memory = "0.0 GB"',
        "worker_memory = true",
        'worker_memory = "much"',
        "limit = 3\nsample = 3",
        "limit = true",
        "limit = 0",
        "max_error_rate = true",
        "max_error_rate = 1.5",
        "stall_timeout = 0",
        "price_per_hour = -5",
        "batch_size = 1025",
        'workers = "many"',
        'input = ""',
        "label_remap = {7 = [1]}",
        'storage_options = "anon"',
        'lables = "x"',
    ],
)
def test_schema_and_code_refuse_the_same_job_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(text)
    values = read_job_file(str(tmp_path / "job.toml"))
    assert not Draft202012Validator(json_schema("job")).is_valid(values)
    with pytest.raises(UsageError):
        make_job({**NAMES, **values})


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"inptu": "x"}, []),
        ({"precision": "f64"}, ["precision"]),
        ({"max_error_rate": 2}, ["max_error_rate"]),
        ({"workers": "many"}, ["workers"]),
    ],
)
def test_the_schema_finds_what_is_wrong(wrong: dict[str, Any], place: list[str]) -> None:
    job = {"input": "a", "output": "b", "model": "c", "workers": 4, "label_remap": {"7": "ignore", "8": 3}}
    check = Draft202012Validator(json_schema("job"))
    check.validate(job)
    (error,) = check.iter_errors({**job, **wrong})
    assert list(error.path) == place


def test_every_key_has_a_description() -> None:
    for kind in ("job", "card"):
        schema = json_schema(kind)
        for model in (schema, *schema.get("$defs", {}).values()):
            assert {name for name, key in model["properties"].items() if not key.get("description")} == set()
    published = json_schema("card")["$defs"]["Metric"]["properties"]["published"]
    assert published["description"] == "A published score: a table, or the mIoU alone, 0-1."
    assert {option.get("type") or option["$ref"] for option in published["anyOf"]} == {
        "#/$defs/Published", "number", "null"
    }  # fmt: skip


# --- shells ---------------------------------------------------------------------------------------------------------


def test_the_shell_completes_commands_and_flags() -> None:
    command = str(Path(sys.executable).parent / "segment")
    script = process("bash", "-c", f"{command} --show-completion bash || {command} --show-completion").stdout
    assert "_SEGMENT_COMPLETE=complete_bash" in script
    words = {"COMP_WORDS": "segment re", "COMP_CWORD": "1", "_SEGMENT_COMPLETE": "complete_bash"}
    assert process(command, **words).stdout.split() == ["report"]
    words |= {"COMP_WORDS": "segment run --prec", "COMP_CWORD": "2"}
    assert process(command, **words).stdout.split() == ["--precision"]
