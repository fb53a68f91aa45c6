"""Train the demo's model on synthetic street scenes and export it to ONNX.

    python jobs/train_demo_model.py          # train, export, evaluate: about 25 minutes on two idle cores
    python jobs/train_demo_model.py --evaluate segment/models/cards/demo-streets.onnx

The graph takes `image` float32[N, 3, 192, 256] (RGB, divided by 255, less the mean, divided by the deviation) and gives
`logits` float32[N, 12, 192, 256]. Training scenes start at seed 100000; the evaluation uses seeds 0-199.
Needs `torch`, `onnx` and `onnxruntime`.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.streets.scenes import CLASSES, scene

HEIGHT, WIDTH = 192, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING_SEED = 100_000
HELD_OUT = range(200)
UNLABELED = CLASSES.index("Unlabeled")
OUTPUT = Path("segment/models/cards/demo-streets.onnx")


# The network ---------------------------------------------------------------------------------------------------------


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, normalised and rectified."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut: for the fine levels, whose few channels make them cheap."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.body = nn.Sequential(convolution(channels, channels), second, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Separable(nn.Module):
    """A depthwise 3x3 convolution, two pointwise ones and a shortcut: for the coarse levels with many channels."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, dilation, dilation, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class StreetNet(nn.Module):
    """A small U-Net that works at half the picture's size; the finer detail travels in the channels.

    float32[N, 3, H, W] to logits float32[N, 12, H, W]; H and W are multiples of 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down2 = nn.Sequential(nn.PixelUnshuffle(2), convolution(12, 24), Residual(24))
        self.down4 = nn.Sequential(convolution(24, 48, 2), Residual(48))
        self.down8 = nn.Sequential(convolution(48, 80, 2), Separable(80), Separable(80))
        deepest = (Separable(112), Separable(112, 2), Separable(112, 4), Separable(112))
        self.down16 = nn.Sequential(convolution(80, 112, 2), *deepest)
        self.narrow8, self.up8 = nn.Conv2d(112, 80, 1), Separable(80)
        self.narrow4, self.up4 = nn.Conv2d(80, 48, 1), Residual(48)
        self.narrow2, self.up2 = nn.Conv2d(48, 24, 1), Residual(24)
        self.head = nn.Sequential(nn.Conv2d(24, 4 * len(CLASSES), 1), nn.PixelShuffle(2))
        self.twice = nn.Upsample(scale_factor=2.0, mode="bilinear")

    def forward(self, image: Tensor) -> Tensor:
        x2 = self.down2(image)
        x4 = self.down4(x2)
        x8 = self.down8(x4)
        x = self.up8(x8 + self.twice(self.narrow8(self.down16(x8))))
        x = self.up4(x4 + self.twice(self.narrow4(x)))
        x = self.up2(x2 + self.twice(self.narrow2(x)))
        logits: Tensor = self.head(x)
        return logits


# The scenes ----------------------------------------------------------------------------------------------------------


def pair(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A scene uint8[H, W, 3] RGB as it comes out of a JPEG of quality 95, and its labels uint8[H, W]."""
    cv2.setNumThreads(1)
    image, label = scene(seed, HEIGHT, WIDTH)
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    decoded = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return np.asarray(decoded, np.uint8), label


