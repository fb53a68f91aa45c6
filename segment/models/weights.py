"""Weights: find, fetch and verify them. What comes out is bytes that match their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from segment.errors import ModelError, StoreError, UsageError
from segment.models.cache import Progress, cache_folder, fetch_once, name_of, path_of, read_whole, suffix_of, verify
from segment.models.card import ModelCard, WeightsFile
from segment.models.external_data import LARGEST_MODEL, embed_external_data
from segment.store.client import Store
from segment.store.urls import join_url, parent_url, redact_url, to_url

Format = Literal["onnx", "ir", "tflite"]
_FORMATS: dict[str, Format] = {".onnx": "onnx", ".xml": "ir", ".bin": "ir", ".tflite": "tflite"}


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's verified bytes.

    Attributes:
        format: `onnx`, `ir` (OpenVINO: graph is the .xml, data the .bin) or `tflite`.
        graph: bytes of the .onnx (external data embedded), .xml or .tflite file.
        data: bytes of the .bin file; empty for the other formats.
        sha384: hexadecimal digest of graph followed by data.
        origin: where they came from, fit for printing.
    """

    format: Format
    graph: bytes = field(repr=False)
    data: bytes = field(repr=False)
    sha384: str
    origin: str

    @property
    def size(self) -> int:
        """Bytes of graph and data."""
        return len(self.graph) + len(self.data)

    @property
    def file_digests(self) -> list[str]:
        """SHA-384 of each file, hexadecimal, as model cards give them."""
        return [hashlib.sha384(data).hexdigest() for data in (self.graph, self.data) if data]


