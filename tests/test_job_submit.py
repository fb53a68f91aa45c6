"""`ray job submit` on a real cluster of one node, from S3 to S3, as `jobs/README.md` tells it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segment.output.ledger import Ledger
from segment.report.aggregate import load_report
from tests.datasets import Item, write_tars
from tests.s3 import S3Server
from tests.s3_world import World, make_world, rows, upload

pytestmark = pytest.mark.ray
REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A running head node.

    Attributes:
        url: of its dashboard, which takes jobs.
        address: for drivers to join.
        logs: folder of the log files of Ray and of its jobs.
        env: environment of its user; holds the S3 credentials, which the nodes need and those who submit do not.
    """

    url: str
    address: str
    logs: Path
    env: dict[str, str]

    def ray(self, *arguments: str, timeout: float = 250, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `ray ...` as somebody who knows the cluster's address and no S3 credentials."""
        env = {name: value for name, value in self.env.items() if not name.startswith("AWS_")}
        command = [str(BIN / "ray"), *arguments]
        return subprocess.run(
            command,
            env=env | {"RAY_API_SERVER_ADDRESS": self.url} | changes,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def submit(self, job_file: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Submit the job of a job file, and unless told otherwise wait for its end."""
        entrypoint = ["python", "jobs/segment_dataset.py", "--job", str(job_file)]
        return self.ray("job", "submit", "--log-style", "record", "--working-dir", ".", *options, "--", *entrypoint)


@contextlib.contextmanager
def head_node(home: Path, env: dict[str, str], autoscaled: int = 0, metrics: int = 0) -> Iterator[Head]:
    """Start `ray start --head` in a session of its own and end it by its process group.

    It has two CPUs; or none, and an autoscaler that may add `autoscaled` nodes of one CPU. `metrics`: the port to
    serve them at.
    """
    ports = free_ports(4)
    scratch = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: it is the folder of Unix sockets
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "PYTEST"))}
    clean |= {
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "150",
        "RAY_agent_register_timeout_ms": "150000",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_worker_niceness": "0",  # as for all of the suite
        "RAY_memory_monitor_refresh_ms": "0",  # what other programs take is no reason to kill our workers
        **env,
    }
    options = {
        "port": ports[0],
        "dashboard-port": ports[1],
        "ray-client-server-port": ports[2],
        "dashboard-agent-listen-port": ports[3],
        "dashboard-host": "127.0.0.1",
        "node-ip-address": "127.0.0.1",
        "min-worker-port": 0,
        "num-cpus": 2,
        "object-store-memory": 100_000_000,
        "temp-dir": scratch,
    }
    if metrics:
        options["metrics-export-port"] = metrics
    if autoscaled:
        clean |= FAKE_CLOUD
        config = home / "cluster.yaml"
        config.write_text(json.dumps(cluster_of_fake_nodes(autoscaled, ports[0])), encoding="utf-8")
        options |= {"num-cpus": 0, "autoscaling-config": config}
    log = home / "head.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
            + [f"--{name}={value}" for name, value in options.items()],
            env=clean,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        head = Head(
            f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[0]}", Path(scratch, "session_latest", "logs"), clean
        )
        wait_for(head.url, ports[3], process, log)
        yield head
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(scratch, ignore_errors=True)


FAKE_ID = "f" * 51 + "00000"  # the only head that Ray's fake cloud knows
FAKE_CLOUD = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_ID,
    "RAY_CLOUD_INSTANCE_ID": FAKE_ID,
    "RAY_enable_autoscaler_v2": "1",  # what `ray up` sets
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def cluster_of_fake_nodes(most: int, port: int) -> dict[str, Any]:
    """A cluster for Ray's own autoscaler, whose 'cloud' starts real nodes as processes of this machine."""
    from ray.util import get_node_ip_address

    lists = ["cluster_synced_files", "initialization_commands", "rsync_exclude", "rsync_filter", "setup_commands"]
    lists += [f"{who}_{what}" for who in ("head", "worker") for what in ("setup_commands", "start_ray_commands")]
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": FAKE_ID,
        "launch_multiple": True,
        "gcs_address": f"{get_node_ip_address()}:{port}",
    }
    node = {"node_config": {}, "min_workers": 0, "max_workers": most, "resources": {"CPU": 1}}
    return {
        **{name: [] for name in lists},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "file_mounts_sync_continuously": False,
        "cluster_name": "fake",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": provider,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {**node, "resources": {"CPU": 0}, "max_workers": 0},
            "cpu": node,
        },
    }


def free_ports(count: int) -> list[int]:
    """Ports that are free now; none of those that Ray gives its workers."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


def wait_for(url: str, agent: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the head answers (401 is an answer) and its agent, which starts jobs, listens at its port."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", agent), 5).close()
            urllib.request.urlopen(f"{url}/api/version", timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"no head at {url}: {log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="module")
def world(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), s3_server, "job-submit")


@pytest.fixture(scope="module")
def head(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    with head_node(home, {**world.env, "RAY_AUTH_MODE": "disabled"}) as head:
        yield head


def job_file(path: Path, world: World, **settings: str | int) -> Path:
    """Write a job file over the bucket's loose files, with changes; without the proof of what `auto` chooses."""
    values = {**world.at(world.bucket, "files"), "min_agreement": 0, **settings}
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items() if value != ""), encoding="utf-8")
    return path


