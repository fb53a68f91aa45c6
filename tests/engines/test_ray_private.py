"""A Ray cluster that is started here: what runs in it, and what it says."""

import os
import subprocess
import sys

from tests.calls import ROOT

# Prints what runs, by the names of its scripts, and then what is awaited of it.
START = """
import logging, psutil, time
from pathlib import Path
from segment.engines import ray_cluster
ray_cluster.connect(None, 1)
for child in psutil.Process().children(recursive=True):
    print(*(Path(word).name for word in child.cmdline()))
time.sleep(2)
log = ray_cluster._private.folder / "session_latest" / "logs" / "dashboard_agent.log"
written = log.read_text()
time.sleep(3)
print("ended:", logging.getLogger("ray").level, log.read_text() == written)
ray_cluster.leave()
"""


def test_it_has_no_dashboard_and_nobody_says_so() -> None:
    """Its start would wait for one, which nobody can look at. Ray's agent does not write of it each second."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", START],
        env={**clean, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *running, ended = done.stdout.splitlines()
    assert any("raylet" in line for line in running)
    assert not any("dashboard.py" in line for line in running)
    assert ended == "ended: 40 True"  # errors of Ray are told
    assert not done.stderr
