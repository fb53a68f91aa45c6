"""What never ends, or kills each time, is given up after a bounded time and costs no more than its own."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from segment.drafts.drafting import draft_card
from segment.engines.pool import Pool
from segment.engines.ray_heartbeats import WorkerHealth
from segment.engines.ray_watchdog import Watchdog
from segment.engines.worker_process import Setup
from segment.errors import ModelError, UsageError
from segment.models.card import load_card
from segment.models.sessions import apart_process
from segment.models.sessions.predict import GraphSession
from segment.models.weights import Weights, load_weights
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.pipeline.stall import StallTimeout
from segment.quantization import pricing, quantizing
from segment.quantization.asked import Asked
from segment.quantization.making import Making
from segment.readings.checking import check_card
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.calls import ROOT
from tests.graphs import colour_classifier
from tests.here import call_apart
from tests.reliability import calls_apart
from tests.reliability.trouble import assert_sound, run_process, street, trouble_in_children
from tests.runs import CARD, CARD_TOML, Place, png, read_rows, scene
from tests.tflites import Node, Tensor, described, tflite


def write_table(path: Path, rows: int) -> None:
    data = io.BytesIO()
    pq.write_table(pa.table({"image": [png(scene(seed)[0]) for seed in range(rows)]}), data)
    path.write_bytes(data.getvalue())


@pytest.mark.slow
def test_a_row_group_that_kills_by_being_read_costs_some_processes_in_all(tmp_path: Path) -> None:
    """Not some for each of its parts, in each of the rounds; and no other row group is blamed."""
    place = Place(tmp_path)
    write_table(place.images / "killer.parquet", 24)
    write_table(place.images / "sound.parquet", 6)
    changes = {"part_size": 2, "workers": "1", "max_error_rate": 1.0, "labels": None}
    ended = run_process(place, f"read-group={tmp_path / 'deaths'}", **changes)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "deaths").stat().st_size == 1 + 2 + 2  # by rounds; there are 12 parts
    rows = read_rows(place.output)
    assert [row["error"] for row in rows if "sound" in row["uri"]] == [None] * 6
    killed = [row for row in rows if "killer" in row["uri"]]
    assert {row["error"].partition(":")[0] for row in killed} == {"killed_worker"}
    assert [row["index"] for row in killed] == list(range(24))
    assert_sound(place.output)


def begun(place: Place, **changes: object) -> tuple[Task, Weights, Plan]:
    """Task, weights and plan of a run, no part of which is committed any more."""
    place.run(**changes)
    for file in [*place.output.glob("masks/*/*.parquet"), *place.output.glob("stats/*"), place.output / "_SUCCESS"]:
        file.unlink()
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    return task, load_weights(task.card, str(place.weights_path)), plan


def test_parts_of_a_row_group_that_killed_are_error_rows_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    write_table(place.images / "killer.parquet", 8)
    task, weights, plan = begun(place, part_size=2, labels=None)
    trouble_in_children(monkeypatch, f"read-group={tmp_path / 'deaths'}")
    results = list(Pool(Setup(task, weights, by_image=True), 1, "image").run(plan.parts()))
    assert (tmp_path / "deaths").stat().st_size == 2
    assert {result.part for result in results} == {part.id for part in plan.parts()}
    assert [result.errors for result in results] == [{"killed_worker": 2}] * 4
    assert [row["index"] for row in read_rows(place.output)] == list(range(8))


def test_a_model_that_never_ends_loading_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, weights, plan = begun(street(tmp_path))
    trouble_in_children(monkeypatch, "load-for-ever")
    monkeypatch.setattr("segment.pipeline.stall.UNKNOWN", 1.0)
    monkeypatch.setattr("segment.pipeline.stall._LOADING", {})
    with pytest.raises(ModelError, match=r"the model was not loaded within 1 s, in 2 processes: .* --stall-timeout"):
        list(Pool(Setup(task, weights), 1, "none").run(plan.parts()))


def test_ray_gives_up_a_model_that_never_ends_loading() -> None:
    watchdog = Watchdog.__new__(Watchdog)
    watchdog._stall_timeout, watchdog._workers = StallTimeout(None, 1), 2
    watchdog._asked_at, watchdog._head_silence, watchdog._worker_silence = time.monotonic(), 0.0, 0.0
    watchdog._health = WorkerHealth((), 0, 0, busy=False, waits=(), loads=2, loaded=0)
    watchdog._stall_timeout.give_up_load(1)
    watchdog._stall_timeout.give_up_load(1)  # the same process
    assert watchdog.trouble() is None  # one may be an accident
    watchdog._stall_timeout.give_up_load(2)
    assert "was not loaded within 300 s, in 2 processes" in str(watchdog.trouble())


def endless(path: Path, how: str) -> Path:
    """A sound graph, and behind it a loop of 2^40 steps, or functions that stand for 2^40 nodes."""
    model = onnx.load_model_from_string(colour_classifier(CARD))
    graph, end = model.graph, model.graph.output[0].name
    next(node for node in graph.node if end in node.output).output[0] = "scores"
    default, own = model.opset_import[0], helper.make_opsetid("own", 1)
    if how == "loop":
        steps = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["x"], ["y"])]
        types = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "x": TensorProto.FLOAT,
                 "on": TensorProto.BOOL, "y": TensorProto.FLOAT}  # fmt: skip
        shapes = {"i": [], "go": [], "on": []}
        values = [helper.make_tensor_value_info(name, kind, shapes.get(name)) for name, kind in types.items()]
        body = helper.make_graph(steps, "body", values[:3], values[3:])
        graph.initializer.extend([helper.make_tensor("n", TensorProto.INT64, [], [1 << 40]),
                                  helper.make_tensor("yes", TensorProto.BOOL, [], [True])])  # fmt: skip
        graph.node.append(helper.make_node("Loop", ["n", "yes", "scores"], [end], body=body))
    else:
        model.opset_import.append(own)
        before, domain = "Identity", ""
        for number in range(41):
            name = f"f{number}"
            nodes = [helper.make_node(before, ["x"], ["z"], domain=domain),
                     helper.make_node(before, ["z"], ["y"], domain=domain)]  # fmt: skip
            model.functions.append(helper.make_function("own", name, ["x"], ["y"], nodes, [default, own]))
            before, domain = name, "own"
        graph.node.append(helper.make_node(before, ["scores"], [end], domain="own"))
    path.write_bytes(model.SerializeToString())
    return path


GIVEN_UP = "the process that tried it did not load the model or run it on an image within 1 s"


@pytest.mark.parametrize("how", ["loop", "functions"])
def test_a_draft_of_a_graph_that_never_ends_is_given_up(tmp_path: Path, how: str) -> None:
    model = endless(tmp_path / "model.onnx", how)
    with pytest.raises(ModelError, match=GIVEN_UP):
        call_apart(calls_apart.draft_within_a_second, str(model), note=print)


@pytest.mark.parametrize("how", ["loop", "functions"])
def test_a_quantisation_of_a_graph_that_never_ends_is_given_up(tmp_path: Path, how: str) -> None:
    """It is read, calibrated and timed in a process of its own."""
    place = Place(tmp_path)
    for number in range(8):
        place.add(f"{number}.png", number)
    job = place.job(weights=str(endless(tmp_path / "model.onnx", how)))
    card, store = load_card(str(place.card_path)), Store()
    folder = tmp_path / "made"
    folder.mkdir()
    chosen = quantizing._choose(job, Asked(), store)
    weights = load_weights(card, job.weights, store=store)
    making = Making(card, weights, job, Asked(), chosen, pricing.served_by(job, "onnx"), store, folder)
    # whichever step is the first that does not end
    with pytest.raises(ModelError, match=f"{GIVEN_UP}|the process that tried it did not quantise the model within 1 s"):
        call_apart(calls_apart.makes_within_a_second, making, note=print)


def test_a_quantisation_that_is_killed_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, temporary = Place(tmp_path), tmp_path / "temporary"
    for number in range(8):
        place.add(f"{number}.png", number)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(apart_process, "call_apart", call_apart)
    monkeypatch.setattr(quantizing, "make", calls_apart.is_killed_while_it_calibrates)
    notes: list[str] = []
    with pytest.raises(ModelError, match="SIGKILL"):
        quantizing.quantise_job(place.job(), Asked(), note=notes.append)
    assert any("quantising" in line for line in notes)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("seconds", "notes"), [((0.4, 0.4, 0.4, 0.4), ["past them"]), ((0.4, 60), [])])
def test_each_step_on_a_model_is_bounded(seconds: tuple[float, ...], notes: list[str]) -> None:
    """So that an image that never ends is given up, however many were done before; and so is what is between them."""
    told: list[str] = []
    with pytest.raises(ModelError, match=GIVEN_UP):
        call_apart(calls_apart.steps, seconds, note=told.append)
    assert told == notes


def test_every_image_of_a_check_and_of_a_draft_is_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth, runs, outside = 0, 0, 0

    @contextmanager
    def within() -> Iterator[None]:
        nonlocal depth
        depth += 1
        yield
        depth -= 1

    def predict(session: GraphSession, images: Any) -> Any:
        nonlocal runs, outside
        runs, outside = runs + 1, outside + (not depth)
        return real(session, images)

    real = GraphSession.predict
    monkeypatch.setattr(GraphSession, "predict", predict)
    place = Place(tmp_path)
    for number in range(6):
        place.add(f"{number}.png", number)
    checked = check_card(place.job(labels=str(place.labels)), images=6, within=within)
    assert runs >= checked.found.segmented > 6
    draft_card(str(place.weights_path), str(place.images), labels=str(place.labels), size=(24, 32), within=within)
    assert runs > 2 * checked.found.segmented
    assert outside == 0


def test_a_quantiser_that_takes_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither loading nor an image is to blame."""
    place = Place(tmp_path)
    for number in range(8):
        place.add(f"{number}.png", number)
    monkeypatch.setattr(apart_process, "call_apart", call_apart)
    monkeypatch.setattr(quantizing, "make", calls_apart.makes_for_ever)
    with pytest.raises(ModelError, match="the process that tried it did not quantise the model within 1 s"):
        quantizing.quantise_job(place.job(), Asked())


