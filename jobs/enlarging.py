"""What the enlarging of scores costs: sessions of an earlier checkout and of this one, in turns, and their masks.

    python jobs/enlarging.py --before ../earlier
    python jobs/enlarging.py --before ../earlier --cases deeplab-bf16 deeplab-int8 --images 20 --rounds 5
    python jobs/enlarging.py --before ../earlier --cases icnet --agreement-only

A process a checkout holds the session, single-threaded; both segment the same real images (../shared) in turns (A B A B
...). The figure is the median of CPU time an image; quote the ratio. `same` is the share of pixels of equal class;
`f32` that of this checkout with its masks in f32.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared"))


class Case(NamedTuple):
    """A model: its card, its weights (as `jobs/bench/cases.py` takes them), where it runs, and its images."""

    card: str
    weights: str
    runtime: str = "openvino"
    precision: str = "f32"
    images: str = "voc"


_STRANGERS = "shared:models/strangers/"
_DEEPLAB, _ICNET, _UNET = "deeplabv3-mobilenetv2-dm05", "icnet-camvid-ava-sparse-60-0001", "unet-camvid-onnx-0001"
_INT8_05 = "shared:models/deeplabv3_mnv2_dm05_pascal_quant.tflite"
_INT8_10 = "shared:models/deeplabv3_mnv2_pascal_quant.tflite"
_UNET32 = "shared:models/unet32-camvid.onnx"
CASES = {
    "deeplab-int8": Case(f"{_DEEPLAB}-int8", _INT8_05),
    "deeplab-int8-bf16": Case(f"{_DEEPLAB}-int8", _INT8_05, precision="bf16"),
    "deeplab-int8-depth-1": Case("deeplabv3-mobilenetv2-int8", _INT8_10),
    "deeplab": Case(_DEEPLAB, "graph:deeplab"),
    "deeplab-bf16": Case(_DEEPLAB, "graph:deeplab", precision="bf16"),
    "deeplab-onnxruntime": Case(_DEEPLAB, "graph:deeplab", "onnxruntime"),
    "deeplab-257": Case("257", f"{_STRANGERS}deeplabv3_257_mv_gpu.tflite"),
    "deeplab-257-bf16": Case("257", f"{_STRANGERS}deeplabv3_257_mv_gpu.tflite", precision="bf16"),
    "lite-model": Case("lite", f"{_STRANGERS}lite-model_mobilenetv2-coco_dr_1.tflite"),
    "lite-model-bf16": Case("lite", f"{_STRANGERS}lite-model_mobilenetv2-coco_dr_1.tflite", precision="bf16"),
    "icnet": Case(_ICNET, "graph:icnet", images="camvid"),
    "icnet-bf16": Case(_ICNET, "graph:icnet", precision="bf16", images="camvid"),
    "icnet-onnxruntime": Case(_ICNET, "graph:icnet", "onnxruntime", images="camvid"),
    "unet32": Case(_UNET, _UNET32, images="camvid"),
    "unet32-bf16": Case(_UNET, _UNET32, precision="bf16", images="camvid"),
    "unet32-onnxruntime": Case(_UNET, _UNET32, "onnxruntime", images="camvid"),
}
# What a stranger's card says in place of DeepLab's: its size; scores in the graph's own resolution.
_OTHERS = {"257": {"height": 257, "width": 257}, "lite": {}}


def serve(case: Case, weights: str, images: int) -> None:
    """Segment image NUMBER for each line of stdin; answer with CPU milliseconds, and with the mask if asked for it."""
    import cv2
    import numpy as np

    from segment.models.card import load_card
    from segment.models.sessions import Runtime, open_session, runtime_version
    from segment.models.weights import load_weights

    cv2.setNumThreads(1)
    card = load_card(_DEEPLAB if case.card in _OTHERS else case.card)
    if size := _OTHERS.get(case.card):
        card = card.model_copy(update={"input": card.input.model_copy(update=size)})
    runtime = Runtime(case.runtime, "cpu", case.precision, runtime_version(case.runtime))
    session = open_session(card, load_weights(card, weights), runtime, threads=1)
    height, width = card.input.height, card.input.width
    inputs = []
    for path in pictures(case, images):
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        if card.input.resize.method == "pad" and (height, width) >= pixels.shape[:2]:
            below, right = height - pixels.shape[0], width - pixels.shape[1]
            grey = list(card.input.resize.pad)
            inputs.append(cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT, value=grey)[None])
        else:
            inputs.append(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)[None])
    for image in inputs[:2]:
        session.predict(image)
    print("ready", flush=True)
    for line in sys.stdin:
        number, target = line.rstrip("\n").split("\t")
        began = time.process_time()
        found = session.predict(inputs[int(number)])
        spent = 1000 * (time.process_time() - began)
        if target:
            np.save(target, found.masks)
        print(json.dumps(spent), flush=True)


def pictures(case: Case, number: int) -> list[Path]:
    """The images of a case, spread over all there are."""
    folder = SHARED / case.images / "images"
    found = sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])
    return found[:: max(1, len(found) // number)][:number] if number else found


class Server:
    """A process that runs `serve` with the code of a checkout."""

    def __init__(self, checkout: Path, name: str, case: Case, weights: str, images: int, folder: Path) -> None:
        line = [sys.executable, __file__, "--serve", json.dumps(case), weights, str(images)]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "SEGMENT_SHARED": str(SHARED)}
        self._name, self._folder = name, folder
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=checkout
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the session of {self._name} failed")
        return line

    def predict(self, number: int, *, keep: bool) -> float:
        """Segment an image, and return CPU milliseconds."""
        assert self._process.stdin
        target = str(self.path(number)) if keep else ""
        self._process.stdin.write(f"{number}\t{target}\n")
        self._process.stdin.flush()
        return float(json.loads(self._answer()))

    def path(self, number: int) -> Path:
        """Where the mask of an image is kept."""
        return self._folder / f"{self._name}-{number}.npy"

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def measure(name: str, case: Case, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both sessions in turns; compare speed and masks."""
    import numpy as np

    from jobs.bench.cases import Case as BenchCase

    weights = BenchCase(name, case.card, case.weights, case.runtime, case.precision, 0).locate()
    new = Server(ROOT, "new", case, weights, options.images, folder)
    others = {"old": Server(options.before, "old", case, weights, options.images, folder)}
    if case.precision != "f32":
        others["f32"] = Server(ROOT, "f32", case._replace(precision="f32"), weights, options.images, folder)
    times: dict[str, list[float]] = {"old": [], "new": []}
    equal = dict.fromkeys(others, 0.0)
    count = len(pictures(case, options.images))
    for number in range(count):
        for server in (new, *others.values()):
            server.predict(number, keep=True)
        masks = np.load(new.path(number))
        for other, server in others.items():
            equal[other] += float((masks == np.load(server.path(number))).mean()) / count
    for turn in range(0 if options.agreement_only else options.rounds * count):
        for side, server in (("old", others["old"]), ("new", new)):
            times[side].append(server.predict(turn % count, keep=False))
    for server in (new, *others.values()):
        server.end()
    found = {"case": name, "images": count, "same": equal["old"], "f32": equal.get("f32")}
    if not options.agreement_only:
        old_ms, new_ms = (median(times[side]) for side in ("old", "new"))
        found |= {"before_ms": old_ms, "now_ms": new_ms, "ratio": old_ms / new_ms}
    return found


def as_row(found: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    share = "" if found["f32"] is None else f"{100 * found['f32']:.3f} %"
    cost = ("", "", "")
    if "ratio" in found:
        cost = (f"{found['before_ms']:.1f}", f"{found['now_ms']:.1f}", f"{found['ratio']:.2f}")
    cells = [found["case"], found["images"], *cost, f"{100 * found['same']:.4f} %", share]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measure, and print a Markdown table."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Case(*json.loads(sys.argv[2])), sys.argv[3], int(sys.argv[4]))
        return
    sys.path.insert(0, str(ROOT))
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="a checkout of an earlier commit")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--images", type=int, default=8, help="of each case; 0 for all")
    parser.add_argument("--rounds", type=int, default=3, help="of all images")
    parser.add_argument("--agreement-only", action="store_true", help="no speed")
    options = parser.parse_args()
    options.before = options.before.resolve()
    print("| case | images | before, ms | now, ms | times as fast | same pixels | as f32 |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in options.cases:
        with tempfile.TemporaryDirectory(prefix="segment-enlarging-") as folder:
            print(as_row(measure(name, CASES[name], options, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
