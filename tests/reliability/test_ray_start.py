"""No wait without end: clusters that do not answer, and machines on which Ray cannot start, are told in words."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from segment.engines import ray_cluster, ray_preflight, ray_watcher
from segment.errors import UsageError
from tests.calls import ROOT, process
from tests.reliability.trouble import street
from tests.runs import Place
from tests.s3 import free_port

SOON = 60.0  # seconds within which a cluster that does not answer is to be told
# What the engine does before it starts a cluster: a tenth of the time that the whole command takes.
REFUSE_MACHINE = """
import sys
from segment.engines.ray_preflight import refuse_machine
from segment.errors import UsageError
try:
    refuse_machine(2)
except UsageError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return street(tmp_path, 2)


def run(place: Place, *flags: str, shell: str = "", patience: float = 120, **env: str) -> tuple[int, str, float]:
    """`segment run` in a shell that prepares something; exit code, stderr, seconds."""
    command = [sys.executable, "-m", "segment", *place.flags(engine="auto"), *flags]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    began = time.monotonic()
    ended = subprocess.run(
        ["bash", "-c", f"{shell}\nexec {shlex.join(command)}"],
        env=clean | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr, time.monotonic() - began


def in_mounts(mount: str, *command: str) -> str:
    """A line of shell that runs a command where some file systems are others, for its process alone."""
    tried = subprocess.run(["unshare", "-m", "bash", "-c", mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"NO MOUNTS: not permitted here ({tried.stderr.strip()})")
    return f"exec unshare -m bash -c {shlex.quote(f'{mount} && exec {shlex.join(command)}')}"


def refused_in_mounts(mount: str) -> str:
    """Why no cluster is started there, its temporary folder being `/mnt`."""
    line = ["bash", "-c", in_mounts(mount, sys.executable, "-c", REFUSE_MACHINE)]
    ended = process(*line, PYTHONPATH=str(ROOT), RAY_TMPDIR="/mnt")
    assert ended.returncode == 1, ended.stderr
    return ended.stderr


# ---- clusters


def test_a_cluster_that_is_gone(place: Place) -> None:
    address = f"127.0.0.1:{free_port()}"
    code, text, seconds = run(place, RAY_ADDRESS=address)
    assert (code, seconds < SOON) == (2, True), text
    assert f"no Ray cluster answers at {address}: Connection refused" in text
    assert "--address and RAY_ADDRESS" in text


def test_a_host_that_is_not_known() -> None:
    with pytest.raises(UsageError, match=r"no Ray cluster answers at no-such-host\.invalid:6379: "):
        ray_preflight.refuse_silence("no-such-host.invalid:6379")


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and says nothing, on every interface: Ray asks at the node's own."""
    held: list[socket.socket] = []
    with socket.create_server(("", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_an_address_that_accepts_and_never_answers(silent: str, place: Place) -> None:
    code, text, seconds = run(place, f"--address={silent}")
    assert (code, seconds < SOON) == (2, True), text
    assert f"no Ray cluster answers at {silent}: something accepts connections there" in text
    assert "not the dashboard's" in text


def test_no_cluster_on_this_node(place: Place, tmp_path: Path) -> None:
    """`auto` looks at the processes of the machine: in a space of its own the suite's cluster is none of them."""
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*apart, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"NO PROCESS SPACE: not permitted here ({tried.stderr.strip()})")
    command = [sys.executable, "-m", "segment", *place.flags(engine="auto"), "--address=auto"]
    code, text, seconds = run(place, shell=f"exec {shlex.join([*apart, *command])}", RAY_TMPDIR=str(tmp_path))
    assert (code, seconds < SOON) == (2, True), text
    assert "no Ray cluster answers at auto" in text


# ---- this machine


def test_a_raylet_that_dies_ends_the_wait_for_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would wait on. Those of earlier clusters are none of it, whether they died before or do so now."""
    program = Path(shutil.copy(str(shutil.which("cat")), tmp_path / "raylet"))
    done = threading.Event()
    raylets = [subprocess.Popen([program], stdin=kind) for kind in (subprocess.DEVNULL, subprocess.PIPE)]
    while [ray_cluster._raylets().get(raylet.pid) for raylet in raylets] != [True, False]:
        time.sleep(0.01)

    def init(**_: object) -> None:
        raylets[1].kill()
        time.sleep(1.5)
        raylets.append(subprocess.Popen([program], stdin=subprocess.DEVNULL))
        done.wait()

    monkeypatch.setattr("ray.init", init)
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            ray_cluster._bounded_init(200.0, address="local")
        assert len(raylets) == 3
        assert time.monotonic() - began < 100
    finally:
        done.set()
        for raylet in raylets:
            raylet.wait()


def test_the_watcher_finds_what_a_raylet_has_started_and_nothing_else(tmp_path: Path) -> None:
    """By one look at the processes of the machine, several times a second while a cluster starts."""
    raylet, other = (Path(shutil.copy(str(shutil.which("bash")), tmp_path / name)) for name in ("raylet", "other"))
    command = "sleep 60 & bash -c 'sleep 60 & wait' & echo started; wait"
    started = [
        subprocess.Popen([path, "-c", command], stdout=subprocess.PIPE, start_new_session=True)
        for path in (raylet, other)
    ]
    try:
        for each in started:
            assert each.stdout
            each.stdout.readline()
        service = psutil.Process(started[0].pid)
        while len(service.children(recursive=True)) < 3:
            time.sleep(0.01)
        found = {each for each in ray_watcher._processes(os.getpid()) if started[0].pid in (each.pid, *ancestors(each))}
        assert found == {service, *service.children(recursive=True)}
        assert not [each for each in ray_watcher._processes(os.getpid()) if started[1].pid in (each.pid, each.ppid())]
    finally:
        for each in started:
            os.killpg(each.pid, signal.SIGKILL)
            each.communicate()


def ancestors(process: psutil.Process) -> list[int]:
    return [parent.pid for parent in process.parents()]


def test_where_the_system_tells_nothing_no_raylet_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose /proc is that of other processes."""

    def unknown() -> None:
        raise psutil.NoSuchProcess(os.getpid())

    monkeypatch.setattr("psutil.Process", unknown)
    assert ray_cluster._raylets() == {}


def test_too_few_open_files(place: Place) -> None:
    code, text, seconds = run(place, "--engine=ray", shell="ulimit -n 64")
    assert (code, seconds < SOON) == (2, True), text
    assert "only 64 files open here (`ulimit -n`)" in text
    assert "or use --engine local" in text
    code, text, _ = run(place, "--engine=local", shell="ulimit -n 64")
    assert code == 0, text  # the advice is right


@pytest.mark.slow
@pytest.mark.ray
def test_a_soft_limit_is_no_limit(place: Place) -> None:
    code, text, _ = run(place, "--engine=ray", shell="ulimit -S -n 64")
    assert code == 0, text


def test_a_temporary_folder_whose_path_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 60)))
    with pytest.raises(UsageError, match=r"cannot put its sockets in .*Set RAY_TMPDIR to a short path"):
        ray_preflight.refuse_machine(2)
    assert not (tmp_path / ("x" * 60)).exists()


