"""Tables as comma-separated values, for spreadsheets and other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from segment.report.aggregate import RunReport, classes_table
from segment.store.foreign_text import in_cell

_COLUMNS = {"class_name": "class"}


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
    """Return one row per class: counts, and IoU (0-1) under each convention, as in `report/classes.parquet`."""
    table = classes_table(report)
    names = ["class_name", *(name for name in table.column_names if name != "class_name")]
    rows = (list(row.values()) for row in table.select(names).to_pylist())
    return csv_text((_COLUMNS.get(name, name) for name in names), rows)
