"""The GPU path but for the GPU: bound buffers, two batches in flight, the batch probe, FP16, engine folders."""

import functools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import segment.models.sessions.onnxruntime as ort
from segment.engines.local import LocalEngine
from segment.models.card import load_card
from segment.models.sessions import Runtime, capabilities, find_batch
from segment.models.sessions.base import Masks, Settings
from segment.models.sessions.batches import BatchProbe, probe_batches
from segment.models.sessions.extras import NOTHING
from segment.models.sessions.io_binding import CudaPin, bound_run
from segment.models.sessions.onnxruntime import in_half_precision
from segment.models.sessions.predict import GraphSession, Run
from segment.models.sessions.surgery import Surgeon
from segment.models.sessions.tensorrt import engine_build_lock, engine_folder, engine_options, gpu_name
from segment.models.weights import load_weights
from segment.output.plan import Plan
from segment.runs.resolve import choose_batch, frozen_batch
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph
from tests.runs import CARD, Notes, Place
from tests.serving import ORT, message, opened, pictures, shared, small, tiny


def bound(graph: bytes, batch: int | None = None, **changes: Any) -> tuple[GraphSession, Any]:
    """A session as on a GPU, on the CPU: the same graph, lanes and bindings."""
    card = small(**changes)
    surgeon = Surgeon(card, graph)

    @functools.cache
    def load(masked: bool) -> Run:
        session = ort._load(surgeon.compiled(batch, masked=masked), ORT, threads=1)
        return bound_run(session, (card.output_height, card.output_width), pin=id, batch=batch)

    return GraphSession(card, lambda batched, masked: load(masked), not_raw, Settings()), card


def not_raw(images: Any) -> Any:
    """Stands where a test never asks for the graph's own output."""
    raise AssertionError


# --- bound buffers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 1, 3, 8])
def test_bound_buffers_give_the_known_masks(batch: int | None) -> None:
    session, card = bound(colour_classifier(small()), batch)
    images, masks = pictures(card, 7)
    for number in (1, 7, 3, 5, 2, 7):  # buffers grow, shrink and grow; fixed batches are padded and cut up
        assert np.array_equal(session.predict(images[:number]).masks, masks[:number])
    assert session.batches


def test_results_are_copies() -> None:
    session, card = bound(colour_classifier(small()))
    images, masks = pictures(card, 4)
    first = session.predict(images[:2]).masks
    session.predict(images[2:])
    session.predict(images[2:])  # both lanes have been used again
    assert np.array_equal(first, masks[:2])


@pytest.mark.parametrize("batch", [None, 4])
def test_what_pads_a_batch_is_nobodys_fault(batch: int | None) -> None:
    session, card = bound(nan_graph(small()), batch)
    images, masks = pictures(card, 4)
    poisoned = images.copy()
    poisoned[2:] = np.array(TRIGGER, np.uint8)
    assert dict(session.predict(poisoned).faults) == {2: "model_not_finite", 3: "model_not_finite"}
    for _ in range(3):  # what is left in the buffers of either lane is not looked at
        found = session.predict(images[:2])
        assert found.faults == {}
        assert np.array_equal(found.masks, masks[:2])


def test_many_threads_share_two_lanes() -> None:
    session, card = bound(colour_classifier(small()))
    images, masks = pictures(card, 40)

    def check(start: int) -> bool:
        return np.array_equal(session.predict(images[start : start + 4]).masks, masks[start : start + 4])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, [i % 37 for i in range(200)]))


def test_two_batches_are_in_flight_and_no_more() -> None:
    """A session whose calls meet at a barrier ends only if two run at once; a third one waits for a lane."""
    inside, most, lock = 0, 0, threading.Lock()
    meet = threading.Barrier(2)

    class Counting:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run_with_iobinding(self, binding: Any) -> None:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            meet.wait(timeout=30)
            self._session.run_with_iobinding(binding)
            with lock:
                inside -= 1

    card = small()
    session = ort._load(Surgeon(card, colour_classifier(card)).compiled(None), ORT, threads=1)
    run = bound_run(Counting(session), (card.output_height, card.output_width), pin=id)
    images, masks = pictures(card, 2)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: run(images)[0], range(12)))
    assert most == 2
    assert all(np.array_equal(one, masks) for one in found)


def test_without_a_gpu_memory_is_not_pinned_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    import mmap

    pin = CudaPin(mmap.mmap(-1, 4096))
    if pin._cuda is None:
        assert "copies to the GPU do not overlap" in caplog.text


# --- how a session is opened ------------------------------------------------------------------------------------------


