"""The manifest of a run, `manifest.parquet`: each of its objects with size, digests and number of rows.

It lists what others rely on: everything below `masks/` and `stats/`, and the figures in `report/`. `_SUCCESS` holds the
digests of the manifest, of `plan.parquet` and of `run.json`. The records of attempts (`runs/`), the page and
`README.md`, which the user may edit, are in no manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from segment.inputs.parts import Part
from segment.output.mask_files import masks_file_of
from segment.output.plan import Plan
from segment.output.stored import Stored
from segment.output.tables import ImageRow, read_table, to_parquet

MANIFEST = "manifest.parquet"
FIGURES = ("report/classes.parquet", "report/shards.parquet", "report/summary.json")
MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("md5", pa.string(), nullable=False),
        pa.field("rows", pa.int64()),
    ]
)

_MOST_UNPACKED = 32 << 20  # bytes, or so many times those of the file, most of which are digests that do not pack:
_MOST_TIMES = 16  # rows become Python objects of ten times their size


class Digests:
    """What is known of the objects of a run, from whoever made them, or read them first.

    Objects are kept in groups that come and go together: a masks file with its masks in files of their own, or one
    object alone. The path of the first one names the group. Thread-safe, as single operations of dictionaries are.
    """

    def __init__(self) -> None:
        self._groups: dict[str, tuple[Stored, ...]] = {}
        self._made: set[str] = set()
        self._disputed: set[str] = set()

    def made(self, *group: Stored) -> None:
        """Take objects that were written just now.

        Where they were written twice with other bytes (a GPU, another CPU), nobody here knows which of them the store
        holds: they have to be read.
        """
        name = group[0].path
        if name in self._made and self._groups.get(name) != group:
            self._disputed.add(name)
            self._groups.pop(name, None)
        elif name not in self._disputed:
            self._groups[name] = group
        self._made.add(name)

    def seen(self, *group: Stored) -> None:
        """Take objects that were read, unless they are known."""
        self._groups.setdefault(group[0].path, group)

    def forget(self, paths: Iterable[str]) -> None:
        """Forget groups whose objects will be made again."""
        for path in paths:
            self._groups.pop(path, None)
            self._made.discard(path)
            self._disputed.discard(path)

    def group(self, path: str) -> tuple[Stored, ...]:
        """Return a group by the path of its first object; empty if nothing is known of it."""
        return self._groups.get(path, ())

    def get(self, path: str) -> Stored | None:
        """Return the first object of a group."""
        return next(iter(self.group(path)), None)

    def objects(self) -> Iterator[Stored]:
        """Yield every object."""
        return (item for group in list(self._groups.values()) for item in group)

    def to_bytes(self, names: Iterable[str]) -> bytes:
        """Return the bytes of a manifest of the groups with these names, sorted by path."""
        found = sorted(item for name in names for item in self._groups[name])
        rows = [item._asdict() | {"sha256": item.sha256.hex(), "md5": item.md5.hex()} for item in found]
        return to_parquet(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA))

    @staticmethod
    def from_bytes(data: bytes) -> Digests:
        """Parse a manifest.

        Raises:
            pa.ArrowException, LookupError, TypeError, ValueError: the bytes are none.
        """
        table = read_table(data, most=max(_MOST_UNPACKED, _MOST_TIMES * len(data)))
        if not table.schema.remove_metadata().equals(MANIFEST_SCHEMA):
            raise ValueError("no manifest")
        for name, length in (("sha256", 64), ("md5", 32)):
            if not pc.all(pc.equal(pc.binary_length(table[name]), length), skip_nulls=False, min_count=0).as_py():
                raise ValueError("a digest of another length")
        if not len(table) or len(table["path"].unique()) != len(table):
            raise ValueError("lists nothing, or an object twice")
        columns = (table[name].to_pylist() for name in MANIFEST_SCHEMA.names)
        groups: dict[str, list[Stored]] = {}
        files = []
        for path, size, sha256, md5, rows in zip(*columns, strict=True):
            item = Stored(path, size, bytes.fromhex(sha256), bytes.fromhex(md5), rows)
            if masks_file_of(path):
                files.append(item)
            else:
                groups[path] = [item]
        for item in files:
            groups.setdefault(str(masks_file_of(item.path)), []).append(item)
        found = Digests()
        found._groups = {name: tuple(group) for name, group in groups.items() if group[0].path == name}
        return found


def masks_path(shard: str, part: str) -> str:
    """Return the path of the masks file of a part, below the output."""
    return f"masks/{shard}/{part}.parquet"


def stats_path(shard: str) -> str:
    """Return the path of the statistics of a shard, below the output."""
    return f"stats/{shard}.parquet"


def part_objects(part: Part, rows: Sequence[ImageRow], data: bytes) -> tuple[Stored, ...]:
    """Return what was written of a part: its masks file of these bytes, then masks in files of their own."""
    files = (row.mask_file for row in rows if row.mask_file)
    return (Stored.of(masks_path(part.shard, part.id), data, len(rows)), *files)


def planned_names(plan: Plan) -> list[str]:
    """Return the names of all groups of a complete run."""
    parts = plan.parts_by_shard()
    masks: Sequence[str] = [masks_path(shard, part) for shard, held in parts.items() for part in held]
    return [*masks, *map(stats_path, parts), *FIGURES]
