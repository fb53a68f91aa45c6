"""The class table of a report as comma-separated values, for spreadsheets and other programs."""

from __future__ import annotations

import csv
import io

from segment.report.aggregate import RunReport, classes_table
from segment.store.foreign_text import in_cell

_COLUMNS = {"class_name": "class"}


def to_csv(report: RunReport) -> str:
    """Return one row per class: counts, and IoU (0-1) under each convention, as in `report/classes.parquet`.

    RFC 4180: lines end in CRLF; fields with a comma, quote or line break are quoted. A name that a spreadsheet would
    read as a formula gets a leading apostrophe. Undefined values are empty.
    """
    table = classes_table(report)
    names = ["class_name", *(name for name in table.column_names if name != "class_name")]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([_COLUMNS.get(name, name) for name in names])
    for row in table.select(names).to_pylist():
        writer.writerow([in_cell(value) for value in row.values()])
    return buffer.getvalue()