def load_weights(
    card: ModelCard,
    reference: str | None = None,
    *,
    store: Store | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Load a model's weights: a file of the user's, or the card's own, downloaded once and verified.

    Args:
        card: the model's card.
        reference: path or URL of an .onnx, .xml (its .bin beside it), .bin (its .xml beside it) or .tflite file;
            None for the files that the card names. Only those must match the card's digests.
        store: how to reach a URL; the default has no storage options.
        cache: folder for downloads of the card's files; the default is `cache_folder()`.
        progress: called with a file's name, bytes done and bytes in total while it is being transferred.

    Raises:
        UsageError: `reference` is no such file, or the cache folder cannot be written.
        ModelError: the files are not those the card describes, or cannot be one model.
        StoreError: a transfer failed for good; what has come so far is kept, the next call goes on there.
    """
    store = store or Store()
    report = progress or (lambda name, done, total: None)
    if reference is not None:
        return _users_weights(to_url(reference), store, report)
    return _card_weights(card, cache or cache_folder(), store, report)


def _users_weights(url: str, store: Store, report: Progress) -> Weights:
    suffix = suffix_of(url)
    if suffix not in _FORMATS:
        raise UsageError(
            f"--weights {redact_url(url)}: weights are an .onnx, .tflite or .xml file (with its .bin beside it), not "
            f"'{suffix or name_of(url)}'"
        )
    if _FORMATS[suffix] == "ir":
        return _users_ir(url, suffix, store, report)
    graph = _users_file(url, store, report)
    if suffix == ".onnx":
        graph = _embedded(graph, url, _reader_beside(url, store, report))
    return _weights(_FORMATS[suffix], graph, b"", redact_url(url))


def _users_ir(url: str, suffix: str, store: Store, report: Progress) -> Weights:
    other = ".bin" if suffix == ".xml" else ".xml"
    partner = _with_suffix(url, other)
    if not store.exists(url):
        raise _no_such_file(url)
    if not store.exists(partner):
        raise UsageError(
            f"--weights {redact_url(url)}: an OpenVINO model is two files, and {redact_url(partner)} is not there. "
            f"Put the {other} file beside the {suffix} file, under the same name"
        )
    xml, binary = (url, partner) if suffix == ".xml" else (partner, url)
    graph, data = _users_file(xml, store, report), _users_file(binary, store, report)
    return _weights("ir", graph, data, redact_url(xml))


def _users_file(url: str, store: Store, report: Progress) -> bytes:
    data = read_whole(url, store, report)
    if data is None:
        raise _no_such_file(url)
    if fault := _no_model(data):
        raise ModelError(f"--weights {redact_url(url)}: {fault}")
    return data


def _no_such_file(url: str) -> UsageError:
    return UsageError(f"--weights {redact_url(url)}: there is no such file")


def _no_model(data: bytes) -> str:
    """Say what a file is that people often have in place of a model; an empty string for anything else."""
    if not data:
        return "the file is empty"
    if data.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the model: fetch the model with `git lfs pull`"
    if data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not the model: use the link of the file itself"
    return ""


def _embedded(graph: bytes, url: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return embed_external_data(graph, read)
    except ModelError as error:
        raise ModelError(f"{redact_url(url)}: {error}") from None


def _reader_beside(model_url: str, store: Store, report: Progress) -> Callable[[str], bytes]:
    """Return a function that reads a file by its name inside the model's folder; see `embed_external_data`."""
    folder = parent_url(model_url)

    def read(name: str) -> bytes:
        if folder.startswith("file://"):
            _check_inside(Path(folder.removeprefix("file://")), name)
        elif folder.startswith(("http://", "https://")):
            name = quote(name)  # `%2e%2e/` must stay a name
        url = join_url(folder, name)
        entry = store.info(url)
        if entry is not None and entry.size > LARGEST_MODEL:
            raise ModelError(f"{name!r} is larger than the 2 GB that one ONNX file can hold")
        data = read_whole(url, store, report)
        if data is None:
            raise FileNotFoundError(name)
        return data

    return read


def _check_inside(folder: Path, name: str) -> None:
    """Refuse a file that is, or may be, another file outside the folder.

    Raises:
        ModelError: a symbolic link leads out, or the file has a second name somewhere (a hard link).
        FileNotFoundError: no such file, or not a plain one.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{name!r} is a link to a file outside the model's folder, which is not followed: put a copy in its place "
            "(cp -L)"
        )
    if not path.is_file():
        raise FileNotFoundError(name)
    if path.stat().st_nlink > 1:
        raise ModelError(
            f"{name!r} is a hard link, so it may be a file of some other folder: put a copy in its place (cp)"
        )


def _card_weights(card: ModelCard, cache: Path, store: Store, report: Progress) -> Weights:
    kind, files = _ordered_files(card)
    contents = [_card_file(card, file, cache, store, report) for file in files]
    origin = redact_url(files[0].url)
    if kind == "onnx":
        contents = [_embedded(contents[0], files[0].url, _refuse_external)]
    return _weights(kind, contents[0], b"".join(contents[1:]), origin)


def _ordered_files(card: ModelCard) -> tuple[Format, list[WeightsFile]]:
    """Return the format of a card's files, and the files with the graph first."""
    if not card.weights:
        raise UsageError(
            f"model card {card.name} names no weights to download: give the file with --weights. "
            f"Source: {card.source or 'the card does not say'}"
        )
    files = [file.model_copy(update={"url": to_url(file.url)}) for file in card.weights]
    by_suffix = {suffix_of(file.url): file for file in files}
    if list(by_suffix) in ([".onnx"], [".tflite"]) and len(files) == 1:
        return _FORMATS[next(iter(by_suffix))], files
    if sorted(by_suffix) == [".bin", ".xml"]:
        return "ir", [by_suffix[".xml"], by_suffix[".bin"]]
    raise ModelError(
        f"model card {card.name}: its weights must be one .onnx or .tflite file, or an .xml and a .bin file, not "
        + " and ".join(name_of(file.url) for file in files)
    )


def _refuse_external(name: str) -> bytes:
    raise ModelError(
        f"it keeps tensors in {name!r}, which the card's digest does not cover: a card's .onnx must be one file"
    )


def _card_file(card: ModelCard, file: WeightsFile, cache: Path, store: Store, report: Progress) -> bytes:
    if file.url.startswith("file://"):
        data = store.read_if_exists(file.url)
        if data is None:
            raise ModelError(f"model card {card.name}: its weights {file.url} are not there")
        verify(data, file)
        return data
    target = cache / f"{file.sha384}{suffix_of(file.url)}"  # by content: cards that share a file share it here
    try:
        return fetch_once(file, target, store, report)
    except FileNotFoundError:
        raise ModelError(
            f"model card {card.name}: its weights are no longer at {redact_url(file.url)} (not found). "
            f"{_by_hand(target)}"
        ) from None
    except StoreError as error:
        raise StoreError(f"{str(error).rstrip('.')}. {_by_hand(target)}") from None


def _by_hand(target: Path) -> str:
    return f"Or fetch the file elsewhere, and give it with --weights or put it at {target}"


def _with_suffix(url: str, suffix: str) -> str:
    path = path_of(url)
    other = path[: -len(PurePosixPath(path).suffix)] + suffix
    return other if path == url else urlunsplit(urlsplit(url)._replace(path=other))


def _weights(kind: Format, graph: bytes, data: bytes, origin: str) -> Weights:
    digest = hashlib.sha384(graph)
    digest.update(data)
    return Weights(kind, graph, data, digest.hexdigest(), origin)
