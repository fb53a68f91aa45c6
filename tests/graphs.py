"""Small real ONNX graphs that keep a card's contract and whose masks are known beforehand.

    card = load_card("unet-camvid-onnx-0001")
    image, mask = painted(card, seed=1)              # blocks of palette colours, and the class of every pixel
    weights = as_weights(colour_classifier(card))    # open_session(card, weights, ...).predict gives exactly `mask`

A graph built for another card than the one it is served with is how a wrong layout or channel order is staged.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segment.models.card import ModelCard
from segment.models.weights import Format, Weights

Colours = Sequence[tuple[int, int, int]]

TRIGGER = (255, 0, 255)  # in no palette: the colour that makes `nan_graph` and `out_of_range_graph` misbehave
CENTRE = 127.5  # colours are taken relative to grey: small numbers keep bf16 exact enough


def colour_classifier(
    card: ModelCard,
    colours: Colours | None = None,
    *,
    input_dtype: Literal["float32", "float16", "uint8"] = "float32",
    output_dtype: str | None = None,
    batch: int | str = "N",
    batching: Literal["fine", "raises", "mixes"] = "fine",
    dynamic: bool = False,
    stride: int = 1,
    opset: int = 17,
    ir_version: int = 8,
) -> bytes:
    """Return an ONNX model that gives each pixel the class of the nearest colour.

    It takes what the card says (name, layout, channel order, normalisation) and gives what the card says (name, kind,
    layout): `-|pixel - colour|^2`, up to a constant of the pixel, as the score of a class; a softmax of it if the card
    says probabilities, its argmax if it says index. Of equal colours the first one wins.

    Args:
        card: the contract.
        colours: RGB by class; the card's palette unless given. More or fewer than the card has classes is allowed.
        input_dtype: what the graph takes.
        output_dtype: what it gives; float32 scores or int64 indices unless given.
        batch: 1 for a fixed batch, a name for a symbolic one.
        batching: whether a fixed batch hides something: `raises` with a larger batch, or silently `mixes` images.
        dynamic: height, width and classes are symbolic too.
        stride: the mask has every stride-th row and column.
        opset, ir_version: of the file.
    """
    builder = _Builder(card, colours, opset, ir_version)
    x = builder.pixels(input_dtype)
    scores = builder.scores(x, stride)
    if batching == "raises":
        shape = (1, len(builder.colours), card.input.height // stride, card.input.width // stride)
        scores = builder.add("Reshape", scores, np.array(shape, np.int64))
    if batching == "mixes":
        mean = builder.add("ReduceMean", scores, axes=[0], keepdims=1)
        scores = builder.add("Add", scores, builder.add("Mul", mean, np.array(4, np.float32)))
    return builder.finish(scores, input_dtype, output_dtype, batch, dynamic, stride)


def nan_graph(
    card: ModelCard, trigger: tuple[int, int, int] = TRIGGER, number: float = np.nan, enlarged: bool = False
) -> bytes:
    """Return a `colour_classifier` whose output is NaN (or another `number`) at every pixel of the trigger's colour.

    With `enlarged` its scores are made a quarter as high and wide (every fourth pixel) and enlarged linearly.

    Served, an image that holds the trigger is the fault `model_not_finite` (scores) or, from a card of kind index,
    whose output is then float32, `model_range`. All other images are segmented as by `colour_classifier`.
    """
    builder = _Builder(card, None, 17, 8)
    x = builder.pixels("float32")
    near = builder.add("Less", builder.distance(x, trigger), np.array(50, np.float32))
    poison = builder.add("Where", near, np.array(number, np.float32), np.array(0, np.float32))
    scores = builder.scores(x, 1)
    if card.output.kind == "index":
        return builder.finish(scores, "float32", "float32", "N", False, 1, poison=poison)
    scores = builder.add("Add", scores, poison)
    if enlarged:
        every = [np.array(numbers, np.int64) for numbers in ([0, 0], [1 << 30] * 2, [2, 3], [4, 4])]
        scores = builder.add("Slice", scores, *every)
        none, scales = np.empty(0, np.float32), np.array([1, 1, 4, 4], np.float32)
        scores = builder.add("Resize", scores, none, scales, mode="linear")
    return builder.finish(scores, "float32", None, "N", False, 1)


def out_of_range_graph(
    card: ModelCard, trigger: tuple[int, int, int] = TRIGGER, shift: int | None = None, output_dtype: str = "int64"
) -> bytes:
    """Return a `colour_classifier` (kind index) that adds `shift` to the class of pixels of the trigger's colour.

    `shift` is the number of classes unless given, so the index is out of range; negative shifts work too. Served, an
    image that holds the trigger is the fault `model_range`.
    """
    if card.output.kind != "index":
        raise ValueError(f"card '{card.name}' gives {card.output.kind}: an argmax is never out of range")
    builder = _Builder(card, None, 17, 8)
    x = builder.pixels("float32")
    near = builder.add("Less", builder.distance(x, trigger), np.array(50, np.float32))
    amount = np.array(len(card.classes) if shift is None else shift, np.float32)
    added = builder.add("Mul", builder.add("Cast", near, to=TensorProto.FLOAT), amount)
    return builder.finish(builder.scores(x, 1), "float32", output_dtype, "N", False, 1, poison=added)


def painted(
    card: ModelCard, seed: int, colours: Colours | None = None, block: int = 16
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a picture of random blocks in class colours, `uint8[H, W, 3]` RGB, and its mask, `uint8[H, W]`."""
    palette = np.asarray(card.classes.palette if colours is None else colours, np.uint8)
    height, width = card.input.height, card.input.width
    coarse = np.random.default_rng(seed).integers(0, len(palette), (-(-height // block), -(-width // block)))
    mask = coarse.repeat(block, 0).repeat(block, 1)[:height, :width].astype(np.uint8)
    return palette[mask], mask


def as_weights(graph: bytes, fmt: Format = "onnx", data: bytes = b"") -> Weights:
    """Wrap bytes the way `segment.models.weights` does once it has verified them."""
    return Weights(fmt, graph, data, hashlib.sha384(graph + data).hexdigest(), "a test")


class _Builder:
    """Nodes of one graph; inside, pixels are NCHW float32 in the card's channel order, normalised."""

    def __init__(self, card: ModelCard, colours: Colours | None, opset: int, ir_version: int) -> None:
        self.card = card
        self.colours = np.asarray(card.classes.palette if colours is None else colours, np.float32)
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self.opset, self.ir_version = opset, ir_version
        self.input_name, self.output_name = card.input.name or "picture", card.output.name or "prediction"
        # pixel = value * scale + offset, channel by channel
        unit = np.float32(255 / card.input.maximum)
        self.scale = np.array(card.input.std, np.float32) * unit
        self.offset = np.array(card.input.mean, np.float32) * unit

    def add(self, op: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        """Add a node, arrays becoming initialisers, and return the name of its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self._named(item) for item in inputs], [name], **attributes))
        return name

    def _named(self, item: str | NDArray[Any]) -> str:
        if isinstance(item, str):
            return item
        name = f"c{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(item, name))
        return name

    def pixels(self, dtype: str) -> str:
        x = self.input_name
        if dtype != "float32":
            x = self.add("Cast", x, to=TensorProto.FLOAT)
        return self.add("Transpose", x, perm=[0, 3, 1, 2]) if self.card.input.layout == "NHWC" else x

    def scores(self, x: str, stride: int) -> str:
        """2 (c - g).(p - g) - |c - g|^2, which is |p - g|^2 - |p - c|^2, in steps of 1/4096."""
        centred = self._ordered(self.colours) - CENTRE
        kernel = 2 * centred * self.scale
        bias = 2 * centred @ (self.offset - CENTRE) - np.square(centred).sum(axis=1)
        weight, bias = (array.astype(np.float32) / 4096 for array in (kernel[:, :, None, None], bias))
        return self.add("Conv", x, weight, bias, kernel_shape=[1, 1], strides=[stride, stride])

    def distance(self, x: str, colour: tuple[int, int, int]) -> str:
        """|p - colour|^2 as [N, 1, H, W]."""
        wanted = self._ordered(np.array([colour], np.float32))[0]
        pixels = self.add("Mul", x, self.scale.reshape(1, 3, 1, 1))
        difference = self.add("Add", pixels, (self.offset - wanted).astype(np.float32).reshape(1, 3, 1, 1))
        return self.add("ReduceSum", self.add("Mul", difference, difference), np.array([1], np.int64), keepdims=1)

    def _ordered(self, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
        return rgb[:, ::-1] if self.card.input.channels == "BGR" else rgb

    def finish(
        self,
        scores: str,
        input_dtype: str,
        output_dtype: str | None,
        batch: int | str,
        dynamic: bool,
        stride: int,
        poison: str | None = None,
    ) -> bytes:
        """Turn scores into the card's output (`poison`, [N, 1, H, W], is added to an index) and return the model."""
        output = self.card.output
        default = "int64" if output.kind == "index" else "float32"
        if output.kind == "index":
            value = self.add("ArgMax", scores, axis=1, keepdims=1)
            if poison:
                value = self.add("Add", self.add("Cast", value, to=TensorProto.FLOAT), poison)
                default = "float32"
            value = self._to_layout_of_index(value)
        else:
            value = scores
            if output.kind == "probabilities":  # channels last: onnxruntime's softmax over another axis is slow
                last = self.add("Softmax", self.add("Transpose", scores, perm=[0, 2, 3, 1]), axis=3)
                value = self.add("Transpose", last, perm=[0, 3, 1, 2])
            if output.layout == "NHWC":
                value = self.add("Transpose", value, perm=[0, 2, 3, 1])
        dtype = output_dtype or default
        if dtype != default:
            value = self.add("Cast", value, to=_onnx_type(dtype))
        self.add("Identity", value)
        self.nodes[-1].output[0] = self.output_name
        return self._model(input_dtype, dtype, batch, dynamic, stride)

    def _to_layout_of_index(self, value: str) -> str:
        if self.card.output.layout == "NHW":
            if self.opset >= 13:
                return self.add("Squeeze", value, np.array([1], np.int64))
            return self.add("Squeeze", value, axes=[1])
        return self.add("Transpose", value, perm=[0, 2, 3, 1]) if self.card.output.layout == "NHW1" else value

    def _model(self, input_dtype: str, output_dtype: str, batch: int | str, dynamic: bool, stride: int) -> bytes:
        card = self.card
        sizes = {"N": batch, "C": 3, "H": card.input.height, "W": card.input.width, "1": 1}
        given = {**sizes, "C": len(self.colours)}
        given |= {"H": -(-card.input.height // stride), "W": -(-card.input.width // stride)}
        if dynamic:
            sizes |= {"H": "h", "W": "w"}
            given |= {"C": "c", "H": "mh", "W": "mw"}
        entry = _value(self.input_name, input_dtype, [sizes[axis] for axis in card.input.layout])
        result = _value(self.output_name, output_dtype, [given[axis] for axis in card.output.layout])
        entries = [entry]
        if self.ir_version < 4:  # then every initialiser is listed as an input
            entries += [_value(t.name, _numpy_type(t.data_type), list(t.dims)) for t in self.initialisers]
        graph = helper.make_graph(self.nodes, "colours", entries, [result], self.initialisers)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)
        return bytes(model.SerializeToString())


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, _onnx_type(dtype), shape)


def _onnx_type(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _numpy_type(elem_type: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(elem_type).name)
