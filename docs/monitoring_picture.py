"""Draw docs/monitoring.png: the panels of the Grafana dashboard in the middle of a run. From the repository:

    python docs/monitoring_picture.py

A head of Ray's on loopback, a real Prometheus (`apt-get install prometheus`) and a run over the demo's street scenes,
many times over, with a broken image in each tar. It takes some minutes; both CPUs should be free.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from jobs.monitoring import picture  # noqa: E402
from segment.demo.dataset import Scene, read_scenes, write_webdataset  # noqa: E402
from tests.test_job_submit import BIN, free_ports, head_node  # noqa: E402
from tests.test_monitoring import prometheus  # noqa: E402

MINUTES = 2.0  # that the panels show
ENOUGH = 0.6  # of the images


def main(to: Path, copies: int = 60) -> None:
    """Run, look at the metrics until the run is in its middle, draw."""
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:  # short: Ray's sockets lie in it
        folder = Path(temporary)
        scenes = read_scenes()
        for number in range(copies):
            marked = [*scenes, Scene(f"broken-{number}", b"no image", scenes[0].label)]
            write_webdataset(folder / "streets" / f"{number:04d}", marked, 1)
        (port,) = free_ports(1)
        (folder / "home").mkdir()
        env = {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}
        with head_node(folder / "home", env, metrics=port) as head, prometheus(folder, [f"127.0.0.1:{port}"]) as url:
            command = [str(BIN / "segment"), "run", str(folder / "streets"), str(folder / "streets-run"), "--model"]
            options = ["demo-streets", "--engine=ray", f"--address={head.address}", "--log-format=plain"]
            run = subprocess.Popen([*command, *options], env={**head.env, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
            try:
                draw_in_the_middle(run, url, to)
            finally:
                run.terminate()
                run.wait(60)


def draw_in_the_middle(run: subprocess.Popen[bytes], url: str, to: Path) -> None:
    done = picture.expressions(panel("Done"))[0][0]
    while True:
        time.sleep(2)
        if run.poll() is not None:
            raise SystemExit(f"the run ended (exit code {run.returncode}) before it was seen: give it more copies")
        shares = [float(series["values"][-1][1]) for series in picture.ask(url, done, 1)]
        if shares and max(shares) >= ENOUGH:
            picture.draw(url, to, MINUTES)
            return


def panel(title: str) -> dict[str, object]:
    """The panel of the dashboard with this title."""
    import json

    panels = json.loads(picture.DASHBOARD.read_text(encoding="utf-8"))["panels"]
    (found,) = [each for each in panels if each["title"] == title]
    return dict(found)


if __name__ == "__main__":
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    main(ROOT / "docs" / "monitoring.png", *map(int, sys.argv[1:]))
