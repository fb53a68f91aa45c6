"""What the machinery costs without a model, and how that grows: a null model and a million tiny images.

    python jobs/scale.py                              # all of it: about fifteen minutes on two cores, 4 GB of disk
    python jobs/scale.py --measure run --images 100000 --shards 100

The null model is a real ONNX graph whose mask is constant; the images are JPEGs of 64x64. Every measure runs in a
process of its own, so that its memory is its own. `run` is a job on the Ray engine; `finished` reruns and aggregates
it; `resume` begins a run of a hundred parts a shard, 99 % of whose shards are finished; `discovery` lists inputs;
`plan` weighs a long plan; `nodes` puts sleeping models on several logical nodes; `store` looks at what Ray's object
store holds; `start` is what a user waits for. Prints Markdown; `--json` keeps it.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segment
from segment.audit import audit_listing
from segment.card import load_card
from segment.ledger import Ledger
from segment.plan import Plan
from segment.progress import Progress, Tally
from segment.report.aggregate import load_report
from segment.shards import InputOptions, discover
from segment.store import Store

SIZE = 64  # pixels of a side


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: str
    goal: str = ""


@dataclass(frozen=True)
class Scale:
    """How large, and where: `images` in `shards` Parquet files below `folder`."""

    folder: Path
    images: int
    shards: int

    @property
    def job(self) -> dict[str, Any]:
        """Input and model of a job."""
        return {
            "input": str(self.folder / "input"),
            "model": str(self.folder / "null.toml"),
            "weights": str(self.folder / "null.onnx"),
            "runtime": "openvino",
            "precision": "f32",
        }

    def output(self, name: str) -> Path:
        """Folder of a run."""
        return self.folder / name


def write_model(folder: Path, name: str, size: int) -> dict[str, str]:
    """Write card and graph of a null model whose input has `size` pixels a side; as a job names them."""
    card, graph = folder / f"{name}.toml", folder / f"{name}.onnx"
    card.write_text(null_card(size), encoding="utf-8")
    graph.write_bytes(null_graph(size))
    return {"model": str(card), "weights": str(graph)}


def null_card(size: int) -> str:
    """The card of that graph."""
    return f"""
name = "null"
description = "a constant mask: what is left is the machinery"
licence = "none"
source = "jobs/scale.py"

[input]
layout = "NHWC"
height = {size}
width = {size}
channels = "RGB"
resize = {{ resampler = "pillow", interpolation = "bilinear" }}

[output]
kind = "index"
layout = "NHW"

[metric]
convention = "cityscapes"
resolution = "source"

[classes]
names = ["nothing", "something"]
palette = [[0, 0, 0], [255, 255, 255]]
"""


def null_graph(size: int) -> bytes:
    """An ONNX graph `uint8[N, size, size, 3] -> int64[N, size, size]`, zero whatever comes in."""
    from numpy import array
    from onnx import TensorProto, helper, numpy_helper

    constants = {"first": [0], "second": [1], "channel": [3]}
    initial = [numpy_helper.from_array(array(value, "int64"), name) for name, value in constants.items()]
    initial.append(numpy_helper.from_array(array(0, "float32"), "zero"))
    nodes = [
        helper.make_node("Slice", ["image", "first", "second", "channel"], ["red"]),
        helper.make_node("Squeeze", ["red", "channel"], ["plane"]),
        helper.make_node("Cast", ["plane"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["mask"], to=TensorProto.INT64),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 3])
    mask = helper.make_tensor_value_info("mask", TensorProto.INT64, ["N", size, size])
    graph = helper.make_graph(nodes, "null", [image], [mask], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def tiny_images(number: int) -> list[bytes]:
    """Different JPEGs of 64x64."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)
    return [cv2.imencode(".jpg", picture.repeat(8, 0).repeat(8, 1))[1].tobytes() for picture in coarse]