def test_a_job_from_s3_to_s3(head: Head, world: World, tmp_path: Path) -> None:
    output = f"{world.results}/whole"

    ended = head.submit(job_file(tmp_path / "job.toml", world, output=output, part_size=1))

    assert ended.returncode == 0, ended.stdout
    logs = ended.stdout
    assert "6 images in 1 shard, 6 parts" in logs
    assert re.search(r"on ray: 2 x openvino \S+, cpu, ", logs)
    assert re.search(r"^[1-6]/6 images \(\d+ %\), .* images/s, ", logs, re.MULTILINE)
    assert re.search(r"^6/6 images \(100 %\), .*, 0 errors$", logs, re.MULTILINE)
    assert f"masks: {output}/masks/" in logs
    assert "succeeded" in logs
    assert "Set ray log level" not in logs
    report = load_report(Ledger(world.store, output))
    assert report.complete
    found = report.score("omz")
    counts = [(int(found.tp[i]), int(found.fp[i]), int(found.fn[i])) for i in range(12)]
    assert counts == world.expected.counts("omz")
    assert report.miou("omz") == pytest.approx(np.nanmean(world.expected.ious("omz")), abs=1e-12)
    written = [path for path in head.logs.rglob("*") if path.is_file()]
    assert any(path.name.startswith("job-driver-") for path in written)
    for path in written:
        assert world.options["secret"].encode() not in path.read_bytes(), path
    assert world.options["secret"] not in logs


@pytest.mark.slow
def test_too_many_errors_fail_the_job_with_the_exit_code_shown(head: Head, world: World, tmp_path: Path) -> None:
    good, bad = world.items[0], [Item(f"bad-{i}.png", b"no image") for i in range(2)]
    for item in (good, *bad):
        world.store.write(f"{world.bucket}/bad/{item.name}", item.image)
    job = job_file(tmp_path / "bad.toml", world, input=f"{world.bucket}/bad", labels="", output=f"{world.results}/bad")

    ended = head.submit(job)

    assert ended.returncode == 1  # of `ray job submit`, whatever the job's was
    assert "Job entrypoint command failed with exit code 3" in ended.stdout
    assert "not_an_image" in ended.stdout
    assert "Traceback" not in ended.stdout


@pytest.mark.slow
def test_a_stopped_job_is_resumed(head: Head, world: World, tmp_path: Path) -> None:
    many = [Item(f"{i:04d}-{item.name}", item.image, item.label) for i in range(40) for item in world.items]
    write_tars(tmp_path / "many", many, shards=1)
    upload(tmp_path / "many", f"{world.bucket}/many", world.store)
    output = f"{world.results}/stopped"
    job = job_file(tmp_path / "many.toml", world, input=f"{world.bucket}/many", labels="", output=output, part_size=1)

    started = head.submit(job, "--no-wait", "--submission-id", "stop-me")
    assert started.returncode == 0, started.stdout
    committed = wait_for_masks(world, output, 3)
    stopped = head.ray("job", "stop", "stop-me")
    logs = head.ray("job", "logs", "stop-me").stdout
    resumed = head.submit(job)

    assert stopped.returncode == 0, stopped.stdout
    assert "Job 'stop-me' was stopped" in stopped.stdout
    assert "stopped; committed parts stay, the same command resumes the run" in logs
    assert "SIGTERM received" not in logs
    assert resumed.returncode == 0, resumed.stdout
    counted = re.search(r"resuming: (\d+) of 240 images are committed already", resumed.stdout)
    assert counted
    assert committed <= int(counted.group(1)) < 240
    assert len(rows(world.store, output)) == 240
    assert load_report(Ledger(world.store, output)).complete