@pytest.mark.parametrize(
    ("folder", "need"), [("", "an absolute path"), ("ray", "an absolute path"), ("/tmp/é", "ASCII")]
)
def test_a_temporary_folder_with_which_ray_does_not_start(
    folder: str, need: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(UsageError, match=rf"it needs {need}.*Set RAY_TMPDIR to a short path"):
        ray_preflight.refuse_machine(2)


def test_a_temporary_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null/ray")
    with pytest.raises(UsageError, match="Ray cannot put its sockets and logs in /dev/null/ray: Not a directory"):
        ray_preflight.refuse_machine(2)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("ro,size=1m", "Read-only file system"),
        ("size=4k,nr_inodes=2", "No space left on device"),
        ("size=8m", "8 MiB are free"),
    ],
)
def test_a_temporary_folder_that_cannot_be_used(how: str, words: str) -> None:
    text = refused_in_mounts(f"mount -t tmpfs -o {how} tmpfs /mnt")
    assert "Ray cannot put its sockets and logs in /mnt: " in text
    assert words in text


@pytest.mark.slow
@pytest.mark.ray
def test_a_temporary_folder_that_is_missing_is_made(place: Place) -> None:
    """As Ray does: the path is short enough, the disk has room."""
    folder = Path(f"/tmp/ray-test-{os.getpid()}")
    code, text, _ = run(place, "--engine=ray", RAY_TMPDIR=str(folder))
    try:
        assert code == 0, text
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=False)


@pytest.mark.slow
@pytest.mark.ray
def test_little_shared_memory_is_told(place: Place) -> None:
    """Docker gives 64 MB. Ray works on a disk then, as long as that has room."""
    command = [sys.executable, "-m", "segment", *place.flags(engine="ray")]
    code, text, _ = run(place, shell=in_mounts("mount -t tmpfs -o size=1m tmpfs /dev/shm", *command))
    assert code == 0, text
    assert "/dev/shm has only 1 MiB free, so Ray keeps its objects in /tmp, which is slower" in text
    assert "--shm-size" in text


def test_no_shared_memory_and_no_disk() -> None:
    text = refused_in_mounts("mount -t tmpfs -o size=1m tmpfs /dev/shm && mount -t tmpfs -o size=100m tmpfs /mnt")
    assert "Ray has no room for its objects: /dev/shm has only 1 MiB free, /mnt " in text


def test_the_probe_of_the_folder_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_preflight, "_SOCKET_PATH", 10_000)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "a" / "b"))
    ray_preflight.refuse_machine(2)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a" / "b").mkdir(parents=True)
    ray_preflight.refuse_machine(2)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_addresses_without_a_port_are_rays_to_find() -> None:
    ray_preflight.refuse_silence("auto")
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:99999"):
        ray_preflight.refuse_silence("127.0.0.1:99999")
