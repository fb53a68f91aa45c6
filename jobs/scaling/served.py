"""Servers of this folder, each in a process of its own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def served(module: str, *arguments: Any) -> Iterator[str]:
    """Run a module with a free port as its first argument until it answers there, and give its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", module, str(port), *map(str, arguments)])
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def s3_options(url: str) -> dict[str, Any]:
    """Return the storage options of a server that takes any credentials."""
    return {"key": "k", "secret": "s", "client_kwargs": {"region_name": "us-east-1"}, "endpoint_url": url}
