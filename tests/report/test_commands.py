"""The command line on the report is the one that makes the run."""

import shlex

import pytest

from segment.job import Job, job_record, job_to_toml
from segment.report.page import command_of
from tests.calls import Call


def test_what_is_the_default_is_left_out() -> None:
    job = Job(input="in", output="s3://bucket/out", model="unet-camvid-onnx-0001")
    assert command_of(job_record(job)) == "segment run in s3://bucket/out --model unet-camvid-onnx-0001"


VALUES = {
    "weights": "my weights.onnx",
    "labels": "l",
    "label_remap": {"64,0,128": "Car", "7": "ignore"},
    "keep": ("weather", "a b"),
    "include_hidden": True,
    "confidence": "margin",
    "limit": 10,
    "part_size": 7,
    "max_error_rate": 0.5,
    "workers": "1:4",
}


@pytest.mark.parametrize("name", VALUES)
def test_the_command_gives_the_same_job(segment: Call, name: str) -> None:
    job = Job(input="in put", output="out", model="card.toml", **{name: VALUES[name]})
    printed = segment(*shlex.split(command_of(job_record(job)))[1:], "--print-job")
    assert printed.out == job_to_toml(job)
