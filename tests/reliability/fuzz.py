"""Damaged input for every reader: `python -m tests.reliability.fuzz --minutes 5` (`make fuzz`).

The property: a clear `SegmentError` or `SampleError`, or a valid result. Never another exception, a crash, a hang or
unbounded memory. Sound files are damaged by Hypothesis, which shrinks what it finds; each reader has a process of its
own, with a limit on its memory and a time limit on each example.
"""

import argparse
import contextlib
import faulthandler
import io
import logging
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from segment.errors import SAMPLE_ERRORS, SampleError, SegmentError
from segment.images import codec
from segment.images.labels import LabelDecoder
from segment.images.mask_png import encode_mask
from segment.images.tiff_labels import TiffLabel
from segment.images.tiff_raster import TiffRaster
from segment.images.tiff_tags import TiffError, TiffPage
from segment.inputs.discover import discover
from segment.inputs.lists.list_rows import parse_rows
from segment.inputs.parquet import row_groups
from segment.inputs.parquet.pages import PageError, column_size
from segment.inputs.reads import read_part
from segment.job import InputOptions, make_job, read_job_file
from segment.metrics import Confusion
from segment.models.card import parse_card
from segment.output.ledger import Ledger
from segment.output.manifest import MANIFEST, Digests, masks_path, part_objects, stats_path
from segment.output.part_audit import PartAuditor
from segment.output.plan import Plan
from segment.output.shard_stats import ShardStats, stats_table
from segment.output.signing import signer_of
from segment.output.success import load_digests
from segment.output.tables import ImageRow, to_parquet, write_masks
from segment.store import retries
from segment.store.client import Store
from tests.reliability.fuzz_files import (
    MASK,
    PART,
    PICTURE,
    UNPACKED,
    sound_columns,
    sound_images,
    sound_jobs,
    sound_labels,
    sound_lists,
    sound_outputs,
    sound_responses,
    sound_shares,
    sound_tables,
    sound_tars,
    sound_windows,
    sound_works,
)
from tests.reliability.fuzz_tables import read_changed
from tests.runs import CARD, CARD_TOML, CLASSES, png

PATIENCE = 20.0  # seconds an example may take
MEMORY = 4 << 30  # bytes of address space beyond what the libraries take
MOST_PIXELS = 1_000_000
_INTEGERS = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"]


# --- readers ----------------------------------------------------------------------------------------------------------


def read_image(data: bytes, folder: Path) -> None:
    found = codec.decode(data, MOST_PIXELS)
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3
    assert 0 < found.shape[0] * found.shape[1] <= MOST_PIXELS


def read_label(data: bytes, folder: Path) -> None:
    refusals: list[SampleError] = []
    for encoding in ("auto", "index", "colour"):
        try:
            found = LabelDecoder(CARD.classes, encoding, {}).decode(data, 24, 32)  # type: ignore[arg-type]
        except SampleError as refusal:
            refusals.append(refusal)
            continue
        assert (found.dtype, found.shape) == (np.uint8, (24, 32))
        assert set(np.unique(found)) <= {*range(CLASSES), 255}
    if len(refusals) == 3:
        raise refusals[0]


