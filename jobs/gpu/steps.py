"""The steps of the check in order of worth: what comes first is known even if time runs out."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_CARDS = {
    "unet": "unet-camvid-onnx-0001",
    "icnet": "icnet-camvid-ava-sparse-60-0001",
    "deeplab": "deeplabv3-mobilenetv2-dm05",
}
# (reference graph, device, precision): each a step
_MEASURED = [
    ("unet", "cuda", "f32"),
    ("unet", "cuda", "f16"),
    ("unet", "tensorrt", "f16"),
    ("icnet", "cuda", "f32"),
    ("deeplab", "cuda", "f32"),
    ("icnet", "cuda", "f16"),
    ("deeplab", "cuda", "f16"),
    ("unet", "tensorrt", "f32"),
    ("icnet", "tensorrt", "f16"),
    ("deeplab", "tensorrt", "f16"),
]


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        name: of the step.
        seconds: its time limit.
        command: what is run.
        result: JSON file that the command writes; None if its success is all.
        facts: of what is measured.
    """

    name: str
    seconds: float
    command: list[str]
    result: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)


def steps_in(folder: Path, dry_run: bool) -> Iterator[Step]:
    """Yield the steps, which write below `folder`.

    Args:
        folder: absolute path.
        dry_run: on the CPU, with the demo's model and few images.
    """
    python, work = sys.executable, folder / "work"
    facts, resumed = folder / "machine.json", folder / "resume.json"
    yield Step("machine", 30, [python, "-m", "jobs.gpu.facts", str(facts)], facts)
    tests = [str(_ROOT / "tests/engines" / name) for name in ("test_on_gpu.py", "test_gpu_path.py")]
    pytest = [python, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-rs"]
    yield Step("provider tests", 120, [*pytest, *(tests[:1] if dry_run else tests)])
    number = "64" if dry_run else "1616"
    yield Step("inputs", 60, [python, "-m", "jobs.gpu.inputs", str(work), number])
    if not dry_run:
        graphs = [python, str(_ROOT / "jobs/reference_graphs.py"), *_CARDS, "--out", str(work)]
        yield Step("reference graphs", 60, graphs)
    measured = [("demo", "cpu", "f32")] if dry_run else _MEASURED
    measures = [_measure(folder, *each, dry_run) for each in measured]
    yield measures[0]
    options = ["--device", measured[0][1], "--runtime", "onnxruntime", "--precision", "f32", "--quiet"]
    killed = [python, "-m", "jobs.gpu.kill_and_resume", str(work), str(resumed), "--", *options]
    yield Step("kill and resume", 90, [*killed, *_model(work, measured[0][0])], resumed)
    yield from measures[1:]


def _model(work: Path, graph: str) -> list[str]:
    if graph == "demo":
        return ["--model", "demo-streets"]
    return ["--model", _CARDS[graph], "--weights", str(work / f"{graph}.onnx")]


def _measure(folder: Path, graph: str, device: str, precision: str, dry_run: bool) -> Step:
    result = folder / f"{graph}-{device}-{precision}.json"
    command = [sys.executable, str(_ROOT / "jobs/gpu_benchmark.py"), *_model(folder / "work", graph)]
    command += ["--images", str(folder / "work" / "images"), "--device", device, "--precision", precision]
    command += ["--largest", "2" if dry_run else "8" if device == "tensorrt" else "64", "--json", str(result)]
    seconds = 90 if device == "tensorrt" else 45  # TensorRT builds an engine for each batch
    name = f"{graph} {device} {precision}"
    return Step(name, seconds, command, result, {"graph": graph, "device": device, "precision": precision})
