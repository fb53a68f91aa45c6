"""Ports of a graph: checks its inputs and outputs against the card at load; messages say how to fix the card."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from segment.errors import ModelError, did_you_mean
from segment.models.card import ModelCard, is_built_in
from segment.models.card_output import INDEX_LAYOUTS, MULTILABEL, ONE_CHANNEL, SCORE_LAYOUTS, axes_of

Dims = tuple[int | None, ...]
Size = tuple[int, int]  # height, width

# Element types of inputs, scores and class indices.
_INPUTS = ("float32", "float16", "uint8", "int8", "int16")
_SCORES = ("float32", "float16", "bfloat16", "float64", "uint8", "int8")
_INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")
_INDICES = tuple(dict.fromkeys((*_SCORES, *_INTEGERS, "bool")))


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a graph.

    Attributes:
        names: its names, the usual one first.
        dtype: numpy's name of the element type.
        dims: size of each dimension, None if it is not fixed; None if the rank is unknown.
    """

    names: tuple[str, ...]
    dtype: str
    dims: Dims | None

    @property
    def name(self) -> str:
        """The usual name."""
        return self.names[0]

    def __str__(self) -> str:
        dims = "of unknown shape" if self.dims is None else _shape(self.dims)
        return f"'{self.name}' ({self.dtype} {dims})"


def choose_ports(card: ModelCard, inputs: Sequence[Port], outputs: Sequence[Port]) -> tuple[int, int]:
    """Return the positions of the input to feed and of the output to read; check the input.

    The caller checks the output with `check_output` when its shape for the card's input size is known.

    Raises ModelError: the graph contradicts the card.
    """
    entry = _choose(card, "input", card.input.name, inputs)
    _check_input(card, inputs[entry])
    return entry, _choose(card, "output", card.output.name, outputs)


def check_output(card: ModelCard, port: Port) -> Size | None:
    """Check the output to read against the card, as far as its shape is known.

    Returns:
        (height, width) of the output; None if graph and card do not determine it.

    Raises:
        ModelError: the graph contradicts the card.
    """
    output = card.output
    known = _INDICES if output.kind == "index" or output.maximum != 1 else _SCORES
    if port.dtype not in known:
        expected = (
            "a class index is a number" if output.kind == "index" else "scores are floating-point or 8-bit numbers"
        )
        hint = _kind_of_integers(port, card) if port.dtype in _INDICES and port.dims else None
        refuse(card, f"the card says {output.kind}, the graph's output is {port}: {hint or expected}")
    if port.dims is None:
        return _size_in_card(card)
    if not _fits_output(port.dims, output.axes, card):
        declared = (
            f"the card says {output.kind} {output.layout} {_wanted(output.axes, _output_sizes(card))} "
            f"({len(card.classes)} classes), the graph's output '{port.name}' is {port.dtype} {_shape(port.dims)}"
        )
        refuse(card, f"{declared}: {_output_advice(port, card)}")
    if "P" in output.axes:
        return flat_size(card)
    found = dict(zip(output.axes, port.dims, strict=True))
    if found["H"] is None or found["W"] is None:
        return _size_in_card(card)
    return found["H"], found["W"]


def flat_size(card: ModelCard) -> Size:
    """Return (height, width) of an output whose layout has `(HW)`: the graph does not declare them."""
    return card.output.height or card.input.height, card.output.width or card.input.width


def apart(card: ModelCard) -> list[int]:
    """Return the shape to which an output whose layout has `(HW)` is reshaped; 0 keeps a size, -1 is what is left."""
    height, width = flat_size(card)
    return {"NP": [0, height, width], "NPC": [0, height, width, -1], "NCP": [0, 0, height, width]}[card.output.axes]


def with_dims(declared: Port, dims: Dims | None) -> Port:
    """Return an output with the dims inferred for one image, except for the batch that the graph declares."""
    if dims and declared.dims:
        dims = (declared.dims[0], *dims[1:])
    return Port(declared.names, declared.dtype, dims)


def is_identity(card: ModelCard) -> bool:
    """Whether the graph takes pixel values unchanged: no scale, mean or std."""
    return card.input.maximum == 255 and not any(card.input.mean) and set(card.input.std) == {1.0}


def refuse(card: ModelCard, what: str) -> NoReturn:
    """Raise the ModelError for ports of a graph that are not as the card says."""
    if is_built_in(card):
        what += "" if what.endswith("?") else "."
        what += " Or are the weights of another model? `segment models draft` drafts its card"
    raise refusal(card, what)


