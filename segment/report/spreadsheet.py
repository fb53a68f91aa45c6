"""Tables as comma-separated values, for spreadsheets and other programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from segment.report.aggregate import RunReport, class_rows
from segment.store.foreign_text import in_cell


def csv_text(head: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as RFC 4180 has it: lines end in CRLF; fields with a comma, quote or line break are quoted.

    A text that a spreadsheet would read as a formula gets a leading apostrophe. None is empty.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(head)
    writer.writerows([in_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def to_csv(report: RunReport) -> str:
    """Return one row per class: counts, IoU (0-1) under each convention, and its interval where it was computed."""
    rows = [{"class": row.pop("class_name"), **row} for row in class_rows(report)]
    return csv_text(rows[0], (list(row.values()) for row in rows))
