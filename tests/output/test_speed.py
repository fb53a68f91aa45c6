"""Forecast, estimate and speed of a run: stages, limiting stage, cost, memory."""

import datetime
import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper, numpy_helper
from typer.main import get_command

from segment.cli.main import app
from segment.engines.pool import Pool
from segment.engines.worker_process import PROCESS_MEMORY, Setup
from segment.errors import UsageError
from segment.job import Job
from segment.models.sessions import Runtime, footprint
from segment.models.weights import load_weights
from segment.output.attempts import read_attempts, timings_table
from segment.output.ledger import Ledger
from segment.output.results import STAGES, PartResult, Stage
from segment.output.speed import Price, Speed, last_speed, read_speed
from segment.output.tables import to_parquet
from segment.pipeline.worker_memory import worker_bytes
from segment.report.speed_lines import speed_lines
from segment.runs.driver import task_and_plan
from segment.runs.estimate import estimate, estimate_lines
from segment.runs.forecast import Forecast
from segment.store.client import Store
from segment.store.names import size
from tests.calls import here
from tests.graphs import as_weights, colour_classifier
from tests.runs import CLASSES, Notes, Place
from tests.serving import SHARED, small, tiny

T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
FACTS = {"began": T0.isoformat(), "engine": "local", "device": "cpu", "workers": 2, "expected_memory": 90_000_000}


def result(began: float, ended: float, images: int = 10, **seconds: float) -> PartResult:
    """The result of a part: `began` and `ended` are seconds since the beginning of the attempt."""
    stages: dict[Stage, float] = {stage: seconds.get(stage, 0.0) for stage in STAGES}
    at = T0.timestamp()
    return PartResult(
        f"p{began}", "s", images=images, seconds=stages, began=at + began, ended=at + ended, memory=100_000_000,
        read_bytes=1000, written_bytes=50,
    )  # fmt: skip


def speed_of(*results: PartResult, **facts: Any) -> Speed:
    found = Speed.of(timings_table(results), {**FACTS, **facts})
    assert found is not None
    return found


def place_of(folder: Path, images: int = 8) -> Place:
    place = Place(folder)
    for seed in range(images):
        place.add(f"{seed}.png", seed)
    return place


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_sums_of_an_attempt() -> None:
    found = speed_of(
        result(2, 6, read=1, decode=1, infer=3),
        result(2, 7, read=1, decode=1, infer=3, encode=0.5, write=1),
        replace(result(0, 0, images=99), skipped=True),
    )
    assert (found.images, found.start, found.seconds, found.rate) == (20, 2, 5, 4)
    assert found.stages == {"read": 2, "decode": 2, "infer": 6, "encode": 0.5, "write": 1}
    assert found.shares["infer"] == 0.6
    assert found.idle == pytest.approx(1 - 8.5 / 10)
    assert found.limit == "infer"
    assert (found.read_bytes, found.written_bytes, found.memory) == (2000, 100, 100_000_000)
    # 7 s at 3,600 per hour cost 7, for 20 images
    assert found.cost(3600) == pytest.approx(7 / 20 * 1000)


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [
        ({"decode": 6, "infer": 3}, "decode"),
        ({"read": 9, "infer": 2}, "read"),
        ({"write": 9, "infer": 2}, "write"),
        ({"infer": 1}, None),
    ],
)
def test_what_limits_a_run(seconds: dict[str, float], limit: str | None) -> None:
    assert speed_of(result(0, 10, **seconds), workers=1).limit == limit


def test_a_gpu_has_two_batches_in_flight_and_the_rest_runs_beside_it() -> None:
    busy = speed_of(result(0, 10, decode=30, infer=19, encode=9), workers=1, device="cuda")
    assert busy.idle == pytest.approx(0.05)
    starved = speed_of(result(0, 10, decode=30, infer=4), workers=1, device="cuda")
    assert starved.idle == pytest.approx(0.8)
    assert starved.limit == "decode"


def test_an_attempt_that_did_nothing_has_no_speed() -> None:
    assert Speed.of(timings_table([]), FACTS) is None
    assert Speed.of(timings_table([replace(result(0, 0), skipped=True)]), FACTS) is None


