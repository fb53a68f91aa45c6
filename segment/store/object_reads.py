"""Reads of objects by fsspec's drivers: whole or a range, within bounds, with the etag where that costs no request."""

from collections.abc import Coroutine, Mapping
from typing import Any, cast

from fsspec.asyn import sync

from segment.errors import UsageError
from segment.store.bounds import Bounds
from segment.store.filesystems import entry_of, http_timeout, protocols_of
from segment.store.names import shown
from segment.store.s3 import ask_no_checksum_of_ranges

_CHUNK = 1 << 20  # bytes of a body that are taken at once


def get(filesystem: Any, path: str, start: int | None, stop: int | None, bounds: Bounds) -> tuple[bytes, str | None]:
    """Return an object's bytes, or its bytes `start` to `stop` (exclusive), and their etag.

    S3 and http take one request: their drivers' `cat_file` requests the size first and drops the etag. For other
    drivers the etag is None. Of a range at most one byte more than was asked for is returned.

    Raises:
        TooManyBytes: a whole object has more than `bounds.most`; no more than these are transferred.
        TooSlow: it took longer than `bounds.seconds`.
    """
    headers = {} if start is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
    protocols = protocols_of(filesystem)
    reading: Coroutine[Any, Any, tuple[bytes, str | None]]
    if protocols & {"s3", "s3a"}:
        reading = _get_s3(filesystem, path, headers, start, stop, bounds)
    elif protocols & {"http", "https"}:
        reading = _get_http(filesystem, path, headers, start, stop, bounds)
    elif getattr(filesystem, "async_impl", False):
        reading = _get_other(filesystem, path, start, stop, bounds)
    else:
        data = _get_by_file(filesystem, path, start, stop, bounds)
        bounds.check(len(data) if stop is None else None)
        return data, None
    data, etag = sync(filesystem.loop, bounds.within, reading)
    bounds.check(len(data) if stop is None else None)
    return data, etag


async def _get_s3(
    filesystem: Any, path: str, headers: Mapping[str, str], start: int | None, stop: int | None, bounds: Bounds
) -> tuple[bytes, str | None]:
    bucket, key, version = filesystem.split_path(path)
    versioned = {"VersionId": version} if version else {}
    await filesystem.set_session()
    ask_no_checksum_of_ranges(await filesystem.get_s3(bucket))
    response = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, **headers, **versioned)
    async with response["Body"] as body:
        if stop is None:
            bounds.check(response.get("ContentLength"))
        return await _received(body.iter_chunks(_CHUNK), start, stop, bounds), entry_of(path, response).etag


async def _get_http(
    filesystem: Any, url: str, range_header: Mapping[str, str], start: int | None, stop: int | None, bounds: Bounds
) -> tuple[bytes, str | None]:
    settings = {"timeout": http_timeout(None, bounds.silence), **filesystem.kwargs}
    # A compressed response has another etag, and ranges of the compressed bytes.
    headers = {**settings.pop("headers", {}), "Accept-Encoding": "identity", **range_header}
    session = await filesystem.set_session()
    async with session.get(filesystem.encode_url(url), headers=headers, **settings) as response:
        filesystem._raise_not_found_for_status(response, url)
        if start and response.status == 200:  # the whole object, from its beginning
            raise ignores_ranges(url)
        if start is not None and not _is_range(response.headers.get("Content-Range"), start):
            raise ConnectionError("received another range")
        if stop is None:
            bounds.check(response.content_length)
        data = await _received(response.content.iter_any(), start, stop, bounds)
        return data, entry_of(url, response.headers).etag


def _is_range(told: str | None, start: int) -> bool:
    """Whether an answer holds what begins at a byte, as far as its server says which bytes these are."""
    return told is None or told.strip().lower().startswith(f"bytes {start}-")


async def _get_other(
    filesystem: Any, path: str, start: int | None, stop: int | None, bounds: Bounds
) -> tuple[bytes, str | None]:
    start = start or 0
    try:  # of a whole object, whose size is not known, one byte more than it may have
        return await filesystem._cat_file(path, start=start, end=stop or start + bounds.most + 1), None
    except FileNotFoundError:
        raise
    except Exception:
        if (await filesystem._info(path)).get("size") != 0:
            raise
        return b"", None  # of an empty object, servers refuse any range


def _get_by_file(filesystem: Any, path: str, start: int | None, stop: int | None, bounds: Bounds) -> bytes:
    """Read as fsspec's own `cat_file` does, but look at the size first."""
    with filesystem.open(path, "rb") as file:
        file.seek(start or 0)
        if stop is not None:
            return cast(bytes, file.read(stop - (start or 0)))
        bounds.check(getattr(file, "size", None))
        return cast(bytes, file.read())


async def _received(chunks: Any, start: int | None, stop: int | None, bounds: Bounds) -> bytes:
    """Return a body; of a range one byte more than was asked for, which shows that the response is too long."""
    if stop is None:
        return await bounds.body(chunks)
    return await bounds.beginning(chunks, stop - (start or 0) + 1)


def ignores_ranges(url: str) -> UsageError:
    """Return the error for a server that sends more than the requested range."""
    return UsageError(f"{shown(url)}: this server ignores byte ranges. Copy the file, or use a server with ranges")
