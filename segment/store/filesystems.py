"""fsspec file systems: opens them, writes objects, and normalises their listings to `Entry`."""

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.asyn import sync
from fsspec.registry import known_implementations

from segment.errors import BadReference, UsageError
from segment.store.bounds import SILENCE_SECONDS, bounded_response
from segment.store.entries import Entry
from segment.store.guarded_http import GuardedClient
from segment.store.names import shown
from segment.store.paged_listing import Page, PageRequest
from segment.store.s3 import parse_pages_of
from segment.store.scope import Scope
from segment.store.urls import PROTOCOL

Info = Mapping[str, Any]  # of an object, as fsspec's drivers tell it
_ONE_PART = 50 << 20  # bytes that s3fs certainly sends by one request
_EXPRESS = ("--x-s3", "--xa-s3")  # end the names of S3's buckets (access points) that take no Content-MD5
_MD5 = re.compile(r"[0-9a-f]{32}")
_LOOK_UP_SECONDS = 60.0  # of http, for what is no read of an object
# By default s3fs and botocore each retry five times, so that an unresponsive store blocks a run for half an hour. Only
# the policy of `retries` applies.
_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}}
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure", "adl": "azure"}


def parse_storage_option(text: str) -> tuple[str, Any]:
    """Parse `key=value`; the value may be `true`, `false`, a JSON object or text.

    Raises UsageError: `=` or the key is missing. The message omits the text, which may be a secret.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError("--storage-option takes key=value, for example --storage-option anon=true")
    if value in ("true", "false") or value.startswith("{"):
        with contextlib.suppress(json.JSONDecodeError):
            return key, json.loads(value)
    return key, value


def open_filesystem(url: str, options: Mapping[str, Any], scope: Scope | None = None) -> tuple[Any, str]:
    """Return the file system of a URL, and the object's path there.

    Args:
        scope: what redirects of http(s) may lead to; None for anywhere.

    Raises:
        UsageError: the protocol needs a package that is not installed.
        BadReference: the protocol is unknown.
    """
    match = PROTOCOL.match(url)
    protocol = match.group(1) if match else "file"
    if protocol == "file":
        return fsspec.filesystem("file"), url.removeprefix("file://")
    if protocol in ("http", "https"):
        options = _http_options(options) | ({"get_client": GuardedClient(scope)} if scope else {})
    elif protocol in ("s3", "s3a"):
        options = {**options, "config_kwargs": {**_S3_CONFIG, **(options.get("config_kwargs") or {})}}
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        package = f"pip install 'segment-job[{extra}]'" if extra else str(error)
        raise UsageError(f"{shown(url)}: {protocol}:// needs another package: {package}") from None
    except ValueError:
        raise BadReference(f"{shown(url)}: unknown protocol {protocol}://") from None
    filesystem = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    if protocol in ("s3", "s3a"):
        filesystem.retries = 1
    return filesystem, cast(str, filesystem._strip_protocol(url))


# Names under which fsspec reads through another file system, such as `zip://a.png::s3://bucket/b.zip`.
_WRAPPERS = {
    "zip", "tar", "libarchive", "dir", "reference", "generic", "cached", "blockcache", "filecache", "simplecache",
    "async_wrapper", "asyncwrapper", "data",
}  # fmt: skip


def is_store(url: str) -> bool:
    """Whether the protocol of a URL is one of a store of objects that fsspec knows."""
    protocol = url.partition("://")[0]
    return protocol in known_implementations and protocol not in _WRAPPERS


def lists_pages(url: str, options: Mapping[str, Any]) -> bool:
    """Whether `list_page` can list what is below a URL; s3fs lists versions of objects otherwise."""
    return url.startswith(("s3://", "s3a://")) and not options.get("version_aware")


def list_page(url: str, options: Mapping[str, Any], request: PageRequest) -> Page[Info]:
    """Return a page of what S3 has below a URL; all names are relative to it.

    s3fs' own listing makes an index of all folders.
    """
    filesystem, path = open_filesystem(url, options)
    bucket, key, _ = filesystem.split_path(path)
    return cast(Page[Info], sync(filesystem.loop, _list_page, filesystem, bucket, f"{key}/" if key else "", request))


async def _list_page(filesystem: Any, bucket: str, below: str, request: PageRequest) -> Page[Info]:
    await filesystem.set_session()
    parse_pages_of(await filesystem.get_s3(bucket))
    found = await filesystem._call_s3(
        "list_objects_v2",
        Bucket=bucket,
        Prefix=below + request.prefix,
        Delimiter="" if request.flat else "/",
        **({"ContinuationToken": request.token} if request.token else {}),
        **filesystem.req_kw,
    )
    objects = {
        info["Key"].removeprefix(below): info | {"size": info["Size"], "type": "file"}
        for info in found.get("Contents", [])
    }
    folders = [folder["Prefix"].removeprefix(below) for folder in found.get("CommonPrefixes", [])]
    return Page(objects, folders, found["NextContinuationToken"] if found.get("IsTruncated") else "")


def protocols_of(filesystem: Any) -> set[str]:
    """Return the names of a driver's protocol."""
    return {filesystem.protocol} if isinstance(filesystem.protocol, str) else {*filesystem.protocol}


