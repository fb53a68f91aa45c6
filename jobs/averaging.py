"""Test-time augmentation and ensembles: mIoU and images a second with and without, on CamVid and PASCAL VOC.

    python jobs/averaging.py                          # a table as Markdown; half an hour
    python jobs/averaging.py --cases camvid --step 10 # every tenth image
    python jobs/averaging.py --precision bf16         # faster, on CPUs that have it

Reads `camvid`, `voc` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared). Each image goes
through all models in turn, so that what else the machine does slows all alike; a second holds reading, the model on one
thread, and scoring. The cost is the seconds of an image over those of the first model.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment import Confusion, Model, ModelCard, iou, load_card, load_model
from segment.models.card import Member, WeightsFile

ROOT = Path(__file__).resolve().parents[1]
Views = tuple[str | float, ...]
Load = Callable[..., Model]  # takes a card, and `weights` if the card names none


def with_views(card: ModelCard, views: Views) -> ModelCard:
    return card.model_copy(update={"input": card.input.model_copy(update={"tta": views})})


def camvid(models: Path, load: Load) -> dict[str, Model]:
    """A U-Net of half width."""
    card, weights = load_card("unet-camvid-onnx-0001"), models / "unet32-camvid.onnx"
    tried: list[Views] = [(), ("flip",), (0.75, 1.25), ("flip", 0.75, 1.25)]
    return {", ".join(map(str, views)) or "-": load(with_views(card, views), weights=weights) for views in tried}


def voc(models: Path, load: Load) -> dict[str, Model]:
    """DeepLab with scores of 65x65. It averages over a window of the size of its input, so it takes no other size."""
    card = load_card("deeplabv3-mobilenetv2")
    weights = models / "strangers" / "lite-model_mobilenetv2-coco_dr_1.tflite"
    return {name: load(with_views(card, views), weights=weights) for name, views in (("-", ()), ("flip", ("flip",)))}


def ensemble(models: Path, load: Load) -> dict[str, Model]:
    """DeepLab in INT8, depths 1.0 and 0.5, without the argmax in which the files end."""
    card = load_card("deeplabv3-mobilenetv2-int8")
    output = card.output.model_copy(update={"kind": "logits", "layout": "NHWC"})
    card = card.model_copy(update={"output": output, "weights": ()})
    with tempfile.TemporaryDirectory(prefix="segment-averaging-") as folder:
        depths = {
            "depth 1.0": without_argmax(models / "deeplabv3_mnv2_pascal_quant.tflite", Path(folder)),
            "depth 0.5": without_argmax(models / "deeplabv3_mnv2_dm05_pascal_quant.tflite", Path(folder)),
        }
        found = {name: load(card, weights=xml) for name, xml in depths.items()}
        members = tuple(Member(weights=(as_file(xml), as_file(xml.with_suffix(".bin")))) for xml in depths.values())
        both = card.model_copy(update={"ensemble": members})
        found["depths 1.0 and 0.5"] = load(both)
        found["depths 1.0 and 0.5, flip"] = load(with_views(both, ("flip",)))
    return found


def without_argmax(model: Path, folder: Path) -> Path:
    """Write a model that gives the scores of the last argmax as OpenVINO IR, and return the path of its .xml."""
    import openvino

    read = openvino.Core().read_model(model)
    best = next(node for node in reversed(read.get_ordered_ops()) if node.get_type_name() == "TopK")
    scores = openvino.opset15.result(best.input_value(0))
    path = folder / f"{model.stem}.xml"
    openvino.save_model(openvino.Model([scores], read.get_parameters()), path, compress_to_fp16=False)
    return path


def as_file(path: Path) -> WeightsFile:
    data = path.read_bytes()
    return WeightsFile(url=f"file://{path}", size=len(data), sha384=hashlib.sha384(data).hexdigest())


# By name: the models, and the folder of images and labels.
CASES: dict[str, tuple[Callable[[Path, Load], dict[str, Model]], str]] = {
    "camvid": (camvid, "camvid"),
    "voc": (voc, "voc"),
    "ensemble": (ensemble, "voc"),
}


def pairs_of(folder: Path, step: int) -> list[tuple[Path, Path]]:
    labels = {path.stem: path for path in (folder / "labels").iterdir()}
    images = sorted(path for path in (folder / "images").iterdir() if path.stem in labels)
    return [(image, labels[image.stem]) for image in images][::step]


def measure(shared: Path, case: str, step: int = 1, **how: Any) -> list[str]:
    """Return a line of the table for each model of a case."""
    make, folder = CASES[case]
    pairs = pairs_of(shared / folder, step)
    if not pairs:
        raise SystemExit(f"no images at {shared / folder / 'images'}: say where they are with --shared")
    models = make(shared / "models", lambda card, **weights: load_model(card, threads=1, **weights, **how))
    counts, seconds = compare(list(models.values()), pairs)
    lines = []
    for name, model, found, taken in zip(models, models.values(), counts, seconds, strict=True):
        card = model.card
        mean = iou(found, convention=card.metric.convention, ignore=card.classes.ignored_classes).mean
        rate, cost = len(pairs) / taken, taken / seconds[0]
        lines.append(f"| {case} | {name} | {100 * (mean or 0):.2f} | {rate:.2f} | {cost:.2f} | {len(pairs)} |")
    return lines


def compare(models: Sequence[Model], pairs: Sequence[tuple[Path, Path]]) -> tuple[list[Confusion], list[float]]:
    """Return counts and seconds of each model."""
    counts, seconds = [Confusion.zeros(len(model.card.classes)) for model in models], [0.0 for _ in models]
    for image, label in pairs:
        for at, model in enumerate(models):
            began = time.perf_counter()
            counts[at] += model.confusion(image.read_bytes(), label.read_bytes())
            seconds[at] += time.perf_counter() - began
    return counts, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    shared = os.environ.get("SEGMENT_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=Path(shared), help="folder of images and models")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--step", type=int, default=1, help="only every so-manyth image")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    given = parser.parse_args()
    print("| case | model | mIoU % | images/s | cost | images |\n|---|---|---:|---:|---:|---:|")
    for case in given.cases:
        lines = measure(given.shared, case, given.step, runtime="openvino", precision=given.precision)
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
