"""CamVid scored without this project: Pillow, onnxruntime, numpy, scikit-learn, and not one import of `segment`.

    python tests/independent.py --images ../shared/camvid/images --labels ../shared/camvid/labels \
        --model ../shared/models/unet32-camvid.onnx

prints the confusion matrix (rows are labels, columns predictions) and the mIoU as Open Model Zoo counts it. The
preprocessing is that of `unet-camvid-onnx-0001`: 480x368 by Pillow's bilinear, BGR, 0-255, NCHW.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix

WIDTH, HEIGHT = 480, 368
CLASSES = 12
UNLABELLED = 11
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def load_model(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def predict(model: onnxruntime.InferenceSession, image: Path) -> NDArray[np.uint8]:
    """Class index of every pixel at the model's size."""
    with Image.open(image) as opened:
        rgb = np.asarray(opened.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    bgr = rgb[:, :, ::-1].astype(np.float32)
    nchw = np.ascontiguousarray(bgr.transpose(2, 0, 1)[np.newaxis])
    (probabilities,) = model.run(None, {model.get_inputs()[0].name: nchw})
    return probabilities[0].argmax(axis=0).astype(np.uint8)


def read_label(label: Path) -> NDArray[np.uint8]:
    """Class index of every pixel of a label at the model's size."""
    with Image.open(label) as opened:
        return np.asarray(opened.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))


def count(model: onnxruntime.InferenceSession, pairs: Iterable[tuple[Path, Path]]) -> NDArray[np.int64]:
    """Sum the confusion matrices of pairs of image and label."""
    total = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for image, label in pairs:
        labels = list(range(CLASSES))
        total += confusion_matrix(read_label(label).ravel(), predict(model, image).ravel(), labels=labels)
    return total


def miou_omz(matrix: NDArray[np.int64]) -> float:
    """Mean IoU, 0-1, of the classes that occur, without row and column of 'Unlabelled'."""
    kept = [index for index in range(CLASSES) if index != UNLABELLED]
    known = matrix[np.ix_(kept, kept)].astype(np.float64)
    hits = known.diagonal()
    union = known.sum(axis=0) + known.sum(axis=1) - hits
    return float(np.mean(hits[union > 0] / union[union > 0]))


def pairs_of(images: Path, labels: Path, limit: int | None = None) -> list[tuple[Path, Path]]:
    """Images and their labels, by name."""
    found = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)[:limit]
    return [(path, labels / f"{path.stem}.png") for path in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Score CamVid without the project that is to be checked.")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the first so many images")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    matrix = count(load_model(given.model, given.threads), pairs_of(given.images, given.labels, given.limit))
    print("\n".join(" ".join(str(value) for value in row) for row in matrix.tolist()))
    print(f"mIoU {100 * miou_omz(matrix):.4f} %")


if __name__ == "__main__":
    main()
