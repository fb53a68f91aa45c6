"""Measure a GPU: images a second against batch, of the session alone and of whole jobs, and how busy the GPU was.

    python jobs/gpu_benchmark.py --model unet-camvid-onnx-0001 --weights model.onnx --images images/ --device cuda

Where there is no NVIDIA GPU it says so and ends with exit code 2; `--device cpu` runs the same code without one, which
checks it and measures no GPU. Whole jobs use the local engine: one process has the GPU, its threads decode and encode.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any


class Utilisation:
    """Samples how busy the GPU is, five times a second, with NVIDIA's own tool; nothing without it."""

    def __init__(self) -> None:
        self.percent: list[float] = []
        self._tool = shutil.which("nvidia-smi")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while self._tool and not self._done.wait(0.2):
            self.percent += [float(word) for word in self._ask("utilization.gpu").split("\n")[:1] if word.strip()]

    def _ask(self, what: str) -> str:
        command = [str(self._tool), f"--query-gpu={what}", "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def words(self) -> str:
        """The median, or a dash where nothing could be measured."""
        return f"{statistics.median(self.percent):.0f} %" if self.percent else "-"


def measure_job(values: dict[str, object], batch: int) -> dict[str, Any]:
    """Return images a second of a whole job, its start left out, how busy the GPU was, and the agreement with CPU f32.

    The agreement is what the run proved on its first images: the share of equal pixels, None if nothing was compared.
    """
    import segment
    from segment.output.ledger import Ledger
    from segment.output.speed import last_speed
    from segment.store.client import Store

    with tempfile.TemporaryDirectory() as output, Utilisation() as busy:
        segment.run(segment.Job(output=output, engine="local", batch_size=batch, part_size=max(64, batch), **values))
        speed = last_speed(Ledger(Store(), f"file://{output}"))
        proof = json.loads((Path(output) / "run.json").read_bytes()).get("proof") or {}
    assert speed is not None
    return {"rate": speed.rate, "busy": busy.words(), "agreement": proof.get("agreement")}


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "tensorrt", "cpu"], default="cuda")
    parser.add_argument("--precision", choices=["f32", "f16"], default="f32")
    parser.add_argument("--largest", type=int, default=64, help="largest batch to try")
    parser.add_argument("--json", type=Path, help="file to keep the figures in")
    parser.add_argument("--jobs", type=int, nargs="*", help="batches to run whole jobs with; by default the best one")
    options = parser.parse_args()

    from segment.models.card import load_card
    from segment.models.sessions import capabilities, find_batch, resolve_runtime
    from segment.models.sessions.tensorrt import gpu_name
    from segment.models.weights import load_weights

    here = capabilities()
    if options.device != "cpu" and "gpu" not in here:
        print("No NVIDIA GPU here: nothing was measured. `--device cpu` checks the code without one.", file=sys.stderr)
        return 2
    card = load_card(options.model)
    weights = load_weights(card, options.weights)
    runtime = resolve_runtime(weights.format, "onnxruntime", options.device, options.precision, nodes=[here])
    where = gpu_name() if options.device != "cpu" else "CPU only: no GPU was measured"
    print(f"{card.name}, {runtime.name} {runtime.version} {runtime.device} {runtime.precision}, {where}, "
          f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}\n")  # fmt: skip
    with Utilisation() as busy:
        probe = find_batch(card, weights, runtime, options.largest)
    values: dict[str, object] = {
        "input": str(options.images),
        "model": options.model,
        "weights": options.weights,
        "runtime": "onnxruntime",
        "device": options.device,
        "precision": options.precision,
    }
    jobs = {batch: measure_job(values, batch) for batch in options.jobs or [probe.best]}
    print("| batch | session, images/s | job, images/s | GPU busy during the job |\n|---:|---:|---:|---:|")
    for batch in sorted({*probe.rates, *jobs}):
        whole = f"{jobs[batch]['rate']:.1f} | {jobs[batch]['busy']}" if batch in jobs else "- | -"
        alone = f"{probe.rates[batch]:.1f}" if batch in probe.rates else "-"
        print(f"| {batch} | {alone} | {whole} |")
    if options.json:
        record = {"gpu": where, "rates": probe.rates, "best": probe.best, "stopped": probe.stopped, "jobs": jobs}
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"\nchosen: batch {probe.best} ({probe.stopped}); GPU busy during the probe: {busy.words()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