def refusal(card: ModelCard, what: str) -> ModelError:
    """Return the error of a card and a graph that do not match, whatever the ports are."""
    return ModelError(f"model card '{card.name}' and its graph do not match: {what}")


def _choose(card: ModelCard, kind: str, wanted: str | None, ports: Sequence[Port]) -> int:
    if not ports:
        refuse(card, f"the graph has no {kind}, so that no image goes through it: a wrong or damaged file")
    if wanted is None:
        if len(ports) == 1:
            return 0
        listed = ", ".join(str(port) for port in ports)
        refuse(card, f'the graph has {len(ports)} {kind}s: {listed}. Say which: {kind}.name = "{ports[0].name}"')
    found = [(port.names.index(wanted), position) for position, port in enumerate(ports) if wanted in port.names]
    if found:  # the usual name of one may be another's last
        return min(found)[1]
    listed = ", ".join(map(str, ports))
    hint = did_you_mean(wanted, [port.name for port in ports])
    refuse(card, f"the card's {kind}.name is '{wanted}', but the graph's {kind}s are: {listed}.{hint}")


def _check_input(card: ModelCard, port: Port) -> None:
    if port.dtype not in _INPUTS:
        refuse(card, f"the graph's input '{port.name}' takes {port.dtype}; supported are {_and(_INPUTS)}")
    if port.dims is None:
        return
    layout, sizes = card.input.layout, {"C": card.input.depth, "H": card.input.height, "W": card.input.width}
    if _fits(port.dims, layout, sizes):
        return
    if card.input.is_dynamic and len(port.dims) == 4:
        _check_free_size(card, port.dims)
    declared = (
        f"the card says {layout} {_wanted(layout, sizes)}, the graph's input '{port.name}' is {_shape(port.dims)}"
    )
    refuse(card, f"{declared}: {_advice(card, port.dims, layout, sizes, 'input')}")


def _check_free_size(card: ModelCard, dims: Dims) -> None:
    """Refuse a graph of a fixed size where the card says that of the image."""
    found = dict(zip(card.input.layout, dims, strict=True))
    if found["C"] == card.input.depth and (found["H"] or found["W"]):
        fixed = [f"input.{key} = {found[axis] or '...'}" for key, axis in (("height", "H"), ("width", "W"))]
        refuse(
            card,
            f"the card says height = 'image' and width = 'image', but the graph's input is {_shape(dims)}: "
            f"{' and '.join(fixed)}, or export it with symbolic ones",
        )


def _size_in_card(card: ModelCard) -> Size | None:
    height, width = card.output.height, card.output.width
    return (height, width) if height and width else None


def _output_sizes(card: ModelCard) -> dict[str, int]:
    height, width = flat_size(card)
    channels = 1 if card.output.kind == "sigmoid" else len(card.classes)
    return {"C": channels, "H": height, "W": width, "P": height * width, "1": 1}


def _fits(dims: Dims, layout: str, sizes: dict[str, int]) -> bool:
    expected = {**sizes, "N": 1}
    return len(dims) == len(layout) and all(
        size is None or size == expected[axis] for size, axis in zip(dims, layout, strict=True)
    )


def _fits_output(dims: Dims, layout: str, card: ModelCard) -> bool:
    """Whether dims match the card; without a size in the card a smaller output of the same shape matches, too."""
    if len(dims) != len(layout):
        return False
    found, sizes = dict(zip(layout, dims, strict=True)), _output_sizes(card)
    smaller = {
        axis: size
        for axis, size in found.items()
        if size and ((axis == "H" and not card.output.height) or (axis == "W" and not card.output.width))
    }
    return (
        _fits(dims, layout, {**sizes, **smaller})
        and all(size <= sizes[axis] for axis, size in smaller.items())
        and (len(smaller) < 2 or _same_shape(smaller["H"], smaller["W"], card))
    )


def _same_shape(height: int, width: int, card: ModelCard) -> bool:
    """Whether one stride maps the input's height and width to these, up to one row and column of rounding."""
    least = max(card.input.height / (height + 1), card.input.width / (width + 1))
    most = min(card.input.height / max(height - 1, 0.5), card.input.width / max(width - 1, 0.5))
    return least <= most


