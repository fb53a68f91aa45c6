"""URLs of objects: made absolute, joined, and stripped of secrets and signatures.

Examples: `file:///data/a.png`, `s3://bucket/a.png`. Local names are not percent-encoded: every file name is valid.
"""

import functools
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from segment.errors import UsageError

PROTOCOL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
# `user:secret@host`. The secret of an AWS key may contain slashes, but `host:8080/a@b` has a port and no secret.
# `https://token@host` contains a secret, `abfs://container@account` does not.
# `s3:/bucket/a`, `s3:bucket/a`, `s3//bucket/a`: as paths, what is meant for a bucket would go to this machine's disk.
_ALMOST_URL = re.compile(r"(s3a?|gs|gcs|az|abfss?|https?|file)(?::/?|//)(?!/)", re.IGNORECASE)
_LOCAL = re.compile(r"^(?:file:/(?!/)|file://localhost/)", re.IGNORECASE)  # other forms of `file:///`, by RFC 8089
CREDENTIALS = re.compile(r"(://)(?:[^/\s:]*:[^/\s]*@|[^/\s:]*:(?!\d+(?:/|$))[^@\s]*@)|(https?://)[^/?#\s]*@")


def is_url(text: str) -> bool:
    """Whether `text` starts with a protocol such as `s3://`, or with `file:/`."""
    return bool(PROTOCOL.match(text) or _LOCAL.match(text))


def to_url(reference: str) -> str:
    """Return a path or URL as an absolute URL without a trailing slash; a local path becomes `file:///...`.

    Raises:
        UsageError: empty, almost a URL, a relative one of a file, or one with credentials (`user:secret@`), which logs
            and outputs would show.
    """
    if not reference:
        raise UsageError("an empty string is not a path or URL")
    if has_credentials(reference):
        raise UsageError(
            f"{redact_url(reference)}: credentials in a URL would end up in logs and outputs. Give them by environment "
            "(AWS_ACCESS_KEY_ID ...), profile, or --storage-option key=... secret=..."
        )
    reference = _LOCAL.sub("file:///", reference)
    if not is_url(reference):
        if meant := _ALMOST_URL.match(reference):
            raise UsageError(
                f"{meant[0]}... is no URL: those begin with {meant[1]}://. A folder of that name is ./{meant[0]}..."
            )
        return "file://" + os.path.abspath(_with_home(reference))
    protocol, rest = reference.split("://", 1)
    protocol = protocol.lower()
    if protocol in ("file", "local"):  # two names of one thing in fsspec
        if not rest.startswith("/"):
            raise UsageError(
                f"{reference}: an absolute path has three slashes, {protocol}:///, a relative one no {protocol}://"
            )
        return "file://" + os.path.abspath(rest)
    return f"{protocol}://{rest.rstrip('/')}"


def _with_home(path: str) -> str:
    """Expand `~` and `~user`; leave the path unchanged if there is no such user."""
    try:
        return str(Path(path).expanduser())
    except (RuntimeError, ValueError):
        return path


def redact_credentials(url: str) -> str:
    """Return `url` with its credentials masked."""
    return "".join(CREDENTIALS.sub(r"\1\2***@", piece) if "@" in piece else piece for piece in _pieces(url))


def has_credentials(text: str) -> bool:
    """Whether a text holds a URL with a user name and a secret."""
    return any(CREDENTIALS.search(piece) for piece in _pieces(text) if "@" in piece)


def _pieces(text: str) -> list[str]:
    """Cut a text behind the last `@` of each word: from each `://`, `CREDENTIALS` looks for one to the word's end."""
    if "@" not in text:
        return [text]
    return [piece for word in re.split(r"(\s+)", text) for piece in re.split(r"(?<=@)(?=[^@]*$)", word)]


def redact_url(url: str) -> str:
    """Return `url` for messages: without credentials, query and signature; a local URL as a path."""
    url = redact_credentials(url)
    if is_http(url):
        path, mark, _ = url.partition("#")[0].partition("?")
        return f"{path}?***" if mark else path
    return url.removeprefix("file://")


_QUERY = re.compile(r"\?[^\s'\"]+")


def redact_text(text: str) -> str:
    """Return another library's text for messages: credentials and queries of URLs are masked."""
    return _QUERY.sub("?***", redact_credentials(text))


def without_query(url: str) -> str:
    """Return an http(s) URL without its query; other URLs unchanged."""
    return url.partition("?")[0] if is_http(url) else url


