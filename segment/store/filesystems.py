"""fsspec's file systems as the store uses them: opened, written to, their entries in one form."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import fsspec
from fsspec.asyn import sync

from segment.errors import BadReference, UsageError
from segment.store.urls import PROTOCOL, redact_url

_MD5 = re.compile(r"[0-9a-f]{32}")
# s3fs and botocore would each retry five times on their own: a store that answers nothing would hold a run for half an
# hour. One policy is enough, ours.
_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}}
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure", "adl": "azure"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a store.

    Attributes:
        url: absolute URL.
        size: bytes; -1 where the store does not say.
        etag: changes when the content does: the store's ETag, else last-modified time, else `""`.
        irregular: whether it is no file: a link to nothing, a device, a pipe, a name that ends in a slash.
        link_to: where a local link leads within the listed folder: the URL of the file itself; else `""`.
    """

    url: str
    size: int
    etag: str
    irregular: bool = False
    link_to: str = ""


def parse_storage_option(text: str) -> tuple[str, Any]:
    """Parse `key=value`; `true`, `false` and JSON objects are taken as such.

    Raises:
        UsageError: there is no `=` in it. The text is not repeated: it may be a secret.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError("--storage-option takes key=value, for example --storage-option anon=true")
    if value in ("true", "false") or value.startswith("{"):
        with contextlib.suppress(json.JSONDecodeError):
            return key, json.loads(value)
    return key, value


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the file system of a URL, and what it calls the object.

    Raises:
        UsageError: there is none for this protocol, or a package is missing.
    """
    match = PROTOCOL.match(url)
    protocol = match.group(1) if match else "file"
    if protocol == "file":
        return fsspec.filesystem("file"), url.removeprefix("file://")
    if protocol in ("http", "https"):
        options = _http_options(options)
    elif protocol in ("s3", "s3a"):
        options = {**options, "config_kwargs": {**_S3_CONFIG, **(options.get("config_kwargs") or {})}}
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        mend = f"pip install 'segment-job[{extra}]'" if extra else str(error)
        raise UsageError(f"{redact_url(url)}: {protocol}:// needs another package: {mend}") from None
    except ValueError:
        raise BadReference(f"{redact_url(url)}: no store is known for {protocol}://") from None
    filesystem = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    if protocol in ("s3", "s3a"):
        filesystem.retries = 1
    return filesystem, cast(str, filesystem._strip_protocol(url))


def get(filesystem: Any, path: str, start: int | None, stop: int | None) -> tuple[bytes, str | None]:
    """Return an object's bytes, or its bytes `start` to `stop` (exclusive), and the etag that came with them.

    By one request where the driver's own `cat_file` asks for the size first and does not tell the etag: S3 and http.
    The etag is None where the driver is another one.
    """
    asked = {} if start is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
    protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else {*filesystem.protocol}
    if protocols & {"s3", "s3a"}:
        found: tuple[bytes, str] = sync(filesystem.loop, _get_s3, filesystem, path, asked)
        return found
    if protocols & {"http", "https"}:
        answered: tuple[bytes, str] = sync(filesystem.loop, _get_http, filesystem, path, asked, start, stop)
        return answered
    return filesystem.cat_file(path, start=start, end=stop), None


async def _get_s3(filesystem: Any, path: str, asked: Mapping[str, str]) -> tuple[bytes, str]:
    bucket, key, version = filesystem.split_path(path)
    wanted = {"VersionId": version} if version else {}
    answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, **asked, **wanted)
    async with answer["Body"] as body:
        return await body.read(), entry_of(path, answer).etag


async def _get_http(
    filesystem: Any, url: str, asked: Mapping[str, str], start: int | None, stop: int | None
) -> tuple[bytes, str]:
    settings = dict(filesystem.kwargs)
    # a compressed answer would have another etag, and ranges of its own
    headers = {**settings.pop("headers", {}), "Accept-Encoding": "identity", **asked}
    session = await filesystem.set_session()
    async with session.get(filesystem.encode_url(url), headers=headers, **settings) as answer:
        filesystem._raise_not_found_for_status(answer, url)
        if start and answer.status == 200:  # the whole object, from its beginning
            raise ignores_ranges(url)
        # of what is too long one byte tells it: the rest stays with the server
        data = await (answer.read() if stop is None else _first(answer.content, stop - (start or 0) + 1))
        return data, entry_of(url, answer.headers).etag


async def _first(stream: Any, most: int) -> bytes:
    try:
        return cast(bytes, await stream.readexactly(most))
    except asyncio.IncompleteReadError as error:
        return error.partial


def ignores_ranges(url: str) -> UsageError:
    """What to say of a server that answers with more than the range it was asked for."""
    return UsageError(f"{redact_url(url)}: this server ignores ranges. Copy the file, or serve it otherwise")


class Damaged(ConnectionError):
    """An object was stored, but other bytes than were sent."""


def put(filesystem: Any, path: str, data: bytes, **mode: str) -> None:
    """Store an object and compare the checksum that the store answers with, where it does.

    On S3 the ETag of an object that was sent in one piece is its MD5, but not under every encryption: so where it is
    another one, the object itself is asked.
    """
    answer = filesystem.pipe_file(path, data, **mode)
    etag = str(answer.get("ETag", "")).strip('"') if isinstance(answer, Mapping) else ""
    if not _MD5.fullmatch(etag) or etag == hashlib.md5(data, usedforsecurity=False).hexdigest():
        return
    if filesystem.cat_file(path) != data:
        raise Damaged("the store has other bytes than were sent")


_HTTP_OPTIONS = {"auth", "block_size", "client_kwargs", "cookies", "encoded", "headers", "proxy", "ssl", "timeout"}


def _http_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what http:// and https:// are opened with: not another store's options, nor its secrets.

    A job has one set of options, while its images may be on s3:// and its weights on https://.
    """
    own = {key: value for key, value in options.items() if key in _HTTP_OPTIONS}
    client = own.get("client_kwargs") or {}
    if "endpoint_url" in client:  # s3fs has an option of this name too
        client = {}
    # Without trust_env, aiohttp passes by the proxy that HTTPS_PROXY names.
    return {**own, "client_kwargs": {"trust_env": True, "raise_for_status": _refuse_redirect, **client}}


async def _refuse_redirect(answer: Any) -> None:
    """Refuse the answer of a redirect that leads nowhere: aiohttp takes it for the object's."""
    if 300 <= answer.status < 400:
        import aiohttp  # which only http needs

        raise aiohttp.ClientResponseError(
            answer.request_info, answer.history, status=answer.status, message=str(answer.reason)
        )


def entry_of(url: str, info: Mapping[str, Any]) -> Entry:
    """Return the entry of an object from what its driver says of it."""
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or ""
    if not etag and "mtime" in info:
        etag = f"mtime-{info['mtime']:.6f}"
    if not etag:
        etag = _modified(info)
    size = info.get("size")
    # No path leads to an object whose name ends in a slash.
    return Entry(url, -1 if size is None else int(size), str(etag).strip('"'), irregular=url.endswith("/"))


def is_folder(name: str, info: Mapping[str, Any]) -> bool:
    """Whether a listed name is a folder, or the empty object that S3's console makes for one."""
    return info["type"] == "directory" or (name.endswith("/") and not info.get("size"))


def _modified(info: Mapping[str, Any]) -> str:
    names = ("LastModified", "Last-Modified", "last_modified", "updated")
    return next((str(info[name]) for name in names if info.get(name)), "")
