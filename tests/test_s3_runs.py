"""Runs over S3: a real server, nothing mocked; the same masks and counts as from a folder, and no secret anywhere."""

import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segment
from segment.output.ledger import Ledger
from segment.report.aggregate import load_report
from segment.store.client import Store
from tests.calls import here
from tests.datasets import FORMATS
from tests.s3 import S3Server
from tests.s3_world import World, make_world, rows


@pytest.fixture(scope="module")
def world(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), s3_server, "s3-runs")


def results_of(found: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """What must not depend on where the images lie."""
    return {
        stem: (row["status"], row["width"], row["height"], row["mask"]["bytes"], row["confusion"], row["miou"])
        for stem, row in found.items()
    }


def cli(*arguments: str, env: dict[str, str] | None = None, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `segment` without any AWS setting of the user's."""
    clean = {name: None for name in os.environ if name.startswith(("AWS_", "RAY_"))}
    return here(*arguments, env={**clean, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", **(env or {})})


@pytest.fixture(scope="module")
def local_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rows of a run from folder to folder."""
    output = tmp_path_factory.mktemp("local") / "out"
    segment.run(world.job(str(world.folder), "files", str(output), engine="local"))
    return rows(Store(), f"file://{output}")


@pytest.mark.parametrize("kind", list(FORMATS))
def test_masks_and_counts_equal_those_of_a_folder(
    kind: str, world: World, local_run: dict[str, dict[str, Any]]
) -> None:
    output = f"{world.results}/same/{kind}"
    job = world.job(world.bucket, kind, output, engine="local", storage_options=world.options)

    report = segment.run(job)

    found = rows(world.store, output)
    assert results_of(found) == results_of(local_run)
    assert [score_of(report, index) for index in range(12)] == world.expected.counts("omz")
    assert np.allclose(report.score("omz").iou, world.expected.ious("omz"), rtol=0, atol=1e-12, equal_nan=True)
    for stem, mask in world.expected.masks.items():
        with Image.open(io.BytesIO(found[stem]["mask"]["bytes"])) as opened:
            assert np.array_equal(np.asarray(opened), mask)


def score_of(report: segment.RunReport, index: int) -> tuple[int, int, int]:
    score = report.score("omz")
    return int(score.tp[index]), int(score.fp[index]), int(score.fn[index])


def test_a_report_is_read_from_s3(world: World, tmp_path: Path) -> None:
    output = f"{world.results}/report"
    segment.run(world.job(world.bucket, "tars", output, engine="local", storage_options=world.options))

    shown = cli("report", output, "--format", "json", env=world.env, home=tmp_path)

    assert shown.returncode == 0, shown.stderr
    again = load_report(Ledger(world.store, output))
    assert again.complete
    assert again.total.images == len(world.items)
    assert f'"omz": {again.miou("omz")!r}' in shown.stdout
    wanted = np.nanmean(world.expected.ious("omz"))
    assert again.miou("omz") == pytest.approx(wanted, abs=1e-12)


def test_credentials_by_environment_and_a_second_run_does_nothing(world: World, tmp_path: Path) -> None:
    output = f"{world.results}/by-environment"
    arguments = command_line(world, output)

    first = cli(*arguments, env=world.env, home=tmp_path)
    objects = {entry.url: entry.etag for entry in world.store.list(f"{output}/masks")}
    second = cli(*arguments, env=world.env, home=tmp_path)

    assert first.returncode == 0, first.stderr
    assert "6/6 images (100 %)" in first.stderr
    assert second.returncode == 0, second.stderr
    assert "images/s" not in second.stderr
    assert {entry.url: entry.etag for entry in world.store.list(f"{output}/masks")} == objects
    assert first.stdout == second.stdout
    assert f"masks: {output}/masks/" in first.stdout


def command_line(world: World, output: str, **changes: str) -> list[str]:
    """`segment run` over the loose files of the bucket."""
    given = {**world.at(world.bucket, "files"), **changes}
    flags = [f"--{name}={given[name]}" for name in ("labels", "model", "weights")]
    return ["run", given["input"], output, *flags, "--engine=local", "--min-agreement=0"]


def storage_options(world: World) -> list[str]:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in world.options.items()}
    return [word for name, text in texts.items() for word in ("--storage-option", f"{name}={text}")]


def test_credentials_by_storage_option_are_written_nowhere(world: World, tmp_path: Path) -> None:
    output = f"{world.results}/by-option"
    arguments = [*command_line(world, output), *storage_options(world)]

    ran = cli(*arguments, home=tmp_path)
    printed = cli(*arguments, "--print-job", home=tmp_path)

    assert ran.returncode == 0, ran.stderr
    objects = world.store.list(output)
    names = {entry.url.removeprefix(f"{output}/").partition("/")[0] for entry in objects}
    assert {"run.json", "plan.parquet", "masks", "stats", "report", "runs", "_SUCCESS"} <= names
    for entry in objects:
        assert_no_secret(world, world.store.read(entry.url))
    for path in tmp_path.rglob("*"):  # caches and logs, should there be any
        if path.is_file():
            assert_no_secret(world, path.read_bytes())
    for text in (ran.stdout, ran.stderr, printed.stdout, printed.stderr):
        assert_no_secret(world, text.encode())
    assert 'output = "s3://' in printed.stdout


def assert_no_secret(world: World, data: bytes) -> None:
    assert world.options["secret"].encode() not in data
    assert world.options["key"].encode() not in data


def test_a_wrong_secret_is_one_line_and_exit_1(world: World, tmp_path: Path) -> None:
    wrong = {**world.env, "AWS_SECRET_ACCESS_KEY": "WRONG-but-still-secret"}

    failed = cli(*command_line(world, f"{world.results}/never"), env=wrong, home=tmp_path)

    assert failed.returncode == 1
    assert "check that the credentials are right" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert "WRONG-but-still-secret" not in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr
    assert world.store.list(f"{world.results}/never") == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "HALF"}, "the credentials are incomplete: set AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ({"AWS_PROFILE": "nobody"}, "there is no AWS profile of that name: check AWS_PROFILE"),
    ],
    ids=["none", "half", "profile"],
)
def test_missing_credentials_are_one_line_and_exit_2(
    given: dict[str, str], words: str, world: World, tmp_path: Path
) -> None:
    env = {"AWS_ENDPOINT_URL": world.env["AWS_ENDPOINT_URL"], **given}

    failed = cli(*command_line(world, f"{world.results}/never"), env=env, home=tmp_path)

    assert failed.returncode == 2
    assert words in failed.stderr
    assert "HALF" not in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("missing", ["input", "output"])
def test_a_missing_bucket_is_named(missing: str, world: World, tmp_path: Path) -> None:
    nowhere = "s3://s3-runs-no-such-bucket"
    if missing == "output":
        arguments = command_line(world, f"{nowhere}/out")
    else:
        arguments = command_line(world, f"{world.results}/never", input=f"{nowhere}/images")

    failed = cli(*arguments, env=world.env, home=tmp_path)

    assert failed.returncode == 1
    assert "there is no such bucket" in failed.stderr
    assert nowhere in failed.stderr
    assert "Traceback" not in failed.stderr


def test_credentials_in_a_url_are_refused_and_not_repeated(world: World, tmp_path: Path) -> None:
    url = "s3://AKIAKEY:hunter2@s3-runs-data/files/images"
    arguments = command_line(world, f"{world.results}/never", input=url)

    failed = cli(*arguments, env=world.env, home=tmp_path)

    assert failed.returncode == 2
    assert "credentials in a URL" in failed.stderr
    assert "hunter2" not in failed.stdout + failed.stderr