def test_speed_in_words_of_80_columns() -> None:
    found = speed_of(result(2, 12345.6, images=10**7, read=1, decode=1e4, infer=1e4, encode=999, write=1e4))
    names, lines = zip(*speed_lines(found, Price(1.5, "EUR")), strict=True)
    assert names == ("speed", "start", "stages", "limit", "memory", "cost")
    assert max(map(len, lines)) + len("stages  ") <= 80
    assert lines[0] == "810.1 images/s: 10,000,000 images in 12,344 s on 2 workers (local)"
    assert lines[1] == "2.0 s until work began, 810.0 images/s with the start"
    assert lines[4] == "100 MB peak per process, 90 MB expected"
    assert lines[5] == "0.0005 EUR per 1,000 images at 1.5 EUR per hour"
    assert len(speed_lines(found)) == 5


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (412e6, "412 MB"), (1.44e9, "1.4 GB")]
)
def test_sizes(number: float, words: str) -> None:
    assert size(number) == words


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_tells_its_plan_and_keeps_its_timings(tmp_path: Path) -> None:
    from segment.runs.driver import run

    place, notes = place_of(tmp_path), Notes()
    run(place.job(workers="2", price_per_hour=2.0), notes)
    told = next(line for line in notes.lines if line.startswith("2 workers, "))
    assert told.startswith("2 workers, 1 thread, batch 1, parts of 2, ")
    assert "peak ~" in told
    found = last_speed(Ledger(Store(), f"file://{place.output}"))
    assert found is not None
    assert (found.engine, found.workers, found.images) == ("local", 2, 8)
    assert found.rate > 0
    assert all(found.stages[stage] > 0 for stage in STAGES)
    assert found.expected_memory is not None
    table = pq.read_table(next((place.output / "runs").glob("*.parquet")))
    assert all(
        ended >= began > 0 for began, ended in zip(*(table[n].to_pylist() for n in ("began", "ended")), strict=True)
    )
    reports = [path for path in (place.output / "report").iterdir() if path.suffix == ".parquet"]
    assert not [name for path in reports for name in pq.read_schema(path).names if "second" in name or "memory" in name]


def test_the_last_attempt_that_did_something_is_shown(tmp_path: Path) -> None:
    place = place_of(tmp_path, images=4)
    place.run()
    ledger = Ledger(Store(), f"file://{place.output}")
    first = last_speed(ledger)
    place.run()  # without work
    assert last_speed(ledger) == first
    (place.output / "runs" / "99999999T000000.000000Z-aaaaaa.json").write_text(json.dumps({"pid": 1}))  # killed
    assert last_speed(ledger) == first


def test_no_attempt_no_speed(tmp_path: Path) -> None:
    assert last_speed(Ledger(Store(), f"file://{tmp_path}")) is None


def test_run_and_report_show_the_speed(tmp_path: Path) -> None:
    place = place_of(tmp_path, images=3)
    ran = here(*place.flags(price_per_hour=3.0))
    assert ran.returncode == 0, ran.stderr
    report = here("report", str(place.output))
    for text in (ran.stdout, report.stdout):
        lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
        assert " s on 1 worker (local)" in lines["speed"]
        assert all(f"{stage} 0." in lines["stages"] for stage in STAGES)
        assert "; pool idle " in lines["limit"]
        assert "per 1,000 images at 3 per hour" in lines["cost"]
        assert max(len(line) for line in lines.values() if line.split()[0] in ("speed", "stages", "limit")) <= 80
    assert "at 7 per hour" in here("report", str(place.output), "--price-per-hour", "7").stdout


def test_damaged_records_of_attempts_hide_no_report(tmp_path: Path) -> None:
    place = place_of(tmp_path, images=2)
    place.run()
    ledger = Ledger(Store(), f"file://{place.output}")
    first = last_speed(ledger)
    own = pq.read_table(min((place.output / "runs").glob("*.parquet")))
    rows = own.to_pylist()
    impossible = ({"ended": float("nan")}, {"began": None}, {"images": -5}, {"memory": None}, {"infer_seconds": -1.0})
    wrong = [to_parquet(pa.Table.from_pylist([rows[0] | some], schema=own.schema)) for some in impossible]
    changes = ({"ended": 7}, {"began": "0001-01-01T00:00:00+23:59"}, {"retries": {"read": "x"}}, {"workers": "x"},
        {"remarks": [1]}, {"workers": 0}, {"expected_memory": {}})  # fmt: skip
    records = [b"{", b"[]", b"{}", b"[" * 100_000, *(json.dumps(FACTS | some).encode() for some in changes)]
    good = json.dumps(FACTS).encode()
    damaged = [
        *((record, to_parquet(own)) for record in records),
        *((good, timings) for timings in (b"x", b"", *wrong)),
    ]
    for number, (record, timings) in enumerate(damaged):
        (place.output / "runs" / f"3{number:02}.json").write_bytes(record)
        (place.output / "runs" / f"3{number:02}.parquet").write_bytes(timings)
    assert last_speed(ledger) == first
    attempts = read_attempts(ledger)
    assert [bool(attempt.facts) for attempt in attempts] == [True, *[False] * len(records), *[True] * 7]
    assert [read_speed(ledger, attempt) for attempt in attempts[1:]] == [None] * len(damaged)
    done = here("report", str(place.output))
    assert (done.returncode, "images/s: 2 images in" in done.stdout) == (0, True), done.stderr


