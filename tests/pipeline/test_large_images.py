"""Whole runs of a card with `input.tiles`: rows, counts, faults, resume, and masks in files of their own."""

import fcntl
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import segment
from segment.engines.local import LocalEngine
from segment.engines.ray_stages import StageWorker
from segment.errors import InputChanged, SampleError, UsageError
from segment.images import tiff_labels, tiff_raster
from segment.images.codec import decode_mask
from segment.images.tiff_segments import RUN_BYTES
from segment.inputs import large_files
from segment.inputs.discover import discover
from segment.job import InputOptions
from segment.metrics import Confusion
from segment.models.card import ModelCard, load_card, parse_card
from segment.models.weights import load_weights
from segment.output import mask_files
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.repair import reopen_damaged
from segment.output.results import PartResult
from segment.output.speed import last_speed
from segment.pipeline import large_images
from segment.pipeline.stall import StallTimeout
from segment.pipeline.worker import load_worker
from segment.pipeline.worker_memory import WorkerBytes, worker_bytes
from segment.report.pictures import read_view
from segment.report.rows import read_scores
from segment.runs.driver import run, task_and_plan
from segment.store.client import Store
from segment.store.scope import Scope
from tests.calls import ROOT
from tests.graphs import TRIGGER, nan_graph
from tests.here import working_in_processes
from tests.runs import CARD, CARD_TOML, CLASSES, Place, png, read_rows

TILED = CARD_TOML.replace('channels = "RGB"', 'channels = "RGB"\ntiles = { overlap = 6 }')
PALETTE = np.array(CARD.classes.palette, np.uint8)


