"""A slow S3 store of large tars that take no disk: every byte is computed when it is asked for.

    python -m jobs.scaling.sparse_store PORT TARS MEMBERS

Bucket `sparse`, objects `tars/0000.tar` and so on, all of the same pictures. Each request waits for `LATENCY`, and all
together get `BANDWIDTH`. `GET /bytes` tells how many bytes of tars were sent.
"""

import io
import sys
import tarfile
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

LATENCY = 0.05  # seconds
BANDWIDTH = 125e6  # bytes a second: a network of 1 Gbit/s
_CHUNK = 1 << 18


def picture() -> bytes:
    """Return a JPEG of about 100 kB."""
    noise = np.random.default_rng(0).integers(0, 255, (272, 272, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


class SparseTar:
    """The bytes of a tar of equal members, by range."""

    def __init__(self, members: int) -> None:
        data = picture()
        self._data = data + bytes(-len(data) % 512)
        self._headers = []
        for number in range(members):
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(data)
            self._headers.append(info.tobuf())
        self._step = 512 + len(self._data)
        self.size = members * self._step + 1024

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`."""
        stop, made = min(stop, self.size), io.BytesIO()
        position = start
        while position < stop:
            number, offset = divmod(position, self._step)
            block = self._headers[number] + self._data if number < len(self._headers) else bytes(1024)
            piece = block[offset : offset + stop - position]
            made.write(piece)
            position += len(piece)
        return made.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Lists and reads; nothing can be written."""

    protocol_version = "HTTP/1.1"
    tar: SparseTar
    tars: int
    sent = 0
    free_at = 0.0
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answer a listing, a range of a tar, or `/bytes`."""
        url = urlsplit(self.path)
        if url.path == "/bytes":
            self._answer(200, str(Handler.sent).encode())
            return
        time.sleep(LATENCY)
        query = parse_qs(url.query)
        if "list-type" in query:
            self._answer(200, self._listing(query.get("prefix", [""])[0]), kind="application/xml")
        elif self._exists(url.path):
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else self.tar.size
            self._send(start, min(stop, self.tar.size))
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", kind="application/xml")

    def do_HEAD(self) -> None:
        """Answer with the size of a tar."""
        time.sleep(LATENCY)
        exists = self._exists(urlsplit(self.path).path)
        self._head(200 if exists else 404, self.tar.size if exists else 0)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _exists(self, path: str) -> bool:
        name = path.removeprefix("/sparse/tars/")
        return name.endswith(".tar") and name[:-4].isdigit() and int(name[:-4]) < self.tars

    def _listing(self, prefix: str) -> bytes:
        keys = [f"tars/{number:04d}.tar" for number in range(self.tars)]
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{key}&quot;"
            f"</ETag><Size>{self.tar.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        head = f"<Name>sparse</Name><Prefix>{prefix}</Prefix><MaxKeys>100000</MaxKeys><IsTruncated>false</IsTruncated>"
        spaces = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        return f'<?xml version="1.0"?><ListBucketResult {spaces}>{head}{contents}</ListBucketResult>'.encode()

    def _send(self, start: int, stop: int) -> None:
        extra = {"Content-Range": f"bytes {start}-{stop - 1}/{self.tar.size}"}
        self._head(206 if "Range" in self.headers else 200, stop - start, extra)
        for first in range(start, stop, _CHUNK):
            piece = self.tar.read(first, min(stop, first + _CHUNK))
            with Handler.lock:
                Handler.sent += len(piece)
                Handler.free_at = max(Handler.free_at, time.monotonic()) + len(piece) / BANDWIDTH
                wait = Handler.free_at - time.monotonic()
            time.sleep(max(0.0, wait))
            self.wfile.write(piece)

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self._head(status, len(body), {"Content-Type": kind})
        self.wfile.write(body)

    def _head(self, status: int, length: int, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        name = urlsplit(self.path).path.removeprefix("/sparse/")
        headers = {"ETag": f'"{name}"', "Last-Modified": formatdate(1767225600, usegmt=True), "Accept-Ranges": "bytes"}
        for key, value in {**headers, "Content-Length": str(length), **(extra or {})}.items():
            self.send_header(key, value)
        self.end_headers()


def main() -> None:
    """Serve until killed."""
    port, Handler.tars, members = map(int, sys.argv[1:4])
    Handler.tar = SparseTar(members)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
