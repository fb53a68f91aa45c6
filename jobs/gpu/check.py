"""Run the steps, each with its own time limit; after each, what is known is written as JSON and as Markdown.

    python -m jobs.gpu.check FOLDER [--seconds 460] [--dry-run]

`jobs/gpu_check.sh` installs what is needed and runs this. Exit code 0 if every step did what it should.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.gpu.steps import Step, steps_in
from jobs.gpu.table import in_markdown

_LINES = 30  # of a failed step's output that are kept
_SHORTEST = 5.0  # seconds: with less left no step is begun


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        name: of the step.
        status: `ok`, `failed`, `timed out` or `no time left`.
        seconds: that it took.
        found: what its result file holds, also where the step failed after writing it; else None.
        said: last lines of its output; of a step that was well its last line.
        facts: of what is measured.
    """

    name: str
    status: str
    seconds: float
    found: Any
    said: str
    facts: dict[str, str]


def run_step(step: Step, folder: Path, left: float) -> Outcome:
    """Run a step within its own limit and what is left of the whole; its output goes to `folder`/logs."""
    if left < _SHORTEST:
        return Outcome(step.name, "no time left", 0.0, None, "", step.facts)
    log = folder / "logs" / f"{step.name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if step.result:
        step.result.unlink(missing_ok=True)
    start = time.monotonic()
    with log.open("wb") as output:  # no pipe: what a killed step leaves running would hold it open
        process = subprocess.Popen(step.command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = "failed" if process.wait(min(step.seconds, left)) else "ok"
        except subprocess.TimeoutExpired:
            status = "timed out"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = "\n".join(lines[-1:] if status == "ok" else lines[-_LINES:])
    found = json.loads(step.result.read_bytes()) if step.result and step.result.is_file() else None
    return Outcome(step.name, status, round(time.monotonic() - start, 1), found, said, step.facts)


def check(steps: Iterable[Step], folder: Path, seconds: float) -> list[Outcome]:
    """Run all steps; `gpu_check.json` and `gpu_check.md` in `folder` hold what is known so far after each of them."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + seconds
    for step in steps:
        outcomes.append(run_step(step, folder, end - time.monotonic()))
        records = [asdict(outcome) for outcome in outcomes]
        (folder / "gpu_check.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
        (folder / "gpu_check.md").write_text(in_markdown(records), encoding="utf-8")
        print(f"{outcomes[-1].name}: {outcomes[-1].status}, {outcomes[-1].seconds} s", flush=True)
    return outcomes


def main() -> int:
    """Run the check and print its Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=460, help="for all steps")
    parser.add_argument(
        "--dry-run", action="store_true", help="every step on the CPU, with few images: measures no GPU"
    )
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "work", ignore_errors=True)  # of an earlier check
    outcomes = check(steps_in(folder, options.dry_run), folder, options.seconds)
    print((folder / "gpu_check.md").read_text(encoding="utf-8"))
    return int(any(outcome.status != "ok" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
