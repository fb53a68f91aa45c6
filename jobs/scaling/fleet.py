"""`fleet`: a full node of 64 workers and a cluster of 1,000, as far as one small machine can show them.

Three views, from the cheapest to the most real: how blocks are dealt out (arithmetic, no process), what the local pool
costs its driver (workers that are timers, no process), and a run on Ray with as many sleeping actors as memory allows.
"""

import heapq
import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import psutil

import segment
from jobs.scaling.figures import Figure, Samples, Scale
from jobs.scaling.inputs import some_images
from jobs.scaling.nodes import SLEEP, logical_nodes
from segment.engines import pool
from segment.engines.ray_blocks import cut_blocks
from segment.engines.ray_heartbeats import Heartbeat as RayHeartbeat
from segment.engines.ray_heartbeats import HeartbeatMonitor
from segment.engines.ray_operators import CALLS
from segment.engines.worker_process import NEXT, Heartbeat, ProcessExit
from segment.inputs.parts import Part
from segment.output.plan import Plan
from segment.output.results import PartResult

WORKERS = (64, 1000)
_PARTS, _POOL_PARTS = 50, 10  # of a worker, where they are dealt out and in the pool
_PART_SECONDS = 1.0  # on average
_ACTOR = 300 << 20  # bytes of a Ray actor with this package and no model; half of the free memory is used
_TAIL = 0.1  # the last parts, of which none should be a straggler


