"""The input that takes the image: which one, its layout, its size."""

from segment.drafts.contract import Hints, Said, guess, refusal, unanswered
from segment.models.sessions.graph_facts import GraphFacts, InputFacts
from segment.models.sessions.ports import Dims, Port

Size = tuple[int, int]  # height, width

_DTYPES = ("float32", "float16", "uint8", "int8", "int16")
_CHANNELS = 16  # an axis of more is no channel axis


def choose_input(facts: GraphFacts) -> InputFacts:
    """Return the input that takes the image. Raises ModelError: there is none, or several."""
    images = [entry for entry in facts.inputs if entry.port.dims is None or len(entry.port.dims) == 4]
    if len(images) > 1:
        listed = ", ".join(str(entry.port) for entry in images)
        raise refusal(f"it takes {len(images)} images at once ({listed}), and a job has one")
    if images:
        return images[0]
    listed = ", ".join(str(entry.port) for entry in facts.inputs) or "none"
    if any(entry.port.dims is not None and len(entry.port.dims) == 5 for entry in facts.inputs):
        raise refusal(f"its input has five dimensions, for volumes or video, and a job has images ({listed})")
    raise refusal(
        f"it has no input of four dimensions (batch, channels, height, width), so none takes an image: {listed}"
    )


def layout_of(port: Port) -> Said[str]:
    """Return `NCHW` or `NHWC`.

    Raises:
        ModelError: the input takes no image in colour or grey, no batch of one, or numbers of another type.
    """
    if port.dims is None:
        return guess("NCHW", "the graph does not say how many dimensions its input has", '"NHWC"')
    _check_batch(port, port.dims)
    first, last = port.dims[1], port.dims[3]
    depth = 3 if 3 in (first, last) else 1
    if depth not in (first, last):
        _check_channels(port, port.dims)
    _check_dtype(port)
    shape = f"the graph's input is {port}"
    if first == depth and last != depth:
        return Said("NCHW", shape)
    if last == depth and first != depth:
        return Said("NHWC", shape)
    return guess("NCHW", f"{shape}, which says nothing", '"NHWC"')


def _check_batch(port: Port, dims: Dims) -> None:
    if dims[0] not in (None, 1):
        raise refusal(
            f"its input {port} takes a fixed batch of {dims[0]}: export it with a batch of 1 or a symbolic one"
        )


def _check_channels(port: Port, dims: Dims) -> None:
    sides = [side for side in (dims[1], dims[3]) if side is not None and side <= _CHANNELS]
    if sides:
        raise unanswered(
            f"the input {port} takes {min(sides)} channels, and an image has three (colour) or one (grey); a card for "
            "bands of multi-band TIFFs is written by hand (input.bands)"
        )
    if None not in (dims[1], dims[3]):
        raise refusal(f"its input {port} has no axis of three channels, or of one")


def _check_dtype(port: Port) -> None:
    if port.dtype not in _DTYPES:
        raise refusal(
            f"its input {port} takes {port.dtype}; served are float32, float16, uint8, int8 and int16: export it with "
            "a float32 input (TensorFlow's converter: inference_input_type = tf.float32)"
        )


def depth_of(port: Port, layout: str) -> int:
    """Return the number of channels that an input takes: 3 (colour) or 1 (grey)."""
    return 1 if port.dims is not None and port.dims[layout.index("C")] == 1 else 3


def size_of(port: Port, layout: str, hints: Hints, wanted: Size | None) -> Said[Size]:
    """Return height and width: of the graph, else as wanted, else as the exporter says.

    Raises:
        ModelError: the size is free and nobody names one, or the graph has another than the one wanted.
    """
    dims = dict(zip(layout, port.dims or (None,) * 4, strict=True))
    height, width = dims["H"], dims["W"]
    if height and width:
        if wanted and wanted != (height, width):
            raise unanswered(
                f"--size {wanted[0]}x{wanted[1]}: the graph is of {height}x{width} alone. Leave --size out"
            )
        return Said((height, width), f"the graph's input is {port}")
    free = "the graph leaves it free"
    if not height and not width:
        free += ', and "image" for height and width may run it at the size of each image'
    if wanted:
        return _fitting(Said(wanted, f"--size; {free}"), (height, width))
    if hints.size is not None and min(hints.size.value) > 0:
        return _fitting(Said(hints.size.value, f"{hints.size.why}; {free}"), (height, width))
    side = height or width or 512
    raise unanswered(
        f"the input {port} leaves height or width free, and a draft needs one size: name that of training, for "
        f"example --size {height or side}x{width or side}"
    )


def _fitting(size: Said[Size], fixed: tuple[int | None, int | None]) -> Said[Size]:
    for side, other in zip(size.value, fixed, strict=True):
        if other is not None and side != other:
            raise unanswered(
                f"{size.why}: {size.value[0]}x{size.value[1]} does not fit the graph, whose other side is {other}"
            )
    return size
