"""The folder of a run: where its objects are, which of them exist, and the marks of a run that is complete."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from segment.errors import SegmentError, TooManyBytes
from segment.output.damage import read_checked
from segment.output.manifest import MANIFEST, Digests, masks_path, stats_path
from segment.output.plan import Plan
from segment.output.signing import SIGNATURE, signer_of
from segment.output.stored import Stored
from segment.store.bounds import MOST_JSON
from segment.store.client import Entry, Store
from segment.store.names import skip_reason
from segment.store.urls import join_url

SUCCESS = "_SUCCESS"
_MAGIC = b"PAR1"  # with which a Parquet file begins
_PARQUET = re.compile(r"\.(parquet|parq|pq)(/|$)", re.IGNORECASE)
_IS_MASK = re.compile(r"(^|/)_[^/]*\.tif$")  # in a file of its own


class RunFolder:
    """Finds and writes the objects of the run below one output prefix.

    Attributes:
        digests: what is known of the run's objects; grows as they are written and read.
    """

    def __init__(self, store: Store, output: str) -> None:
        self.store = store
        self.output = output
        self.digests = Digests()

    def url(self, *names: str) -> str:
        """Return the URL of an object or folder below the output."""
        return join_url(self.output, *names)

    def masks_url(self, shard: str, part: str) -> str:
        """Return the URL of the masks file of a part; its existence is the commit of the part."""
        return join_url(self.output, masks_path(shard, part))

    def stats_url(self, shard: str) -> str:
        """Return the URL of the statistics of a shard."""
        return join_url(self.output, stats_path(shard))

    def write_object(self, path: str, data: bytes, rows: int | None = None) -> None:
        """Write an object that the manifest lists; `rows` of a Parquet file."""
        self.store.write(join_url(self.output, path), data)
        self.digests.made(Stored.of(path, data, rows))

    def has_masks(self) -> bool:
        """Return whether any object exists under `masks/`."""
        return bool(self.listed("masks"))

    def entries(self, folder: str, *, irregular: bool = False) -> dict[str, Entry]:
        """Return the objects below a folder that a reader may count, by path below the output.

        These are, at any depth, objects with a Parquet suffix in any case, hidden or not, those in a folder with such a
        suffix, masks in files of their own, and every object that is not hidden: `pyarrow.dataset` reads a copy
        `x.parquet.bak`, too. Files that operating systems leave there are not counted, unless they are Parquet files.
        `irregular`: as of `Store.list`.
        """
        below = self.output.removesuffix("/") + "/"
        listed = self.store.list(self.url(folder), irregular=irregular)
        found = {entry.url.removeprefix(below): entry for entry in listed}
        return {
            path: entry for path, entry in found.items() if self._is_counted(path.removeprefix(f"{folder}/"), entry)
        }

    def _is_counted(self, path: str, entry: Entry) -> bool:
        if _PARQUET.search(path) or _IS_MASK.search(path):
            return True
        reason = skip_reason(path)
        if reason != "system" or 0 <= entry.size < len(_MAGIC):
            return reason is None
        with suppress(FileNotFoundError, SegmentError):  # gone since, or no file
            return self.store.read(entry.url, 0, len(_MAGIC)) == _MAGIC
        return False

    def listed(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of `entries` by path below the folder, but for masks in files of their own."""
        found = {path.removeprefix(f"{folder}/"): entry.size for path, entry in self.entries(folder).items()}
        return {path: size for path, size in found.items() if not _IS_MASK.search(path)}

    def finished_shards(self) -> set[str]:
        """Return the shards with statistics; these are written after the last part of a shard is committed."""
        found = (path for path in self.listed("stats") if "/" not in path and path.endswith(".parquet"))
        return {path.removesuffix(".parquet") for path in found}

    def listed_parts(self) -> dict[tuple[str, str], int]:
        """Return the size in bytes of every committed part, planned or not, by shard and part id; one listing."""
        found = ((path.split("/"), size) for path, size in self.listed("masks").items() if path.endswith(".parquet"))
        return {(names[0], names[1].removesuffix(".parquet")): size for names, size in found if len(names) == 2}

    def succeed(self, totals: Mapping[str, int], fingerprint: str) -> None:
        """Write `_SUCCESS` with the totals of a successful audit, and no digests; see `success.write_success`."""
        self.store.write(self.url(SUCCESS), to_json({**totals, "fingerprint": fingerprint}))

    def read_record(self, name: str, most: int = MOST_JSON) -> bytes | None:
        """Return the bytes of a small file such as `run.json`: none of one that has more than `most`.

        None if there is none.
        """

        def read() -> bytes | None:
            try:
                return self.store.read_if_exists(self.url(name), most=most)
            except TooManyBytes:
                return b""

        return read_checked(self.url(name), read)

    def is_complete(self) -> bool:
        """Return whether `_SUCCESS` exists."""
        return self.store.exists(self.url(SUCCESS))

    def remove_success(self) -> None:
        """Delete `_SUCCESS`, and its signature before it, if it exists."""
        if self.is_complete():  # deleting a missing object would already need the permission to delete
            self._delete_if_there(SIGNATURE)
            self.store.delete(self.url(SUCCESS))

    def signed_by(self) -> str:
        """Return the id of the key by which `_SUCCESS` says to be signed, not verified; `""` if it is not signed."""
        return signer_of(self.read_record(SIGNATURE))

    def known_parts(self, plan: Plan) -> set[str]:
        """Return the ids of the parts of a plan whose masks files are known by their digests."""
        parts = plan.parts_by_shard().items()
        return {part for shard, held in parts for part in held if self.digests.get(masks_path(shard, part))}

    def begin_work(self, pending: Plan) -> None:
        """Delete `_SUCCESS` and the manifest, and forget what is known of the parts that will be made.

        What is known of the others stays in memory. A run that is killed reads them again.
        """
        self.remove_success()
        self._delete_if_there(MANIFEST)
        parts = pending.parts_by_shard()
        self.digests.forget(masks_path(shard, part) for shard, held in parts.items() for part in held)

    def _delete_if_there(self, name: str) -> None:
        if self.store.exists(self.url(name)):
            self.store.delete(self.url(name))


def to_json(value: Mapping[str, Any]) -> bytes:
    """Serialise `run.json`, `_SUCCESS` or `summary.json`: keys sorted, one per line."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
