"""Find the objects of an input: one file, a folder, a glob or a brace range."""

import fnmatch
import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from segment.errors import UsageError
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads, look_up
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.local_files import with_hint
from segment.store.names import IMAGE_SUFFIXES, count, shown, suffix_of
from segment.store.urls import is_http, parent_url, query_parameters, to_url, unsigned

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".json"})
FILE_SUFFIXES = IMAGE_SUFFIXES | LIST_SUFFIXES | {".tar", ".parquet", ".pq", ".gz", ".tgz"}
MAX_BRACES = 1_000_000
_url = attrgetter("url")

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Found:
    """The objects of an input.

    Attributes:
        base: URL of the folder that ids are relative to.
        entries: the objects, sorted by URL.
        single: whether the input names one object, not a folder or pattern.
        whole: whether the entries are all objects below the base.
    """

    base: str
    entries: Entries
    single: bool
    whole: bool = False


def find_objects(input: str, store: Store, findings: Findings) -> Found:  # noqa: A002
    """Find the objects of an input. An object or folder of exactly this name takes precedence over a pattern.

    Raises UsageError: no object is found, or an element of a brace range does not exist.
    """
    url = sign_input(input, store)
    if is_http(url) and query_parameters(url):
        names = ", ".join(shown(name) for name in query_parameters(url))
        findings.notes.append(f"the query of the input's URL is part of the object's name and is kept: {names}")
    found = _object(url, store) or _folder(url, store) or _object(url, store, unlikely=True)
    if found:
        return found
    patterns = list(_expand_braces(url))
    globs = [pattern for pattern in patterns if _is_glob(pattern)]
    named = _named([pattern for pattern in patterns if not _is_glob(pattern)], len(patterns), store)
    listings = [sorted(named, key=_url), *in_threads(lambda pattern: _glob(pattern, store), globs)]
    number = sum(map(len, listings))
    if not number:
        raise UsageError(with_hint(_nothing(url, store), url))
    unique = Entries(next(same) for _, same in groupby(heapq.merge(*listings, key=_url), key=_url))
    if len(unique) < number:
        findings.warnings.append(f"{count(number - len(unique), 'file is', 'files are')} named twice and read once")
    return Found(folder_of_pattern(url), unique, single=False)


def sign_input(input: str, store: Store) -> str:  # noqa: A002
    """Return the URL of an input without its signature, which only the store keeps."""
    given = to_url(input)
    url = unsigned(given)
    if url != given:
        store.add_signed_urls([given, *_expand_braces(given)])
    return url


def _object(url: str, store: Store, unlikely: bool = False) -> Found | None:
    """Return the single object at a URL, if it exists.

    An index page makes a folder on an HTTP server look like an object. So a name with the suffix of a file is looked up
    first, and any other name only after folders (`unlikely`).
    """
    if (suffix_of(url) in FILE_SUFFIXES) is unlikely:
        return None
    entry = store.info(url)
    return Found(parent_url(url), Entries([entry]), single=True) if entry else None


def _folder(url: str, store: Store) -> Found | None:
    entries = store.list(url, irregular=True)
    return Found(url, entries, single=False, whole=True) if entries else None


def _named(urls: Sequence[str], total: int, store: Store) -> list[Entry]:
    """Return the objects of a brace expansion and the content of its folders.

    Raises UsageError: one of them does not exist.
    """
    wanted = sorted((parent_url(url), url, None) for url in urls)
    known = {entry.url: entry for _, entry in look_up(wanted, store)}
    others = list(dict.fromkeys(url for url in urls if url not in known))
    inside = in_threads(store.list, others)
    missing = [url for url, entries in zip(others, inside, strict=True) if not entries]
    if missing:
        message = _nothing(missing[0], store)
        if total > 1:  # of a series, in which all names are alike
            raise UsageError(f"{message}: {len(missing)} of {total} are not there")
        raise UsageError(with_hint(message, missing[0]))
    return [*(known[url] for url in urls if url in known), *(entry for entries in inside for entry in entries)]


def _nothing(url: str, store: Store) -> str:
    return f"{shown(url)} is empty: no image" if store.is_folder(url) else f"nothing at {shown(url)}"


def is_pattern(url: str) -> bool:
    """Whether a URL has the form of a glob or a brace range."""
    return _is_glob(url) or _BRACES.search(url) is not None


def buckets_of_pattern(url: str) -> list[str]:
    """Return a remote URL for each bucket, container or host that a brace range names: `s3://b-{1,2}/a`."""
    protocol, mark, rest = url.partition("://")
    store, slash, path = rest.partition("/")
    return [f"{protocol}{mark}{each}{slash}{path}" for each in _expand_braces(store)]


def _expand_braces(url: str) -> Iterator[str]:
    """Expand `{000..099}` (zero padding kept) and `{a,b}`.

    Raises UsageError: the braces stand for more than `MAX_BRACES` files.
    """
    total = 1
    for low, high, words in _BRACES.findall(url):
        total *= words.count(",") + 1 if words else abs(int(high) - int(low)) + 1
    if total > MAX_BRACES:
        raise UsageError(f"{shown(url)}: braces for {total} files; at most {MAX_BRACES}")
    return _expanded(url)


def _expanded(url: str) -> Iterator[str]:
    match = _BRACES.search(url)
    if match is None:
        yield url
        return
    low, high, words = match.groups()
    if words is None:
        width = max(len(low), len(high)) if "0" in (low[0], high[0]) else 0
        step = 1 if int(low) <= int(high) else -1
        choices = [f"{number:0{width}d}" for number in range(int(low), int(high) + step, step)]
    else:
        choices = words.split(",")
    for choice in choices:
        for rest in _expanded(url[match.end() :]):
            yield url[: match.start()] + choice + rest


def _is_glob(url: str) -> bool:
    # In an http URL '?' begins the query.
    return any(c in url for c in ("*[" if is_http(url) else "*?["))


def _glob(pattern: str, store: Store) -> Entries:
    """Return the objects a glob matches and the content of folders it matches. `**` is any number of folders."""
    folder = folder_of_pattern(pattern)
    wanted = pattern[len(folder) + 1 :].split("/")
    if len(wanted) == 1 and suffix_of(pattern) in FILE_SUFFIXES:
        entries = store.list_folder(folder)
    else:
        entries = store.list(folder)
    return Entries(entry for entry in entries if _matches(entry.url[len(folder) + 1 :].split("/"), wanted))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(names[skip:], pattern[1:]) for skip in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def folder_of_pattern(pattern: str) -> str:
    """Return the folder that holds all that a pattern names: that before the first `*`, `?`, `[` or `{`."""
    first = re.search(r"[*?\[{]", pattern)
    return pattern[: first.start()].rpartition("/")[0] if first else parent_url(pattern)
