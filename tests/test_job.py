"""The values that a job takes: numbers, sizes, and how they come back from a file."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from segment.errors import UsageError
from segment.job import Job, job_record, job_to_toml, make_job, read_job_file
from tests.calls import Call

NAMES = {"input": "a", "output": "b", "model": "c"}
FLOATS = [name for name, field in Job.model_fields.items() if "float" in str(field.annotation)]
OTHERS = [name for name, field in Job.model_fields.items() if field.annotation is not bool]


def test_there_are_numbers_to_test() -> None:
    assert {"stall_timeout", "max_error_rate", "price_per_hour"} <= set(FLOATS)


@pytest.mark.parametrize("text", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_finite_in_python_in_files_and_as_flags(
    name: str, text: str, segment: Call, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"^job:\n  {name}: expected a number .*, not {text}$"):
        Job(**NAMES, **{name: float(text)})
    file = tmp_path / "job.toml"
    file.write_text(f"{name} = {text}\n")
    with pytest.raises(UsageError, match=rf"{name}: expected a number .*, not {text}$"):
        make_job({**NAMES, **read_job_file(str(file))}, str(file))
    called = segment("run", "a", "b", "-m", "c", f"--{name.replace('_', '-')}={text}", "--print-job")
    assert (called.code, called.out) == (2, "")
    assert f"segment run:\n  --{name.replace('_', '-')}: expected a number" in called.err
    called = segment("run", "a", "b", "-m", "c", "--job", str(file), "--print-job")
    assert called.err.startswith(f"error: {file}:\n  {name}: expected a number")  # as the file calls it


@pytest.mark.parametrize("name", FLOATS)
def test_a_finite_number_is_recorded_as_toml_and_json(name: str) -> None:
    job = Job(**NAMES, **{name: 0.25})
    assert tomllib.loads(job_to_toml(job))[name] == 0.25
    assert json.loads(json.dumps(job_record(job), allow_nan=False))[name] == 0.25


@pytest.mark.parametrize("name", OTHERS)
def test_true_is_no_number(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^job:\n  {name}: expected "):
        Job(**{**NAMES, name: True})


@pytest.mark.parametrize(
    "size", ["0", 0, -1, "0GB", "00 MiB", "0.0", "0.00kB", "-4GB", "1e9", "inf", "\u0664GB", "4 gigabytes", "", 1.5]
)
def test_a_memory_that_no_worker_can_keep_is_refused(size: Any) -> None:
    with pytest.raises(UsageError, match="expected a number of bytes from 1 up or a size such as 4GB or"):
        Job(**NAMES, worker_memory=size)


@pytest.mark.parametrize(
    ("size", "number"),
    [("0.5GB", 500_000_000), ("0.0001kB", 1), ("10", 10), (10, 10), ("2.5 GiB", 2_684_354_560), ("00.10 TB", 10**11)],
)
def test_a_memory_comes_back_from_its_file(size: Any, number: int) -> None:
    job = Job(**NAMES, worker_memory=size)
    assert job.worker_bytes == number
    again = make_job(tomllib.loads(job_to_toml(job)))
    assert again == job
    assert again.worker_bytes == math.ceil(number)
