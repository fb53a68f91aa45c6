"""The machine, in words: without it a time says nothing."""

import importlib.metadata
import importlib.util
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segment.pipeline.resources import available_cpus, node_memory

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_LIBRARIES = ("numpy", "onnxruntime", "openvino", "opencv-python-headless", "pillow", "pyarrow", "ray")


def _extras() -> list[str]:
    return [] if importlib.util.find_spec("ai_edge_litert") is None else ["ai-edge-litert"]


def describe_machine() -> dict[str, Any]:
    """CPU model and the flags that matter here, cores, memory, load before the measurement, versions, date."""
    cpu, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.partition(":")[::2] for line in info.read_text(encoding="utf-8").splitlines()]
        fields = {key.strip(): value.strip() for key, value in lines}
        cpu, flags = fields.get("model name", cpu), set(fields.get("flags", "").split())
    return {
        "cpu": cpu,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": available_cpus(),
        "memory_gb": round(node_memory()[0] / 1e9),
        "load": [round(one, 2) for one in os.getloadavg()],
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in (*_LIBRARIES, *_extras())},
    }


def in_words(machine: dict[str, Any]) -> str:
    """One paragraph of Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']} ({' '.join(machine['flags'])}), {machine['cores']} cores, {machine['memory_gb']} GB, load "
        f"{machine['load'][0]} before the run, {machine['date']}; Python {machine['python']}, {versions}."
    )
