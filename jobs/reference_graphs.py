"""The published architectures at their published cost, with seeded weights: speed is measured on the real thing.

    python jobs/reference_graphs.py                       # all of them into .bench/graphs
    python jobs/reference_graphs.py unet icnet --out DIR

| graph | card | published |
|---|---|---|
| unet, unet-int8 | unet-camvid-onnx-0001 | 31.03 M parameters, 260.1 GFLOPs |
| icnet, icnet-sparse-60 | icnet-camvid-ava-sparse-60-0001 | 26.7043 M parameters, 75.818 GFLOPs |
| icnet-int8 | icnet-camvid-int8-onnx-0001 | - |
| deeplab | deeplabv3-mobilenetv2-dm05 | 1.76 GFLOPs (0.88 G multiply-adds) |

numpy and onnx only; the `-int8` graphs are quantised by onnxruntime's quantiser. Weights mean nothing: masks vary with
the picture and are no segmentation of it.

U-Net (Ronneberger et al., arXiv 1505.04597) and DeepLabV3 (Chen et al., arXiv 1706.05587) on MobileNetV2 follow the
published graphs layer by layer. ICNet (Zhao et al., arXiv 1704.08545) follows its paper, which leaves widths open:
stems of 64-64-128, a pyramid of 512 and fusion in 256 channels meet both published figures.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.bench.layers import Layers, Value, cost

BGR_MEAN = (104.0, 103.0, 100.0)
BGR_GAIN = 1 / 64  # brings pixels less their mean to a variance of about 1


def unet(width: int = 64, height: int = 368, columns: int = 480, classes: int = 12, seed: int = 1) -> ModelProto:
    """U-Net with padded convolutions and transposed convolutions: NCHW BGR 0-255 in, probabilities out."""
    net = Layers(seed)
    x = net.less(Value("input.1", 3, height, columns), BGR_MEAN)
    skips = []
    for level in range(5):
        if level:
            x = net.max_pool(x, 2, 2)
        x = net.conv(x, width << level, 3, gain=1.0 if level else BGR_GAIN)
        x = net.conv(x, width << level, 3)
        skips.append(x)
    for skip in reversed(skips[:-1]):
        up = net.transposed(x, skip.channels)
        x = net.conv(net.concat(skip, up), skip.channels, 3)
        x = net.conv(x, skip.channels, 3)
    x = net.op("Softmax", net.conv(x, classes, act=None), axis=1)
    shape = [1, 3, height, columns]
    return net.model(("input.1", shape), x, ("206", TensorProto.FLOAT, [1, classes, height, columns]))


def icnet(height: int = 720, width: int = 960, *, zeros: float = 0.0, seed: int = 2) -> ModelProto:
    """ICNet for the card icnet-camvid-ava-sparse-60-0001: NHWC BGR 0-255 in, class index out."""
    net = Layers(seed, zeros)
    picture = net.op("Transpose", Value("data", 3, height, width), perm=[0, 3, 1, 2])
    scores = _icnet_scores(net, picture)
    index = net.op("ArgMax", scores, axis=1, keepdims=0)
    return net.model(("data", [1, height, width, 3]), index, ("index", TensorProto.INT64, [1, height, width]))


def icnet_probabilities(height: int = 768, width: int = 768, seed: int = 3) -> ModelProto:
    """ICNet for the card icnet-camvid-int8-onnx-0001, before it is quantised: NCHW BGR 0-255 in, probabilities out."""
    net = Layers(seed)
    probabilities = net.op("Softmax", _icnet_scores(net, Value("0", 3, height, width)), axis=1)
    given = ("0", [1, 3, height, width])
    return net.model(given, probabilities, ("probabilities", TensorProto.FLOAT, [1, 12, height, width]))


def _icnet_scores(net: Layers, picture: Value, classes: int = 12) -> Value:
    """Three branches at full, half and quarter resolution; the last two share weights up to conv3_1."""
    picture = net.less(picture, BGR_MEAN)
    medium = net.conv(net.resize(picture, picture.height // 2, picture.width // 2), 64, 3, stride=2, gain=BGR_GAIN)
    medium = net.max_pool(net.conv(net.conv(medium, 64, 3), 128, 3), 3, 2, pad=1)
    medium = _stage(net, medium, 64, blocks=3)
    medium = _stage(net, medium, 128, blocks=1, stride=2)  # conv3_1, 1/16 of the picture

    low = net.resize(medium, -(-medium.height // 2), -(-medium.width // 2))  # 1/32: the quarter branch starts here
    low = _stage(net, low, 128, blocks=3, project=False)
    low = _stage(net, low, 256, blocks=6, dilation=2)
    low = _stage(net, low, 512, blocks=3, dilation=4)
    low = net.conv(_pyramid(net, low), 512)

    fine = net.conv(picture, 64, 3, stride=2, gain=BGR_GAIN)
    fine = net.conv(net.conv(fine, 64, 3, stride=2), 128, 3, stride=2)  # 1/8

    fused = _fuse(net, _fuse(net, low, medium), fine)
    fused = net.resize(fused, fused.height * 2, fused.width * 2)
    return net.resize(net.conv(fused, classes, act=None), picture.height, picture.width)


def _stage(
    net: Layers, x: Value, width: int, *, blocks: int, stride: int = 1, dilation: int = 1, project: bool = True
) -> Value:
    """Bottleneck blocks of ResNet-50 (He et al., arXiv 1512.03385); the first one projects its shortcut."""
    for block in range(blocks):
        step = stride if block == 0 else 1
        inner = net.conv(x, width, stride=step)
        inner = net.conv(inner, width, 3, dilation=dilation)
        inner = net.conv(inner, width * 4, act=None, gain=0.4)  # small, or variance would grow block by block
        first = project and block == 0
        x = net.act(net.add(net.conv(x, width * 4, stride=step, act=None) if first else x, inner))
    return x


def _pyramid(net: Layers, x: Value) -> Value:
    """Pyramid pooling as ICNet has it: means over 1, 2, 3 and 6 windows a side, added and not concatenated."""
    total = x
    for bins in (1, 2, 3, 6):
        total = net.add(total, net.resize(net.mean_pool(x, bins), x.height, x.width))
    return total


def _fuse(net: Layers, coarse: Value, fine: Value, width: int = 256) -> Value:
    """Cascade feature fusion: the coarse map, enlarged, through a dilated 3x3, and the fine one through a 1x1."""
    coarse = net.conv(net.resize(coarse, fine.height, fine.width), width, 3, dilation=2, act=None)
    return net.act(net.add(coarse, net.conv(fine, width, act=None, gain=0.5)))


# MobileNetV2 (Sandler et al., arXiv 1801.04381) at output stride 16: expansion, channels, blocks, stride, dilation
MOBILENET = (
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 1),
    (6, 64, 4, 2, 1),
    (6, 96, 3, 1, 1),
    (6, 160, 3, 1, 2),
    (6, 320, 1, 1, 2),
)


def deeplab(depth: float = 0.5, size: int = 513, classes: int = 21, seed: int = 4) -> ModelProto:
    """DeepLabV3 on MobileNetV2: NHWC RGB in [-1, 1] in, scores out. `depth` multiplies the channels of MobileNetV2."""
    net = Layers(seed)
    x = net.op("Transpose", Value("image", 3, size, size), perm=[0, 3, 1, 2])
    x = net.conv(x, round(32 * depth), 3, stride=2, act="Relu6")
    for expansion, channels, blocks, stride, dilation in MOBILENET:
        for block in range(blocks):
            # the block whose stride became a dilation is not dilated itself yet
            rate = 1 if (channels, block) == (160, 0) else dilation
            x = _inverted_residual(net, x, expansion, round(channels * depth), stride if block == 0 else 1, rate)
    pooled = net.resize(net.conv(net.op("GlobalAveragePool", x)._replace(height=1, width=1), 256), x.height, x.width)
    x = net.conv(net.concat(pooled, net.conv(x, 256)), 256)
    x = net.resize(net.conv(x, classes, act=None), size, size, corners=True)
    scores = net.op("Transpose", x, perm=[0, 2, 3, 1])
    shape = [1, size, size]
    return net.model(("image", [*shape, 3]), scores, ("scores", TensorProto.FLOAT, [*shape, classes]))


def _inverted_residual(net: Layers, x: Value, expansion: int, channels: int, stride: int, dilation: int) -> Value:
    inner = x if expansion == 1 else net.conv(x, x.channels * expansion, act="Relu6")
    inner = net.conv(inner, inner.channels, 3, stride=stride, dilation=dilation, depthwise=True, act="Relu6")
    inner = net.conv(inner, channels, act=None)
    return net.add(x, inner) if stride == 1 and channels == x.channels else inner


def quantised(model: ModelProto, pictures: int = 2) -> ModelProto:
    """Quantise to INT8 with onnxruntime's quantiser: QDQ, weights per channel, ranges from blocks of seeded colours."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    entry = model.graph.input[0]
    height, width = (dim.dim_value for dim in entry.type.tensor_type.shape.dim[2:])

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self._all: Iterator[np.ndarray] = (blocks_of_colour(height, width, seed) for seed in range(pictures))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({entry.name: one[np.newaxis].transpose(0, 3, 1, 2)} for one in self._all), None)

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            target,
            Pictures(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose", "MaxPool", "AveragePool", "Concat", "Add"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)


def blocks_of_colour(height: int, width: int, seed: int) -> np.ndarray:
    """A picture `float32[height, width, 3]`, 0-255: coloured blocks under noise, as varied as a photo to a network."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (12, 16, 3))
    blocks = coarse[np.arange(height)[:, None] * 12 // height, np.arange(width) * 16 // width]
    return np.clip(blocks + generator.normal(0, 12, (height, width, 3)), 0, 255).astype(np.float32)


GRAPHS: dict[str, Callable[[], ModelProto]] = {
    "unet": unet,
    "unet-int8": lambda: quantised(unet()),
    "icnet": icnet,
    "icnet-sparse-60": lambda: icnet(zeros=0.6),
    "icnet-int8": lambda: quantised(icnet_probabilities()),
    "deeplab": deeplab,
}
# Counted before they are quantised: a quantised graph has more nodes and no more arithmetic.
FLOATS: dict[str, Callable[[], ModelProto]] = {"unet-int8": unet, "icnet-int8": icnet_probabilities}


def write_graph(name: str, folder: Path) -> Path:
    """Write one graph unless it is there, and return its path."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = GRAPHS[name]().SerializeToString()
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return path


def main() -> None:
    """Write graphs and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(GRAPHS)}; all if none is named")
    parser.add_argument("--out", type=Path, default=Path(".bench/graphs"))
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(GRAPHS))
    if unknown:
        parser.error(f"no graph named {', '.join(unknown)}: use {', '.join(GRAPHS)}")
    for name in options.names or GRAPHS:
        path = write_graph(name, options.out)
        counted = cost(FLOATS[name]() if name in FLOATS else onnx.load(path))
        print(
            f"{path}: {counted.parameters / 1e6:.2f} M parameters, {counted.flops / 1e9:.2f} GFLOPs, "
            f"{counted.zeros:.0%} of the convolution weights are 0, {path.stat().st_size / 1e6:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