@pytest.mark.slow
def test_a_cluster_that_starts_from_nothing(
    world: World, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Like `ray_cluster.yaml`: no CPU on the head; the job brings the first node, and that decides the runtime."""
    home = tmp_path_factory.mktemp("home")
    job = job_file(tmp_path / "job.toml", world, output=f"{world.results}/grown", part_size=1, workers="1:2")

    with head_node(home, {**world.env, "RAY_AUTH_MODE": "disabled"}, autoscaled=2) as head:
        ended = head.submit(job)

    assert ended.returncode == 0, ended.stdout
    assert "no node of the Ray cluster has a CPU yet: waiting for one" in ended.stdout
    assert re.search(r"on ray: 1 x openvino \S+, cpu, ", ended.stdout)
    assert load_report(Ledger(world.store, f"{world.results}/grown")).complete


def wait_for_masks(world: World, output: str, parts: int) -> int:
    """Wait until so many parts are committed and return how many are."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        found = len(world.store.list(f"{output}/masks"))
        if found >= parts:
            return found
        time.sleep(0.2)
    raise AssertionError(f"fewer than {parts} parts after 200 s")


@pytest.mark.slow
def test_a_cluster_with_a_token(world: World, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """As the README has it: one token, RAY_AUTH_MODE=token everywhere, and nobody is answered 401 but who has none."""
    home, stranger = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("stranger")
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    made = subprocess.run(
        [str(BIN / "ray"), "get-auth-token", "--generate"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    token = made.stdout.strip()
    job = job_file(tmp_path / "job.toml", world, output=f"{world.results}/token", part_size=1)

    with head_node(home, {**world.env, "RAY_AUTH_MODE": "token"}) as head:
        ended = head.submit(job)
        nobody = head.ray("job", "list", HOME=str(stranger), RAY_AUTH_MODE="disabled")
        colleague = head.ray("job", "list", HOME=str(stranger), RAY_AUTH_TOKEN=token)

    assert (home / ".ray" / "auth_token").read_text() == token
    assert ended.returncode == 0, ended.stdout
    assert "6/6 images (100 %)" in ended.stdout
    assert token not in ended.stdout
    assert load_report(Ledger(world.store, f"{world.results}/token")).complete
    assert nobody.returncode != 0
    assert "Unauthorized: Missing authentication token" in nobody.stdout
    assert colleague.returncode == 0, colleague.stdout


@pytest.mark.slow
def test_only_the_address_changes_from_a_laptop_to_a_cluster(head: Head, world: World, tmp_path: Path) -> None:
    """One job file: in this process, on `ray start --head`, by `ray job submit`. Their masks are the same bytes."""
    outputs = [f"{world.results}/{name}" for name in ("laptop", "address", "submitted")]
    job = job_file(tmp_path / "job.toml", world, output=outputs[0], part_size=1)
    command = [str(BIN / "segment"), "run", "--job", str(job)]

    for options in ([], [f"--address={head.address}", world_input(world), outputs[1]]):
        ended = subprocess.run(
            [*command, *options], env=head.env, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert f" on {'ray' if options else 'local'}: " in ended.stderr
    submitted = head.submit(job_file(tmp_path / "submitted.toml", world, output=outputs[2], part_size=1))
    assert submitted.returncode == 0, submitted.stdout

    first, *others = [masks_of(world, output) for output in outputs]
    assert len(first) == 6
    assert others == [first, first]


def world_input(world: World) -> str:
    found: str = world.at(world.bucket, "files")["input"]
    return found


def masks_of(world: World, output: str) -> dict[str, bytes]:
    """Bytes of every masks file by its name."""
    listed = world.store.list(f"{output}/masks")
    return {entry.url.removeprefix(output): world.store.read(entry.url) for entry in listed}
