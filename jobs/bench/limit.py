"""The limit: the bare library calls that make the same outputs, on the same cores, from memory.

    python jobs/bench/limit.py SPEC.json

One process a core, each with a single-threaded model: decode, the card's resize, inference, a mask PNG at the source's
size, label decode, one count of (label, prediction) pairs. Nothing of `segment` is imported, nothing is read or written
while the clock runs, and images are dealt out one by one, so that no core waits for another. What can be in the graph
is in the graph: bytes go in, class indices come out. It checks nothing (no faults, no sizes, no NaN): that is ours to
make up for. Where the spec's runtime is `auto`, it is the fastest one whose masks agree, measured before the start.
"""

import json
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bare_models import LOADERS, Model, computes_in_bf16

# By the suffix of the weights, the reference first.
CANDIDATES = {
    ".onnx": [("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", "f32")],
    ".xml": [("openvino", "f32"), ("openvino", "bf16")],
    ".tflite": [("openvino", "f32"), ("litert", "f32")],
}
LEAST_AGREEMENT = 0.99  # share of pixels as by the reference, as ours asks for
TRIED, ROUNDS = 2, 5  # images that candidates are measured on, and how often


def best_runtime(spec: dict[str, Any], images: list[bytes]) -> dict[str, str]:
    """The fastest runtime and precision whose masks of some images agree with those in f32, by CPU time."""
    inputs = model_inputs(spec, images)
    models: dict[tuple[str, str], Model] = {}
    for name, precision in CANDIDATES[Path(spec["weights"]).suffix]:
        try:
            if precision == "f32" or computes_in_bf16():
                models[name, precision] = LOADERS[name]({**spec, "runtime": name, "precision": precision})
        except Exception as error:  # each runtime has its own types; one that does not load the file is no candidate
            print(f"{name} {precision}: {str(error).splitlines()[0]}", file=sys.stderr)
    masks = {one: [model(image).copy() for image in inputs] for one, model in models.items()}
    reference = next(iter(masks.values()))
    agreeing = [one for one, found in masks.items() if np.mean(np.equal(found, reference)) >= LEAST_AGREEMENT]
    seconds = dict.fromkeys(agreeing, float("inf"))
    for _ in range(ROUNDS):
        for one in agreeing:
            began = time.process_time()
            for image in inputs:
                models[one](image)
            seconds[one] = min(seconds[one], time.process_time() - began)
    name, precision = min(seconds, key=seconds.__getitem__)
    return {"runtime": name, "precision": precision}


def model_inputs(spec: dict[str, Any], images: list[bytes]) -> list[np.ndarray]:
    """What the model gets of each image, `uint8[1, H, W, 3]`."""
    seen: list[np.ndarray] = []
    empty = np.zeros((spec["contract"]["output_height"], spec["contract"]["output_width"]), np.uint8)

    def predict(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return empty

    step = make_step(spec, predict)
    for image in images:
        step(image, None)
    return seen


def make_step(spec: dict[str, Any], predict: Model) -> Callable[[bytes, bytes | None], np.ndarray | None]:
    """What is done to one image and its label; returns the counts `[C * C]` of label and prediction."""
    import bare
    import cv2

    cv2.setNumThreads(1)
    bare.keep_freed_blocks()
    contract = spec["contract"]
    entry, border = (contract["width"], contract["height"]), contract["pad"]
    classes, at_source = contract["classes"], contract["scored_at"] == "source"
    # Pillow's nearest pixel by pixel, and faster than Pillow
    nearest_by = {"pillow": cv2.INTER_NEAREST_EXACT, "opencv": cv2.INTER_NEAREST}

    def nearest(pixels: np.ndarray, size: tuple[int, int], resampler: str) -> np.ndarray:
        if pixels.shape == (size[1], size[0]):
            return pixels
        return cv2.resize(pixels, size, interpolation=nearest_by[resampler])

    def content(pixels: np.ndarray) -> tuple[int, int]:
        """Width and height that a picture covers of the model's input."""
        height, width = pixels.shape[:2]
        scale = min(1.0, entry[0] / width, entry[1] / height)
        return (max(1, round(width * scale)), max(1, round(height * scale))) if border else entry

    def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if pixels.shape[:2] == (size[1], size[0]):
            inside = pixels
        elif contract["resampler"] == "opencv":
            inside = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        else:
            inside = bare.pillow_bilinear(pixels, size)
        if size == entry:
            return inside
        right, below = entry[0] - size[0], entry[1] - size[1]
        return cv2.copyMakeBorder(inside, 0, below, 0, right, cv2.BORDER_CONSTANT, value=border)

    def step(image: bytes, label: bytes | None) -> np.ndarray | None:
        pixels = bare.decode(image)
        size = content(pixels)
        mask = predict(resized(pixels, size)[np.newaxis])
        source = nearest(mask[: size[1], : size[0]] if border else mask, (pixels.shape[1], pixels.shape[0]), "pillow")
        bare.encode(source)
        if label is None:
            return None
        truth = bare.decode_label(label)
        scored = source if at_source else mask
        truth = nearest(truth, (scored.shape[1], scored.shape[0]), contract["label_resampler"])
        return bare.count(truth, scored, classes)

    return step


def work(spec: dict[str, Any], pairs: list[Any], turn: Any, start: Any, results: Any) -> None:
    """One core's share: whichever image is next, until none is left."""
    step = make_step(spec, LOADERS[spec["runtime"]](spec))
    step(*pairs[0])
    results.put(None)
    start.wait()
    total, done = 0, 0
    while True:
        with turn.get_lock():
            mine = turn.value
            turn.value += 1
        if mine >= len(pairs):
            break
        counts = step(*pairs[mine])
        total, done = total if counts is None else total + counts.astype(np.int64), done + 1
    ended = time.perf_counter()
    results.put((ended, done, total.tolist() if isinstance(total, np.ndarray) else None))


def receive(results: Any, workers: list[Any]) -> list[Any]:
    """One message of every worker.

    Raises:
        SystemExit: a worker died.
    """
    found: list[Any] = []
    while len(found) < len(workers):
        try:
            found.append(results.get(timeout=1))
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise SystemExit("a worker of the limit died") from None
    return found


def main() -> None:
    """Measure and print one line of JSON."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    labels = spec["labels"] or [None] * len(spec["images"])
    pairs = [
        (Path(image).read_bytes(), Path(label).read_bytes() if label else None)
        for image, label in zip(spec["images"], labels, strict=True)
    ]
    if spec["runtime"] == "auto":
        spec |= best_runtime(spec, [image for image, _ in pairs[:TRIED]])
    context = multiprocessing.get_context("spawn")
    turn, start, results = context.Value("q", 0), context.Event(), context.Queue()
    began = time.perf_counter()
    workers = [context.Process(target=work, args=(spec, pairs, turn, start, results)) for _ in range(spec["cores"])]
    for worker in workers:
        worker.start()
    receive(results, workers)
    ready = time.perf_counter()
    start.set()
    ends = receive(results, workers)
    for worker in workers:
        worker.join()
    seconds = max(ended for ended, _, _ in ends) - ready  # one clock on Linux for all processes
    counts = np.sum([found for _, _, found in ends if found is not None], axis=0)
    print(
        json.dumps(
            {
                "images": sum(done for _, done, _ in ends),
                "seconds": seconds,
                "start": ready - began,
                "runtime": f"{spec['runtime']} {spec['precision']}",
                "counts": counts.tolist() if spec["labels"] else None,
            }
        )
    )


if __name__ == "__main__":
    main()
