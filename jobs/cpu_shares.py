"""Who uses the CPUs: CPU seconds of a run's processes until its first part, then shares of all from the second part on.

    python jobs/cpu_shares.py OUTPUT segment run INPUT OUTPUT --model ... --engine ray

The run is started by this command, on a machine that has nothing else to do; OUTPUT is where it writes its masks.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from segment.pipeline.resources import available_cpus

_LOOK_SECONDS = 0.25
_SHOWN = 12
Seconds = dict[int, tuple[float, str]]  # of CPU, and the name, which a process may change, by process id


def cpu_seconds(processes: Iterable[psutil.Process]) -> Seconds:
    """CPU seconds that processes have used so far."""
    found: Seconds = {}
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            words = process.cmdline() or [process.name()]
            name = next((Path(word).name for word in words if "/segment" in word or "ray" in word), words[0])
            if process.pid == os.getpid():
                name = "this measurement"
            found[process.pid] = times.user + times.system, name
    return found


def print_start(seconds: float, start: Seconds) -> None:
    """Print what the processes of a run have used until its first part; a process may have ended by then."""
    print(f"{seconds:.1f} s to the first part, {sum(used for used, _ in start.values()):.1f} s of CPU:")
    for pid, (used, name) in sorted(start.items(), key=lambda item: -item[1][0]):
        print(f"{used:7.2f}  {pid:7d}  {name[:70]}")


def main() -> None:
    """Run the command and print a line for each process."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    output, command = Path(sys.argv[1]), sys.argv[2:]
    began, run = time.monotonic(), subprocess.Popen(command)
    driver, start = psutil.Process(run.pid), Seconds()
    first: tuple[float, Seconds] | None = None
    last = (0.0, Seconds())
    parts = 0
    while run.poll() is None:
        time.sleep(_LOOK_SECONDS)
        found = len(list(output.glob("masks/*/*.parquet")))
        if parts == 0:
            with suppress(psutil.Error):
                start |= cpu_seconds([driver, *driver.children(recursive=True)])
            parts = min(found, 1)
            if found:
                print_start(time.monotonic() - began, start)
        if found > max(parts, 1):
            # a worker that has ended keeps what it had used when it was last seen
            parts, last = found, (time.monotonic(), last[1] | cpu_seconds(psutil.process_iter()))
            first = first or last
    if first is None or last[0] == first[0]:
        raise SystemExit("too few parts were committed to measure anything")
    seconds = last[0] - first[0]
    shares = {pid: (used - first[1].get(pid, (0.0, ""))[0], name) for pid, (used, name) in last[1].items()}
    cpus = available_cpus()
    print(f"{seconds:.1f} s, {parts} parts; of {cpus} CPUs:")
    for pid, (used, name) in sorted(shares.items(), key=lambda item: -item[1][0])[:_SHOWN]:
        print(f"{used / seconds / cpus:7.1%}  {pid:7d}  {name[:70]}")


if __name__ == "__main__":
    main()
