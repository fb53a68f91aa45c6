"""Which objects a run may read: those below the prefixes that its user named. The one place that decides.

Lists, Parquet cells and plans are data, which strangers may have written, and are read with the rights of the job:
what they name is held against the scope of the run.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from urllib.parse import unquote

from segment.errors import BadReference
from segment.store.names import shown
from segment.store.urls import is_http, to_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOCAL = "file:///"
_SAME_STORE = {"s3a": "s3", "gcs": "gs"}
_HUB_KINDS = ("datasets", "spaces", "buckets")  # hf://datasets/owner/name; hf://owner/name is a model
# Where clouds answer with the credentials of a machine, beside the link-local addresses.
_METADATA = frozenset(map(ipaddress.ip_address, (
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
)))  # fmt: skip
_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "http", "https")
MOST_ADVISED = 10_000  # objects that advice looks at
# Networks of IPv6 whose last 32 bits are an IPv4 address: NAT64, the same within a site, compatible, translated.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")))


class NotAllowed(BadReference):
    """An object lies outside of the scope of the run."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an object is.

    Attributes:
        store: protocol and bucket, container or host, in one spelling; `file:///` for local files.
        path: path within it, decoded in http; without a slash at either end but for local files.
        dotted: whether a server or the kernel may take the path for another one: it holds `..`, or in http an encoded
            slash.
    """

    store: str
    path: str
    dotted: bool = False


@dataclass(frozen=True)
class Scope:
    """The prefixes below which a run may read what its input names.

    Attributes:
        prefixes: absolute URLs of folders, buckets or hosts, or of prefixes within them; see `prefix_of`.
        followed: those of them where objects are found by listing, so that symbolic links are followed wherever they
            lead. Elsewhere data names the objects, a list for example, and the target of a link counts.
    """

    prefixes: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()

    @staticmethod
    def of(prefixes: Iterable[str], *, follow_links: bool = False) -> Scope:
        """Return the scope of some prefixes, in a normal form."""
        found = tuple(sorted(set(prefixes)))
        return Scope(found, found if follow_links else ())

    def __or__(self, other: Scope) -> Scope:
        return Scope(*(tuple(sorted({*a, *b})) for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def named(self) -> Scope:
        """The scope of what data names, in which no link leads outside."""
        return Scope(self.prefixes)

    @property
    def elsewhere(self) -> Scope:
        """The prefixes on other machines: no local files, and no addresses that `allows_address` knows as special."""
        return Scope(*(tuple(filter(_is_elsewhere, prefixes)) for prefixes in astuple(self)))

    def allows(self, url: str) -> bool:
        """Whether an object may be read, by its absolute URL."""
        if url.startswith("file:///"):
            return self._allows_local(url.removeprefix("file://"))
        place = _place(url)
        if place is None or (place.dotted and not is_http(url)):
            return False
        folders = _folders(self.prefixes, place.store)
        return any(not folder or (not place.dotted and _is_below(place.path, folder)) for folder in folders)

    def _allows_local(self, path: str) -> bool:
        if "\0" in path or ".." in path.split("/"):
            return False
        if self.followed and any(_is_below(_normal(path), folder) for folder in _folders(self.followed, _LOCAL)):
            return True
        return any(_is_below(_real(path), folder) for folder in _real_folders(self.prefixes, int(time.monotonic())))

    def check(self, url: str) -> None:
        """Refuse an object that may not be read; see `allows`.

        Raises NotAllowed: the message names the option and the prefix that allow it.
        """
        if self.allows(url):
            return
        place = _place(url)
        if place and place.dotted:
            raise NotAllowed(f"{shown(url)}: write the path without '..' and encoded slashes, which servers may follow")
        raise NotAllowed(f"{shown(url)} is {OUTSIDE}; {advice([url])}")

    def allows_address(self, address: str) -> bool:
        """Whether an address may be connected to for http(s).

        Those of this machine, link-local ones and those of metadata services may not, unless a prefix names one.
        """
        found = _address(address)
        return found is None or not _is_special(found) or found in _named_addresses(self.prefixes)


def _is_elsewhere(prefix: str) -> bool:
    return prefix.partition("://")[0] in _STORES and not any(map(_is_special, _named_addresses((prefix,))))


OUTSIDE = "outside of what this run may read"


def advice(urls: Sequence[str]) -> str:
    """Return the options that allow some objects that are refused: `--allow-input s3://bucket/`.

    Nothing is advised for files of the kernel, and where a cloud answers with the credentials of a machine.
    """
    urls = [url for url in urls[:MOST_ADVISED] if "\0" not in url]
    paths = (_real(url.removeprefix("file://")) for url in urls if url.startswith("file://"))
    local = sorted({str(Path(path).parent) for path in paths if not path.startswith(("/dev/", "/proc/", "/sys/"))})
    common = os.path.commonpath(local) if local else ""
    folders = [common] if common != "/" else local
    remote = sorted(filter(_is_advisable, {prefix_of(url) for url in urls if not url.startswith("file://")}))
    options = [f"--allow-input {shown(prefix)}" for prefix in [*filter(None, folders), *remote]]
    if not options:
        return "no input should name it"
    more = f" and {len(options) - 3} more prefixes" if len(options) > 3 else ""
    return f"where that is meant, {' '.join(options[:3])}{more} allows it"


def _is_advisable(prefix: str) -> bool:
    address = _address(_host(prefix)) if is_http(prefix) else None
    return bool(prefix) and (address is None or address.is_loopback or not _is_special(address))


def prefix_of(url: str) -> str:
    """Return the bucket, container or host of a remote URL as a prefix, with a final slash; `""` if it names none.

    >>> prefix_of("s3a://bucket/a/b.png"), prefix_of("http://HOST:80/a?b"), prefix_of("hf://datasets/me/set/a.png")
    ('s3://bucket/', 'http://host/', 'hf://datasets/me/set/')
    """
    place = _place(url)
    return f"{place.store}/" if place and place.store != _LOCAL else ""


def check_prefix(value: object) -> object:
    """Return a path or URL that a user names, as text, if it can be a prefix; other types as they are.

    Raises BadReference: it names neither a folder nor a bucket, container or host, or has a query; UsageError: it holds
    credentials.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        return value
    url = to_url(value)
    place = _place(url)
    if place is None or place.dotted or (is_http(url) and re.search(r"[?#]", url)):
        raise BadReference(
            f"--allow-input {shown(url)}: a prefix is a folder, or a URL with a bucket or host, such as s3://bucket/a/"
        )
    return value