def _output_advice(port: Port, card: ModelCard) -> str:
    dims, layout, sizes = port.dims or (), card.output.axes, _output_sizes(card)
    if text := _other_kind(port, card):
        return text
    found = dict(zip(layout, dims, strict=False))
    if len(dims) == len(layout) and found.get("P", sizes["P"]) not in (None, sizes["P"]):
        return f"{found['P']} pixels are not {sizes['H']}x{sizes['W']}: set output.height and output.width"
    height, width = found.get("H"), found.get("W")
    if len(dims) == len(layout) and height and width and _fits(dims, layout, {**sizes, "H": height, "W": width}):
        stated = f"output.height = {height} and output.width = {width}"
        if height > card.input.height or width > card.input.width:
            return f"{stated}?"
        if card.output.height or card.output.width:
            return f"{stated}? An output smaller than the input is enlarged to it (output.enlarge)"
        shape = f"{card.input.height}x{card.input.width}"
        return f"that is not {shape} on a smaller scale: check output.layout; if it is intended, set {stated}"
    return _advice(card, dims, layout, sizes, "output")


def _kind_of_integers(port: Port, card: ModelCard) -> str | None:
    """Return the advice for integers where the card says scores; None if their shape is not that of an index."""
    if card.output.kind == "sigmoid":
        return 'output.kind = "index"?' if _fits_output(port.dims or (), card.output.axes, card) else None
    return _other_kind(port, card)


def _other_kind(port: Port, card: ModelCard) -> str | None:
    """Return the advice for an output of another kind or layout than the card's; None if it is neither."""
    if None in (port.dims or ())[1:]:
        return None  # unknown sizes match everything
    for layout in (*SCORE_LAYOUTS, *INDEX_LAYOUTS):
        if layout == card.output.layout or not _fits_output(port.dims or (), axes_of(layout), card):
            continue
        if layout in card.output.layouts:
            return f'output.layout = "{layout}"?'
        if card.output.kind == "index":
            return f'output.kind = "logits" and output.layout = "{layout}"?'
        if port.dtype not in _INTEGERS:
            return ONE_CHANNEL
        change = f'output.kind = "index" and output.layout = "{layout}"'
        return f"{change}, if it is a class index. {ONE_CHANNEL}" if port.dtype in _SCORES else f"{change}?"
    return None


def _advice(card: ModelCard, dims: Dims, layout: str, sizes: dict[str, int], table: str) -> str:
    """Return a change to the card or the graph with which the shapes match."""
    if len(dims) != len(layout):
        return f"{len(layout)} dimensions are needed, the graph has {len(dims)}"
    if dims[0] not in (None, 1):
        return f"a fixed batch of {dims[0]} is not supported: export it with a batch of 1 or a symbolic one"
    for possible in (layout, {"NCHW": "NHWC", "NHWC": "NCHW"}.get(layout, layout)):
        found = dict(zip(possible, dims, strict=True))
        if found.get("C") in (None, sizes.get("C")):
            changes = [] if possible == layout else [f'{table}.layout = "{possible}"']
            changes += [
                f"{table}.{key} = {found[axis]}"
                for key, axis in (("height", "H"), ("width", "W"))
                if found.get(axis) not in (None, sizes[axis])
            ]
            return f"{' and '.join(changes)}?" if changes else f"check {table}.layout"
    channels = dims[layout.index("C")]
    if table == "input" and {channels, sizes["C"]} == {1, 3} and not card.input.bands:
        wanted = '"GREY", with one value in input.mean and input.std' if channels == 1 else '"RGB" or "BGR"'
        return f"the graph takes {channels} channel{'s' if channels == 3 else ''}: input.channels = {wanted}?"
    if table == "input":
        if card.input.bands:
            return f"the graph takes {channels} channels, input.bands names {sizes['C']}"
        return (
            f"the graph takes {channels} channels, an image has 3: check input.layout and the weights; for images of "
            "more bands set input.bands"
        )
    if channels == 1:
        return ONE_CHANNEL
    if sizes["C"] == 1:
        return (
            f'{channels} channels are no single sigmoid: one score per class is output.kind = "probabilities" or '
            f'"logits"; {MULTILABEL}'
        )
    return (
        f"the graph scores {channels} classes, the card names {sizes['C']}: "
        f"check the class names, output.layout and the weights"
    )


def _wanted(layout: str, sizes: dict[str, int]) -> str:
    return "x".join(str(sizes[axis]) for axis in layout if axis != "N")


def _shape(dims: Dims) -> str:
    return "x".join("?" if size is None else str(size) for size in dims) or "a scalar"


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