# Query parameters that authorise a read and do not identify the object, in lower case.
_SIGNING = frozenset(
    """
    signature sig token access_token auth_token authtoken auth jwt apikey api_key hmac expires expiry expire
    awsaccesskeyid googleaccessid ossaccesskeyid security-token key-pair-id __token__ __gda__ hdnts hdnea hdntl
    """.split()  # noqa: SIM905
)
_SIGNING_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-obs-", "x-bce-", "q-sign")
# Ambiguous parameters: they belong to a signature only beside the parameter that is the key here.
_SIGNING_BESIDE: dict[str, frozenset[str]] = {
    # Azure's shared access signatures
    "sig": frozenset(
        """
        sv ss srt sr sp st se si sip spr sdd saoid suoid scid skoid sktid skt ske sks skv ses rscc rscd rsce rscl rsct
        epk erk spk srk tn
        """.split()  # noqa: SIM905
    ),
    # content delivery networks of Amazon, Google, Akamai
    "signature": frozenset({"policy", "keyname", "urlprefix", "hash-algorithm", "exp"}),
    "token": frozenset({"exp"}),
    # S3 clients sign these, too; they change only the response's headers
    "x-amz-signature": frozenset({
        "x-id", "response-content-type", "response-content-disposition", "response-content-encoding",
        "response-content-language", "response-cache-control", "response-expires",
    }),
    # Tencent
    "q-signature": frozenset({"q-ak", "q-key-time", "q-header-list", "q-url-param-list"}),
}  # fmt: skip


def is_http(url: str) -> bool:
    """Whether a URL is read over http or https."""
    return url.startswith(("http://", "https://"))


def unsigned(url: str) -> str:
    """Return an http(s) URL without its signature and fragment; other URLs unchanged.

    The other query parameters stay, as they may identify the object.

    >>> unsigned("https://b.s3.amazonaws.com/a.png?X-Amz-Signature=9f&X-Amz-Expires=900")
    'https://b.s3.amazonaws.com/a.png'
    >>> unsigned("https://x.blob.core.windows.net/c/a.png?sv=2024-11-04&se=2026&sig=9f"), unsigned("http://h/?id=7&token=9f")
    ('https://x.blob.core.windows.net/c/a.png', 'http://h/?id=7')
    """
    return unsigned_name(url.partition("#")[0]) if is_http(url) else url


def unsigned_name(name: str) -> str:
    """Return a text without the signature after its first `?`: an id may be derived from a signed URL."""
    path, mark, query = name.partition("?")
    if not mark:
        return name
    items = [item for item in query.split("&") if item]
    signing = _signing(tuple(item.partition("=")[0] for item in items))
    kept = [item for item, is_signing in zip(items, signing, strict=True) if not is_signing]
    return f"{path}?{'&'.join(kept)}" if kept else path


def is_signed(name: str) -> bool:
    """Whether a signature, or a part of one, follows the first `?` of a text."""
    items = name.partition("?")[2].split("&")
    return any(_signing(tuple(item.partition("=")[0] for item in items)))


def query_parameters(url: str) -> list[str]:
    """Return the names of a URL's query parameters, in lower case."""
    query = url.partition("#")[0].partition("?")[2]
    return [unquote(item.partition("=")[0]).lower() for item in query.split("&") if item]


_SIGNING_VALUE = re.compile(
    rf"((?:[?&;#]|%3f|%26|\\u0026)(?:amp;)?(?:{'|'.join(sorted(map(re.escape, _SIGNING)))}|"
    rf"(?:{'|'.join(map(re.escape, _SIGNING_PREFIXES))})[\w-]*)(?:=|%3d))(?!\*\*\*)[^&\s'\"<>\\;#]+",
    re.IGNORECASE,
)


def mask_signatures(text: str) -> str:
    """Return a text with the values of signatures masked, wherever they stand in it.

    >>> mask_signatures("could not read https://h/a.png?sig=9f")
    'could not read https://h/a.png?sig=***'
    """
    return _SIGNING_VALUE.sub(r"\1***", text) if "=" in text or "%3" in text else text


def masked_text(text: str) -> str:
    """Return a user's text as it may be stored: without passwords of URLs and without signatures, wherever they stand.

    >>> masked_text("https://h/a.png?id=7&token=9f"), masked_text('{"url": "https://h/?sig=9f"}')
    ('https://h/a.png?id=7', '{"url": "https://h/?sig=***"}')
    """
    text = redact_credentials(text)
    return mask_signatures(text if re.search(r"\s", text) else unsigned_name(text))


@functools.lru_cache(1024)
def _signing(parameters: tuple[str, ...]) -> tuple[bool, ...]:
    """Return for each parameter of a query whether it belongs to a signature."""
    names = [unquote(parameter).lower() for parameter in parameters]
    found = {name for name in names if name in _SIGNING or name.startswith(_SIGNING_PREFIXES)}
    for mark, beside in _SIGNING_BESIDE.items():
        if mark in names:
            found |= beside
    return tuple(name in found for name in names)


def join_url(base: str, *names: str) -> str:
    """Append `names` to a URL. An absolute path or URL among them replaces the base, as in `os.path.join`."""
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
    if is_http(url):
        url = urlunsplit(urlsplit(url)._replace(query="", fragment=""))  # they may contain slashes
    head, _, _ = url.rstrip("/").rpartition("/")
    if head == "file://":
        return "file:///"
    return head if "://" in head and not head.endswith(("://", ":/")) else url


def relative_url(url: str, base: str) -> str:
    """Return the part of `url` below `base`, or the last name of `url` if it is not below."""
    prefix = base.rstrip("/") + "/"
    return url[len(prefix) :] if url.startswith(prefix) else url.rstrip("/").rpartition("/")[2]
