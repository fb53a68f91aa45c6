"""The rows of committed images, which are found by id or score."""

import tracemalloc
from pathlib import Path

from segment.output.ledger import Ledger
from segment.report.rows import find_rows, id_of, row_of
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.runs import Place


def test_a_row_holds_its_own_image_and_not_those_of_its_part(tmp_path: Path) -> None:
    """So that the rows of 100,000 ids have room."""
    place = Place(tmp_path)
    ids = [f"{number:02}.png" for number in range(64)]
    for number, name in enumerate(ids):
        place.add(name, number)
    place.run(part_size=64)
    ledger = Ledger(Store(), f"file://{place.output}")
    plan = task_and_plan(ledger)[1]
    tracemalloc.start()
    found = find_rows(ledger, plan, ids)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 64 * 3000
    rows = [row for name in ids for row in found[name]]
    assert [id_of(ledger, row) for row in rows] == ids
    assert [row_of(ledger, row, ["id"]) for row in rows[::20]] == [{"id": name} for name in ids[::20]]
    assert {(row.committed_in, row.images) for row in rows} == {(part.id, 64) for part in plan.between(0, 1)}
