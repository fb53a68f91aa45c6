"""An S3 server that can be killed and started again, and what a run asks of it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.s3 import S3Server, free_port, start_s3

# What a run asks of the store, by method and key: one of each is made to fail.
PLACES = {
    "input listing": ("GET", r"^/arena-in\?"),
    "output listing": ("GET", r"^/arena-out\?"),
    "input": ("GET", r"^/arena-in/.*tar"),
    "plan read back": ("GET", r"^[^?]*plan\.parquet"),
    "plan": ("PUT", r"plan\.parquet"),
    "masks": ("PUT", r"/masks/"),
    "masks read": ("GET", r"^[^?]*/masks/.*parquet"),
    "masks looked up": ("HEAD", r"/masks/"),
    "stats": ("PUT", r"/stats/"),
    "stats read": ("GET", r"^[^?]*/stats/.*parquet"),
    "_SUCCESS": ("PUT", r"_SUCCESS"),
}


class Restart:
    """Kills the server's process and starts it again a while later."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.process = start_s3(server)
        self._thread: threading.Thread | None = None

    def __call__(self, seconds: float) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._thread = threading.Thread(target=self._start, args=(seconds,))
        self._thread.start()

    def _start(self, seconds: float) -> None:
        time.sleep(seconds)
        self.process = start_s3(self.server)

    def close(self) -> None:
        if self._thread:
            self._thread.join()
        self.process.terminate()
        self.process.wait(20)


@contextmanager
def restartable(folder: Path, like: S3Server) -> Iterator[tuple[S3Server, Restart]]:
    """A server of one's own with the same credentials, and what kills and restarts it."""
    folder.mkdir()
    server = S3Server(f"http://127.0.0.1:{free_port()}", like.key, like.secret, folder)
    with closing(Restart(server)) as restart:
        yield server, restart
