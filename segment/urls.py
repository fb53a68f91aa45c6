"""URLs of objects: absolute, with their protocol, and never with a secret in what is shown.

`file:///data/a.png`, `s3://bucket/a.png`. Local names are not percent-encoded, so any file name survives.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from segment.errors import UsageError

PROTOCOL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
# `user:secret@host`; the secret of an AWS key may hold slashes, so these too, but `host:8080/a@b` is a port and a path.
# `https://token@host` has no user; elsewhere (`abfs://container@account`) what is before the @ is no secret.
CREDENTIALS = re.compile(r"(://)(?:[^/\s]*:[^/\s]*@|[^/\s:]*:(?!\d+(?:/|$))[^@\s]*@)|(https?://)[^/?#\s]*@")


def is_url(text: str) -> bool:
    """Whether `text` starts with a protocol, as `s3://` does."""
    return PROTOCOL.match(text) is not None


def to_url(reference: str) -> str:
    """Make a path or URL absolute: a local path becomes `file:///...`; no trailing slash.

    Raises:
        UsageError: empty, or a URL with `user:secret@` in it (which would end up in logs and outputs).
    """
    if not reference:
        raise UsageError("an empty string is no path or URL")
    if CREDENTIALS.search(reference):
        raise UsageError(
            f"{redact_url(reference)}: credentials in a URL would end up in logs and outputs. Give them by environment "
            "(AWS_ACCESS_KEY_ID ...), profile, or --storage-option key=... secret=..."
        )
    if not is_url(reference):
        return "file://" + os.path.abspath(_with_home(reference))
    protocol, rest = reference.split("://", 1)
    if protocol == "file":
        return "file://" + os.path.abspath(rest)
    return f"{protocol}://{rest.rstrip('/')}"


def _with_home(path: str) -> str:
    """Expand `~` and `~user`; where there is no such user it is a name like any other."""
    try:
        return str(Path(path).expanduser())
    except (RuntimeError, ValueError):
        return path


def redact_url(url: str) -> str:
    """Return `url` fit for messages: without credentials, query or signature; a local one as a path."""
    url = CREDENTIALS.sub(r"\1\2***@", url)
    if url.startswith(("http://", "https://")):
        parts = urlsplit(url)
        return urlunsplit(parts._replace(query="***" if parts.query else ""))
    return url.removeprefix("file://")


_QUERY = re.compile(r"\?[^\s'\"]+")


def redact_text(text: str) -> str:
    """Return another library's words fit for messages: a URL in them may hold credentials, or a signature as query."""
    return _QUERY.sub("?***", CREDENTIALS.sub(r"\1\2***@", text))


def without_query(url: str) -> str:
    """Return an http(s) URL without its query, which may be a signature; others as they are."""
    return url.partition("?")[0] if url.startswith(("http://", "https://")) else url


def is_http(url: str) -> bool:
    """Whether a URL is read over http or https."""
    return url.startswith(("http://", "https://"))


def join_url(base: str, *names: str) -> str:
    """Append `names` to a URL. An absolute path or URL among them starts anew, as in `os.path.join`."""
    for name in names:
        if is_url(name) or name.startswith("/"):
            base = to_url(name)
        else:
            while name.startswith("./"):
                name = name[2:]
            while name.startswith("../"):
                base, name = parent_url(base), name[3:]
            base = f"{base.removesuffix('/')}/{name}"
    return base


def parent_url(url: str) -> str:
    """Return the URL of the folder that holds `url`."""
    if url.startswith(("http://", "https://")):
        url = urlunsplit(urlsplit(url)._replace(query="", fragment=""))  # there may be slashes in them
    head, _, _ = url.rstrip("/").rpartition("/")
    if head == "file://":
        return "file:///"
    return head if "://" in head and not head.endswith(("://", ":/")) else url


def relative_url(url: str, base: str) -> str:
    """Return the part of `url` below `base`; `url`'s last name if it is not below."""
    prefix = base.rstrip("/") + "/"
    return url[len(prefix) :] if url.startswith(prefix) else url.rstrip("/").rpartition("/")[2]
