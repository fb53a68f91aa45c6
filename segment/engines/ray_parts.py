"""The parts of a plan as a source of Ray Data: what the Read operator of every job reads."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from segment.engines.ray_blocks import PACKED_SCHEMA, packed
from segment.output.plan import Plan


class _Rows:
    """Returns rows of a plan, which are unpacked when they are sent to a worker."""

    def __init__(self, plan: Plan, start: int, stop: int) -> None:
        self._plan, self._start, self._stop = plan, start, stop

    def __call__(self) -> pa.Table:
        return self._plan.rows(self._start, self._stop)

    def __reduce__(self) -> tuple[Any, ...]:  # of a slice Arrow would send the whole
        return functools.partial, (_itself, self().take(pa.array(range(self._stop - self._start))))


def _itself(rows: pa.Table) -> pa.Table:
    return rows


class PartSource(Datasource):  # type: ignore[misc]  # Ray is not typed
    """A plan's parts, in blocks of consecutive ones.

    Args:
        blocks: (first part, number of parts) of each read task.
        read: makes tables of a row a part from rows of the plan, in a worker; by default the rows themselves are one
            row, see `packed`.
        image_bytes: what an image takes in those tables, in bytes.
        name: of the operator, after `Read`.
    """

    def __init__(
        self,
        plan: Plan,
        blocks: Sequence[tuple[int, int]],
        read: Callable[[pa.Table], Iterable[pa.Table]] | None = None,
        image_bytes: int = 0,
        name: str = "Parts",
    ) -> None:
        super().__init__()
        self._plan = plan
        self.blocks = blocks
        self._read = read
        self._image_bytes = image_bytes
        self._part_bytes = plan.nbytes // len(plan)
        self._name = name

    def get_name(self) -> str:
        return self._name

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all tables together."""
        return sum(task.metadata.size_bytes for task in self._tasks)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One for each block, in the order of the plan, whatever parallelism Ray wishes."""
        return self._tasks

    @functools.cached_property
    def _tasks(self) -> list[ReadTask]:  # Ray asks several times
        ends = np.concatenate([[0], np.cumsum(pc.subtract(self._plan.table["stop"], self._plan.table["start"]))])
        return [
            self._read_task(start, length, int(ends[start + length] - ends[start])) for start, length in self.blocks
        ]

    def _read_task(self, start: int, length: int, images: int) -> ReadTask:
        read, rows = self._read, _Rows(self._plan, start, start + length)

        def read_parts() -> Iterable[pa.Table]:
            return [packed(rows())] if read is None else read(rows())

        size = self._part_bytes * length + self._image_bytes * images
        number = 1 if read is None else length
        metadata = BlockMetadata(num_rows=number, size_bytes=size, input_files=None, exec_stats=None)
        return ReadTask(read_parts, metadata, schema=PACKED_SCHEMA if read is None else None)
