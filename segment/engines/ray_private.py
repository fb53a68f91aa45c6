"""A Ray cluster that is started here: its environment, its folder, and the process that ends what it leaves."""

import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

from segment.engines.ray_preflight import temporary_folder
from segment.process.temporaries import TemporaryFolder

_WATCHER = Path(__file__).with_name("ray_watcher.py")
_END_SECONDS = 5.0  # for the watcher to end


class PrivateCluster:
    """What a cluster of this process has for itself; nothing of it outlives the process for long.

    Ray's session, with its logs, lies in a folder of the cluster's own. It stays until the next private cluster is
    started, so that the logs of a run that failed can be read. `ray_watcher` ends its processes.

    Raises:
        OSError: the folder cannot be made, the watcher not be started, or there is no free port.
    """

    def __init__(self) -> None:
        self._folder = TemporaryFolder(temporary_folder())
        self._no_dashboard = socket.socket()
        try:
            self._no_dashboard.bind(("127.0.0.1", 0))
            self._watcher = subprocess.Popen(
                [os.fsdecode(get_executable() or sys.executable), "-P", str(_WATCHER), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,  # what ends the driver's terminal or process group does not reach it
            )
        except BaseException:
            self._no_dashboard.close()
            self._folder.close()
            raise

    @property
    def folder(self) -> Path:
        """Ray's temporary folder."""
        return self._folder.path

    @contextmanager
    def without_dashboard(self) -> Iterator[dict[str, Any]]:
        """Give the arguments of `ray.init`, which is called within, by which it starts no dashboard.

        With `include_dashboard=False` alone it starts one without pages, for usage statistics, which takes a second of
        CPU time, and waits for it. Ray goes on without if the port is taken, as this one, where nobody listens.
        """
        port = str(self._no_dashboard.getsockname()[1])
        services = logging.getLogger("ray._private.services")

        def is_of_others(record: logging.LogRecord) -> bool:
            return port not in record.getMessage()  # it tells how to take another port

        services.addFilter(is_of_others)
        try:
            yield {"include_dashboard": False, "dashboard_port": int(port)}
        finally:
            services.removeFilter(is_of_others)
        with suppress(Exception):  # else Ray's agent looks for it, and logs that it finds none, each second: no harm
            from ray.experimental.internal_kv import _internal_kv_put

            _internal_kv_put("dashboard", f"127.0.0.1:{port}", namespace=b"dashboard")

    def started(self) -> None:
        """Let the watcher look less often: the cluster is complete."""
        assert self._watcher.stdin is not None
        with suppress(OSError):  # somebody has killed it
            self._watcher.stdin.write(b".")
            self._watcher.stdin.flush()

    def close(self) -> None:
        """End all processes of the cluster; `ray.shutdown` comes first."""
        assert self._watcher.stdin is not None
        with suppress(OSError):
            self._watcher.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._watcher.wait(_END_SECONDS)
        self._no_dashboard.close()
        self._folder.close(remove=False)


def set_environment() -> None:
    """Set the defaults of a cluster that is started here; Ray reads them when it is first imported.

    Its workers get normal priority: at Ray's default, nice 15, any other program takes the CPUs from the job. A token
    of its own, kept in the environment, protects it: without one, Ray would write ~/.ray/auth_token, and every later
    `ray start` and `ray job submit` of this user would demand it. Ray Data's usage statistics are off, because they
    take a worker process of their own.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