def mosaic(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A mask of blocks; its picture in palette colours is segmented to just this."""
    coarse = np.random.default_rng(seed).integers(0, CLASSES, (-(-height // 7), -(-width // 7)))
    return coarse.repeat(7, 0).repeat(7, 1)[:height, :width].astype(np.uint8)


class TiledPlace(Place):
    """A place whose card has 24 x 32 tiles, and whose model makes a NaN of the trigger's colour."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, nan_graph(CARD))
        self.card_path.write_text(TILED)

    def add_mosaic(self, name: str, height: int, width: int, seed: int = 0, label: bool = True) -> NDArray[np.uint8]:
        mask = mosaic(height, width, seed)
        self.write(name, png(PALETTE[mask]), png(mask) if label else None)
        return mask


SIZES = {"a.png": (24, 32), "b.png": (100, 75), "c.png": (1, 1), "d.png": (23, 140)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TiledPlace:
    place = TiledPlace(tmp_path_factory.mktemp("tiled"))
    for seed, (name, size) in enumerate(SIZES.items(), 1):
        place.add_mosaic(name, *size, seed, label=name != "d.png")
    image = PALETTE[mosaic(60, 60)]
    image[55, 50] = TRIGGER
    place.write("e.png", png(image), png(mosaic(60, 60)))
    place.write("f.png", png(PALETTE[mosaic(30, 40)]), png(mosaic(40, 30)))
    place.write("g.png", b"no image")
    return place


@pytest.fixture(scope="module")
def rows(place: TiledPlace) -> dict[str, dict[str, Any]]:
    return place.run().rows


def check(row: dict[str, Any], mask: NDArray[np.uint8], found: NDArray[np.uint8], *, labelled: bool) -> None:
    assert (row["status"], row["error"], (row["height"], row["width"])) == ("ok", None, mask.shape)
    assert np.array_equal(found, mask)
    cells, counts = Confusion.of(mask, mask if labelled else None, CLASSES).to_cells()
    assert row["confusion"] == {"cell": cells.tolist(), "count": counts.tolist()}
    assert row["pixel_accuracy"] == (1.0 if labelled and (mask < 3).any() else None)  # class 3 is ignored


@pytest.mark.parametrize("name", SIZES)
def test_masks_and_counts_are_exact(name: str, rows: dict[str, dict[str, Any]]) -> None:
    row = rows[name]
    assert row["mask"]["path"] is None
    mask = mosaic(*SIZES[name], 1 + list(SIZES).index(name))
    check(row, mask, decode_mask(row["mask"]["bytes"]), labelled=name != "d.png")


def test_a_fault_in_a_tile_is_the_image_s(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["e.png"]
    assert (row["mask"], row["confusion"], row["width"]) == (None, None, 60)
    assert row["error"].startswith("model_not_finite: ")
    assert row["error"].endswith(": in the tile at row 36, column 28")


def test_a_fault_of_the_label_keeps_the_mask(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["f.png"]
    assert row["error"].startswith("label_size: ")
    assert np.array_equal(decode_mask(row["mask"]["bytes"]), mosaic(30, 40))
    assert rows["g.png"]["error"].startswith("not_an_image: ")


def test_the_batch_size_changes_no_byte(place: TiledPlace, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert place.run(output=str(tmp_path / "out"), batch_size=5).all_rows == place_rows(place)
    assert len(rows) == len(SIZES) + 3


def place_rows(place: TiledPlace) -> list[dict[str, Any]]:
    return read_rows(place.output)


def test_a_loaded_model_gives_what_the_run_wrote(place: TiledPlace, rows: dict[str, dict[str, Any]]) -> None:
    model = segment.load_model(place.card_path, place.weights_path, runtime="onnxruntime", batch_size=3)
    assert np.array_equal(
        model.predict((place.images / "b.png").read_bytes()), decode_mask(rows["b.png"]["mask"]["bytes"])
    )
    with pytest.raises(SampleError, match="in the tile at row 36, column 28"):
        model.predict((place.images / "e.png").read_bytes())


class NotingStore(Store):
    """Notes what is read."""

    read_urls: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.read_urls = []

    def read(self, url: str, *rest: Any, **named: Any) -> bytes:
        self.read_urls.append(url)
        return super().read(url, *rest, **named)


def test_masks_too_large_for_a_row_have_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before its masks file, a part runs again, and writes the same file."""
    monkeypatch.setattr(large_images, "MOST_PNG_PIXELS", 1000)
    place = TiledPlace(tmp_path)
    large, small = place.add_mosaic("large.png", 70, 80), place.add_mosaic("small.png", 20, 30)
    found = place.run()
    ledger = Ledger(Store(), f"file://{place.output}")
    row = found.rows["large.png"]
    assert row["mask"]["bytes"] is None
    check(row, large, mask_files.read_mask(ledger.store, ledger.output, row["mask"]), labelled=True)
    check(found.rows["small.png"], small, decode_mask(found.rows["small.png"]["mask"]["bytes"]), labelled=True)
    file = place.output / row["mask"]["path"]
    before = {path: path.read_bytes() for path in place.output.glob("masks/**/*") if path.is_file()}
    assert len(before) == 2
    noting = NotingStore()
    assert audit_run(Ledger(noting, ledger.output), deep=True).problems == ()
    assert noting.read_urls.count(f"file://{file}") == 1  # it may be large
    images = {image.id: image.mask for image in segment.open_run(place.output).masks()}
    assert np.array_equal(images["large.png"], large)

    monkeypatch.setattr(mask_files, "_PREVIEW_PIXELS", 700)
    task, plan = task_and_plan(ledger)
    views = [read_view(ledger, row, task) for row in read_scores(ledger, plan, ledger.committed(plan)).sample(2)]
    assert np.array_equal(views[0].mask, large[::3, ::3])
    assert views[0].photo is None
    assert np.array_equal(views[1].mask, small)

    part = next(plan.parts())
    ledger.reopen(part.shard, [part.id])
    file.write_bytes(b"left over from a process that was killed")
    place.run()
    assert {path: path.read_bytes() for path in before} == before

    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert len(audit_run(ledger, deep=True).wrong) == 1
    file.unlink()
    (problem,) = audit_run(ledger, deep=True).wrong
    assert problem.endswith("which is damaged or lost: run the same `segment run` again with --verify")
    assert reopen_damaged(ledger) == 1
    place.run()
    assert reopen_damaged(ledger) == 0
    file.write_bytes(b"?")
    assert reopen_damaged(ledger) == 1
    place.run()
    assert {path: path.read_bytes() for path in before} == before
    for odd in ("a folder", "a link to itself"):
        file.unlink()
        if odd == "a folder":
            file.mkdir()
        else:
            file.symlink_to(file.name)
        *_, problem = audit_run(ledger, deep=True).wrong
        assert problem.endswith("which is damaged or lost: run the same `segment run` again with --verify")
        if odd == "a folder":
            file.rmdir()
        else:
            file.unlink()
        file.write_bytes(before[file])
    assert task.card == parse_card(TILED)


def test_errors_and_replaced_images_are_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `--retry-errors` and `--update`; the new mask gets a file of its own. Files of killed writers are removed."""
    monkeypatch.setattr(large_images, "MOST_PNG_PIXELS", 1000)
    place = TiledPlace(tmp_path)
    first = place.add_mosaic("a.png", 50, 60, label=False)
    place.write("b.png", b"no image")
    place.run(part_size=1)
    killed, living = (next(place.output.glob("masks/*")) / f"._x.tif.tmp-{digit * 16}" for digit in "01")
    killed.write_bytes(b"half")
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another driver's writer does
        run(place.job(part_size=1), retry_errors=True)
    assert (killed.exists(), living.exists()) == (False, True)
    second, third = place.add_mosaic("b.png", 40, 70, 5, label=False), place.add_mosaic("a.png", 70, 50, 6, label=False)
    run(place.job(part_size=1), update=True)
    ledger = Ledger(Store(), f"file://{place.output}")
    rows = {row["id"]: row for row in read_rows(place.output)}
    for name, mask in (("a.png", third), ("b.png", second)):
        check(rows[name], mask, mask_files.read_mask(ledger.store, ledger.output, rows[name]["mask"]), labelled=False)
    assert first.shape != third.shape
    assert audit_run(ledger, deep=True).problems == ()


def tiff(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB or class indices as a tiled TIFF."""
    file = io.BytesIO()
    colours: dict[str, Any] = {"photometric": "rgb"} if pixels.ndim == 3 else {}
    tifffile.imwrite(file, pixels, tile=(32, 32), compression="deflate", **colours)
    return file.getvalue()


@pytest.fixture
def by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TIFFs of 1,000 pixels be read by window."""
    for module in (tiff_raster, tiff_labels):
        monkeypatch.setattr(module, "LARGE", 1000)


@pytest.mark.usefixtures("by_window")
def test_tiffs_by_window_give_the_same(tmp_path: Path) -> None:
    """Images of more than `max_pixels`, too, which limits what is decoded at once."""
    place = TiledPlace(tmp_path)
    mask = place.add_mosaic("a.png", 100, 130)
    place.write("b.tif", tiff(PALETTE[mask]))
    (place.labels / "b.tif").write_bytes(tiff(mask))
    wrong = mask.copy()
    wrong[-1, -1] = 77
    place.write("c.tif", tiff(PALETTE[mask]))
    (place.labels / "c.tif").write_bytes(tiff(wrong))
    found = place.run(max_pixels=5000).rows
    assert found["a.png"]["error"].startswith("too_many_pixels: ")
    check(found["b.tif"], mask, decode_mask(found["b.tif"]["mask"]["bytes"]), labelled=True)
    assert found["c.tif"]["error"].startswith("label_value: ")
    assert (found["c.tif"]["confusion"], found["c.tif"]["miou"]) == (None, None)
    assert found["c.tif"]["mask"] == found["b.tif"]["mask"]
    assert (
        place.run(max_pixels=129, output=str(tmp_path / "strict")).rows["b.tif"]["error"].startswith("too_many_pixels")
    )


@pytest.mark.slow
def test_killed_and_resumed_it_is_an_undisturbed_run(tmp_path: Path) -> None:
    place = TiledPlace(tmp_path)
    for seed in range(3):
        place.add_mosaic(f"{seed}.png", 500, 500, seed)
    killed = Path(tmp_path / "killed")
    command = [sys.executable, "-m", "segment", *place.flags(part_size=1, output=str(killed))]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until = time.monotonic() + 60
        while not list(killed.glob("masks/*/*.parquet")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    done = len(list(killed.glob("masks/*/*.parquet")))
    assert 1 <= done < 3
    undisturbed = place.run(part_size=1)
    place.run(part_size=1, output=str(killed))
    assert [row["status"] for row in undisturbed.all_rows] == ["ok"] * 3
    names = sorted(path.relative_to(place.output) for path in place.output.glob("masks/*/*"))
    assert [(killed / name).read_bytes() for name in names] == [(place.output / name).read_bytes() for name in names]
    assert not audit_run(Ledger(Store(), f"file://{killed}"), deep=True).problems


def test_a_worker_that_is_told_to_stop_does_so_between_tiles(
    place: TiledPlace, rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    large = png(PALETTE[mosaic(1500, 1500)])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "large.png").write_bytes(large)
    task = replace(task_and_plan(Ledger(Store(), f"file://{place.output}"))[0], output=f"file://{tmp_path / 'out'}")
    task = replace(task, store=Store(scope=Scope.of([f"file://{tmp_path}"])))
    parts, results = discover(str(tmp_path / "images"), InputOptions(), Store()).parts, list[PartResult]()
    worker = load_worker(task, load_weights(task.card, str(place.weights_path)))
    running = threading.Thread(target=worker.process, args=(parts, results.append), daemon=True)
    running.start()
    until = time.monotonic() + 20
    while worker.steps_done < 5 and time.monotonic() < until:
        time.sleep(0.001)
    assert 0 < sum(worker.begun.values()) < 1
    worker.stop()
    running.join(20)
    assert results == []
    assert 5 <= worker.steps_done < 1500 * 1500 // (24 * 32)
    assert not (tmp_path / "out").exists()
    assert rows


def test_a_probe_segments_some_tiles(place: TiledPlace, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """And says what the others would take."""
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    task = replace(task, output=f"file://{tmp_path}", most_tiles=5)
    results = list[PartResult]()
    worker = load_worker(task, load_weights(task.card, str(place.weights_path)))
    worker.process([next(plan.parts())], results.append)
    (probe,) = results
    assert (probe.images, probe.tiles, probe.tiles_left) == (2, 1 + 5, 6 * 3 - 5)
    assert probe.seconds_left > 0
    assert rows


def test_the_operators_of_the_gpu_pipeline_write_the_same(
    place: TiledPlace, rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Read, segment, write, each in a process of its own: what goes from one to the next is pickled."""
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    task = replace(task, output=f"file://{tmp_path}")
    model = StageWorker(task, load_worker(task, load_weights(task.card, str(place.weights_path))))
    for part in plan.parts():
        staged = model.segment(pickle.loads(pickle.dumps(StageWorker(task).read(part))))
        result = StageWorker(task).write(pickle.loads(pickle.dumps(staged)))
        assert (result.failure, result.images) == (None, len(part))
        assert result.tiles > 0 or part.start == 6  # no image
    assert read_rows(tmp_path) == place_rows(place)
    assert StageWorker(task).write(model.segment(StageWorker(task).read(part))).skipped
    assert rows


def test_the_mask_size_of_the_model_is_refused(place: TiledPlace) -> None:
    with pytest.raises(UsageError, match="--mask-size model: the card blocks segments images in tiles"):
        place.run(mask_size="model", output=str(place.folder / "refused"))


def test_confidence_is_counted_in_strips(
    place: TiledPlace, rows: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `blend = "mean"`, too; a map is left out, and told, where the mask does not fit its row."""
    monkeypatch.setattr(large_images, "MOST_PNG_PIXELS", 3300)
    sizes = place.card_path.read_text()
    try:
        place.card_path.write_text(sizes.replace("overlap = 6", 'overlap = 6, blend = "mean"'))
        found = place.run(confidence="margin", confidence_maps=True, probabilities=(2, 0), output=str(tmp_path / "out"))
    finally:
        place.card_path.write_text(sizes)
    assert any(line.startswith("1 image: the image has more than 100 megapixels") for line in found.warnings)
    for name in ("a.png", "c.png", "d.png", "f.png"):
        row = found.rows[name]
        mask, levels = decode_mask(row["mask"]["bytes"]), decode_mask(row["confidence"]["bytes"])
        assert np.array_equal(mask, decode_mask(rows[name]["mask"]["bytes"]))
        assert levels.shape == mask.shape
        second, first = (decode_mask(png["bytes"]).astype(int) for png in row["probabilities"].values())
        assert first.shape == mask.shape
        assert (first >= second)[mask == 0].all()
        assert (second >= first)[mask == 2].all()
        assert row["mean_confidence"] == levels.sum() / (255 * levels.size)
        means = [levels[mask == index].mean() / 255 if (mask == index).any() else None for index in range(CLASSES)]
        assert row["class_confidence"] == pytest.approx(means)
    assert (found.rows["b.png"]["confidence"], found.rows["b.png"]["probabilities"]) == (None, None)
    assert 0 < found.rows["b.png"]["mean_confidence"] <= 1
    assert found.rows["b.png"]["confusion"] == rows["b.png"]["confusion"]
    assert (found.rows["e.png"]["mean_confidence"], found.rows["e.png"]["confidence"]) == (None, None)
    assert found.rows["f.png"]["error"] == rows["f.png"]["error"]


def test_the_memory_of_a_worker(
    place: TiledPlace, rows: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of TIFFs read by window, of others, and with sums of probabilities, which the number of processes allows for."""
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    weights, part = load_weights(task.card, str(place.weights_path)), next(plan.parts())
    by_mean = parse_card(TILED.replace("overlap = 6", 'overlap = 6, blend = "mean"'))

    def plan_of(name: str, *mebibytes: int) -> Plan:
        images = [replace(part.members[0].image, url=f"file:///{name}", size=size << 20) for size in mebibytes]
        members = [
            replace(part.members[0], id=f"{number}/{name}", image=image, label=None)
            for number, image in enumerate(images)
        ]
        return Plan.of([replace(part, id=one.id, start=0, stop=1, members=(one,)) for one in members])

    def mebibytes_of(plan: Plan, card: ModelCard = task.card) -> int:
        return max(worker_bytes(replace(task, card=card), weights, plan) or (0,)) >> 20

    def mebibytes(name: str, size: int, card: ModelCard = task.card) -> int:
        return mebibytes_of(plan_of(name, *[size] * 6), card)

    assert mebibytes("A.TIFF", 63) - mebibytes("a.tif", 64) == pytest.approx(3 * 63, abs=3)  # it is read as a whole
    assert mebibytes("A.TIFF", 63) < mebibytes("a.png", 63) // 2
    sums = (CLASSES + 2) * 24 * int((8 * 64 * 2**20 / 3) ** 0.5) * 2 >> 20
    assert mebibytes("a.tif", 64, by_mean) - mebibytes("a.tif", 64) == pytest.approx(sums, abs=2)
    assert mebibytes_of(plan_of("a.png", 1, 1, 30)) == pytest.approx(mebibytes_of(plan_of("a.png", 30)), abs=3)
    assert mebibytes_of(plan_of("a.png", 30)) < mebibytes("a.png", 30) - 50  # of one part, and of three
    many, tasks = plan_of("a.tif", *[64] * 6), (task, replace(task, card=by_mean))
    each = max(worker_bytes(task, weights, many) or (0,))
    monkeypatch.setattr("segment.engines.local.PROCESS_MEMORY", 0)
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, 4 * each))
    assert [LocalEngine(6).processes(one, weights, many) for one in tasks] == [2, 1]
    assert rows


def test_the_memory_of_a_worker_follows_from_the_headers_of_large_tiffs(tmp_path: Path) -> None:
    """However well they are packed; and of several from the widest, and from the largest mask within its row."""
    place = TiledPlace(tmp_path)
    place.add_mosaic("a.png", 24, 32)
    place.run()
    task, _ = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    weights = load_weights(task.card, str(place.weights_path))
    task = replace(task, store=Store(scope=Scope.of([f"file://{tmp_path}"])))

    def megabytes(**sizes: tuple[int, int]) -> float:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name, (height, width) in sizes.items():
            tiles = -(-height // 512) * -(-width // 512)
            tifffile.imwrite(
                folder / f"{name}.tif", iter([np.zeros((512, 512, 3), np.uint8)] * tiles), shape=(height, width, 3),
                dtype=np.uint8, tile=(512, 512), photometric="rgb", compression="deflate",
            )  # fmt: skip
        plan = Plan.of_discovery(discover(str(folder), InputOptions(), Store()))
        return (worker_bytes(task, weights, plan) or WorkerBytes(0, 0)).work / 1e6

    square, tall, wide = (5000, 5000), (10_000, 2500), (2000, 60_000)
    rows = 4 * (2 * 24 + 2 * 512) + 2 * 3 * 512  # of a column: pixels and mask; and pixels that are cut out of the file
    assert megabytes(a=square) - megabytes(a=tall) == pytest.approx(2500 * rows / 1e6, abs=1)  # as large a mask
    assert megabytes(a=square, b=wide) - megabytes(a=square) == pytest.approx(
        (55_000 * rows + 2 * (RUN_BYTES - 60_000 * 3 * 512)) / 1e6, abs=1
    )
    assert megabytes(a=square, b=wide) - megabytes(b=wide) == pytest.approx(2 * 25, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("blend", ["centre", "confidence", "mean"])
def test_the_memory_of_a_large_image_is_as_expected(blend: str, tmp_path: Path) -> None:
    """From the start of its process to the commit, within a fifth."""
    (tmp_path / "images").mkdir()
    areas = PALETTE[mosaic(180, 180)].repeat(25, 0).repeat(25, 1)  # whose mask is packed as well as masks are
    tifffile.imwrite(tmp_path / "images/a.tif", areas, tile=(512, 512), compression="deflate")
    card = load_card("demo-streets")
    text = (ROOT / "segment/models/cards/demo-streets.toml").read_text()
    text = re.sub(r"^resize = .*$", f'tiles = {{ overlap = 0.25, blend = "{blend}" }}', text, flags=re.MULTILINE)
    text = text.replace('resolution = "model"', 'resolution = "source"')
    (tmp_path / "card.toml").write_text(re.sub(r'^url = ".*"$', f'url = "{card.weights[0].url}"', text, flags=re.M))
    output = tmp_path / "out"
    job = segment.Job(
        input=str(tmp_path / "images"), output=str(output), model=str(tmp_path / "card.toml"), workers="1"
    )
    with working_in_processes():
        run(job)
    found = last_speed(Ledger(Store(), f"file://{output}"))
    assert found
    assert found.expected_memory
    assert 1.0 <= found.expected_memory / found.memory <= 1.2


@pytest.mark.usefixtures("by_window")
def test_a_part_that_cannot_be_read_to_its_end_is_in_work_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs it: the operator of the model on GPUs, and a process that gets single images."""
    place = TiledPlace(tmp_path)
    image = tiff(PALETTE[place.add_mosaic("a.png", 100, 130)])
    place.run()
    (place.images / "a.png").unlink()
    place.write("b.tif", image)
    task, _ = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    task = replace(task, store=Store(scope=Scope.of([f"file://{tmp_path}"])), output=f"file://{tmp_path / 'other'}")
    monkeypatch.setattr(large_files, "LARGE_BYTES", 100)
    (part,) = discover(str(place.images), InputOptions(), Store()).parts
    worker = load_worker(task, load_weights(task.card, str(place.weights_path)))
    staged = StageWorker(task).read(part)
    answers = worker.one_by_one(part, None)
    assert next(answers) == [("b.tif", part.members[0].image.url, 0)]
    place.write("b.tif", image + b"longer")
    failed = StageWorker(task, worker).segment(staged).result
    assert failed
    assert (failed.input_changed, worker.begun) == (True, {})
    with pytest.raises(InputChanged):
        next(answers)
    assert worker.begun == {}


def test_stall_times_count_tiles() -> None:
    timeout = StallTimeout(None, 4)
    timeout.learn(PartResult("p", "s", images=1, tiles=1000, seconds={"infer": 5000.0}))
    assert timeout.seconds == 10 * 4 * 5000 / 1000
