"""Weights: finds, downloads and verifies the files of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from segment.errors import ModelError, StoreError, UsageError
from segment.models.cache import Progress, cache_folder, fetch_once, read_whole, verify
from segment.models.card import ModelCard, WeightsFile
from segment.models.external_data import LARGEST_MODEL, embed_external_data
from segment.store.bounds import MOST_BYTES
from segment.store.client import Store
from segment.store.local_files import with_hint
from segment.store.names import basename, shown, suffix_of
from segment.store.urls import is_http, join_url, parent_url, redact_url, to_url

Format = Literal["onnx", "ir", "tflite"]
_FORMATS: dict[str, Format] = {".onnx": "onnx", ".xml": "ir", ".bin": "ir", ".tflite": "tflite"}


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's verified bytes, or those of several models.

    Attributes:
        format: `onnx`, `ir` (OpenVINO: graph is the .xml, data the .bin) or `tflite`; of an ensemble, `onnx` only if
            all members are.
        graph: bytes of the .onnx (external data embedded), .xml or .tflite file; empty for an ensemble.
        data: bytes of the .bin file; empty for the other formats.
        sha384: hexadecimal SHA-384 of graph followed by data; of an ensemble, of its members' digests.
        origin: path or URL of the graph, without secrets.
        members: models of an ensemble.
    """

    format: Format
    graph: bytes = field(repr=False)
    data: bytes = field(repr=False)
    sha384: str
    origin: str
    members: tuple[Weights, ...] = ()

    @property
    def models(self) -> tuple[Weights, ...]:
        """The members, or the one model."""
        return self.members or (self,)

    @property
    def size(self) -> int:
        """Size of graph and data of all models, in bytes."""
        return sum(len(model.graph) + len(model.data) for model in self.models)

    @property
    def file_digests(self) -> list[str]:
        """Hexadecimal SHA-384 of each file, as in a model card."""
        return [digest for model in self.models for digest in model._digests()]

    def _digests(self) -> list[str]:
        if not self.data:  # one file, whose digest is known
            return [self.sha384]
        return [hashlib.sha384(data).hexdigest() for data in (self.graph, self.data)]