def test_time_in_which_all_is_stopped_does_not_count() -> None:
    """As by Ctrl-Z: a step goes on afterwards where it was."""
    code = (
        "from tests.here import call_apart; from tests.reliability.calls_apart import steps_once; "
        "call_apart(steps_once, note=lambda line: print(line, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(4)
        os.killpg(process.pid, signal.SIGCONT)
        told, errors = process.communicate()
    assert (process.returncode, told) == (0, b"ended\n"), errors


def test_a_model_that_ends_the_process_ends_no_more_than_that() -> None:
    notes: list[str] = []
    with pytest.raises(ModelError, match="the process that tried it ended by SIGSEGV; is the file"):
        call_apart(calls_apart.dies, note=notes.append)
    assert notes == ["a note with an ESC: \x1b"]


def test_what_a_process_was_given_is_held_once() -> None:
    """Not as bytes for its pipe, too, until it ends: weights are of hundreds of megabytes."""
    data, held = bytes(64 << 20), 0

    def measure(line: str) -> None:
        nonlocal held
        assert line == str(len(data))
        time.sleep(0.5)  # the thread that wrote the bytes ends
        held = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        call_apart(calls_apart.counts, data, note=measure)
    finally:
        tracemalloc.stop()
    assert held < len(data) // 8


def test_a_process_for_a_model_imports_no_pandas() -> None:
    """Arrow would, to convert a list: a third of a second of CPU before the first part of a run."""
    assert importlib.util.find_spec("pandas")
    assert "pandas" not in call_apart(calls_apart.imported_by_arrow, note=print)


def test_a_process_for_a_model_ends_with_the_one_that_started_it() -> None:
    code = (
        "from tests.here import call_apart; from tests.reliability.calls_apart import waits; "
        "call_apart(waits, note=lambda line: print(line, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        child = Path("/proc") / process.stdout.readline().decode().strip()
        assert child.name.isdigit()
        process.kill()
    deadline = time.monotonic() + 60
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_errors_of_a_job_come_back_from_the_process(tmp_path: Path) -> None:
    """As any error of ours; one that cannot be pickled comes as its text."""
    (tmp_path / "m.onnx").write_bytes(colour_classifier(CARD))
    with pytest.raises(UsageError, match="text that is not empty"):
        call_apart(partial(draft_card, labels=str(tmp_path)), str(tmp_path / "m.onnx"), "", note=print)
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        call_apart(calls_apart.raises_unpicklable, note=print)


def test_a_card_may_come_by_a_pipe(tmp_path: Path) -> None:
    card = tmp_path / "c.toml"
    card.write_text(CARD_TOML)
    command = [sys.executable, "-m", "segment", "check", str(tmp_path), "--labels", str(tmp_path), "--model"]
    ended = [
        subprocess.run([*command, name], input=card.read_bytes(), cwd=ROOT, capture_output=True, check=False)
        for name in ("/dev/stdin", str(card))
    ]
    assert [one.returncode for one in ended] == [2, 2]
    assert ended[0].stderr == ended[1].stderr


def is_running(process: Path) -> bool:
    """Whether a process, given as its folder of /proc, runs; it may end meanwhile."""
    with suppress(OSError):
        return "zombie" not in (process / "status").read_text()
    return False


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_damaged_tflite_is_refused_in_words_or_read(step: int) -> None:
    """Cut off, with flipped bits, with random bytes within, or of these alone; in a process that could die of it."""
    tensors = [Tensor("x", (1, 8, 8, 3)), Tensor("y", (1, 8, 8, 3))]
    data = tflite(tensors, [Node("ABS", [0], [1])], [0], [1], described([1, 2, 3], [4, 5, 6], []))
    random, places = np.random.default_rng(1), range(0, len(data), step)
    files = [data[:at] for at in places]
    files += [data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :] for at in places]
    files += [data[:at] + random.bytes(16) + data[at + 16 :] for at in places]
    files += [random.bytes(at) for at in places]
    refused = call_apart(calls_apart.reads_tflite, files, note=print)
    assert 2 * len(places) < refused < 2 * len(files)


@pytest.mark.parametrize("kind", [UsageError, ZeroDivisionError])
def test_what_is_raised_in_another_process_is_raised_here(kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^why") as caught:
        call_apart(calls_apart.fails, kind, note=print)
    assert ("in fails" in "".join(getattr(caught.value, "__notes__", ()))) is (kind is ZeroDivisionError)


NATIVE = {
    "with Python's lock held": "sum(range(10**13))",
    "without it": "[ctypes.CDLL(None).sleep(60) for _ in range(9)]",
}


@pytest.mark.parametrize(("native", "number"), zip(NATIVE, [signal.SIGTERM, signal.SIGINT], strict=True))
def test_a_signal_ends_the_process_whatever_native_code_does(native: str, number: signal.Signals) -> None:
    code = (
        "import ctypes, signal; from segment.cli.main import STOPPING; "
        "from segment.process.last_resort import end_after_signal; "
        "[signal.signal(each, lambda number, frame: None) for each in STOPPING]; "
        f"end_after_signal(STOPPING, 0.5); print('ready', flush=True); {NATIVE[native]}"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, number)
        assert process.wait(30) == -signal.SIGKILL
        assert process.stdout.read() == b""


@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
def test_a_signal_of_a_copy_of_the_process_does_not_end_it(how: str) -> None:
    """Libraries and notebooks fork; their children are ended by signals, and the run goes on."""
    forked = {
        "os.fork": "child = os.fork()\nif not child: time.sleep(60)\nos.kill(child, 15); os.waitpid(child, 0)",
        "multiprocessing": "import multiprocessing\nprocess = multiprocessing.get_context('fork').Process(\n"
        "target=time.sleep, args=[60])\nprocess.start(); process.terminate(); process.join()",
    }[how]
    code = (
        "import os, signal, time; from segment.process.last_resort import end_after_signal\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0)); end_after_signal([signal.SIGTERM], 0.2)\n"
        f"{forked}\ntime.sleep(2.5); print('alive')"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr


def test_a_process_that_ends_by_itself_leaves_none_behind() -> None:
    code = (
        "import os, signal; from segment.process.last_resort import end_after_signal; "
        "end_after_signal([signal.SIGTERM], 60.0); "
        "print(next(iter(open(f'/proc/self/task/{os.getpid()}/children'))).strip(), flush=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True, timeout=30
    )
    child = Path("/proc") / ended.stdout.strip()
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)