def pairs(seeds: range, workers: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scenes uint8[S, H, W, 3] and labels uint8[S, H, W] of all `seeds`."""
    images = np.empty((len(seeds), HEIGHT, WIDTH, 3), np.uint8)
    labels = np.empty((len(seeds), HEIGHT, WIDTH), np.uint8)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for i, (image, label) in enumerate(pool.map(pair, seeds, chunksize=32)):
            images[i], labels[i] = image, label
    return images, labels


def augmented(
    image: NDArray[np.uint8], label: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Mirror a scene half of the time, look closer half of the time, and cut a window of `size` out of it."""
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    if rng.random() < 0.5:
        share = float(rng.uniform(0.65, 1.0))
        part = window((int(HEIGHT * share), int(WIDTH * share)), rng)
        image = np.asarray(cv2.resize(image[part], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)
        label = np.asarray(cv2.resize(label[part], (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST), np.uint8)
    part = window(size, rng)
    return image[part], label[part]


def window(size: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of `size` anywhere in a scene."""
    top, left = int(rng.integers(HEIGHT - size[0] + 1)), int(rng.integers(WIDTH - size[1] + 1))
    return slice(top, top + size[0]), slice(left, left + size[1])


def normalised(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8[N, H, W, 3] RGB to the network's float32[N, 3, H, W]."""
    scaled = (images.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


# Training ------------------------------------------------------------------------------------------------------------


def class_weights(labels: NDArray[np.uint8]) -> Tensor:
    """Rarer classes weigh more, by the square root of how rare they are; Unlabeled does not matter much."""
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES)).astype(np.float64)
    weights = np.sqrt(counts.sum() / np.maximum(counts, 1))
    weights[UNLABELED] /= 2
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def train(steps: int, batch: int, scenes: int, threads: int, peak: float = 4e-3) -> StreetNet:
    """Train from scratch; the same arguments give the same network on the same machine."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    images, labels = pairs(range(TRAINING_SEED, TRAINING_SEED + scenes), threads)
    print(f"{scenes} scenes painted in {time.perf_counter() - started:.0f} s", flush=True)
    net = StreetNet().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=peak, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
    weights = class_weights(labels)
    loss_of = nn.CrossEntropyLoss(weight=weights)
    recent: list[float] = []
    for step in range(1, steps + 1):
        size = (HEIGHT * 3 // 4, WIDTH * 3 // 4) if step <= steps * 0.6 else (HEIGHT, WIDTH)  # cheaper at first
        chosen = [augmented(images[i], labels[i], size, rng) for i in rng.integers(scenes, size=batch)]
        x = torch.from_numpy(normalised(np.stack([image for image, _ in chosen])))
        tint = torch.from_numpy(rng.normal(0, 0.12, (2, batch, 3, 1, 1)).astype(np.float32))
        x = (x * (1 + tint[0]) + tint[1]).contiguous(memory_format=torch.channels_last)
        target = torch.from_numpy(np.stack([label for _, label in chosen])).long()
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x)
        loss = loss_of(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(net)
        recent.append(loss.item())
        if step % 100 == 0 or step == steps:
            spent = time.perf_counter() - started
            print(f"step {step}/{steps}  loss {np.mean(recent[-100:]):.4f}  {spent:.0f} s", flush=True)
    trained: StreetNet = average.module
    unweigh(trained, weights)
    return trained.eval().to(memory_format=torch.contiguous_format)


def unweigh(net: StreetNet, weights: Tensor) -> None:
    """Take the loss's class weights out of the logits again, so that the largest one is the likeliest class.

    A weighted cross entropy teaches `softmax(logits) ~ weight * probability`; worth 1.1 points of mIoU here.
    """
    bias = net.head[0].bias
    with torch.no_grad():
        bias -= weights.log().repeat_interleave(len(bias) // len(weights))


def export(net: StreetNet, path: Path) -> None:
    """Write one ONNX file: symbolic batch, no external data, nothing that names this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, 3, HEIGHT, WIDTH)
    torch.onnx.export(
        net,
        (example,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )
    model = onnx.load(path)
    model.doc_string = "Street scenes in the 12 classes of CamVid; trained on jobs/streets"
    model.graph.name = "demo-streets"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


# Evaluation ----------------------------------------------------------------------------------------------------------


def evaluate(path: Path, seeds: range = HELD_OUT) -> float:
    """Print the IoU of each class over scenes the network never saw, and return their mean.

    The row and the column of Unlabeled are dropped from the confusion matrix, as Open Model Zoo does.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    counts = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    spent = []
    for seed in seeds:
        image, label = pair(seed)
        x = normalised(image[None])
        started = time.perf_counter()
        (logits,) = session.run(["logits"], {"image": x})
        spent.append(time.perf_counter() - started)
        cell = label.astype(np.int64) * len(CLASSES) + logits[0].argmax(axis=0)
        counts += np.bincount(cell.ravel(), minlength=counts.size).reshape(counts.shape)
    kept = np.delete(np.delete(counts, UNLABELED, 0), UNLABELED, 1)
    iou = np.diag(kept) / (kept.sum(axis=0) + kept.sum(axis=1) - np.diag(kept))
    for name, value in zip(CLASSES[:UNLABELED], iou, strict=True):
        print(f"{name:<12} {value:.4f}")
    mean = float(np.nanmean(iou))
    print(f"mIoU {mean:.4f} over {len(seeds)} scenes, {np.median(spent) * 1e3:.1f} ms an image on one thread")
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500, help="optimizer steps (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="scenes a step (default %(default)s)")
    parser.add_argument("--scenes", type=int, default=8000, help="training scenes (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the ONNX file goes (default %(default)s)")
    parser.add_argument("--evaluate", type=Path, metavar="ONNX", help="train nothing, evaluate this file")
    options = parser.parse_args()
    if not options.evaluate:
        net = train(options.steps, options.batch, options.scenes, options.threads)
        export(net, options.output)
    evaluate(options.evaluate or options.output)


if __name__ == "__main__":
    main()
