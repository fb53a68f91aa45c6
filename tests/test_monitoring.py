"""`jobs/monitoring/`: what Prometheus, Grafana and the Ray dashboard show of a real run."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.calls import ROOT
from tests.reliability.trouble import environment, street
from tests.runs import CARD
from tests.test_job_submit import BIN, Head, free_ports, head_node

MONITORING = ROOT / "jobs" / "monitoring"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    """The script that draws the dashboard."""
    spec = importlib.util.spec_from_file_location("picture", MONITORING / "picture.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def promtool(*arguments: str) -> str:
    if not shutil.which("promtool"):
        pytest.skip("PROMETHEUS MISSING: apt-get install prometheus")
    ended = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_prometheus_takes_the_config_and_the_rules() -> None:
    assert "SUCCESS: prometheus.yml is valid" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS: 4 rules found" in promtool("check", "rules", "alerts.yml")


def test_the_alerts_fire_when_they_must_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_dashboard_and_alerts_use_metrics_that_there_are(picture: ModuleType) -> None:
    from segment.engines.ray_metrics import COUNTERS, GAUGES, STAGE_SECONDS

    known = {f"ray_{name}" for name in (*COUNTERS, *GAUGES, f"{STAGE_SECONDS}_bucket")}
    dashboard = json.loads(picture.DASHBOARD.read_text())
    panels = " ".join(expression for panel in dashboard["panels"] for expression, _ in picture.expressions(panel))
    rules = (MONITORING / "alerts.yml").read_text()
    shown = set(re.findall(r"ray_segment_\w+", panels))
    assert shown <= known
    assert set(re.findall(r"ray_segment_\w+", rules)) <= known
    unseen = known - shown - set(re.findall(r"ray_segment_\w+", rules))
    assert unseen <= {"ray_segment_parts_total", "ray_segment_failed_parts"}  # for whoever looks closer
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_names_and_units_follow_prometheus_conventions() -> None:
    from segment.engines.ray_metrics import COUNTERS, GAUGES

    assert all(name.endswith("_total") for name in COUNTERS)
    assert not [name for name in GAUGES if name.endswith("_total")]
    allowed = ["active", "images", "parts", "workers", "ratio", "seconds"]
    assert [name for name in GAUGES if name.rpartition("_")[2] not in allowed] == []


def test_grafana_finds_datasource_and_dashboard_by_itself(picture: ModuleType) -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "segment.yml").read_text())["providers"]
    dashboard = json.loads(picture.DASHBOARD.read_text())
    used = {panel["datasource"]["uid"] for panel in dashboard["panels"]}
    assert used == {source["uid"]}
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def strangers(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Paths of values that Grafana's types do not keep as they are: unknown fields, and those of other types."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        below = [strangers(value, theirs.get(name), f"{path}/{name}") for name, value in ours.items()]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        below = [strangers(one, other, f"{path}/{i}") for i, (one, other) in enumerate(zip(ours, theirs, strict=True))]
    else:
        return [] if ours == theirs else [path]
    return [found for each in below for found in each]


def through_grafanas_types(dashboard: dict[str, Any]) -> list[str]:
    sdk = pytest.importorskip("grafana_foundation_sdk", reason="GRAFANA SCHEMA MISSING: make dev")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    known = {path.stem for path in Path(str(sdk.__path__[0]), "models").glob("*.py")}
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    kinds = [f"/panels/{i}/type" for i, panel in enumerate(dashboard["panels"]) if panel["type"] not in known]
    return [*strangers(dashboard, read), *kinds]


def test_the_dashboard_is_what_grafanas_schema_says(picture: ModuleType) -> None:
    """By the types that Grafana Labs generates from its schema: an own Grafana is in no registry."""
    assert through_grafanas_types(json.loads(picture.DASHBOARD.read_text())) == []


@pytest.mark.parametrize(
    ("panel", "path"),
    [
        (0, "options/reduceOption"),
        (1, "fieldConfig/defaults/units"),
        (2, "targets/0/expression"),
        (3, "gridPos/width"),
        (4, "type"),
    ],
)
def test_what_the_schema_does_not_know_is_found(panel: int, path: str, picture: ModuleType) -> None:
    dashboard = json.loads(picture.DASHBOARD.read_text())
    place = dashboard["panels"][panel]
    *folders, name = path.split("/")
    for folder in folders:
        place = place[int(folder) if folder.isdigit() else folder]
    place[name] = "x"
    assert through_grafanas_types(dashboard) == [f"/panels/{panel}/{path}"]


@contextlib.contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[str]:
    """The real one, with our config but for where and how often it looks."""
    if not shutil.which("prometheus"):
        pytest.skip("PROMETHEUS MISSING: apt-get install prometheus")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (scrape,) = config["scrape_configs"]
    scrape.pop("file_sd_configs")
    scrape["static_configs"] = [{"targets": targets}]
    shutil.copy(MONITORING / "alerts.yml", folder)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    process = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://{address}"
        wait(lambda: urllib.request.urlopen(f"{url}/-/ready", timeout=5).status == 200, 30)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, AssertionError):
            if condition():
                return
        time.sleep(0.5)
    raise AssertionError(f"not so within {seconds:.0f} s")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_run_is_seen_in_prometheus_in_every_panel_and_on_the_ray_dashboard(
    picture: ModuleType, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = street(tmp_path / "place", images=60)
    place.write("bad.png", b"no image")
    (port,) = free_ports(1)
    fast = {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}
    slow = {**environment("slow=2"), **fast}
    with (
        head_node(tmp_path_factory.mktemp("home"), slow, metrics=port) as head,
        prometheus(tmp_path, [f"127.0.0.1:{port}"]) as url,
    ):
        flags = [flag for flag in place.flags(workers="2") if not flag.startswith("--engine")]
        command = [str(BIN / "segment"), *flags, "--engine=ray", f"--address={head.address}"]
        env = {**head.env, "PATH": os.environ["PATH"]}
        run = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait(lambda: picture.ask(url, "ray_segment_miou_ratio > 0", 1), 150)
            seen = look_at_the_dashboard(head, tmp_path)
            panels = json.loads(picture.DASHBOARD.read_text())["panels"]
            wait(lambda: all(picture.ask(url, e, 2) for panel in panels for e, _ in picture.expressions(panel)), 60)
            output, _ = run.communicate(timeout=200)
        finally:
            run.kill()
            run.communicate()
        assert run.returncode == 0, output
        wait(lambda: total(picture, url, "ray_segment_images_total") == 61, 30)
        assert total(picture, url, "ray_segment_errors_total") == 1
        (found, *_) = picture.ask(url, "ray_segment_images_total", 2)
        assert found["metric"]["model"] == CARD.name
        assert found["metric"]["run"] == str(place.output)
        picture.draw(url, tmp_path / "panels.png", 2)
    assert (tmp_path / "panels.png").stat().st_size > 10_000
    assert "RUNNING" in seen
    assert seen.count(f"segment[{CARD.name}]") >= 3  # an operator, and its workers among the actors


def total(picture: ModuleType, url: str, name: str) -> float:
    """The sum over workers of what each last said."""
    return sum(float(series["values"][-1][1]) for series in picture.ask(url, name, 10))


def look_at_the_dashboard(head: Head, folder: Path) -> str:
    """Open the running job's page, then that of all actors, in Chromium, and return what is read there."""
    if not Path(CHROMIUM).exists():
        pytest.skip("CHROMIUM MISSING: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    jobs = json.load(urllib.request.urlopen(f"{head.url}/api/jobs/", timeout=30))
    (job,) = [job for job in jobs if job["status"] == "RUNNING"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        page.goto(f"{head.url}/#/jobs/{job['job_id']}")
        page.get_by_text("RUNNING").first.wait_for(timeout=60_000)
        page.get_by_text("ReadParts->MapBatches(segment[").first.wait_for(timeout=60_000)  # among Ray Data's operators
        seen: str = page.inner_text("body")
        page.goto(f"{head.url}/#/actors")
        page.get_by_text("segment[").first.wait_for(timeout=60_000)
        page.screenshot(path=folder / "dashboard.png")
        seen += page.inner_text("body")
        browser.close()
    return seen
