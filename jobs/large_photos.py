"""CPU milliseconds of each stage of an image, by its size: where the time around the model goes. One core, minutes.

    python jobs/large_photos.py
    python jobs/large_photos.py --before ../earlier --rounds 5

A light model (DeepLabV3, depth 0.5, INT8) on PASCAL VOC as it is and enlarged to 1920x1080 and 4000x3000 JPEGs, labels
scored at source size. Each contender is a process that does what a worker does, without a store: `now`, `fast` (with
`--decode fast`) and `before`, the code of an earlier checkout. They take turns (A B C A B C ...); figures are medians
of the rounds, ratios are of one round. `same pixels` and `mIoU` (mean over the images) are of their masks.

Reads `voc` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CARD, WEIGHTS = "deeplabv3-mobilenetv2-dm05-int8", "models/deeplabv3_mnv2_dm05_pascal_quant.tflite"
SIZES = {"500x375": None, "1920x1080": (1920, 1080), "4000x3000": (4000, 3000)}
STAGES = ("decode", "infer", "encode", "write")
AROUND = ("decode", "encode", "write")
Times = dict[str, float]  # milliseconds of CPU an image by stage; `system` is the kernel's share of all


def serve(weights: str, how: str) -> None:
    """Measure each folder of images and labels that a line of stdin names, with the code that PYTHONPATH names."""
    from segment.inputs.parts import Sample
    from segment.job import Settings
    from segment.models.card import load_card
    from segment.models.sessions import Runtime, runtime_version
    from segment.models.weights import load_weights
    from segment.output.tables import write_masks
    from segment.pipeline.memory_guard import guard_process
    from segment.pipeline.stages import Task, decode, encode, segment
    from segment.pipeline.worker import load_worker
    from segment.store.client import Store

    guard_process(None)
    card = load_card(CARD)
    runtime = Runtime("openvino", "cpu", "f32", runtime_version("openvino"))
    settings = Settings(decode="fast") if how == "fast" else Settings()
    worker = load_worker(Task(card, runtime, "memory://out", settings, Store(), 1, ""), load_weights(card, weights))
    task, spent = worker.task, dict.fromkeys((*STAGES, "system"), 0.0)

    @contextmanager
    def clock(stage: str) -> Iterator[None]:
        began = resource.getrusage(resource.RUSAGE_SELF)
        yield
        ended = resource.getrusage(resource.RUSAGE_SELF)
        system = ended.ru_stime - began.ru_stime
        spent["system"] += system
        spent[stage] += ended.ru_utime - began.ru_utime + system

    print("ready", flush=True)
    for line in sys.stdin:
        folder, rows = Path(line.strip()), []
        spent.update(dict.fromkeys(spent, 0.0))
        for index, path in enumerate(sorted((folder / "images").iterdir())):
            label = (folder / "labels" / f"{path.stem}.png").read_bytes()
            sample = Sample(path.stem, str(path), index, path.read_bytes(), label)
            with clock("decode"):
                frames = decode([sample], task)
            with clock("infer"):
                frames = segment(frames, worker.session, 1)
            with clock("encode"):
                rows += encode(frames, task, worker.labels)
        with clock("write"):
            write_masks(rows, shard="", part="", fingerprint="")
        if errors := [row.error for row in rows if row.error]:
            raise SystemExit(errors[0])
        found = {stage: 1e3 * seconds / len(rows) for stage, seconds in spent.items()}
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        found["mask"] = sum(len(row.mask) for row in rows) / len(rows)
        found["miou"] = statistics.mean(row.miou for row in rows if row.miou is not None)
        (folder / how).mkdir(exist_ok=True)
        for row in rows:
            (folder / how / f"{row.id}.png").write_bytes(row.mask)
        print(json.dumps(found), flush=True)


class Contender:
    """A process of `serve`."""

    def __init__(self, checkout: Path, weights: Path, how: str) -> None:
        line = [sys.executable, __file__, "--serve", str(weights), how]
        paths = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            line, cwd=checkout, env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"a contender failed: {' '.join(self._process.args)}")
        return line

    def measure(self, folder: Path) -> dict[str, Any]:
        """Milliseconds an image by stage, megabytes of peak memory so far, mean bytes of a mask."""
        assert self._process.stdin is not None
        print(folder, file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._answer())
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def write_pictures(voc: Path, size: tuple[int, int] | None, number: int, folder: Path) -> Path:
    """Write pictures of a size, and their labels."""
    sys.path.insert(0, str(ROOT))
    from jobs.bench.data import Pictures, find_pictures

    found = find_pictures(voc / "images", voc / "labels")
    chosen = Pictures(found.source, found.images[:number], found.labels[:number])
    pictures = chosen.enlarged(*size) if size else chosen
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for (name, image), label in zip(pictures.images, pictures.labels, strict=True):
        (folder / "images" / name).write_bytes(image)
        (folder / "labels" / f"{Path(name).stem}.png").write_bytes(label)
    return folder


def equal_pixels(one: Path, other: Path) -> float:
    """Share of pixels, 0-1, in which two folders of masks are equal."""
    import cv2
    import numpy as np

    pairs = [
        [cv2.imread(str(folder / path.name), cv2.IMREAD_UNCHANGED) for folder in (one, other)] for path in one.iterdir()
    ]
    return sum(int(np.count_nonzero(a == b)) for a, b in pairs) / sum(a.size for a, _ in pairs)


def report(rounds: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Print a line for each contender; the first is what the others are compared with."""
    first_name, reference = next(iter(rounds.items()))
    for name, found in rounds.items():
        values = [statistics.median(one[key] for one in found) for key in (*STAGES, "system")]
        cells = [f"{value:.1f}" for value in values]
        for stages in (STAGES, AROUND):
            own, first = ([sum(one[stage] for stage in stages) for one in which] for which in (found, reference))
            ratios = [theirs / ours for ours, theirs in zip(own, first, strict=True)]
            cells += [f"{statistics.median(own):.1f}"]
            cells += [f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"]
        cells += [f"{found[-1]['mask'] / 1e3:.1f}", f"{found[-1]['peak']:.0f}"]
        cells += [f"{equal_pixels(folder / first_name, folder / name):.2%}", f"{100 * found[-1]['miou']:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="of an earlier version, to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--number", type=int, default=8, help="of pictures of each size, at most 16")
    given = parser.parse_args()
    weights = (given.shared / WEIGHTS).resolve()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        checkouts = {"now": ROOT, "fast": ROOT}
        if given.before:
            checkouts = {"before": given.before.resolve(), **checkouts}
        contenders = {name: Contender(where, weights, name) for name, where in checkouts.items()}
        for contender in contenders.values():
            stack.callback(contender.close)
        for size, pixels in SIZES.items():
            folder = write_pictures(given.shared / "voc", pixels, given.number, Path(scratch, size))
            rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
            for turn in range(1 + given.rounds):  # the first one warms up
                for name, contender in contenders.items():
                    found = contender.measure(folder)
                    rounds[name] += [found] if turn else []
            first = next(iter(contenders))
            ratio = f"{first} ÷ it"
            columns = [*STAGES, "of it kernel", "all, ms", ratio, "without model, ms", ratio, "mask kB", "peak MB"]
            columns += ["same pixels", "mIoU"]
            print(f"\n| {size} | {' | '.join(columns)} |\n|---{'|---:' * len(columns)}|")
            report(rounds, folder)


if __name__ == "__main__":
    serve(*sys.argv[2:]) if sys.argv[1:2] == ["--serve"] else main()
