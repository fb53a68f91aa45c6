"""Unique file names for images: relative paths that are safe on any file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.inputs.parts import REPEATED
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.store.names import IMAGE_SUFFIXES, safe_path, suffix_of

_DIGITS = 16  # hexadecimal digits of a hash that makes a name unique among a million images
_MARKED = re.compile(rf"(.*)-[0-9a-f]{{{_DIGITS}}}", re.DOTALL | re.IGNORECASE)


class Names:
    """Unique file names for a set of images; a name depends on shard and id, and on the ids of the other images.

    The name is the id without its suffix, changed where it is no safe path (`safe_path`). If several images share a
    name (`a.jpg` and `a.png`; the same key in two tars; `A` and `a`, which some file systems do not distinguish), each
    of them gets 16 hexadecimal digits appended. So does an image whose own name ends like that.

    Args:
        ids: of all images, repeated where images share one. They take 8 bytes of memory each.
    """

    def __init__(self, ids: Iterable[str], suffix: str = ".png") -> None:
        self._suffix = suffix
        self._shared = _repeated(np.fromiter((_hash(safe_path(name, suffix)) for name in ids), np.uint64))

    @staticmethod
    def of_run(ledger: Ledger, plan: Plan, suffix: str = ".png", of: Sequence[str] | None = None) -> Names:
        """Return the names for a run, or, in a tenth of the time, for the images `of` of it.

        Ids come from the plan; those of Parquet input from the committed parts.
        """
        every = _ids(ledger, plan)
        if of is not None:
            kept = _kept(pa.array(of, pa.string())).unique()
            every = (ids.filter(pc.is_in(_kept(ids), kept)) for ids in every)
        return Names(chain.from_iterable(ids.to_pylist() for ids in every), suffix)

    def file(self, shard: str, name: str) -> str:
        """Return the relative path of the file of an image."""
        safe = safe_path(name, self._suffix)
        if self._needs_digits(safe):
            safe += "-" + hashlib.sha256(f"{shard}\n{name}".encode()).hexdigest()[:_DIGITS]
        return f"{safe}{self._suffix}"

    def is_shared(self, name: str) -> bool:
        """Return whether another image has the name of this one, but for suffix, case or shard."""
        return _hash(safe_path(name, self._suffix)) in self._shared

    def is_changed(self, shard: str, name: str) -> bool:
        """Return whether the file name of an image is not its id with the suffix of the files."""
        stem = name[: name.rindex(".")] if suffix_of(name) in IMAGE_SUFFIXES else name
        return self.file(shard, name) != f"{stem}{self._suffix}"

    def _needs_digits(self, safe: str) -> bool:
        if _hash(safe) in self._shared:
            return True
        marked = _MARKED.fullmatch(safe)
        return marked is not None and self._needs_digits(marked[1])


def _ids(ledger: Ledger, plan: Plan) -> Iterator[pa.ChunkedArray]:
    """Yield the ids of all images but the error rows of repeated ids, which get no file."""
    for members in plan.each_members():
        sizes = pc.struct_field(members, ["image", "size"])
        yield pc.struct_field(members, ["id"]).filter(pc.not_equal(sizes, REPEATED))
    held = plan.table["format"].to_pylist()
    numbers = [number for number in numbers_of(plan, ledger.committed(plan)) if held[number] == "parquet"]
    for _, table in part_tables(ledger, plan, numbers, ["id", "error"]):
        repeated = pc.starts_with(pc.fill_null(table["error"], ""), "duplicate_id:")
        yield table["id"].filter(pc.invert(repeated))


def _kept(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return what no rule of names changes: digits, but those of a mark. Ids that differ in it share no name."""
    return pc.replace_substring_regex(ids, rf"-[0-9a-fA-F]{{{_DIGITS}}}|[^0-9-]+|-", "")


def _repeated(hashes: NDArray[np.uint64]) -> frozenset[int]:
    found, counts = np.unique(hashes, return_counts=True)
    return frozenset(found[counts > 1].tolist())


def _hash(name: str) -> int:
    """Return 64 bits of a name's hash, equal for names that differ in case or Unicode composition only."""
    caseless = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
    return int.from_bytes(hashlib.sha256(caseless.encode()).digest()[:8], "big")