def make_inputs(scale: Scale) -> None:
    """Write the null model and the shards; all of them hold the same images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (scale.folder / "input").mkdir(parents=True)
    write_model(scale.folder, "null", SIZE)
    pictures = tiny_images(scale.images // scale.shards)
    table = pa.table({"id": [f"{i:06d}" for i in range(len(pictures))], "image": pa.array(pictures, pa.binary())})
    first = scale.folder / "input" / "000000.parquet"
    pq.write_table(table, first, row_group_size=len(pictures))
    for number in range(1, scale.shards):
        shutil.copyfile(first, first.with_name(f"{number:06d}.parquet"))


def resident() -> float:
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_of_the_run() -> float:
    """CPU seconds so far of this process and all below it: a private Ray cluster's too."""
    parents, seconds = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            process = int(entry.parent.name)
            parents[process] = int(fields[1])
            seconds[process] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    below = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(seconds[process] for process in below)


class Samples(Progress):
    """Images done, memory and CPU of the driver, whenever a hundredth of the images more is done."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int, float, float]] = []
        self.all_cpu: list[tuple[int, float]] = []  # images done, CPU seconds of all processes
        self.ended = 0.0

    def update(self, tally: Tally) -> None:
        """Take a sample."""
        if not self.points or tally.done >= self.points[-1][1] + tally.images / 100:
            if len(self.points) % 10 == 0:
                self.all_cpu.append((tally.done, cpu_of_the_run()))
            self.points.append((time.perf_counter(), tally.done, resident(), time.process_time()))

    def end(self, tally: Tally) -> None:
        """The rounds are done; statistics, audit and report follow."""
        self.ended = time.perf_counter()

    def rate(self, skip: float = 0.1) -> float:
        """Images a second, without the first tenth, in which workers start."""
        done = self.points[-1][1]
        steady = [point for point in self.points if point[1] >= skip * done]
        return (steady[-1][1] - steady[0][1]) / (steady[-1][0] - steady[0][0])

    def growth(self, since: int) -> float:
        """MB by which the driver grew after so many images."""
        memory = [point[2] for point in self.points if point[1] >= since]
        return max(memory) - memory[0]

    def cpu_an_image(self) -> float:
        """CPU seconds of all processes an image, without the first tenth: what a busy machine does not change much."""
        (first, before), (last, after) = self.all_cpu[min(1, len(self.all_cpu) - 2)], self.all_cpu[-1]
        return (after - before) / max(1, last - first)

    def cpu(self) -> float:
        """CPU seconds of the driver between the first sample and the last."""
        return self.points[-1][3] - self.points[0][3]


@contextmanager
def timed() -> Iterator[list[float]]:
    """Give a list whose one item is, afterwards, the seconds that passed."""
    seconds: list[float] = []
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


def measure_run(scale: Scale) -> list[Figure]:
    """The whole job on the Ray engine."""
    import pyarrow.parquet as pq

    output, samples = scale.output("run"), Samples()
    segment.run(segment.Job(output=str(output), engine="ray", batch_size=16, **scale.job), samples)
    finish = time.perf_counter() - samples.ended
    growth = samples.growth(min(10_000, scale.images // 10))
    assert growth < 200, f"the driver's memory is not flat: it grew by {growth:.0f} MB"
    timings = pq.read_table(next((output / "runs").glob("*.parquet")))
    stages = {name: timings[name].to_numpy().sum() for name in timings.column_names if name.endswith("_seconds")}
    spent = ", ".join(f"{k.removesuffix('_seconds')} {1e6 * v / scale.images:.0f}" for k, v in stages.items())
    return [
        Figure("Ray engine, images/s", f"{samples.rate():,.0f}", "≥ 5,000"),
        Figure("CPU of all processes an image, µs", f"{1e6 * samples.cpu_an_image():.0f}"),
        Figure("driver memory, growth from 10⁴ images (or a tenth) on, MB", f"{growth:.0f}", "< 200"),
        Figure("driver memory at the end, MB", f"{samples.points[-1][2]:.0f}"),
        Figure("driver CPU a part, ms", f"{1e3 * samples.cpu() / len(timings):.2f}"),
        Figure("driver CPU an image, µs", f"{1e6 * samples.cpu() / scale.images:.1f}"),
        Figure("worker, µs an image by stage", spent),
        Figure("statistics, audit and report after the last part, s", f"{finish:.1f}"),
    ]


def measure_finished(scale: Scale) -> list[Figure]:
    """A rerun of what is complete, its report, its audit; statistics from masks. Needs `run` before it."""
    output = scale.output("run")
    job = segment.Job(output=str(output), engine="local", batch_size=16, **scale.job)
    ledger, card = Ledger(Store(), f"file://{output}"), load_card(job.model)
    with timed() as rerun:
        segment.run(job)
    with timed() as report:
        assert load_report(ledger).total.images == scale.images
    run, plan = ledger.read_begun()
    with timed() as listing:
        keys = len(ledger.store.list(ledger.url("masks")))
    with timed() as audit:
        assert not audit_listing(ledger, plan, card).problems
    parts = plan.parts_by_shard()
    few = list(parts)[: max(1, len(parts) // 10)]
    with timed() as folded:
        images = sum(ledger.finish_shard(shard, parts[shard], card, run["fingerprint"]).images for shard in few)
    return [
        Figure("rerun of a finished run, audit and report again, s", f"{rerun[0]:.1f}"),
        Figure("aggregation from stats/, s", f"{report[0]:.2f}", "≤ 15"),
        Figure("aggregation from masks/, s (a tenth measured, times ten)", f"{folded[0] * scale.images / images:.1f}"),
        Figure(f"listing of {keys:,} masks files, s", f"{listing[0]:.2f}"),
        Figure("audit, s", f"{audit[0]:.1f}"),
    ]


class Stop(Exception):
    """Ends a run where its first round would begin."""


class StopAtBegin(Progress):
    """Lets a run plan, look at what is committed, and no more."""

    def begin(self, tally: Tally) -> None:
        """See `Progress.begin`."""
        raise Stop


def measure_resume(scale: Scale) -> list[Figure]:
    """Up to the first round of a run of a hundred parts a shard, 99 % of whose shards are finished."""
    output = scale.output("resume")
    part_size = max(1, scale.images // scale.shards // 100)
    job = segment.Job(output=str(output), engine="local", part_size=part_size, **scale.job)
    begin_only(job)
    plan = Plan.from_bytes((output / "plan.parquet").read_bytes())
    shards = plan.parts_by_shard()
    (output / "stats").mkdir(exist_ok=True)
    for number, (shard, parts) in enumerate(shards.items()):
        folder = output / "masks" / shard
        folder.mkdir(parents=True, exist_ok=True)
        finished = number >= max(1, len(shards) // 100)
        for part in parts if finished else parts[::2]:
            (folder / f"{part}.parquet").touch()
        if finished:
            (output / "stats" / f"{shard}.parquet").touch()
    before = resident()
    with timed() as resumed:
        begin_only(job)
    with timed() as listing:
        held = resident()
        entries = Store().list(f"file://{output}/masks")
        held, keys = resident() - held, len(entries)
    return [
        Figure("listed masks files, bytes of memory each", f"{1e6 * held / keys:.0f}"),
        Figure(f"resume: {len(plan):,} parts in {len(shards):,} shards, 99 % finished, s", f"{resumed[0]:.1f}", "≤ 10"),
        Figure("its memory, MB more", f"{resident() - before:.0f}"),
        Figure(f"full listing of {keys:,} masks files, s", f"{listing[0]:.2f}"),
        Figure("plan.parquet, bytes a part", f"{(output / 'plan.parquet').stat().st_size / len(plan):.0f}"),
    ]


def begin_only(job: segment.Job) -> None:
    """Run a job up to its first round."""
    try:
        segment.run(job, StopAtBegin())
    except Stop:
        return
    raise AssertionError("nothing was left to do")


def measure_discovery(scale: Scale) -> list[Figure]:
    """List the shards, and a tenth as many loose files as there are images."""
    figures = []
    loose = scale.folder / "loose"
    for number, picture in enumerate(tiny_images(scale.images // 10)):
        path = loose / f"{number // 1000:06d}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    for name, folder in (("Parquet", scale.folder / "input"), ("loose files", loose)):
        before = resident()
        with timed() as seconds:
            found = discover(f"file://{folder}", InputOptions(), Store())
            plan = Plan.of(found.parts)
        what = f"discovery and plan of {found.images:,} images, {name}"
        figures.append(Figure(f"{what}, s", f"{seconds[0]:.1f}"))
        figures.append(Figure(f"{what}, MB", f"{resident() - before:.0f}"))
        figures.append(Figure(f"{what}, MB of plan.parquet", f"{len(plan.to_bytes()) / 1e6:.1f}"))
    return figures


def measure_plan(scale: Scale) -> list[Figure]:
    """What the driver keeps of each part while it runs: ten parts of each planned one, to see it."""
    import pyarrow as pa

    found = discover(scale.job["input"], InputOptions(), Store())
    once = Plan.of(found.parts).table
    data = Plan(pa.concat_tables([once] * 10)).to_bytes()
    start = resident()
    with timed() as reading:
        plan = Plan.from_bytes(data)
    read = resident()
    kept = plan.parts_by_shard()
    waiting = {shard: set(parts) for shard, parts in kept.items()}  # as `segment.rounds.ShardBooks` does
    held = resident()
    assert sum(len(parts) for parts in waiting.values()) == len(once)
    return [
        Figure(f"plan of {len(plan):,} parts read, s", f"{reading[0]:.2f}"),
        Figure("driver memory a part, the plan, bytes", f"{1e6 * (read - start) / len(plan):.0f}"),
        Figure("driver memory a part, what is open in each shard, bytes", f"{1e6 * (held - read) / len(plan):.0f}"),
    ]


SLEEP = 0.1  # seconds an image


class SleepingSession:
    """A session that takes its time and no CPU."""

    def __init__(self, card: Any, *_: Any, **__: Any) -> None:
        self.card = card

    def predict(self, images: Any) -> Any:
        """See `segment.sessions.Session.predict`."""
        import numpy as np

        from segment.sessions import Masks

        time.sleep(SLEEP * len(images))
        return Masks(np.zeros(images.shape[:3], dtype=np.uint8), {})


def sleepy_workers() -> None:
    """Ray runs this in every worker process: sessions there sleep."""
    import segment.workers

    segment.workers.open_session = SleepingSession  # type: ignore[assignment]


@contextmanager
def logical_nodes(nodes: int, **resources: int) -> Iterator[Any]:
    """Start a Ray cluster of several nodes on this machine, whose sessions sleep, and connect to it."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # on the loopback address only
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        cluster.add_node(**resources)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a script
    hook = {"worker_process_setup_hook": sleepy_workers}
    ray.init(address=cluster.address, runtime_env=hook, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure_nodes(scale: Scale, counts: tuple[int, ...] = (1, 2, 4, 8, 16)) -> list[Figure]:
    """Throughput against workers on four logical nodes; each worker can do ten images a second."""
    figures = []
    with logical_nodes(4, num_cpus=max(1, max(counts) // 4)):
        for workers in counts:
            samples = Samples()
            source = some_images(scale, 200 * workers)
            output = str(scale.output(f"nodes-{workers}"))
            segment.run(segment.Job(output=output, engine="ray", workers=workers, **{**scale.job, **source}), samples)
            rate = samples.rate(0.3)
            share = rate * SLEEP / workers
            figures.append(Figure(f"{workers} sleeping workers, images/s", f"{rate:.1f} ({share:.0%} of them asleep)"))
    return figures


def some_images(scale: Scale, number: int) -> dict[str, str]:
    """A folder of loose images, made once."""
    folder = scale.folder / f"some-{number}"
    if not folder.exists():
        folder.mkdir()
        for i, picture in enumerate(tiny_images(number)):
            (folder / f"{i:06d}.jpg").write_bytes(picture)
    return {"input": str(folder)}


def measure_store(scale: Scale) -> list[Figure]:
    """What the object store holds at most: one operator, and three with decoded images of 512x512 between them."""
    figures = []
    size = 512
    model = write_model(scale.folder, "null-512", size)
    part_bytes = 4 * size * size * 3
    with logical_nodes(1, num_cpus=2, num_gpus=2):
        import segment.driver
        from segment.engines.ray import RayEngine

        for name, split in (("one operator", False), ("three operators", True)):
            segment.driver.make_engine = lambda job, images, split=split: RayEngine(workers=(2, 2), split=split)
            source = {**some_images(scale, 400), **model}
            with object_store_peak() as peak:
                segment.run(segment.Job(output=str(scale.output(name)), **{**scale.job, **source}))
            value = f"{peak[0] / 1e6:.1f} MB, {peak[0] / part_bytes / 2:.2f} parts an actor"
            figures.append(Figure(f"object store at peak, {name}", value, "≤ 4 parts"))
    return figures


@contextmanager
def object_store_peak() -> Iterator[list[int]]:
    """Give a list whose one item is, afterwards, the most bytes that the object store held."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    node = next(node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    address, port = node["NodeManagerAddress"], node["NodeManagerPort"]
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            reply = get_memory_info_reply(state, address, port)
            peak[0] = max(peak[0], reply.store_stats.object_store_bytes_used)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield peak
    done.set()
    thread.join()


def measure_start(scale: Scale) -> list[Figure]:
    """What a user waits for: the help page, and the first committed part of a local run."""
    command = [sys.executable, "-m", "segment"]
    helped = []
    for _ in range(5):
        with timed() as seconds:
            subprocess.run([*command, "--help"], check=True, stdout=subprocess.DEVNULL)
        helped += seconds
    source, output = some_images(scale, 600)["input"], scale.output("start")
    flags = ["--model", scale.job["model"], "--weights", scale.job["weights"], "--engine", "local"]
    with timed() as first:
        running = subprocess.Popen(
            [*command, "run", source, str(output), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while running.poll() is None and not any(output.glob("masks/*/*.parquet")):
            time.sleep(0.005)
    assert running.wait() == 0
    load = (
        "import sys, time; t = time.perf_counter(); from segment.card import load_card; "
        "from segment.weights import load_weights; from segment.sessions import Runtime, open_session, runtime_version;"
        "c = load_card(sys.argv[1]); w = load_weights(c, sys.argv[2]); t = time.perf_counter(); "
        "open_session(c, w, Runtime('openvino', 'cpu', 'f32', runtime_version('openvino')), threads=1, streams=2); "
        "print(time.perf_counter() - t)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", load, *flags[1:4:2]], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return [
        Figure("segment --help, s", f"{statistics.median(helped):.2f}", "≤ 0.5"),
        Figure("first committed part beyond model load, local, s", f"{first[0] - float(loaded):.2f}", "≤ 1"),
        Figure("of a model that loads in, s", f"{float(loaded):.2f}"),
    ]


MEASURES: dict[str, Callable[[Scale], list[Figure]]] = {
    "run": measure_run,
    "finished": measure_finished,
    "resume": measure_resume,
    "discovery": measure_discovery,
    "plan": measure_plan,
    "nodes": measure_nodes,
    "store": measure_store,
    "start": measure_start,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--measure", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--folder", type=Path, help="for inputs and outputs, kept; else a temporary one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scale = Scale((options.folder or Path(scratch) / "scale").absolute(), options.images, options.shards)
        if not scale.folder.exists():
            make_inputs(scale)
        figures: list[Figure] = []
        print(f"{scale.images:,} images of {SIZE}x{SIZE} in {scale.shards:,} shards\n")
        print("| figure | measured | goal |\n|---|---:|---:|")
        for name in options.measure:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                for figure in pool.submit(MEASURES[name], scale).result():
                    figures.append(figure)
                    print(f"| {figure.name} | {figure.value} | {figure.goal} |", flush=True)
    if options.json:
        record = {figure.name: figure.value for figure in figures}
        options.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
