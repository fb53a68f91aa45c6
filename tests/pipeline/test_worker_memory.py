"""The forecast of a worker's memory: which images decide, what is held of them, and what it costs to ask."""

import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segment.images.tiff_segments import RUN_BYTES
from segment.inputs.parts import Member, Part, ShardFormat, Span
from segment.job import Settings
from segment.models.card import parse_card
from segment.models.sessions import Runtime
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.pipeline.worker_memory import worker_bytes
from segment.store.client import Store
from tests.graphs import as_weights, colour_classifier
from tests.runs import CARD, CARD_TOML
from tests.web import Web

TILED = parse_card(CARD_TOML.replace('channels = "RGB"', 'channels = "RGB"\ntiles = { overlap = 6 }'))
WEIGHTS = as_weights(colour_classifier(CARD))
KB, MB = 1000, 1_000_000
JPEGS = [[("file:///small.jpg", 150 * KB)]] * 50
Images = list[tuple[str, int]]


def plan_of(parts: list[Images], kind: ShardFormat = "files") -> Plan:
    """The plan of images, by URL and bytes, in parts; those of a tar have its URL."""

    def part(number: int, images: Images) -> Part:
        members = [Member(f"{number}/{at}", Span(url, 0, size), None) for at, (url, size) in enumerate(images)]
        total = sum(size for _, size in images)
        held = [] if kind == "parquet" else members
        return Part(f"p{number}", "s", kind, f"file:///{number}.parquet", total, "", 0, len(images), -1, held)

    return Plan.of(part(number, images) for number, images in enumerate(parts))


def held(
    parts: list[Images], *, tiled: bool = True, batch: int = 1, kind: ShardFormat = "files", **options: Any
) -> int:
    """Bytes that a worker holds of images."""
    card = TILED if tiled else CARD
    task = Task(card, Runtime("openvino", "cpu", "f32", ""), "file:///o", Settings(**options), Store(), batch, "")
    both = (worker_bytes(task, WEIGHTS, plan) for plan in (plan_of(parts, kind), plan_of([[("file:///a.png", 1)]])))
    found, least = (each.work for each in both if each)
    return found - least


def header(folder: Path, height: int, width: int, size: int = 0, name: str = "a.tif") -> Images:
    """A TIFF of the tags alone; it has this size in its folder, though not on its disk."""
    tags = ((256, width), (257, height))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    (folder / name).write_bytes(data)
    os.truncate(folder / name, max(size, len(data)))
    return [(f"file://{folder / name}", max(size, len(data)))]


def zeros(path: Path, height: int, width: int, size: int = 0, **how: Any) -> Images:
    """A TIFF without content."""
    tifffile.imwrite(path, np.zeros((height, width, 3), np.uint8), photometric="rgb", compression="deflate", **how)
    size = max(size, path.stat().st_size)
    os.truncate(path, size)
    return [(f"file://{path}", size)]


@pytest.mark.parametrize("batch", [1, 8])
def test_one_large_image_of_many_counts_for_what_is_decoded_of_it(batch: int) -> None:
    small = held(JPEGS, tiled=False, batch=batch)
    assert small == pytest.approx((3 * 8 + 3) * 150 * KB, abs=100)
    refused = held([*JPEGS, [("file:///large.png", 2000 * MB)]], tiled=False, batch=batch)
    assert refused == small  # it has more than `max_image_bytes`, and is an error row
    bitmap = held([*JPEGS, [("file:///large.bmp", 240 * MB)]], tiled=False, batch=batch)
    assert bitmap == pytest.approx(
        (3 * 3 * 100 + 240) * MB, rel=0.01
    )  # of `max_pixels`, and once: its part has no more


def test_a_batch_holds_no_more_than_its_part() -> None:
    mixed = [[("file:///large.png", 20 * MB), *[("file:///small.png", 100 * KB)] * 63]]
    found = held(mixed, tiled=False, batch=8)
    assert 3 * 8 * 20 * MB < found < (3 * 8 + 1) * 27 * MB
    some = held([[("file:///a.png", 2 * MB), ("file:///b.png", 9 * MB)]], tiled=False, batch=8, max_image_bytes=4 * MB)
    assert some < 60 * MB  # the other one is not read


