"""The cache of TensorRT engines: an engine is for one graph, batch and GPU model, and its build takes minutes."""

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
    """Create and return the folder of a graph's engines: `$SEGMENT_CACHE/tensorrt/...`.

    Its name depends on the graph (which contains weights, card and batch), the runtime's version, the precision, the
    GPU and its driver. Only the owner may write there, since an engine is executable code.
    """
    digest = hashlib.sha384(graph).hexdigest()[:32]
    name = f"{digest}-ort{runtime.version}-{runtime.precision}-{gpu_name()}"
    folder = cache_folder() / "tensorrt" / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def gpu_name(driver: Path = _DRIVER) -> str:
    """Return GPU models and driver version of this machine for a file name: `NVIDIA-H100-580.65.06`."""
    models = set()
    for file in driver.glob("gpus/*/information"):
        found = re.search(r"(?m)^Model:\s*(.+?)\s*$", file.read_text(encoding="utf-8", errors="replace"))
        models.add(found[1] if found else "")
    version = driver / "version"
    text = version.read_text(encoding="utf-8", errors="replace") if version.exists() else ""
    numbers = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    name = "-".join([*sorted(filter(None, models)), numbers[0] if numbers else ""])
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "gpu"


def engine_options(folder: Path, runtime: Runtime) -> dict[str, str]:
    """Return options of the TensorRT provider: the precision, and `folder` as the cache of engines and timings."""
    return {
        "trt_fp16_enable": "1" if runtime.precision == "f16" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


@contextmanager
def engine_build_lock(folder: Path) -> Iterator[None]:
    """Lock the folder, so that one process builds an engine and the others wait and load it from the cache."""
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
