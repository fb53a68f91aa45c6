"""TensorRT's engines: built for one graph, one batch and one kind of GPU, which takes minutes; so they are kept."""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segment.models.cache import cache_folder
from segment.models.sessions.base import Runtime

_DRIVER = Path("/proc/driver/nvidia")


def engine_folder(graph: bytes, runtime: Runtime) -> Path:
    """Return (and make) the folder of the engines of a compiled graph: `$SEGMENT_CACHE/tensorrt/...`.

    Its name follows from the graph (weights, card and batch are in it), the runtime's version, the precision, and the
    GPU and its driver: what else there is belongs to others. Only its owner may write there, since an engine is code.
    """
    digest = hashlib.sha384(graph).hexdigest()[:32]
    name = f"{digest}-ort{runtime.version}-{runtime.precision}-{gpu_name()}"
    folder = cache_folder() / "tensorrt" / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def gpu_name(driver: Path = _DRIVER) -> str:
    """The machine's GPU models and its driver's version, fit for a file name: `NVIDIA-H100-580.65.06`."""
    models = set()
    for file in driver.glob("gpus/*/information"):
        found = re.search(r"(?m)^Model:\s*(.+?)\s*$", file.read_text(encoding="utf-8", errors="replace"))
        models.add(found[1] if found else "")
    version = driver / "version"
    told = version.read_text(encoding="utf-8", errors="replace") if version.exists() else ""
    numbers = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", told)
    name = "-".join([*sorted(filter(None, models)), numbers[0] if numbers else ""])
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "gpu"


def engine_options(folder: Path, runtime: Runtime) -> dict[str, str]:
    """Options of the TensorRT provider: precision, and engines and timings kept in `folder`."""
    return {
        "trt_fp16_enable": "1" if runtime.precision == "f16" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


@contextmanager
def one_builder(folder: Path) -> Iterator[None]:
    """Let one process of the machine build while the others wait; then they find what it has built."""
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
