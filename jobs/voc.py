"""DeepLab on PASCAL VOC: ours beside an independent script's and the published score, by how images are resized.

    python jobs/voc.py                                       # a table as Markdown; some minutes on two cores
    python jobs/voc.py --models int8 --resizes pad --step 10 # every tenth image
    python jobs/voc.py --precision bf16                      # what openvino chooses by itself on CPUs that have it

Reads `voc/images`, `voc/labels` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared). Each score is
at the size of the images, by the 'cityscapes' convention. The interval holds 95 % of the scores of as many images drawn
anew from these (bootstrap, percentiles): it says how far the score of other images may lie from it by chance.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.voc_independent import CLASSES, RESIZES, confusions, load_model, miou_of, pairs_of
from segment import Job, load_card, run

ROOT = Path(__file__).resolve().parents[1]
# By name: the card whose contract it keeps but for its size, the file below `models`, and the side of its input.
MODELS = {
    "int8": ("deeplabv3-mobilenetv2-int8", "deeplabv3_mnv2_pascal_quant.tflite", 513),
    "dm05-int8": ("deeplabv3-mobilenetv2-dm05-int8", "deeplabv3_mnv2_dm05_pascal_quant.tflite", 513),
    "scores-65x65": ("deeplabv3-mobilenetv2", "strangers/lite-model_mobilenetv2-coco_dr_1.tflite", 513),
    "scores-257": ("deeplabv3-mobilenetv2", "strangers/deeplabv3_257_mv_gpu.tflite", 257),
}
DRAWS = 1000


@dataclass(frozen=True)
class Line:
    """A line of the table; shares are 0-1.

    Attributes:
        model, resize: what was run.
        ours, independent: mIoU.
        low, high: the interval around ours.
        published: mIoU on all 1,449 images of the split, where it is this model's and this resize's.
    """

    model: str
    resize: str
    ours: float
    independent: float
    low: float
    high: float
    published: float | None


def measure(shared: Path, model: str, resize: str, step: int = 1, threads: int = 1, precision: str = "f32") -> Line:
    """Score one model with one resize, by the job and by the independent script."""
    name, file, side = MODELS[model]
    weights, card = shared / "models" / file, load_card(name)
    pairs = pairs_of(shared / "voc" / "images", shared / "voc" / "labels", step)
    with tempfile.TemporaryDirectory(prefix="segment-voc-") as folder:
        ours = our_confusions(Path(folder), name, side, weights, resize, pairs, precision)
    theirs = np.stack(list(confusions(load_model(weights, resize, threads, precision), pairs)))
    low, high = interval(ours)
    published = card.metric.published
    comparable = card.input.resize.method == resize and published is not None and published.weights_sha384
    return Line(
        model,
        resize,
        miou_of(ours.sum(axis=0)),
        miou_of(theirs.sum(axis=0)),
        low,
        high,
        published.miou if published and comparable else None,
    )


def our_confusions(
    folder: Path, name: str, side: int, weights: Path, resize: str, pairs: list[tuple[Path, Path]], precision: str
) -> NDArray[np.int64]:
    """`int64[N, C, C]`: run the job, with the card changed in size and resize and nothing else, and read its counts."""
    text = (ROOT / "segment" / "models" / "cards" / f"{name}.toml").read_text(encoding="utf-8")
    line = f'resize = {{ method = "{resize}", interpolation = "bilinear", pad = [127, 127, 127] }}'
    text = re.sub(r"(?m)^resize = .*$", line, text)
    text = re.sub(r"(?m)^(height|width) = \d+$", rf"\g<1> = {side}", text)
    (folder / "card.toml").write_text(text, encoding="utf-8")
    listed = "".join(f"{image} {label}\n" for image, label in pairs)
    (folder / "images.txt").write_text(listed, encoding="utf-8")
    job = Job(
        input=str(folder / "images.txt"),
        allow_input=sorted({str(path.parent) for pair in pairs for path in pair}),  # the list lies elsewhere
        output=str(folder / "out"),
        model=str(folder / "card.toml"),
        weights=str(weights),
        runtime="openvino",  # as the independent script
        engine="local",
        precision=precision,
    )
    run(job)
    cells = ds.dataset(folder / "out" / "masks").to_table(columns=["confusion"])["confusion"].to_pylist()
    return np.stack([matrix_of(row["cell"], row["count"]) for row in cells])


def matrix_of(cells: list[int], counts: list[int]) -> NDArray[np.int64]:
    """`int64[C, C]` of one image, without the pixels that are void."""
    flat = np.zeros((CLASSES + 1) * CLASSES, np.int64)
    flat[cells] = counts
    return flat.reshape(-1, CLASSES)[:CLASSES]


def interval(matrices: NDArray[np.int64]) -> tuple[float, float]:
    """95 % of the mIoU of as many images, drawn from these with replacement."""
    draws = np.random.default_rng(0).integers(0, len(matrices), (DRAWS, len(matrices)))
    scores = [miou_of(matrices[draw].sum(axis=0)) for draw in draws]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def as_markdown(lines: Iterable[Line], images: int) -> str:
    """The table, in per cent."""
    rows = [
        f"mIoU %, {images} images of PASCAL VOC 2012 val",
        "",
        "| model | resize | ours | 95 % interval | independent | published (1,449 images) |",
        "|---|---|---:|---|---:|---:|",
    ]
    for line in lines:
        published = "" if line.published is None else f"{100 * line.published:.2f}"
        span = f"{100 * line.low:.1f} to {100 * line.high:.1f}"
        scores = f"{100 * line.ours:.2f} | {span} | {100 * line.independent:.2f}"
        rows.append(f"| {line.model} | {line.resize} | {scores} | {published} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    shared = os.environ.get("SEGMENT_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=Path(shared), help="folder of images and models")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--resizes", nargs="+", choices=RESIZES, default=list(RESIZES))
    parser.add_argument("--step", type=int, default=1, help="only every so-manyth image")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of both")
    given = parser.parse_args()
    images = len(pairs_of(given.shared / "voc" / "images", given.shared / "voc" / "labels", given.step))
    if not images:
        raise SystemExit(f"no images at {given.shared / 'voc' / 'images'}: say where they are with --shared")
    pairs = [(model, resize) for model in given.models for resize in given.resizes]
    threads = len(os.sched_getaffinity(0))
    print(as_markdown([measure(given.shared, *pair, given.step, threads, given.precision) for pair in pairs], images))


if __name__ == "__main__":
    main()
