"""One flipped bit of every byte of what a run leaves: `segment audit --deep` tells it, or the same content is decoded.

A sample of the bytes in `make test`, each of them in `make test-all`.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segment.errors import SegmentError
from segment.output.audit import audit_run
from segment.output.manifest import MANIFEST, Digests
from segment.output.mask_tiff import MaskFile
from segment.output.part_audit import PartAuditor
from segment.output.plan import Plan
from segment.output.success import load_digests
from segment.output.tables import read_masks, read_table
from segment.pipeline import large_images
from tests.pipeline.test_large_images import TiledPlace
from tests.reliability.tampering import ledger_of, masks_files

SLOW = pytest.mark.slow
WHOLE = [pytest.param(range(start, 10**9, 4), marks=SLOW, id=f"each-{start}") for start in range(4)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of three images: one whose mask has a file of its own, one in its row, one that is broken."""
    place = TiledPlace(tmp_path_factory.mktemp("done"))
    place.add_mosaic("large.png", 40, 50)
    place.add_mosaic("small.png", 20, 30)
    place.write("x.png", b"no image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_images, "MOST_PNG_PIXELS", 1000)
        place.run(part_size=4)
    assert problems(place.output) == []
    return place.output


@pytest.fixture
def output(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done, tmp_path / "out")
    return tmp_path / "out"


def problems(output: Path) -> list[str]:
    """What an audit finds; that it cannot read the plan or `run.json` is an answer, too."""
    try:
        return list(audit_run(ledger_of(output), deep=True).problems)
    except SegmentError as error:
        return [str(error)]


def flips(data: bytes, places: range) -> Iterator[tuple[int, bytes]]:
    """Yield data with one flipped bit, a bit of each of these places that there are."""
    for at in range(places.start, len(data), places.step):
        yield at, data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def pixels(data: bytes) -> list[Any]:
    return np.concatenate(list(MaskFile(io.BytesIO(data)).strips())).tolist()


KINDS: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    "mask": ("masks/*/*.tif", pixels),
    "manifest": (MANIFEST, lambda data: list(Digests.from_bytes(data).objects())),
    "run": ("run.json", json.loads),
    "success": ("_SUCCESS", json.loads),
    "plan": ("plan.parquet", Plan.from_bytes),
}
STEPS = {"mask": 31, "manifest": 97, "run": 151, "success": 13, "plan": 331}


# What only a signature guards: an audit says that it cannot check these without `_SUCCESS`.
UNPROVED = {"job", "versions", "weights", "proof", "input"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [None, *WHOLE])
def test_a_flipped_bit_is_told_or_changes_nothing(output: Path, kind: str, places: range | None) -> None:
    pattern, decode = KINDS[kind]
    (file,) = output.glob(pattern)
    data = file.read_bytes()
    content = decode(data)
    for at, changed in flips(data, places or range(0, len(data), STEPS[kind])):
        file.write_bytes(changed)
        if not problems(output):
            assert kind == "success", at  # blanks of it; the others have a digest
            assert decode(changed) == content, at


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "success"])
@pytest.mark.parametrize("places", [None, *WHOLE])
def test_so_it_is_where_no_digest_guards_it(output: Path, kind: str, places: range | None) -> None:
    """In a run without `_SUCCESS`, and without a manifest where that is not the flipped file itself."""
    (output / "_SUCCESS").unlink()
    if kind != "manifest":
        (output / MANIFEST).unlink()
    pattern, decode = KINDS[kind]
    (file,) = output.glob(pattern)
    data = file.read_bytes()
    content = decode(data)
    for at, changed in flips(data, places or range(0, len(data), STEPS[kind])):
        file.write_bytes(changed)
        if kind == "plan" and _is_read_as(content, output):
            continue  # an audit, which is three times slower, sees no more of it
        if not problems(output):
            found = decode(changed)
            if kind == "run":  # a key of another name is read by nobody
                found = content | {key: found.get(key) for key in content if key not in UNPROVED}
            assert found == content, at


def _is_read_as(plan: Plan, output: Path) -> bool:
    try:
        return ledger_of(output).read_plan() == plan
    except SegmentError:
        return True  # told


# --- masks files and statistics, by the auditor of their kind --------------------------------------------------------

# Whether there is a manifest, and the step from byte to byte.
FLIPS = [(True, 47), (False, 23), pytest.param(True, 1, marks=SLOW), pytest.param(False, 1, marks=SLOW)]


@pytest.mark.parametrize(("with_manifest", "step"), FLIPS)
def test_a_flipped_bit_of_a_masks_file_is_told_or_changes_nothing(output: Path, with_manifest: bool, step: int) -> None:
    file, ledger = masks_files(output)[0], ledger_of(output)
    data, rows = file.read_bytes(), pq.ParquetFile(file).read()
    run_record, plan = ledger.read_run_and_plan()
    (part,) = plan.parts()
    if with_manifest:
        load_digests(ledger)
    auditor = PartAuditor(ledger, run_record, ledger.card_of(run_record), deep=True)
    for at, changed in flips(data, range(0, len(data), step)):
        file.write_bytes(changed)
        if not auditor.audit(part).faults:
            assert not with_manifest
            assert read_masks(io.BytesIO(changed)).equals(rows), at


@pytest.mark.parametrize(("with_manifest", "step"), FLIPS)
def test_a_flipped_bit_of_statistics_is_told_or_changes_nothing(output: Path, with_manifest: bool, step: int) -> None:
    file, ledger = min(output.glob("stats/*")), ledger_of(output)
    data, card = file.read_bytes(), ledger.card_of(ledger.read_run_and_plan()[0])
    table, stats = read_table(data), ledger.shard_stats([file.stem])[file.stem]
    for at, changed in flips(data, range(0, len(data), step)):
        file.write_bytes(changed)
        fresh = ledger_of(output)
        if with_manifest:
            load_digests(fresh)
        try:
            same = fresh.shard_stats([file.stem])[file.stem] == stats and fresh.holds_stats(file.stem, stats, card)
        except SegmentError:
            continue
        assert not with_manifest
        assert not same or read_table(changed).equals(table), at