def read_window(data: bytes, folder: Path) -> None:
    """An image and a label by window, whatever its size."""
    try:
        page = TiffPage(io.BytesIO(data))
    except TiffError as error:
        raise SampleError("undecodable", str(error)) from error
    image = TiffRaster(page, MOST_PIXELS)
    window = (image.height // 2, image.width // 3, min(20, -(-image.height // 2)), min(20, image.width // 2 + 1))
    assert image.read(*window).shape == (*window[2:], 3)
    with contextlib.suppress(SampleError):
        label = TiffLabel(page, (image.height, image.width), image.orientation, LabelDecoder(CARD.classes))
        assert set(np.unique(label.read(*window))) <= {*range(CLASSES), 255}


def read_input(name: str, most: int = 1 << 30) -> Callable[[bytes, Path], None]:
    """All that a run does with an input: plan it, freeze the plan, read every part."""

    def read(data: bytes, folder: Path) -> None:
        (folder / name).write_bytes(data)
        row_groups._files, row_groups._tables = row_groups.RecentCache(8), row_groups.RecentCache(2)
        options = InputOptions(part_size=2, max_row_group_bytes=most)
        found = discover(str(folder / name), options, Store())
        parts = list(Plan.from_bytes(Plan.of(found.parts).to_bytes()).parts())
        samples = [sample for part in parts for sample in read_part(part, options, Store())]
        assert len(samples) == found.images == sum(len(part) for part in parts)
        for sample in samples:
            sample.id.encode()
            assert sample.fault is None or sample.fault in SAMPLE_ERRORS
            assert len(sample.image) <= max(len(data), 1 << 16, UNPACKED if most == UNPACKED else 0)

    return read


def read_column(data: bytes, folder: Path) -> None:
    try:
        found = column_size(data)
    except PageError as error:
        raise SampleError("undecodable", str(error)) from error
    assert 0 <= found.unpacked <= found.most
    assert found.largest <= found.most or not found.most


def read_http(data: bytes, folder: Path) -> None:
    """What a server sends is read within the bounds of bytes, or given up in words; `search` bounds the time."""
    with socket.create_server(("127.0.0.1", 0)) as server, mock.patch.object(retries, "_ATTEMPTS", 1):
        threading.Thread(target=answer_once, args=(server, data), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.png"
        try:
            assert len(Store(seconds=10.0).read(url, most=1 << 16)) <= 1 << 16
        except FileNotFoundError as error:
            raise SampleError("missing") from error


def answer_once(server: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError), server.accept()[0] as connection:
        connection.recv(4096)
        connection.sendall(data)


def read_list(data: bytes, folder: Path) -> None:
    for name in ("0.png", "1.png", "a b.png"):
        (folder / name).write_bytes(png(PICTURE))
    refusals: list[SegmentError] = []
    for suffix in (".txt", ".csv", ".jsonl"):
        try:
            parse_rows(lambda: io.BytesIO(data), suffix, "list")
            if b"://" not in data:  # would go out into the world
                read_input(f"list{suffix}")(data, folder)
        except SegmentError as refusal:
            refusals.append(refusal)
    if len(refusals) == 3:
        raise refusals[0]


def read_card(data: bytes, folder: Path) -> None:
    parse_card(data.decode("utf-8", "replace"))


def read_job(data: bytes, folder: Path) -> None:
    (folder / "job.toml").write_bytes(data)
    make_job(read_job_file(str(folder / "job.toml")))


def read_output(data: bytes, folder: Path) -> None:
    ledger = Ledger(Store(), f"file://{folder}")
    for url in (ledger.url("plan.parquet"), ledger.masks_url(PART.shard, PART.id)):
        ledger.store.write(url, data)
    try:
        plan = ledger.read_plan()
        assert plan is not None
        list(plan.parts())
    except SegmentError:  # it is the other file, or damaged
        ledger.read_rows(PART.shard, PART.id, None)
    else:
        with contextlib.suppress(SegmentError):
            ledger.read_rows(PART.shard, PART.id, None)


def sound_objects() -> list[bytes]:
    """A masks file, statistics and a manifest: what an audit reads."""
    counts = Confusion.of(MASK, MASK, CLASSES)
    rows = [ImageRow("0.png", "s3://in/0.png", 0, (24, 32), None, encode_mask(MASK), counts, 1.0, 1.0)]
    data = write_masks(rows, shard=PART.shard, part=PART.id, fingerprint="f")
    digests = Digests()
    digests.made(*part_objects(PART, rows, data))
    table = stats_table(PART.shard, ShardStats(counts, 1, 0, 1, 1.0), CARD)
    return [data, to_parquet(table), digests.to_bytes([masks_path(PART.shard, PART.id)])]


def audit_object(data: bytes, folder: Path) -> None:
    """Every kind of object as damaged bytes; the audit of a part has an answer to any bytes."""
    ledger = Ledger(Store(), f"file://{folder}")
    for name in (masks_path(PART.shard, PART.id), stats_path(PART.shard), MANIFEST):
        ledger.store.write(ledger.url(name), data)
    run = {"fingerprint": "f", "contract": {"input": {}, "mask_size": "source", "runtime": {"precision": "f32"}}}
    faults = PartAuditor(ledger, run, CARD, deep=True).audit(PART).faults
    signer_of(data)
    try:
        ledger.shard_stats([PART.shard])
    except SegmentError as error:
        if load_digests(ledger) and faults:
            raise error


TARGETS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes, Path], None]]] = {
    "image": (sound_images, read_image),
    "label": (sound_labels, read_label),
    "window": (sound_windows, read_window),
    "tar": (sound_tars, read_input("a.tar")),
    "parquet": (sound_tables, read_input("a.parquet")),
    "work": (sound_works, read_image),
    "shares": (sound_shares, read_input("a.parquet", UNPACKED)),
    "column": (sound_columns, read_column),
    "http": (sound_responses, read_http),
    "list": (sound_lists, read_list),
    "card": (lambda: [CARD_TOML.encode()], read_card),
    "job": (sound_jobs, read_job),
    "output": (sound_outputs, read_output),
    "audit": (sound_objects, audit_object),
    "tables": (lambda: [b""], read_changed),
}


