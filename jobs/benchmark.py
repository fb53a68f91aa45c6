"""What the job costs beyond the model: images a second against the bare library calls, on the same cores.

    make bench                                  # the demo's scenes and model
    python jobs/benchmark.py --images DIR --labels DIR --model CARD --weights FILE

`limit` is one process a core, each with a single-threaded openvino model, that decodes, resizes, infers, encodes a
mask PNG at the source's size, decodes the label and counts one bincount, from memory; it uses nothing of `segment`.
`local` and `ray` are `segment run` from loose files, labels scored. They run in turn (A B C A B C ...), and each is
timed from its first result to its last: start-up is reported apart. Ratios of one run are what to quote; single times
on a shared machine are not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

Pairs = list[tuple[bytes, bytes]]  # encoded images and labels


def limit_worker(card: dict[str, Any], graph: bytes, precision: str, pairs: Pairs, start: Any, results: Any) -> None:
    """One core's share of the bare calls. `card` is plain data: height, width, bgr, maximum, mean, std, classes."""
    import cv2
    import numpy as np
    import openvino as ov
    from PIL import Image

    cv2.setNumThreads(1)
    core = ov.Core()
    model = core.read_model(model=graph)
    settings = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": precision,
    }
    height, width, classes = card["height"], card["width"], card["classes"]
    model.reshape([1, 3, height, width])
    # the library's own pre- and post-processing, as its documentation advises: bytes in, class indices out
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    if card["bgr"]:
        steps.input().preprocess().reverse_channels()
    steps.input().preprocess().convert_element_type(ov.Type.f32)
    steps.input().preprocess().scale(255 / card["maximum"])
    steps.input().preprocess().mean(card["mean"]).scale(card["std"])
    model = steps.build()
    scores = model.outputs[0].get_node().input_value(0)
    best = ov.opset15.topk(scores, ov.opset15.constant(np.int64(1)), 1, "max", "value", index_element_type="i32")
    masks = ov.opset15.convert(best.output(1), "u8")
    compiled = core.compile_model(ov.Model([masks], model.get_parameters()), "CPU", settings)
    request = compiled.create_infer_request()

    def one(image: bytes, label: bytes) -> None:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
        small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        mask = np.array(request.infer({0: small[np.newaxis]})[0]).reshape(height, width)
        size = (pixels.shape[1], pixels.shape[0])
        cv2.imencode(".png", np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)))
        truth = cv2.imdecode(np.frombuffer(label, np.uint8), cv2.IMREAD_UNCHANGED)
        truth = np.asarray(Image.fromarray(truth).resize((width, height), Image.Resampling.NEAREST))
        np.bincount((truth.astype(np.int32) * classes + mask).ravel(), minlength=classes * classes)

    one(*pairs[0])
    results.put("ready")
    start.wait()
    for image, label in pairs:
        one(image, label)
    results.put("done")


def limit(card: dict[str, Any], graph: bytes, precision: str, pairs: Pairs, cores: int) -> tuple[float, float]:
    """Images a second of the bare calls on `cores` cores, and seconds until they were ready."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    began = time.perf_counter()
    workers = [
        context.Process(target=limit_worker, args=(card, graph, precision, pairs[i::cores], start, results))
        for i in range(cores)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        results.get()
    ready = time.perf_counter()
    start.set()
    for _ in workers:
        results.get()
    seconds = time.perf_counter() - ready
    for worker in workers:
        worker.join()
    return len(pairs) / seconds, ready - began


def job(values: dict[str, Any], engine: str, precision: str) -> tuple[float, float]:
    """Images a second of `segment run` since its first result, and seconds until that."""
    import segment
    from segment.progress import Progress, Tally

    class Watch(Progress):
        tally: Tally
        ended = 0.0

        def begin(self, tally: Tally) -> None:
            self.tally = tally

        def update(self, tally: Tally) -> None:
            self.ended = time.monotonic()

    watch = Watch()
    with tempfile.TemporaryDirectory() as output:
        began = time.monotonic()
        segment.run(segment.Job(output=output, engine=engine, precision=precision, **values), watch)
    tally = watch.tally
    assert tally.first_at is not None
    return (tally.done - tally.first_done) / (watch.ended - tally.first_at), tally.first_at - began


def describe(card: Any, weights: Any) -> dict[str, Any]:
    """The card as plain data for the bare calls, which import nothing of ours."""
    spec = card.input
    assert spec.layout == "NCHW", "the bare calls are written for NCHW graphs with scores"
    assert card.output.kind != "index"
    return {
        "height": spec.height,
        "width": spec.width,
        "bgr": spec.channels == "BGR",
        "maximum": spec.maximum,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "classes": len(card.classes),
        "weights": len(weights.graph),
    }


def demo_scenes(folder: Path, number: int) -> None:
    """Write the demo's scenes as loose JPEG and PNG files."""
    from segment.demo.dataset import encode_scene

    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for seed in range(number):
        image, label = encode_scene(seed)
        (folder / "images" / f"{seed:06d}.jpg").write_bytes(image)
        (folder / "labels" / f"{seed:06d}.png").write_bytes(label)


def read_pairs(images: Path, labels: Path) -> Pairs:
    """Read what is to be segmented into memory."""
    by_stem = {path.stem: path for path in sorted(labels.iterdir())}
    return [(path.read_bytes(), by_stem[path.stem].read_bytes()) for path in sorted(images.iterdir())]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--model", default="demo-streets")
    parser.add_argument("--weights")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    from segment.card import load_card
    from segment.engines import available_cpus
    from segment.weights import load_weights

    with tempfile.TemporaryDirectory() as scratch:
        if options.images is None:
            demo_scenes(Path(scratch), options.scenes)
            options.images, options.labels = Path(scratch) / "images", Path(scratch) / "labels"
        card = load_card(options.model)
        weights = load_weights(card, options.weights)
        pairs = read_pairs(options.images, options.labels)
        cores = available_cpus()
        values = {
            "input": str(options.images),
            "labels": str(options.labels),
            "model": options.model,
            "weights": options.weights,
            "runtime": "openvino",
        }
        rates: dict[str, list[float]] = {name: [] for name in ("limit", *options.engines)}
        starts: dict[str, list[float]] = {name: [] for name in rates}
        for number in range(options.rounds):
            for name in rates:
                if name == "limit":
                    rate, start = limit(describe(card, weights), weights.graph, options.precision, pairs, cores)
                else:
                    rate, start = job(values, name, options.precision)
                rates[name].append(rate)
                starts[name].append(start)
                print(f"round {number + 1}: {name:6} {rate:8.1f} images/s, start {start:5.1f} s", flush=True)
    print_table(options, len(pairs), cores, rates, starts)


def print_table(
    options: argparse.Namespace, images: int, cores: int, rates: dict[str, list[float]], starts: dict[str, list[float]]
) -> None:
    """Print medians with minimum and maximum, and ratios round by round, as Markdown; and JSON where asked."""
    print(f"\n{options.model}, {options.precision}, {images} images, {cores} cores, {platform.processor() or 'CPU'}\n")
    print("| | images/s (min-max) | ÷ limit, median of the rounds | start s |\n|---|---:|---:|---:|")
    record = {}
    for name, found in rates.items():
        ratios = [ours / bare for ours, bare in zip(found, rates["limit"], strict=True)]
        middle, ratio, start = statistics.median(found), statistics.median(ratios), statistics.median(starts[name])
        print(f"| {name} | {middle:.1f} ({min(found):.1f}-{max(found):.1f}) | {ratio:.3f} | {start:.1f} |")
        record[name] = {"images_per_second": found, "start_seconds": starts[name], "ratios": ratios}
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