def test_a_wrong_mask_size_is_told_as_on_the_cpu() -> None:
    card = small()
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Concat", ["large"] * 4, ["y"], axis=1),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    graph = tiny(nodes, [("x", ("N", 3, 32, 48))], [("y", ("N", 12, 64, 96))], [scales])
    surgeon = Surgeon(small(output={"height": 64, "width": 96}), graph)
    run = ort._on_gpu(ort._load(surgeon.compiled(None), ORT, threads=1), card, None, NOTHING)
    said = message(lambda: GraphSession(card, lambda *_: run, not_raw, Settings()).predict(pictures(card, 1)[0]))
    assert said.endswith(
        "masks of 32x48 are needed, the graph returned 64x96: output.height = 64 and output.width = 96?"
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_bound_buffers_hold_masks_that_were_enlarged(layout: str) -> None:
    """Scores of every fourth pixel, as bilinear enlarging makes them on the plain path."""
    changes = {"output": {"kind": "logits", "layout": layout}}
    card = small(**changes)
    graph = colour_classifier(card, stride=4)
    session, _ = bound(graph, 3, **changes)
    images, _ = pictures(card, 5)
    assert np.array_equal(session.predict(images).masks, opened(card, graph, ORT).predict(images).masks)


def test_on_gpu_binds_a_sound_graph() -> None:
    card = small()
    session = ort._load(Surgeon(card, colour_classifier(card, batch=1)).compiled(2), ORT, threads=1)
    images, masks = pictures(card, 5)
    assert np.array_equal(ort._on_gpu(session, card, 2, NOTHING)(images)[0], masks)


def test_providers_and_their_options() -> None:
    names = [entry[0] for entry in ort._providers(Runtime("onnxruntime", "cuda", "f32", ""), {})[:-1]]
    assert names == ["CUDAExecutionProvider"]
    options = engine_options(Path("/cache"), Runtime("onnxruntime", "tensorrt", "f16", "1"))
    providers = ort._providers(Runtime("onnxruntime", "tensorrt", "f16", "1"), options)
    assert [entry[0] for entry in providers[:-1]] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert providers[0][1]["trt_fp16_enable"] == "1"
    assert providers[0][1]["trt_engine_cache_path"] == "/cache"
    assert providers[-1] == "CPUExecutionProvider"


# --- FP16 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["N", 1])
def test_halves_keep_the_contract(batch: int | str) -> None:
    card = small(output={"kind": "logits"})
    graph = in_half_precision(colour_classifier(card, batch=batch))
    model = onnx.load_model_from_string(graph)
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    images, masks = pictures(card, 3)
    found = opened(card, graph, ORT).predict(images)
    assert found.faults == {}
    assert np.mean(found.masks == masks) > 0.99


def test_opened_with_f16_the_graph_computes_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(ort, "Surgeon", lambda card, data: seen.append(data) or Surgeon(card, data))
    card = small()
    opened(card, colour_classifier(card), Runtime("onnxruntime", "cpu", "f16", ""))
    assert any(node.op_type == "Cast" for node in onnx.load_model_from_string(seen[0]).graph.node)


@pytest.mark.shared
def test_halves_of_a_real_model() -> None:
    card = load_card("unet-camvid-onnx-0001")
    graph = shared("models/unet32-camvid.onnx").read_bytes()
    half = Runtime("onnxruntime", "cpu", "f16", "")
    images = pictures(card, 1)[0]
    f32 = opened(card, graph, ORT).predict(images)
    f16 = opened(card, graph, half).predict(images)
    assert len(in_half_precision(graph)) < 0.51 * len(graph)
    assert f16.faults == {}
    assert np.mean(f16.masks == f32.masks) > 0.99


# --- the probe --------------------------------------------------------------------------------------------------------


class Scripted:
    """A session that takes `fixed + each * batch` seconds of its own clock a call, and has room for so many images."""

    card = CARD

    def __init__(self, fixed: float, each: float, room: int = 10**9) -> None:
        self.fixed, self.each, self.room, self.now = fixed, each, room, 0.0

    def predict(self, images: Any) -> Masks:
        if len(images) > self.room:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 123\nat cuda")
        self.now += self.fixed + self.each * len(images)
        return Masks(np.zeros((len(images), 24, 32), np.uint8), {})

    def probe(self, monkeypatch: pytest.MonkeyPatch) -> BatchProbe:
        monkeypatch.setattr("segment.models.sessions.batches.time", SimpleNamespace(perf_counter=lambda: self.now))
        return probe_batches(lambda _: self, in_flight=1)


def test_the_probe_doubles_until_there_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Scripted(0.03, 0.01).probe(monkeypatch)
    # 25, 40, 57, 73, 84, 91 images/s, then 95.5, which is 4.5 % more
    assert list(found.rates) == [1, 2, 4, 8, 16, 32, 64]
    assert (found.best, found.stopped) == (32, "larger batches are not faster")
    assert found.rates[1] == pytest.approx(25)
    flat = Scripted(0.0, 0.01).probe(monkeypatch)
    assert (list(flat.rates), flat.best) == ([1, 2], 1)
    steep = Scripted(1.0, 0.0).probe(monkeypatch)
    assert (max(steep.rates), steep.best, steep.stopped) == (128, 128, "128 is the limit")


def test_the_probe_ends_where_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Scripted(0.02, 0.0, room=4).probe(monkeypatch)
    assert (list(found.rates), found.best) == ([1, 2, 4], 4)
    assert found.stopped == "8 failed: Failed to allocate memory for requested buffer of size 123"
    with pytest.raises(RuntimeError, match="Failed to allocate"):
        Scripted(1.0, 0.0, room=0).probe(monkeypatch)


def test_the_probe_of_a_real_graph() -> None:
    card = small()
    found = find_batch(card, as_weights(colour_classifier(card)), ORT, largest=4)
    assert found.best in (1, 2, 4)
    assert set(found.rates) <= {1, 2, 4}
    assert all(rate > 0 for rate in found.rates.values())
    assert str(found).startswith(f"batch {found.best} (images/s by batch: 1: ")


def test_the_smallest_batch_that_is_as_good() -> None:
    assert BatchProbe({1: 10, 2: 20, 4: 38, 8: 40, 16: 39}, "").best == 4


def test_the_batch_is_found_once_and_frozen(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for seed in range(6):
        place.add(f"{seed}.png", seed)
    job = place.job()
    weights = load_weights(CARD, str(place.weights_path))
    gpu, cpu = Runtime("onnxruntime", "cuda", "f32", "1"), Runtime("onnxruntime", "cpu", "f32", "1")

    class Engine(LocalEngine):
        def call(self, task_device: str, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            assert task_device == "cuda"
            card, weights, runtime, largest, extras = args
            assert (runtime, largest) == (gpu, 2)  # no batch is larger than a part
            return function(card, weights, cpu, largest, extras)  # there is no GPU here

    from segment.inputs.discover import discover
    from segment.store.client import Store

    notes = Notes()
    plan = Plan.of(discover(job.input, job.input_options, Store()).parts)
    found = choose_batch(job, CARD, weights, gpu, plan, lambda: Engine(1), notes)
    assert found in (1, 2)
    assert notes.lines == [line for line in notes.lines if line.startswith(f"batch {found} (images/s by batch: 1: ")]
    assert len(notes.lines) == 1
    assert frozen_batch(job, {"batch_size": 16}, gpu) == 16
    assert frozen_batch(place.job(batch_size=4), {"batch_size": 16}, gpu) == 4
    assert frozen_batch(job, {"batch_size": None}, cpu) == 1


# --- engines ----------------------------------------------------------------------------------------------------------

TRT = Runtime("onnxruntime", "tensorrt", "f32", "1.31.1")


def test_engines_are_kept_apart_by_all_that_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENT_CACHE", str(tmp_path))
    card = small()
    graph = colour_classifier(card)
    one, two = (Surgeon(card, graph).compiled(batch) for batch in (1, 2))
    half = Runtime("onnxruntime", "tensorrt", "f16", "1.31.1")
    newer = Runtime("onnxruntime", "tensorrt", "f32", "1.32.0")
    folders = [engine_folder(one, TRT), engine_folder(two, TRT), engine_folder(one, half), engine_folder(one, newer)]
    assert len(set(folders)) == 4
    assert engine_folder(Surgeon(card, graph).compiled(1), TRT) == folders[0]
    assert all(folder.is_dir() and folder.parent == tmp_path / "tensorrt" for folder in folders)
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)


def test_the_gpu_has_a_name(tmp_path: Path) -> None:
    assert gpu_name(tmp_path) == "gpu"
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text(
        "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18\nGPU UUID: \t GPU-1\n"
    )
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\nGCC version: 12\n"
    )
    assert gpu_name(tmp_path) == "NVIDIA-H100-80GB-HBM3-580.65.06"


def _build(folder: Path, log: Path) -> None:
    with engine_build_lock(folder):
        for word in ("begin", "end"):
            with log.open("a") as file:
                file.write(f"{word} {os.getpid()}\n")
            time.sleep(0.05)


def test_one_process_builds_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    builders = [context.Process(target=_build, args=(tmp_path, log)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    words = [line.split() for line in log.read_text().splitlines()]
    assert [word for word, _ in words] == ["begin", "end"] * 3
    assert all(first[1] == second[1] for first, second in zip(words[::2], words[1::2], strict=True))


# --- the benchmark ----------------------------------------------------------------------------------------------------


def benchmark(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    place = Place(folder)
    for seed in range(4):
        place.add(f"{seed}.png", seed)
    script = Path(__file__).parents[2] / "jobs" / "gpu_benchmark.py"
    model = ["--model", str(place.card_path), "--weights", str(place.weights_path), "--images", str(place.images)]
    return subprocess.run(
        [sys.executable, str(script), *model, *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.skipif("gpu" in capabilities(), reason="there is a GPU here")
def test_the_benchmark_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    done = benchmark(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("No NVIDIA GPU here: nothing was measured.")


def test_the_benchmark_runs_without_a_gpu_and_claims_none(tmp_path: Path) -> None:
    done = benchmark(tmp_path, "--device", "cpu", "--largest", "2", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "CPU only: no GPU was measured" in done.stdout
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| 2 ")]
    assert [row[0] for row in rows] == ["2"]
    assert float(rows[0][1]) > 0
    assert float(rows[0][2]) > 0
    assert rows[0][3] == "-"
