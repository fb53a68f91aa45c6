"""Test-time augmentation: mIoU and images a second with and without views, on CamVid and PASCAL VOC.

    python jobs/tta.py                                # a table as Markdown; half an hour
    python jobs/tta.py --models camvid --step 10      # every tenth image
    python jobs/tta.py --precision bf16               # faster, on CPUs that have it

Reads `camvid`, `voc` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared). Each image goes
through all cards in turn, so that what else the machine does slows all alike; a second holds reading, the model on one
thread, and scoring. The cost is the seconds of an image over those of the plain card.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment import Confusion, ModelCard, iou, load_card, load_model

ROOT = Path(__file__).resolve().parents[1]
Views = tuple[str | float, ...]

# By name: the card, the weights below `models`, and the views. The name is the folder of images and labels.
MODELS: dict[str, tuple[str, str, list[Views]]] = {
    "camvid": (
        "unet-camvid-onnx-0001",
        "unet32-camvid.onnx",
        [(), ("flip",), (0.75, 1.25), ("flip", 0.75, 1.25)],
    ),
    # It averages over a window of the size of its input, so it takes no other size.
    "voc": ("deeplabv3-mobilenetv2", "strangers/lite-model_mobilenetv2-coco_dr_1.tflite", [(), ("flip",)]),
}


def with_views(card: ModelCard, views: Views) -> ModelCard:
    return card.model_copy(update={"input": card.input.model_copy(update={"tta": views})})


def pairs_of(folder: Path, step: int) -> list[tuple[Path, Path]]:
    labels = {path.stem: path for path in (folder / "labels").iterdir()}
    images = sorted(path for path in (folder / "images").iterdir() if path.stem in labels)
    return [(image, labels[image.stem]) for image in images][::step]


def measure(shared: Path, name: str, step: int, runtime: str, precision: str) -> list[str]:
    """Return a line of the table for each set of views."""
    reference, weights, tried = MODELS[name]
    card = load_card(reference)
    how = {"weights": shared / "models" / weights, "runtime": runtime, "precision": precision, "threads": 1}
    models = [load_model(with_views(card, views), **how) for views in tried]
    counts, seconds = [Confusion.zeros(len(card.classes)) for _ in tried], [0.0 for _ in tried]
    pairs = pairs_of(shared / name, step)
    if not pairs:
        raise SystemExit(f"no images at {shared / name / 'images'}: say where they are with --shared")
    for image, label in pairs:
        for at, model in enumerate(models):
            began = time.perf_counter()
            counts[at] += model.confusion(image.read_bytes(), label.read_bytes())
            seconds[at] += time.perf_counter() - began
    lines = []
    for views, found, taken in zip(tried, counts, seconds, strict=True):
        mean = iou(found, convention=card.metric.convention, ignore=card.classes.ignored_classes).mean
        text = ", ".join(map(str, views)) or "-"
        cost = taken / seconds[0]
        lines.append(
            f"| {name} | {text} | {100 * (mean or 0):.2f} | {len(pairs) / taken:.2f} | {cost:.2f} | {len(pairs)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    shared = os.environ.get("SEGMENT_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=Path(shared), help="folder of images and models")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--step", type=int, default=1, help="only every so-manyth image")
    parser.add_argument("--runtime", choices=["onnxruntime", "openvino"], default="openvino")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    given = parser.parse_args()
    print("| model | views | mIoU % | images/s | cost | images |\n|---|---|---:|---:|---:|---:|")
    for name in given.models:
        print("\n".join(measure(given.shared, name, given.step, given.runtime, given.precision)), flush=True)


if __name__ == "__main__":
    main()
