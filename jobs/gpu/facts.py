"""What the machine is: GPU and driver, what onnxruntime offers there, versions.

python -m jobs.gpu.facts JSON
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segment.models.sessions import capabilities

_LIBRARIES = ("onnxruntime-gpu", "onnxruntime", "openvino", "numpy", "opencv-python-headless", "tensorrt")


def gpus() -> list[str]:
    """Return name, driver and memory of every GPU, as NVIDIA's own tool says them; none without it."""
    if not (tool := shutil.which("nvidia-smi")):
        return []
    command = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def describe() -> dict[str, Any]:
    """Return GPUs, what every runtime can do here, cores, versions and date."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "gpus": gpus(),
        "capabilities": sorted(capabilities()),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(describe(), indent=2) + "\n", encoding="utf-8")
