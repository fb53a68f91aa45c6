"""Who uses the CPUs while a run goes on: the share of every process, from the second committed part to the last.

    python jobs/cpu_shares.py OUTPUT segment run INPUT OUTPUT --model ... --engine ray

The run is started by this command, on a machine that has nothing else to do; OUTPUT is where it writes its masks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from segment.pipeline.resources import available_cpus

_LOOK_SECONDS = 0.25
_SHOWN = 12
Seconds = dict[int, tuple[float, str]]  # of CPU, and the name, which a process may change, by process id


def cpu_seconds() -> Seconds:
    """CPU seconds that every process of this machine has used so far."""
    found: Seconds = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            times = process.cpu_times()
            words = process.cmdline() or [process.name()]
            name = next((Path(word).name for word in words if "/segment" in word or "ray" in word), words[0])
            if process.pid == os.getpid():
                name = "this measurement"
            found[process.pid] = times.user + times.system, name
    return found


def main() -> None:
    """Run the command and print a line for each process."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    output, command = Path(sys.argv[1]), sys.argv[2:]
    run = subprocess.Popen(command)
    first: tuple[float, Seconds] | None = None
    last = (0.0, Seconds())
    parts = 1
    while run.poll() is None:
        time.sleep(_LOOK_SECONDS)
        found = len(list(output.glob("masks/*/*.parquet")))
        if found > parts:
            # a worker that has ended keeps what it had used when it was last seen
            parts, last = found, (time.monotonic(), last[1] | cpu_seconds())
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