class CorruptUpload(ConnectionError):
    """The store holds other bytes than were sent."""


def put(filesystem: Any, path: str, data: bytes, **mode: str) -> None:
    """Store an object, and verify the checksum if the store returns one.

    S3 gets a checksum with the bytes and stores none that differ: whatever ends this process after the request, the
    object is not damaged. Where the client is told to send none of its own, that is the MD5. Of other stores, and of
    uploads in several parts, only what is there can be compared: the ETag of a single-part upload is its MD5, except
    under some encryptions. If it differs, the object is read back.

    Raises CorruptUpload: the stored bytes differ.
    """
    md5 = hashlib.md5(data, usedforsecurity=False)
    if protocols_of(filesystem) & {"s3", "s3a"} and len(data) < _ONE_PART and _sends_no_checksum(filesystem, path):
        mode["ContentMD5"] = base64.b64encode(md5.digest()).decode()
    response = filesystem.pipe_file(path, data, **mode)
    etag = str(response.get("ETag", "")).strip('"') if isinstance(response, Mapping) else ""
    if not _MD5.fullmatch(etag) or etag == md5.hexdigest():
        return
    if filesystem.cat_file(path) != data:
        raise CorruptUpload("the stored bytes differ from those that were sent")


def _sends_no_checksum(filesystem: Any, path: str) -> bool:
    """Whether the client of S3 adds no checksum to what it sends, as stores need that know none of the newer ones.

    Of S3 Express, which knows the newer ones only, this is never said.
    """
    bucket = filesystem.split_path(path)[0]
    if bucket.endswith(_EXPRESS):
        return False
    client = sync(filesystem.loop, _client, filesystem, bucket)
    return getattr(client.meta.config, "request_checksum_calculation", "when_required") == "when_required"


async def _client(filesystem: Any, bucket: str) -> Any:
    await filesystem.set_session()
    return await filesystem.get_s3(bucket)


def put_file(filesystem: Any, path: str, file: Path, **mode: str) -> None:
    """Store the content of a local file; a large one is sent in several parts, which become visible together.

    What is sent as one is verified as by `put`, whose errors it raises.
    """
    if not protocols_of(filesystem) & {"s3", "s3a"}:
        filesystem.put_file(str(file), path, **mode)
    elif file.stat().st_size < _ONE_PART:  # s3fs would read it as a whole, too
        put(filesystem, path, file.read_bytes(), **mode)
    else:
        filesystem.put_file(str(file), path, max_concurrency=2, **mode)  # by default 10 parts of 50 MB at once


_HTTP_OPTIONS = {"auth", "block_size", "client_kwargs", "cookies", "encoded", "headers", "proxy", "ssl", "timeout"}


def _http_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of http(s):// alone.

    A job has one set of options, while its images may be on s3:// and its weights on https://: a web server must not
    receive the secrets of another store.
    """
    own = {key: value for key, value in options.items() if key in _HTTP_OPTIONS}
    client = own.get("client_kwargs") or {}
    if "endpoint_url" in client:  # client_kwargs of s3fs
        client = {}
    timeout = http_timeout(_LOOK_UP_SECONDS, SILENCE_SECONDS)
    # Without trust_env, aiohttp ignores the proxy in HTTPS_PROXY.
    ours = {"trust_env": True, "raise_for_status": _refuse_redirect, "timeout": timeout}
    ours["response_class"] = bounded_response()
    return {**own, "client_kwargs": {**ours, **client}}


def http_timeout(seconds: float | None, silence: float) -> Any:
    """Return the timeouts of a request, as those of S3: for all of it, to connect, and without a byte."""
    import aiohttp  # only http needs it

    return aiohttp.ClientTimeout(total=seconds, sock_connect=min(10.0, silence), sock_read=silence)


async def _refuse_redirect(response: Any) -> None:
    """Raise for a redirect without a target; aiohttp returns its body as the object."""
    if 300 <= response.status < 400:
        import aiohttp  # only http needs it

        raise aiohttp.ClientResponseError(
            response.request_info, response.history, status=response.status, message=str(response.reason)
        )


def entry_of(url: str, info: Mapping[str, Any]) -> Entry:
    """Return the entry of an object from its driver's metadata."""
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or ""
    if not etag and "mtime" in info:
        etag = f"mtime-{info['mtime']:.6f}"
    if not etag:
        etag = _modified(info)
    size = info.get("size")
    # An object whose name ends with a slash has no path on a local disk.
    return Entry(url, -1 if size is None else int(size), str(etag).strip('"'), irregular=url.endswith("/"))


def is_folder_entry(name: str, info: Mapping[str, Any]) -> bool:
    """Whether a listed name is a folder, or the empty object that the S3 console creates for one."""
    return info["type"] == "directory" or (name.endswith("/") and not info.get("size"))


def _modified(info: Mapping[str, Any]) -> str:
    names = ("LastModified", "Last-Modified", "last_modified", "updated")
    return next((str(info[name]) for name in names if info.get(name)), "")
