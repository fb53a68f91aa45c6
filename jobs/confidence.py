"""What `--confidence` is worth and what it costs: two tables as Markdown; some minutes on two cores.

    python jobs/confidence.py
    python jobs/confidence.py --only cost --rounds 9

Worth: `unet32-camvid.onnx` on the 101 CamVid images, by measure: mIoU (convention of the card) and pixel accuracy of
the tenth of the images of which the model is least sure, beside those of the others; 'by chance' is the share of random
tenths whose figure is no higher; and Spearman's rank correlation of an image's confidence with its own figure.

Cost: images a second of CPU time of a session with one thread, without and with each measure, in turns (A B C D A B C D
...); the median of the rounds. CPU time, as others may use the machine, too; only numbers of one line can be compared.

Reads `camvid` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment import Job, load_card, run
from segment.metrics import Confusion, pixel_accuracy, score
from segment.models.card import ModelCard
from segment.models.sessions import Extras, capabilities, open_session, resolve_runtime
from segment.models.sessions.extras import MEASURES
from segment.models.sessions.sanity_check import random_images
from segment.models.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
CARD = "unet-camvid-onnx-0001"
DRAWS = 1000  # random tenths
# By name: the card, the file below `models` (None: the card's own), and the runtime.
MODELS: dict[str, tuple[str, str | None, str]] = {
    "demo model, onnxruntime": ("demo-streets", None, "onnxruntime"),
    "demo model, openvino": ("demo-streets", None, "openvino"),
    "DeepLab 513, scores of 65x65": (
        "deeplabv3-mobilenetv2",
        "strangers/lite-model_mobilenetv2-coco_dr_1.tflite",
        "openvino",
    ),
    "U-Net 480x368, onnxruntime": (CARD, "unet32-camvid.onnx", "onnxruntime"),
    "U-Net 480x368, openvino": (CARD, "unet32-camvid.onnx", "openvino"),
}


def worth(shared: Path, measure: str, precision: str = "f32") -> list[str]:
    """Return the cells of a measure's line of the first table."""
    card = load_card(CARD)
    columns = ["mean_confidence", "miou", "pixel_accuracy", "confusion"]
    with tempfile.TemporaryDirectory(prefix="segment-confidence-") as folder:
        job = Job(
            input=str(shared / "camvid" / "images"),
            output=folder,
            model=CARD,
            weights=str(shared / "models" / "unet32-camvid.onnx"),
            labels=str(shared / "camvid" / "labels"),
            engine="local",
            precision=precision,
            confidence=measure,
        )
        run(job)
        rows = ds.dataset(f"{folder}/masks").to_table(columns=columns).to_pylist()
    rows.sort(key=lambda row: row["mean_confidence"])
    cells_of = [row["confusion"] for row in rows]
    counts = np.stack([Confusion.from_cells(c["cell"], c["count"], len(card.classes)).counts for c in cells_of])
    tenth = round(len(rows) / 10)
    generator = np.random.default_rng(0)
    draws = [generator.permutation(len(rows))[:tenth] for _ in range(DRAWS)]
    cells = []
    for name, figure in (("miou", miou_of), ("pixel_accuracy", accuracy_of)):
        least, others = figure(counts[:tenth], card), figure(counts[tenth:], card)
        chance = sum(figure(counts[draw], card) <= least for draw in draws) / DRAWS
        ranks = np.argsort(np.argsort([row[name] for row in rows]))
        correlation = np.corrcoef(np.arange(len(rows)), ranks)[0, 1]
        cells += [f"{100 * least:.2f}", f"{100 * others:.2f}", f"{100 * chance:.1f} %", f"{correlation:.2f}"]
    return [measure, *cells]


def miou_of(counts: NDArray[np.int64], card: ModelCard) -> float:
    """Return the mIoU, 0-1, of some images together: `int64[N, C + 1, C]`."""
    return score(Confusion(counts.sum(axis=0)), card.classes.ignored_classes, card.metric.convention).miou or 0.0


def accuracy_of(counts: NDArray[np.int64], card: ModelCard) -> float:
    """Return the pixel accuracy, 0-1, likewise."""
    return pixel_accuracy(Confusion(counts.sum(axis=0)), card.classes.ignored_classes) or 0.0


def cost(shared: Path, model: str, rounds: int, seconds: float) -> dict[str, float]:
    """Return images a second of CPU time by measure; `off` is without one."""
    name, file, runtime_name = MODELS[model]
    card = load_card(name)
    weights = load_weights(card, str(shared / "models" / file) if file else None)
    runtime = resolve_runtime(weights.format, runtime_name, "cpu", "f32", nodes=[capabilities()])
    images = random_images(1, card.input.height, card.input.width)
    wanted = {"off": Extras(), **{measure: Extras(measure) for measure in MEASURES}}
    sessions = {how: open_session(card, weights, runtime, extras=extras) for how, extras in wanted.items()}
    rates: dict[str, list[float]] = {how: [] for how in sessions}
    for number in range(rounds + 1):
        for how, session in sessions.items():
            began, calls = time.process_time(), 0
            while calls == 0 or time.process_time() - began < (seconds if number else 0.1):  # the first round warms up
                session.predict(images)
                calls += 1
            if number:
                rates[how].append(calls / (time.process_time() - began))
    return {how: statistics.median(found) for how, found in rates.items()}


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table whose first column is text."""
    names = list(head)
    rule = "|---|" + "---:|" * (len(names) - 1)
    return "\n".join([f"| {' | '.join(names)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--only", choices=["worth", "cost"])
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=MEASURES, help="of the first table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    if options.only != "cost":
        head = [
            f"{name}{what}"
            for name in ("mIoU %", "accuracy %")
            for what in (" of the tenth", ", others", " by chance", ", rank corr.")
        ]
        print(table(("measure", *head), (worth(options.shared, measure) for measure in options.measures)), end="\n\n")
    if options.only != "worth":
        lines = []
        for model in MODELS:
            rates = cost(options.shared, model, options.rounds, options.seconds)
            changes = (f"{rates[m]:.2f} ({100 * (rates[m] / rates['off'] - 1):+.1f} %)" for m in MEASURES)
            lines.append((model, f"{rates['off']:.2f}", *changes))
        print(table(("images per CPU second", "off", *MEASURES), lines))


if __name__ == "__main__":
    main()
