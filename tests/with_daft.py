"""Run code with Daft, which wants an older pyarrow than requirements.lock pins: in the environment that has it."""

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.calls import ROOT

_SAVE = "\nimport pickle\nwith open('daft-result', 'wb') as file:\n    pickle.dump(result, file)\n"


def run_with_daft(code: str) -> Any:
    """Run code in a process of its own, in the working directory, and return what it names `result`."""
    result = Path("daft-result")
    command = [str(_python()), "-c", code + _SAVE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    return pickle.loads(result.read_bytes())


def _python() -> Path:
    """The interpreter of the environment that has Daft, or a skip that says how to make it."""
    if importlib.util.find_spec("daft"):
        return Path(sys.executable)
    peers = ROOT / ".venv-peers" / "bin" / "python"
    if not peers.exists():
        pytest.skip("DAFT MISSING: `make .venv-peers/.installed` installs it beside the older pyarrow that it wants")
    return peers
