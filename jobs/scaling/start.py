"""`start`: what a user waits for."""

import statistics
import subprocess
import sys
import time

from jobs.scaling.figures import Figure, Scale, timed
from jobs.scaling.inputs import some_images


def measure_start(scale: Scale) -> list[Figure]:
    """What a user waits for: the help page, and the first committed part of a local run."""
    command = [sys.executable, "-m", "segment"]
    helped = []
    for _ in range(5):
        with timed() as seconds:
            subprocess.run([*command, "--help"], check=True, stdout=subprocess.DEVNULL)
        helped += seconds
    flags = ["--model", scale.job["model"], "--weights", scale.job["weights"], "--engine", "local"]
    first = _first_part(scale, 300, [*command, "run"], flags)
    load = (
        "import sys, time; t = time.perf_counter(); from segment.models.card import load_card; "
        "from segment.models.weights import load_weights; "
        "from segment.models.sessions import Runtime, open_session, runtime_version;"
        "c = load_card(sys.argv[1]); w = load_weights(c, sys.argv[2]); t = time.perf_counter(); "
        "open_session(c, w, Runtime('openvino', 'cpu', 'f32', runtime_version('openvino')), threads=1); "
        "print(time.perf_counter() - t)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", load, *flags[1:4:2]], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return [
        Figure("segment --help, s", f"{statistics.median(helped):.2f}", "≤ 0.5"),
        Figure("first committed part beyond model load, local, s", f"{first - float(loaded):.2f}", "≤ 1.5"),
        Figure("of a model that loads in, s", f"{float(loaded):.2f}"),
    ]


def _first_part(scale: Scale, number: int, command: list[str], flags: list[str]) -> float:
    """Seconds from a command to its first committed part."""
    source, output = some_images(scale, number)["input"], scale.output(f"start-{number}")
    with timed() as first:
        running = subprocess.Popen(
            [*command, source, str(output), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while running.poll() is None and not any(output.glob("masks/*/*.parquet")):
            time.sleep(0.005)
    assert running.wait() == 0
    return first[0]
