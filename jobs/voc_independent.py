"""PASCAL VOC scored without this project: openvino, Pillow, numpy, and not one import of `segment`.

    python jobs/voc_independent.py --images voc/images --labels voc/labels --model deeplab.tflite --resize pad

prints the mIoU at the size of the images, label 255 ignored. The model takes RGB, NHWC, as bytes or floats of -1 to 1.
It gives class indices, or scores of any size, which are enlarged bilinearly to the size of the image and then compared.

`stretch` fills the model's input; `letterbox` keeps the aspect ratio and fills one side; `pad` keeps the pixels of an
image that fits, which is what TensorFlow DeepLab's evaluation does. Both put it top left and fill the rest with 127.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray
from PIL import Image

CLASSES = 21
IGNORED = 255
GREY = (127, 127, 127)
RESIZES = ("stretch", "letterbox", "pad")
Predict = Callable[[Image.Image], NDArray[np.uint8]]


def cpu_adds_bytes_exactly() -> bool:
    """Whether products of bytes are added in 32 bits: with VNNI. Other x86 CPUs use 16 bits, where sums saturate."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    return "avx2" not in flags or "vnni" in flags


def load_model(path: Path, resize: str, threads: int = 1, precision: str = "f32") -> Predict:
    """What turns a picture into class indices `uint8[H, W]` of its own size."""
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    if not cpu_adds_bytes_exactly():
        settings["LP_TRANSFORMS_MODE"] = False
    model = core.compile_model(core.read_model(path), "CPU", settings)
    entry = model.input(0)
    side = entry.shape[1]
    takes_bytes = entry.element_type == openvino.Type.u8

    def predict(picture: Image.Image) -> NDArray[np.uint8]:
        content = content_of(picture.size, side, resize)
        shrunk = picture if picture.size == content else picture.resize(content, Image.Resampling.BILINEAR)
        canvas = Image.new("RGB", (side, side), GREY)
        canvas.paste(shrunk, (0, 0))
        pixels = np.asarray(canvas)[np.newaxis]
        result = model(pixels if takes_bytes else pixels.astype(np.float32) / np.float32(127.5) - np.float32(1))[0][0]
        if result.ndim == 2:
            mask = Image.fromarray(result[: content[1], : content[0]].astype(np.uint8))
            return np.asarray(mask.resize(picture.size, Image.Resampling.NEAREST))
        return best_of(result, picture.size, (content[0] / side, content[1] / side))

    return predict


def content_of(size: tuple[int, int], side: int, resize: str) -> tuple[int, int]:
    """Width and height that a picture of `size` covers of the model's input."""
    if resize == "stretch":
        return side, side
    scale = side / max(size)
    if resize == "pad":
        scale = min(scale, 1)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def best_of(scores: NDArray[np.float32], size: tuple[int, int], covered: tuple[float, float]) -> NDArray[np.uint8]:
    """The best class of each pixel of a picture, of whose scores it covers a part of width and height."""
    height, width = scores.shape[:2]
    box = (0, 0, covered[0] * width, covered[1] * height)
    channels = [Image.fromarray(np.ascontiguousarray(scores[:, :, index])) for index in range(scores.shape[2])]
    enlarged = [np.asarray(channel.resize(size, Image.Resampling.BILINEAR, box=box)) for channel in channels]
    return np.stack(enlarged).argmax(axis=0).astype(np.uint8)


def confusions(predict: Predict, pairs: list[tuple[Path, Path]]) -> Iterator[NDArray[np.int64]]:
    """`int64[C, C]` for each pair of image and label: rows are labels, columns predictions."""
    for image, label in pairs:
        with Image.open(image) as opened:
            predicted = predict(opened.convert("RGB"))
        with Image.open(label) as opened:
            truth = np.asarray(opened)
        known = truth != IGNORED
        cells = truth[known].astype(np.int64) * CLASSES + predicted[known]
        yield np.bincount(cells, minlength=CLASSES * CLASSES).reshape(CLASSES, CLASSES)


def miou_of(matrix: NDArray[np.int64]) -> float:
    """Mean IoU, 0-1, of the classes that occur."""
    hits = matrix.diagonal()
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return float(np.mean(hits[union > 0] / union[union > 0]))


def pairs_of(images: Path, labels: Path, step: int = 1) -> list[tuple[Path, Path]]:
    """Every `step`-th image and its label, by name."""
    return [(path, labels / f"{path.stem}.png") for path in sorted(images.glob("*.jpg"))[::step]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Score PASCAL VOC without the project that is to be checked.")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--resize", choices=RESIZES, default="pad")
    parser.add_argument("--step", type=int, default=1, help="only every so-manyth image")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    given = parser.parse_args()
    pairs = pairs_of(given.images, given.labels, given.step)
    matrices = list(confusions(load_model(given.model, given.resize, given.threads, given.precision), pairs))
    print(f"{len(matrices)} images, mIoU {100 * miou_of(np.sum(matrices, axis=0)):.4f} %")


if __name__ == "__main__":
    main()
