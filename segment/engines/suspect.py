"""A part that killed its worker: it is run image by image until the image that kills is an error row."""

from collections import Counter
from collections.abc import Collection, Sequence

from segment.engines.worker_process import ProcessExit
from segment.errors import sample_error_text
from segment.inputs.parts import Part, image_uri
from segment.output.results import PartResult
from segment.output.tables import ImageRow
from segment.pipeline.stages import Clock, Task
from segment.pipeline.worker import Worker
from segment.store.names import row_id

_MAX_DEATHS = 2  # at an image, or while the part is read: one may be an accident
_READING = -1  # the position that stands for reading the part
RowGroup = tuple[str, int]  # URL and number of a row group of a Parquet file
StuckImages = dict[str, set[int]]  # by part: the indices of images whose decoding has no end


def row_group_of(part: Part) -> RowGroup | None:
    """Return the row group that a part is of, and that is read as a whole; None for other formats."""
    return (part.url, part.row_group) if part.format == "parquet" else None


class Suspect:
    """Progress of such a part, over all processes that ran it.

    An image at which two processes died becomes an error row. If two died while they read the part, all images without
    a row do. Only the death of a process that had asked for work counts.

    Args:
        stuck: indices of images that have been found to be decoded without an end: they are not tried again.
    """

    def __init__(self, part: Part, stuck: Collection[int] = ()) -> None:
        self.part, self._stuck = part, stuck
        self._images: list[tuple[str, str, int]] | None = None  # id, URL and index
        self._rows: dict[int, ImageRow] = {}
        self._deaths: Counter[int] = Counter()
        self._is_read = False

    def begin(self) -> tuple[Part, list[int] | None]:
        """Return the work of the next process: the part, and the positions of the images to run; None for all."""
        self._is_read = False
        if self._images is None and self._stuck:
            return self.part, [
                index - self.part.start for index in range(self.part.start, self.part.stop) if index not in self._stuck
            ]
        return self.part, None if self._images is None else self._left()

    def take(self, answer: list[tuple[str, str, int]] | ImageRow) -> None:
        """Take an answer of a process: first id, URL and index of all images, then row after row."""
        if isinstance(answer, list):
            self._images, self._is_read = answer, True
            stuck = [position for position in self._left() if answer[position][2] in self._stuck]
            self._condemn_each(stuck, ProcessExit("stuck"))
        else:
            self._rows[self._left()[0]] = answer

    def blame(self, end: ProcessExit) -> None:
        """Count the death of the process against the image at which it died."""
        at = self._left()[0] if self._is_read else _READING
        self._deaths[at] += _MAX_DEATHS if at != _READING and end.stuck_at else 1
        if self._deaths[at] < _MAX_DEATHS:
            return
        if at == _READING:
            self.condemn(end)
        else:
            self._condemn_each([at], end)

    def condemn(self, end: ProcessExit) -> None:
        """Let every image without a row be an error row: two processes died while they read the part, or its like."""
        self._images = self._images or self._named()
        self._condemn_each(self._left(), end)

    def _condemn_each(self, positions: Sequence[int], end: ProcessExit) -> None:
        assert self._images is not None
        code = "out_of_memory" if end.is_over_budget else "killed_worker"
        for position in positions:
            row = ImageRow(*self._images[position], None, sample_error_text(code), None, None, None, None)
            self._rows[position] = row

    @property
    def is_unreadable(self) -> bool:
        """Two processes died while they read the part."""
        return self._deaths[_READING] == _MAX_DEATHS

    @property
    def is_done(self) -> bool:
        """Every image has its row."""
        return self._images is not None and not self._left()

    def commit(self, task: Task) -> PartResult:
        """Write the part's rows."""
        return Worker(task, None).commit(self.part, [row for _, row in sorted(self._rows.items())], Clock(), 0)

    def _left(self) -> list[int]:
        return [position for position in range(len(self._images or ())) if position not in self._rows]

    def _named(self) -> list[tuple[str, str, int]]:
        """Return id, URL and index of the images of a part that cannot be read, from the plan."""
        part = self.part
        if part.members:
            named = [(member.id, image_uri(part, member.id, member.image)) for member in part.members]
        else:
            named = [(name, image_uri(part, name)) for name in map(row_id, range(part.start, part.stop))]
        return [(name, uri, index) for index, (name, uri) in enumerate(named, part.start)]