def judge(target: str, data: bytes, folder: Path) -> bool:
    """Read damaged data; True if something came of it, False if it was refused in words. Raises what is a finding."""
    try:
        TARGETS[target][1](data, folder)
    except (SegmentError, SampleError):
        return False
    return True


# --- the search -------------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, sound: list[bytes]) -> bytes:
    """A sound file with up to eight damages: bytes set, put in, taken out, repeated; cut off; two files joined."""
    data = bytearray(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data)))
        some = draw(st.binary(min_size=1, max_size=4) | st.sampled_from(_INTEGERS))
        kind = draw(st.sampled_from(["set", "set", "set", "insert", "delete", "repeat", "swell", "cut", "join"]))
        if kind == "set":
            data[at : at + len(some)] = some
        elif kind == "insert":
            data[at:at] = some
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 600))]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 600))] * draw(st.integers(1, 3))
        elif kind == "swell":
            data[at:at] = data[at : at + draw(st.integers(1, 200))] * draw(st.sampled_from([30, 2000]))
        elif kind == "cut":
            del data[at:]
        else:
            data[at:] = draw(st.sampled_from(sound))
    return bytes(data)


def search(
    target: str, seconds: float, first_seed: int, folder: Path, trace: Path, examples: int = 100
) -> tuple[int, int]:
    """Look for a finding for so long; return how many examples there were and how many of them gave a result.

    The file `trace` holds the last example, also where the process was ended.
    """
    tried = valid = 0
    deadline = time.monotonic() + seconds
    strategy = damaged(TARGETS[target][0]())

    def one(data: bytes) -> None:
        nonlocal tried, valid
        trace.write_bytes(data)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            valid += judge(target, data, folder)
        finally:
            faulthandler.cancel_dump_traceback_later()
        tried += 1

    number = first_seed
    while time.monotonic() < deadline:
        rules = settings(
            max_examples=examples, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck), print_blob=False,
        )  # fmt: skip
        seed(number)(rules(given(strategy)(one)))()
        number += 1
    return tried, valid


def main() -> int:
    """Share the time among the readers; exit code 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, help="only this reader, in this process")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for inputs that were found")
    given_ = parser.parse_args()
    if given_.target:
        logging.disable()  # what is refused is told a thousand times
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEMORY,) * 2)
        with tempfile.TemporaryDirectory() as folder:
            trace = given_.keep / given_.target
            tried, valid = search(given_.target, 60 * given_.minutes, given_.seed, Path(folder), trace)
            trace.unlink()
        print(f"{given_.target}: {tried} damaged inputs, {valid} read all the same, {tried - valid} refused in words")
        return 0
    given_.keep.mkdir(parents=True, exist_ok=True)
    findings = [
        target for target in TARGETS if not fuzz(target, given_.minutes / len(TARGETS), given_.seed, given_.keep)
    ]
    print(f"findings: {', '.join(findings) or 'none'}" + (f" (inputs in {given_.keep})" if findings else ""))
    return 1 if findings else 0


def fuzz(target: str, minutes: float, first_seed: int, keep: Path) -> bool:
    """Fuzz one reader in a process of its own; whether it withstood."""
    command = [sys.executable, "-m", "tests.reliability.fuzz", "--target", target, "--minutes", str(minutes)]
    return subprocess.call([*command, "--seed", str(first_seed), "--keep", str(keep)]) == 0


def address_space() -> int:
    """Bytes of address space that this process has already."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
