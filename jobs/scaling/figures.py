"""What a measure is told and what it tells, and how it is taken: seconds, memory, CPU."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segment.progress import Progress, Tally


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


@contextmanager
def timed() -> Iterator[list[float]]:
    """Give a list whose one item is, afterwards, the seconds that passed."""
    seconds: list[float] = []
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


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
