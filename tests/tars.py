"""Tars as inputs: written in a few words, planned, read."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from segment.errors import UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.parts import Sample
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.client import Store

STORE = Store()


def tar(path: Path, *files: tuple[str, bytes] | str, **options: Any) -> Path:
    """Write a tar of files; a bare name holds itself."""
    with tarfile.open(path, "w", **options) as archive:
        for file in files:
            name, data = (file, file.encode()) if isinstance(file, str) else file
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def find(where: object, store: Store = STORE, **options: Any) -> Discovery:
    return discover(str(where), InputOptions(**options), store)


def samples(found: Discovery, store: Store = STORE, **options: Any) -> list[Sample]:
    return [sample for part in found.parts for sample in read_part(part, InputOptions(**options), store)]


def triples(found: Discovery, **options: Any) -> list[tuple[str, str, str | None]]:
    """Id, image and label of each sample, as text."""
    return [(s.id, s.image.decode(), s.label.decode() if s.label else None) for s in samples(found, **options)]


def refusal(where: object, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        find(where, **options)
    return str(caught.value)


def lost(found: Discovery) -> list[tuple[int, bool]]:
    """Number of lost images of each tar, and whether it is known."""
    return [(left.number, left.exact) for left in found.left_out if left.reason == "damaged"]