def load_weights(
    card: ModelCard,
    reference: str | None = None,
    *,
    store: Store | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Load a model's weights: the user's file, or the card's files, which are downloaded once and verified.

    Args:
        reference: path or URL of an .onnx, .xml (its .bin beside it), .bin (its .xml beside it) or .tflite file;
            None for the files that the card names. Only the card's files must match its digests.
        store: reads URLs; the default has no storage options.
        cache: folder for downloads of the card's files; the default is `cache_folder()`.
        progress: called during a transfer with the file's name, bytes done and bytes in total.

    Raises:
        UsageError: `reference` is not a file of weights, the card is an ensemble and there is a `reference`, or the
            cache folder cannot be written.
        ModelError: the files are not those the card describes, or do not form one model.
        StoreError: a transfer failed permanently; the next call resumes it.
    """
    store = store or Store()
    report = progress or (lambda name, done, total: None)
    if reference is not None:
        if card.ensemble:
            raise UsageError(
                f"weights {shown(to_url(reference))}: model card {card.name} is an ensemble of "
                f"{len(card.ensemble)} models, and --weights names one: change the files in the card"
            )
        return _user_weights(to_url(reference), store, report)
    cache = cache or cache_folder()
    if card.ensemble:
        return _ensemble([_card_weights(card, member.weights, cache, store, report) for member in card.ensemble])
    return _card_weights(card, card.weights, cache, store, report)


def _ensemble(members: list[Weights]) -> Weights:
    formats = {member.format for member in members}
    served = next(kind for kind in ("tflite", "ir", "onnx") if kind in formats)
    digest = hashlib.sha384("".join(member.sha384 for member in members).encode()).hexdigest()
    return Weights(served, b"", b"", digest, " + ".join(member.origin for member in members), tuple(members))


def _user_weights(url: str, store: Store, report: Progress) -> Weights:
    suffix = suffix_of(url)
    if suffix not in _FORMATS:
        raise UsageError(
            f"weights {shown(url)}: weights are an .onnx, .tflite or .xml file (with its .bin beside it), not "
            f"'{suffix or basename(url)}': export it to one of these (in PyTorch: torch.onnx.export)"
        )
    if _FORMATS[suffix] == "ir":
        return _user_ir(url, suffix, store, report)
    graph = _user_file(url, store, report)
    if suffix == ".onnx":
        graph = _embedded(graph, url, _folder_reader(url, store, report))
    return _weights(_FORMATS[suffix], graph, b"", redact_url(url))


def _user_ir(url: str, suffix: str, store: Store, report: Progress) -> Weights:
    other = ".bin" if suffix == ".xml" else ".xml"
    partner = with_suffix(url, other)
    if not store.exists(url):
        raise _no_such_file(url)
    if not store.exists(partner):
        raise UsageError(
            f"weights {shown(url)}: an OpenVINO model is two files, and {shown(partner)} does not exist. "
            f"Put the {other} file beside the {suffix} file, under the same name"
        )
    xml, binary = (url, partner) if suffix == ".xml" else (partner, url)
    graph, data = _user_file(xml, store, report), _user_file(binary, store, report)
    return _weights("ir", graph, data, redact_url(xml))


def _user_file(url: str, store: Store, report: Progress) -> bytes:
    data = read_whole(url, store, report)
    if data is None:
        raise _no_such_file(url)
    if mistake := _common_mistake(data):
        raise ModelError(f"weights {shown(url)}: {mistake}")
    return data


def _no_such_file(url: str) -> UsageError:
    return UsageError(with_hint(f"weights {shown(url)}: there is no such file", url))


def _common_mistake(data: bytes) -> str:
    """Return the message for a file that users often confuse with a model; an empty string for any other file."""
    if not data:
        return "the file is empty"
    if data.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the model: download the model with `git lfs pull`"
    if data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not the model: use the URL of the file itself"
    return ""


def _embedded(graph: bytes, url: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return embed_external_data(graph, read)
    except ModelError as error:
        raise ModelError(f"{shown(url)}: {error}") from None


def _folder_reader(model_url: str, store: Store, report: Progress) -> Callable[[str], bytes]:
    """Return a function that reads a file by its name in the model's folder; see `embed_external_data`."""
    folder = parent_url(model_url)

    def read(name: str) -> bytes:
        if folder.startswith("file://"):
            _check_inside(Path(folder.removeprefix("file://")), name)
        elif is_http(folder):
            name = quote(name)  # the server must not decode `%2e%2e/`
        url = join_url(folder, name)
        entry = store.info(url)
        if entry is not None and entry.size > LARGEST_MODEL:
            raise ModelError(f"{name!r} is larger than the 2 GB limit of one ONNX file")
        data = read_whole(url, store, report)
        if data is None:
            raise FileNotFoundError(name)
        return data

    return read


def _check_inside(folder: Path, name: str) -> None:
    """Refuse a file that is, or may be, outside the folder.

    Raises:
        ModelError: a symbolic link leads out of the folder, or the file is a hard link.
        FileNotFoundError: there is no such regular file.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{name!r} is a link to a file outside the model's folder, which is not followed: replace it by a copy "
            "(cp -L)"
        )
    if not path.is_file():
        raise FileNotFoundError(name)
    if path.stat().st_nlink > 1:
        raise ModelError(f"{name!r} is a hard link, so it may be a file of another folder: replace it by a copy (cp)")


def _card_weights(
    card: ModelCard, files: Sequence[WeightsFile], cache: Path, store: Store, report: Progress
) -> Weights:
    kind, files = _ordered_files(card, files)
    contents = [_card_file(card, file, cache, store, report) for file in files]
    origin = redact_url(files[0].url)
    if kind == "onnx":
        contents = [_embedded(contents[0], files[0].url, _refuse_external)]
    return _weights(kind, contents[0], b"".join(contents[1:]), origin)


def _ordered_files(card: ModelCard, files: Sequence[WeightsFile]) -> tuple[Format, list[WeightsFile]]:
    """Return the format of a model's files, and the files with the graph first."""
    if not files:
        raise UsageError(
            f"model card {card.name} has no weights to download. Give the file with --weights; it is from: "
            f"{card.source or '(the card does not say)'}"
        )
    files = [file.model_copy(update={"url": to_url(file.url)}) for file in files]
    by_suffix = {suffix_of(file.url): file for file in files}
    if list(by_suffix) in ([".onnx"], [".tflite"]) and len(files) == 1:
        return _FORMATS[next(iter(by_suffix))], files
    if sorted(by_suffix) == [".bin", ".xml"]:
        return "ir", [by_suffix[".xml"], by_suffix[".bin"]]
    raise ModelError(
        f"model card {card.name}: its weights must be one .onnx or .tflite file, or an .xml and a .bin file, not "
        + " and ".join(basename(file.url) for file in files)
    )


def _refuse_external(name: str) -> bytes:
    raise ModelError(
        f"its tensors are in {name!r}, which the card's digest does not cover: a card's .onnx must be one file"
    )


def _card_file(card: ModelCard, file: WeightsFile, cache: Path, store: Store, report: Progress) -> bytes:
    if file.url.startswith("file://"):
        data = store.read_if_exists(file.url, most=max(file.size, MOST_BYTES))
        if data is None:
            how = "" if card.ensemble else ", or give the file with --weights"
            lost = f"model card {card.name}: its weights {shown(file.url)} do not exist"
            raise ModelError(f"{lost}: correct their url in the card{how}")
        verify(data, file)
        return data
    target = cache / f"{file.sha384}{suffix_of(file.url)}"  # cards with the same file share it
    try:
        return fetch_once(file, target, store, report)
    except FileNotFoundError:
        raise ModelError(
            f"model card {card.name}: its weights are no longer at {shown(file.url)} (not found). "
            f"{_manual_download(card, target)}"
        ) from None
    except StoreError as error:
        raise StoreError(f"{str(error).rstrip('.')}. {_manual_download(card, target)}") from None


def _manual_download(card: ModelCard, target: Path) -> str:
    how = "" if card.ensemble else "give it with --weights or "
    return f"Or download the file by other means, and {how}save it as {target}"


def with_suffix(url: str, suffix: str) -> str:
    """Replace the suffix of a URL; keep the query and the fragment of an http(s) URL."""
    if not is_http(url):
        return url[: -len(suffix_of(url))] + suffix
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path[: -len(suffix_of(url))] + suffix))


def _weights(kind: Format, graph: bytes, data: bytes, origin: str) -> Weights:
    digest = hashlib.sha384(graph)
    digest.update(data)
    return Weights(kind, graph, data, digest.hexdigest(), origin)