def _place(url: str) -> _Place | None:
    """Return the place of a URL; None if it names no store that is known for sure."""
    protocol, separator, rest = url.partition("://")
    if not separator or "\0" in url:
        return None
    if protocol == "file":
        if not rest.startswith("/"):
            return None
        return _Place(_LOCAL, _normal(rest), ".." in rest.split("/"))  # behind a link `..` leads elsewhere
    if is_http(url):
        return _http_place(url)
    protocol = _SAME_STORE.get(protocol, protocol)
    # Drivers skip slashes before the bucket: s3:///bucket/key.
    names = rest.lstrip("/").split("/")
    length = 1
    if protocol == "s3" and names[0].startswith("arn:"):  # arn:aws:s3:region:account:accesspoint/name/key
        length = 2
    elif protocol == "hf":
        length = 3 if names[0] in _HUB_KINDS else 2
    store, path = names[:length], names[length:]
    if not all(store) or len(store) < length:
        return None
    return _Place(f"{protocol}://{'/'.join(store)}", "/".join(path).rstrip("/"), not {".", ".."}.isdisjoint(names))


def _http_place(url: str) -> _Place | None:
    """Return the place of an http(s) URL, parsed by the library that sends the request."""
    import yarl  # only http needs it

    try:
        parsed = yarl.URL(url)
        host, port = parsed.raw_host, parsed.explicit_port
    except ValueError:
        return None
    if not host or parsed.raw_user is not None or parsed.raw_password is not None:
        return None
    host = f"[{host}]" if ":" in host else host.rstrip(".")
    default = {"http": 80, "https": 443}[parsed.scheme]
    raw = decoded = parsed.raw_path
    while (text := unquote(decoded)) != decoded:  # a server may decode twice
        decoded = text
    dotted = decoded.count("/") != raw.count("/") or "\\" in decoded or not {".", ".."}.isdisjoint(decoded.split("/"))
    where = host if port in (None, default) else f"{host}:{port}"
    return _Place(f"{parsed.scheme}://{where}", decoded.strip("/"), dotted)


def _normal(path: str) -> str:
    return os.path.normpath(f"/{path.lstrip('/')}")  # POSIX leaves two slashes at the beginning as they are


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


@functools.lru_cache(256)
def _folders(prefixes: tuple[str, ...], store: str) -> tuple[str, ...]:
    """Return the paths of the prefixes within a store."""
    return tuple(place.path for place in map(_place, prefixes) if place and place.store == store)


@functools.lru_cache(64)
def _real_folders(prefixes: tuple[str, ...], second: int) -> tuple[str, ...]:
    return tuple(os.path.realpath(folder) for folder in _folders(prefixes, _LOCAL))


def _real(path: str) -> str:
    """Return a local path with its symbolic links resolved."""
    folder, name = os.path.split(path)
    place = f"{_real_folder(folder, int(time.monotonic())).rstrip('/')}/{name}"
    return os.path.realpath(place) if os.path.islink(place) else place  # noqa: PTH114  # never raises


@functools.lru_cache(1024)
def _real_folder(folder: str, second: int) -> str:
    """Return a folder without symbolic links, as it is in this second: links may change while a worker lives."""
    return os.path.realpath(folder)


def _address(text: str) -> Address | None:
    """Return the address that a host is, in any notation: `127.1`, `0x7f000001`, `[::ffff:127.0.0.1]`; else None."""
    text = text.strip("[]").partition("%")[0]
    try:
        found: Address = ipaddress.ip_address(text)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except OSError:
            return None
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and int(found) > 1 and any(found in network for network in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        return inner or found
    return found


def _is_special(address: Address) -> bool:
    return address.is_loopback or address.is_link_local or address.is_unspecified or address in _METADATA


def _host(store: str) -> str:
    """Return the host of an http(s) URL without a path, as `prefix_of` returns it."""
    return re.sub(r":\d+$", "", store.partition("://")[2].rstrip("/"))


@functools.lru_cache(64)
def _named_addresses(prefixes: tuple[str, ...]) -> frozenset[Address]:
    """Return the addresses that prefixes name; a name counts only if it is this machine's own by convention.

    Others are not looked up: who owns a name can let it lead here.
    """
    found: set[Address] = set()
    for url in prefixes:
        place = _place(url) if is_http(url) else None
        if place is None:
            continue
        host = _host(place.store)
        if address := _address(host):
            found.add(address)
        if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
            found |= {ipaddress.ip_address(text) for text in ("127.0.0.1", "127.0.1.1", "::1")}
    return frozenset(found)
