"""Labelled pictures of known scores in a folder and, the same, in a bucket of the S3 server."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import segment
from segment.models.card import load_card
from segment.store.client import Store
from tests.datasets import FORMATS, Item
from tests.jobs import model
from tests.planted import Expected, planted
from tests.s3 import S3Server

# rclone answers a ranged read with the checksum of the whole object.
RCLONE = {
    "config_kwargs": {"response_checksum_validation": "when_required", "request_checksum_calculation": "when_required"}
}
SIZE = 96  # pixels: every class has room for its planted errors


@dataclass(frozen=True)
class World:
    """Labelled pictures of known scores, on disk and in a bucket.

    Attributes:
        folder, bucket: hold the same objects: `files/`, `tars/`, `parquet/`, `list/`, a card and its weights.
        results: a bucket to write to.
        options: storage options that reach the server.
        env: environment variables that do.
        model: paths of card and weights in `folder`.
    """

    folder: Path
    bucket: str
    results: str
    options: dict[str, Any]
    env: dict[str, str]
    model: dict[str, str]
    items: list[Item]
    expected: Expected

    @property
    def store(self) -> Store:
        return Store(self.options)

    def job(self, base: str, kind: str, output: str, **settings: Any) -> segment.Job:
        """A job over one of the formats, everything below `base`; without the proof of what `auto` chooses."""
        values = {**self.at(base, kind), "output": output, "part_size": 2, "workers": "1", "min_agreement": 0}
        return segment.Job(**values, **settings)

    def at(self, base: str, kind: str) -> dict[str, Any]:
        """Input, labels, card and weights as a job names them, everything below `base`."""
        paths = {**self._inputs[kind], **self.model}
        return {name: value.replace(str(self.folder), base) for name, value in paths.items()}

    @property
    def _inputs(self) -> dict[str, dict[str, str]]:
        files = self.folder / "files"
        return {
            "files": {"input": str(files / "images"), "labels": str(files / "labels")},
            "tars": {"input": str(self.folder / "tars")},
            "parquet": {"input": str(self.folder / "parquet")},
            "list": {"input": str(self.folder / "list" / "val.txt")},
        }


def make_world(folder: Path, server: S3Server, name: str) -> World:
    """Make the data in `folder` and in the buckets `<name>-data` and `<name>-results`."""
    made = model(folder, height=SIZE, width=SIZE)
    items, expected = planted(load_card(made["model"]), labelled=6, bare=0)
    for kind, write in FORMATS.items():
        write(folder / kind, items)
    options = {**server.options, **RCLONE}
    bucket, results = server.bucket_url(f"{name}-data"), server.bucket_url(f"{name}-results")
    upload(folder, bucket, Store(options))
    return World(folder, bucket, results, options, server.env, made, items, expected)


def upload(folder: Path, bucket: str, store: Store) -> None:
    """Copy every file below `folder` to the same name in `bucket`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.write(f"{bucket}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def rows(store: Store, output: str) -> dict[str, dict[str, Any]]:
    """Every row of a run's masks by stem of the image's name."""
    found = [
        row
        for entry in store.list(f"{output}/masks")
        for row in pq.ParquetFile(io.BytesIO(store.read(entry.url))).read().to_pylist()
    ]
    by_stem = {Path(row["id"]).stem: row for row in found}
    assert len(by_stem) == len(found)
    return by_stem
