"""Two drivers at once in mixed precision, whose masks differ, while the input and with it the plan grows."""

import dataclasses
import random
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segment.engines import Node
from segment.engines.local import LocalEngine
from segment.errors import SegmentError
from segment.images.mask_png import encode_mask
from segment.inputs.findings import LeftOut
from segment.metrics import Confusion
from segment.models.sessions.runtimes import BF16, capabilities
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.success import load_digests, write_success
from segment.output.tables import ImageRow
from segment.pipeline.worker import Worker
from segment.report.aggregate import write_report
from segment.runs.driver import run
from tests.reliability.tampering import change_json, ledger_of
from tests.runs import CLASSES, Notes, Place, read_rows

MIXED: dict[str, Any] = {"allow_mixed_precision": True, "runtime": "openvino", "min_agreement": 0, "part_size": 1}


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Each attempt at a part is of a node of its own: its precision is chance, and in bf16 its masks are others."""
    chance, commit = random.Random(7), Worker.commit

    def by_some_node(worker: Worker, part: Any, rows: Sequence[ImageRow], clock: Any, read_bytes: int) -> Any:
        clock.precision = chance.choice(["f32", "bf16"])
        if clock.precision == "bf16":
            mask = np.full((24, 32), chance.randrange(3), np.uint8)
            data, counts = encode_mask(mask), Confusion.of(mask, None, CLASSES)
            rows = [dataclasses.replace(row, mask=data, confusion=counts) for row in rows]
        time.sleep(0.01 * chance.random())
        return commit(worker, part, rows, clock, read_bytes)

    nodes = [Node("old", capabilities() - {BF16}), Node("new", capabilities() | {BF16})]
    monkeypatch.setattr(LocalEngine, "nodes", lambda engine: nodes)
    monkeypatch.setattr(Worker, "commit", by_some_node)
    return chance


def drive(place: Place, found: list[str], *, update: bool) -> None:
    """Run; note what the user would be told at the end, and a bug."""
    try:
        run(place.job(**MIXED), Notes(), update=update)
    except SegmentError as error:
        found.append(str(error))
    except Exception:
        found.append(traceback.format_exc())


def test_statistics_that_another_driver_deletes_are_told(tmp_path: Path) -> None:
    """Between listing and reading them."""
    ledger = ledger_of(tmp_path)
    with pytest.raises(SegmentError, match=r"stats/gone\.parquet has been lost: run the same `segment run` again"):
        ledger.shard_stats(["gone"])


def race(place: Place, chance: random.Random, *, update: bool) -> list[str]:
    found: list[str] = []
    drivers = [threading.Thread(target=drive, args=(place, found), kwargs={"update": update}) for _ in range(2)]
    for thread in drivers:
        thread.start()
        time.sleep(chance.choice([0, 0.05, 0.2]))
    for thread in drivers:
        thread.join()
    return found


def test_each_image_has_one_row_and_the_statistics_are_those_of_the_stored_masks(
    tmp_path: Path, chance: random.Random
) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        place = Place(tmp_path / str(number))
        for image in range(4):
            place.add(f"{image}.png", image, label=False)
        told = race(place, chance, update=False)
        for image in range(4, 6):
            place.add(f"{image}.png", image, label=False)
        place.add("1.png", 40, label=False)
        told += race(place, chance, update=True)
        assert not any("--verify" in line or "Traceback" in line for line in told), told  # nothing was damaged
        again: list[str] = []
        drive(place, again, update=True)
        assert again == []
        assert audit_run(ledger_of(place.output), deep=True).problems == ()
        assert sorted(row["id"] for row in read_rows(place.output)) == [f"{image}.png" for image in range(6)]


def test_numbers_of_a_driver_with_an_older_plan_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have written them to run.json just now, and that is no damage."""
    place = Place(tmp_path)
    place.add("0.png", 0)

    def late(*args: Any) -> None:
        change_json(place.output / "run.json", lambda record: record["input"].update(images=99))
        write_report(*args)

    monkeypatch.setattr("segment.runs.driver.write_report", late)
    assert place.run().report.complete
    assert audit_run(ledger_of(place.output)).problems == ()


def test_a_plan_that_is_updated_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading it and the numbers in run.json, which are the other driver's then."""
    place = Place(tmp_path)
    place.add("0.png", 0)
    place.run()
    ledger, record_input = ledger_of(place.output), Ledger.record_input
    record, plan = ledger.read_run_and_plan()
    load_digests(ledger)

    def meanwhile(ledger: Ledger, plan: Plan, fingerprint: str) -> None:
        plan = ledger.replace_plan(plan.with_left_out([LeftOut("hidden", 1, {".png": 1}, ("in/.a",))]))
        record_input(ledger, plan, fingerprint)

    monkeypatch.setattr(Ledger, "record_input", meanwhile)
    with pytest.raises(SegmentError, match=r"another driver has updated the plan .*: run the same command again"):
        list(write_success(ledger, plan, {}, record["fingerprint"]))