# --- segment plan -----------------------------------------------------------------------------------------------------


def test_plan_measures_and_writes_nothing(tmp_path: Path) -> None:
    place = place_of(tmp_path, images=12)
    before = sorted(tmp_path.rglob("*"))
    found = estimate(place.job(part_size=6, workers="2"), Notes(), images=8)
    assert sorted(tmp_path.rglob("*")) == before
    assert (found.forecast.images, found.forecast.parts, found.forecast.largest_part) == (12, 2, 6)
    assert found.speed.images == 8
    assert found.rate > 0
    assert found.seconds == pytest.approx(found.start + 12 / found.rate)
    lines = estimate_lines(found, Price(3.6, "EUR"))
    assert max(map(len, lines)) <= 100
    assert lines[0] == "12 images in 1 shard, 2 parts"
    assert lines[-1].startswith("cost: ")
    assert [line for line in estimate_lines(found, None) if line.startswith("cost")] == []


def test_plan_on_the_command_line(tmp_path: Path) -> None:
    place = place_of(tmp_path, images=5)
    done = here(
        "plan", str(place.images), "--model", str(place.card_path), "--weights", str(place.weights_path),
        "--labels", str(place.labels), "--runtime", "onnxruntime", "--workers", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "5 images in 1 shard, " in done.stdout
    assert "local: 1 x onnxruntime " in done.stdout
    assert "nothing written" in done.stdout
    assert not place.output.exists()


def test_plan_takes_every_flag_that_says_how_a_job_is_done(tmp_path: Path) -> None:
    def flags(command: str) -> dict[str, list[str]]:
        params = cast(Any, get_command(app)).commands[command].params
        return {param.name: [*param.opts, param.help] for param in params}

    keys = {*Job.model_fields, "job"} - {"output"}
    assert flags("plan").keys() - {"images"} == keys
    assert keys < flags("run").keys()
    assert all(flags("run")[name] == flags("plan")[name] for name in keys)


def test_plan_reads_labels_as_run_does(tmp_path: Path) -> None:
    place = place_of(tmp_path, images=3)
    done = here(
        "plan", str(place.images), "--model", str(place.card_path), "--weights", str(place.weights_path), "--labels",
        str(place.labels), "--batch-size", "auto", "--part-size", "1", "--label-remap", "0=nothing",
    )  # fmt: skip
    assert done.returncode == 2
    assert "label_remap: " in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_says_what_is_wrong(tmp_path: Path) -> None:
    place = place_of(tmp_path, images=2)
    with pytest.raises(UsageError):
        estimate(place.job(input=str(tmp_path / "nowhere")), Notes())
    done = here("plan", str(place.images))
    assert done.returncode == 2
    assert "model" in done.stderr


def test_plan_counts_error_rows_as_work(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for number in range(4):
        place.write(f"{number}.png", b"no image")
    found = estimate(place.job(), Notes())
    assert found.speed.images == 4


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_footprint_follows_the_shapes() -> None:
    card, large = small(), small(input={"height": 64, "width": 96})
    cpu = Runtime("openvino", "cpu", "f32", "")
    one, four = (footprint(c, as_weights(colour_classifier(c)), cpu, 1) for c in (card, large))
    assert one
    assert four
    assert 3.9 < four.per_stream / one.per_stream < 4.1
    batch = footprint(card, as_weights(colour_classifier(card)), cpu, 3)
    assert batch
    assert batch.per_stream > 2.6 * 4 * one.per_stream  # batches are tried on four images
    more = footprint(card, as_weights(colour_classifier(card)), cpu, 8)
    assert more
    assert 1.8 < more.per_stream / batch.per_stream < 2
    halves = footprint(card, as_weights(colour_classifier(card)), Runtime("openvino", "cpu", "bf16", ""), 1)
    assert halves
    assert halves.per_stream < one.per_stream
    # at least two float32 tensors at once: twelve scores and their probabilities
    assert one.per_stream > 2 * 4 * 12 * 32 * 48


def test_no_footprint_where_it_cannot_be_told() -> None:
    card = small()
    assert footprint(card, as_weights(colour_classifier(card)), Runtime("onnxruntime", "cuda", "f32", ""), 1) is None
    assert footprint(card, as_weights(b"no graph"), Runtime("openvino", "cpu", "f32", ""), 1) is None


def test_forecast_words() -> None:
    one = Forecast(10, 1, 5, 2, 0, 1, 1, 1, None, 1)
    assert one.words() == "1 worker, 1 thread, batch 1, parts of 2"
    many = Forecast(10, 1, 10, 1, 5_000_000, 4, 2, 8, 412_000_000, 4)
    assert many.words() == ("4 workers, 2 threads, batch 8, parts of one image, 5.0 MB to read, peak ~412 MB each")


_PEAK = """
import contextlib, sys, threading, time, psutil, segment
from segment.runs.driver import run
from segment.progress import Progress
most, done = [0], threading.Event()
def sample():
    while not done.wait(0.005):
        for worker in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                most[0] = max(most[0], worker.memory_info().rss)
threading.Thread(target=sample, daemon=True).start()
run(segment.Job(input=sys.argv[1], output=sys.argv[2], model=sys.argv[3], weights=sys.argv[4], engine="local",
                workers=sys.argv[5], runtime=sys.argv[6], precision="f32"))
done.set()
print(most[0])
"""


@pytest.mark.shared
@pytest.mark.parametrize(
    ("card", "weights", "workers", "runtime"),
    [
        pytest.param(
            "deeplabv3-mobilenetv2-int8", "deeplabv3_mnv2_pascal_quant.tflite", "2", "openvino", marks=pytest.mark.slow
        ),
        ("unet-camvid-onnx-0001", "unet32-camvid.onnx", "1", "openvino"),
        pytest.param("unet-camvid-onnx-0001", "unet32-camvid.onnx", "2", "onnxruntime", marks=pytest.mark.slow),
    ],
)
def test_memory_is_as_expected(
    card: str, weights: str, workers: str, runtime: str, shared: Path, tmp_path: Path
) -> None:
    """The memory that psutil measures of a fresh process against the forecast, for real models and images."""
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((SHARED / "camvid/images").iterdir())[:2]:
        (images / path.name).symlink_to(path)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, images, tmp_path / "out", card, shared / "models" / weights, workers, runtime],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = last_speed(Ledger(Store(), f"file://{tmp_path / 'out'}"))
    assert found
    assert found.expected_memory
    seen = int(done.stdout.split()[-1])
    assert 0.85 < seen / found.expected_memory < 1.15
    assert found.memory == pytest.approx(seen, rel=0.1)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_peak_of_large_weights_is_while_they_are_loaded(runtime: str, tmp_path: Path) -> None:
    """75 MB of weights and small tensors: a runtime copies an ONNX file several times while it reads it."""
    place = place_of(tmp_path, 2)
    place.weights_path.write_bytes(heavy(CLASSES))
    given = [place.images, place.output, place.card_path, place.weights_path, "1", runtime]
    done = subprocess.run([sys.executable, "-c", _PEAK, *given], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = last_speed(Ledger(Store(), f"file://{place.output}"))
    assert found
    assert found.expected_memory
    assert 0.85 < int(done.stdout.split()[-1]) / found.expected_memory < 1.15


def test_what_loading_took_is_given_back_by_a_process_that_gets_single_images(tmp_path: Path) -> None:
    """It works in the memory that the number of processes is chosen by; loading took more than twice as much."""
    place = place_of(tmp_path, 2)
    place.run()
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    place.weights_path.write_bytes(heavy(CLASSES))
    weights = load_weights(task.card, str(place.weights_path))
    expected = worker_bytes(task, weights, plan)
    assert expected
    setup = Setup(replace(task, output=f"{task.output}-again"), weights, by_image=True)
    others = psutil.Process().children()
    with closing(Pool(setup, 1, "image").run(plan.parts())) as results:
        assert next(results).failure is None
        (worker,) = (child for child in psutil.Process().children() if child not in others)
        # It waits for its next part. With what loading took it would be at more than `expected.load`.
        assert worker.memory_info().rss < PROCESS_MEMORY + expected.work + expected.load / 4


def heavy(classes: int) -> bytes:
    noise = np.random.default_rng(0)
    shapes = {"one": (1024, 3, 1, 1), "two": (2048, 1024, 3, 3), "three": (classes, 2048, 1, 1)}
    stored = [
        numpy_helper.from_array(noise.normal(size=shape).astype(np.float32) / shape[1], name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("AveragePool", ["x"], ["low"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["low", "one"], ["a"]),
        helper.make_node("Conv", ["a", "two"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["b", "three"], ["y"]),
    ]
    return tiny(nodes, [("x", ("N", 3, "H", "W"))], [("y", ("N", classes, "h", "w"))], stored)
