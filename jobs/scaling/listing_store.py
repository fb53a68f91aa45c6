"""An S3 server that only lists, from memory, by pages of 1,000 as S3 does; each page waits for a network's latency.

    python -m jobs.scaling.listing_store PORT KEYS LATENCY

Bucket `folders` holds so many keys in folders of a thousand, bucket `flat` all of them in one.
"""

import hashlib
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

Query = Mapping[str, str]


def numbered_keys(number: int, bucket: str) -> list[str]:
    """Return the sorted keys of a bucket."""
    if bucket == "flat":
        return [f"images/{index:08d}.jpg" for index in range(number)]
    return [f"images/{index // 1000:06d}/{index:08d}.jpg" for index in range(number)]


def _etag(index: int) -> str:
    return hashlib.md5(str(index).encode(), usedforsecurity=False).hexdigest()


def list_page(keys: Sequence[str], query: Query, most: int = 1000) -> bytes:
    """Answer `ListObjectsV2` as S3 does.

    Args:
        keys: all keys of the bucket, sorted.
        query: `prefix`, `delimiter` and `continuation-token` of the request.
        most: keys and common prefixes of a page.
    """
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    index = int(query["continuation-token"]) if "continuation-token" in query else bisect_left(keys, prefix)
    found = []
    while len(found) < most and index < len(keys) and keys[index].startswith(prefix):
        head, delimited, _ = keys[index].removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
        if delimited:
            folder = prefix + head + delimiter
            found.append(f"<CommonPrefixes><Prefix>{quote(folder)}</Prefix></CommonPrefixes>")
            index = bisect_left(keys, folder[:-1] + chr(ord(folder[-1]) + 1), index)
        else:
            found.append(
                f"<Contents><Key>{quote(keys[index])}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>&quot;{_etag(index)}&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
                "<ChecksumType>FULL_OBJECT</ChecksumType><Size>100000</Size><StorageClass>STANDARD</StorageClass>"
                "</Contents>"
            )
            index += 1
    more = index < len(keys) and keys[index].startswith(prefix)
    token = f"<NextContinuationToken>{index}</NextContinuationToken>" if more else ""
    head = (
        f"<Prefix>{quote(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
    )
    spaces = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return f'<?xml version="1.0"?>\n<ListBucketResult {spaces}>{head}{"".join(found)}</ListBucketResult>'.encode()


class Handler(BaseHTTPRequestHandler):
    """Answers listings of `buckets`, and 404 to all else. `requests` are the queries so far."""

    protocol_version = "HTTP/1.1"
    buckets: Mapping[str, Sequence[str]]
    latency: float
    page_size = 1000
    requests: list[Query]

    def do_GET(self) -> None:
        """Answer with a page."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        keys = self.buckets.get(url.path.strip("/"))
        time.sleep(self.latency)
        self.requests.append(query)
        if keys is None or "list-type" not in query:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        else:
            self._answer(200, list_page(keys, query, self.page_size))

    def do_HEAD(self) -> None:
        """Say that there is no such object."""
        self._answer(404, b"")

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until killed."""
    port, number, Handler.latency, Handler.requests = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), []
    Handler.buckets = {bucket: numbered_keys(number, bucket) for bucket in ("folders", "flat")}
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