@pytest.mark.parametrize("size", [(2**31, 2**31), (5000, 5000)])
def test_what_a_header_says_is_believed_up_to_the_limits_of_the_job(size: tuple[int, int], tmp_path: Path) -> None:
    assert held([header(tmp_path, *size)], max_pixels=200_000) < MB
    assert held([header(tmp_path, 4000, 4000)], max_pixels=200_000) < MB  # of which no window is read
    assert held([header(tmp_path, 5000, 5000)]) < MB  # it lists no strips: an error row


def test_large_images_that_are_no_tiffs_are_held_as_a_whole(tmp_path: Path) -> None:
    """Both what is decoded and what is encoded: by their names, and where names do not tell by their first bytes."""
    path = tmp_path / "a"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    os.truncate(path, 150 * MB)
    for url in ("file:///a.png", f"file://{path}"):
        found = held([[(url, 150 * MB)]] * 6)
        assert found == pytest.approx((3 * 3 * 100 + 3 * 150) * MB, rel=0.01)
        assert held([[(url, 150 * MB)]] * 6, max_image_bytes=100 * MB) < MB
    tiffs = [[(f"file:///none/{number}.tif", 900 * MB)] for number in range(8)]
    assert held([*tiffs, [("file:///a.png", 150 * MB)]]) > (3 * 3 * 100 + 149) * MB  # larger ones do not hide it


def test_cells_of_a_parquet_file_are_read_as_a_whole() -> None:
    cells = held([[("", 100 * MB)]] * 3, kind="parquet", max_pixels=1000)
    assert cells == pytest.approx(300 * MB, abs=MB)


def test_the_largest_image_decides_and_not_the_largest_mean(tmp_path: Path) -> None:
    large = zeros(tmp_path / "a.tif", 300, 60_000, 60 * MB, tile=(512, 512))
    many = [[(f"file:///none/{at}.tif", 1500 * KB)] * 10 for at in range(50)]
    found = held([*many, large + [("file:///none/b.tif", 100 * KB)] * 63])
    assert found - (66.3 + 2 * 15) * MB > 0.9 * (held([large]) - 60 * MB)


def test_maps_of_an_image_that_is_read_as_a_whole_are_counted() -> None:
    asked = {"confidence": "maximum", "confidence_maps": True, "probabilities": (0, 1, 2)}
    parts = [[("file:///a.jpg", 33 * MB)]]
    assert held(parts, **asked) - held(parts) == pytest.approx(4 * 8 * 33 * MB / 3, rel=0.01)


def test_the_strips_of_a_file_are_counted_as_they_are(tmp_path: Path) -> None:
    low, high = (held([zeros(tmp_path / f"{rows}.tif", 1700, 10_000, rowsperstrip=rows)]) / MB for rows in (64, 1700))
    cut = 2 * (min(RUN_BYTES, 3 * 10_000 * 1700) - 3 * 10_000 * 64)
    assert high - low == pytest.approx((2 * 3 * 10_000 * (1700 - 64) + cut) / MB, abs=1)


def test_of_strips_that_are_too_large_to_be_read_nothing_is_held(tmp_path: Path) -> None:
    assert held([zeros(tmp_path / "one.tif", 6000, 6000, rowsperstrip=6000)]) < MB  # an error row


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_store_that_never_answers_does_not_keep_the_start_waiting(silent: str) -> None:
    parts = [[(f"{silent}/{number}.tif", 50 * MB)] for number in range(8)]
    began = time.monotonic()
    found = held(parts)
    assert time.monotonic() - began < 6
    assert found > 3 * 50 * MB  # estimated


_WAITING = """
import signal, time
from segment.store.background import in_time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored, as under nohup
print("begun", flush=True)
in_time(time.sleep, [60.0] * 8, 60.0)
"""


def test_ctrl_c_ends_the_wait_for_a_store() -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
        assert b"KeyboardInterrupt" in process.stderr.read()


def test_headers_are_asked_for_once_and_only_where_one_may_be_of_a_tiff(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = tmp_path / "pages.tif"
    with tifffile.TiffWriter(pages) as writer:
        for _ in range(40):
            writer.write(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8), photometric="rgb")
    url, size = web.put("/pages.tif", pages.read_bytes()), pages.stat().st_size
    held([[(url, size)]])
    assert 1 <= len(web.fetched("/pages.tif")) <= 2
    web.requests.clear()
    busy = web.put("/busy.tif", b"II", busy=100)
    held([[(busy, 1000)], [(web.put("/a.png", b""), 1000)]])
    assert [path for _, path, _ in web.requests] == ["/busy.tif"]
    held([[(busy, 1000)]], tiled=False)
    assert len(web.requests) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