def measure_fleet(scale: Scale) -> list[Figure]:
    """All three views."""
    figures = [figure for workers in WORKERS for figure in [*dealt_out(workers), heard(workers), *pooled(workers)]]
    free = psutil.virtual_memory().available // 2
    return [*figures, *on_ray(scale, int(max(2, min(WORKERS[0], free // _ACTOR))))]


def tail(ends: Sequence[float]) -> float:
    """Return how long the last tenth of the parts took, as a multiple of a tenth of all time: 1 is a fair share."""
    ends = sorted(ends)
    return (ends[-1] - ends[int(len(ends) * (1 - _TAIL)) - 1]) / ((ends[-1] - ends[0]) * _TAIL)


def some_plan(parts: int) -> Plan:
    """Return a plan of parts of one image."""
    return Plan.of([Part(f"p-{n}", "s", "file:///table", "parquet", 1, "", n, n + 1, n, ()) for n in range(parts)])


def dealt_out(workers: int) -> list[Figure]:
    """Deal blocks out as Ray Data does, to workers whose parts take half to one and a half times the mean."""
    chance = random.Random(workers)
    plan = some_plan(_PARTS * workers)
    seconds = [_PART_SECONDS * chance.uniform(0.5, 1.5) for _ in range(len(plan))]
    left = deque(cut_blocks(plan, workers, isolate=False))
    blocks, ends = len(left), []
    held: list[deque[tuple[int, int]]] = [deque() for _ in range(workers)]
    for _ in range(CALLS):
        for mine in held:
            mine.append(left.popleft())
    idle = [(0.0, worker) for worker in range(workers)]  # when each worker has done its block
    while idle:
        now, worker = heapq.heappop(idle)
        if not held[worker]:
            continue
        start, length = held[worker].popleft()
        for part in range(start, start + length):
            now += seconds[part]
            ends.append(now)
        if left:
            held[worker].append(left.popleft())
        heapq.heappush(idle, (now, worker))
    ideal = sum(seconds) / workers
    return [
        Figure(
            f"{workers:,} workers, {len(plan):,} parts in {blocks:,} blocks: longer than without any waiting",
            f"{max(ends) / ideal - 1:.1%}",
            "≤ 5 %",
        ),
        Figure(f"{workers:,} workers: the last tenth of the parts, fair shares", f"{tail(ends):.2f}", "≤ 1.25"),
    ]


def heard(workers: int) -> Figure:
    """CPU of the actor that hears a heartbeat of each worker and tells the watchdog, a second of the run."""
    monitor, rounds = HeartbeatMonitor(), 20
    began = time.process_time()
    for step in range(rounds):
        for worker in range(workers):
            monitor.record(str(worker), RayHeartbeat(f"node-{worker // 64}", worker, step, loading=False))
        monitor.health(300.0, 300.0)
    return Figure(
        f"{workers:,} workers: CPU of their monitor, ms a second", f"{1e3 * (time.process_time() - began) / rounds:.2f}"
    )


class _Timers:
    """Calls functions after some time, from one thread."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._changed = threading.Condition()
        self._number = 0
        self.cpu = 0.0  # of this thread, which stands for all workers
        threading.Thread(target=self._run, daemon=True).start()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        with self._changed:
            self._number += 1
            heapq.heappush(self._due, (time.monotonic() + seconds, self._number, call))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                call = heapq.heappop(self._due)[2]
            call()
            self.cpu = time.thread_time()


class _TimerWorker:
    """Stands for a `WorkerProcess`: asks for two parts, and sends the result of each when its time is over."""

    timers: _Timers
    chance = random.Random(0)

    def __init__(self, runtime: str) -> None:
        self._works: deque[Part] = deque()
        self._is_closed = False

    def load(self, setup: bytes, on_message: Callable[[Any], object]) -> None:
        self._tell = on_message
        for _ in range(2):  # the worker reads a part while it computes another
            on_message(NEXT)
        self._beat(0)

    def _beat(self, steps: int) -> None:
        if not self._is_closed:
            self._tell(Heartbeat(steps, None))
            self.timers.after(1.0, lambda: self._beat(steps + 1))

    def send(self, work: Part | None) -> None:
        if work is None:
            if not self._works:
                self._tell(None)
            return
        self._works.append(work)
        if len(self._works) == 1:
            self._begin()

    def _begin(self) -> None:
        self.timers.after(_PART_SECONDS * self.chance.uniform(0.5, 1.5), self._finish)

    def _finish(self) -> None:
        part = self._works.popleft()
        if self._works:
            self._begin()
        self._tell(PartResult(part.id, part.shard, images=1))
        self._tell(NEXT)

    def exit(self) -> ProcessExit:
        return ProcessExit("its time is over")

    def kill(self) -> None: ...

    def disconnect(self, *, at_once: bool = False) -> None: ...

    def close(self, *, at_once: bool = False) -> None:
        self._is_closed = True


def pooled(workers: int) -> list[Figure]:
    """Run the local engine's pool, all of it but the processes, and weigh what it takes of its driver."""
    parts = list(some_plan(_POOL_PARTS * workers).parts())
    task = SimpleNamespace(
        settings=SimpleNamespace(stall_timeout=None),
        batch_size=1,
        runtime=SimpleNamespace(name="none", device="cpu"),
    )
    setup = SimpleNamespace(task=task)
    real, pool.WorkerProcess = pool.WorkerProcess, _TimerWorker  # type: ignore[misc, assignment]
    _TimerWorker.timers = _Timers()
    try:
        before = time.process_time()
        results = list(pool.Pool(setup, workers, "none").run(parts))  # type: ignore[arg-type]
        cpu = time.process_time() - before - _TimerWorker.timers.cpu
    finally:
        pool.WorkerProcess = real  # type: ignore[misc]
    assert len(results) == len(parts)
    return [Figure(f"pool of {workers:,} workers: its driver's CPU a part, ms", f"{1e3 * cpu / len(parts):.2f}", "≤ 1")]


def on_ray(scale: Scale, workers: int) -> list[Figure]:
    """Run a job on sleeping actors of one logical node."""
    import pyarrow.parquet as pq

    output, samples = scale.output(f"fleet-{workers}"), Samples()
    source = some_images(scale, 160 * workers)
    began = time.time()
    with logical_nodes(1, num_cpus=workers):
        segment.run(
            segment.Job(output=str(output), engine="ray", workers=workers, part_size=4, **{**scale.job, **source}),
            samples,
        )
    timings = pq.read_table(next((output / "runs").glob("*.parquet")))
    starts, ends = (timings[name].to_numpy() for name in ("began", "ended"))
    rate, cpu, name = samples.rate(0.3), samples.cpu() / len(timings), f"Ray, {workers} sleeping workers"
    return [
        Figure(f"{name}: images/s", f"{rate:.1f} ({rate * SLEEP / workers:.0%} of them asleep)"),
        Figure(f"{name}: first part committed after, s", f"{ends.min() - began:.1f}"),
        Figure(f"{name}: driver's CPU a part, ms", f"{1e3 * cpu:.2f}"),
        Figure(f"{name}: a part, s", f"{statistics.median(ends - starts):.2f}"),
        Figure(f"{name}: the last tenth of the parts, fair shares", f"{tail(ends.tolist()):.2f}"),
    ]
