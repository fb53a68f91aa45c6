"""Does a graph keep the contract its card declares? Checked at load, told in words with the mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from segment.card import ModelCard
from segment.errors import ModelError, nearest

Dims = tuple[int | None, ...]

FEEDABLE = ("float32", "float16", "uint8")
SCORES = ("float32", "float16", "bfloat16", "float64", "uint8", "int8")
INDICES = (*SCORES, "int16", "int32", "int64", "uint16", "uint32", "uint64")


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a graph.

    Attributes:
        names: what it may be called, the usual name first.
        dtype: element type as numpy spells it.
        dims: size by dimension, None where it is not fixed; None if even the rank is not known.
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
    """Return the positions of the input to feed and the output to read, both checked against the card.

    Raises:
        ModelError: which of the card's statements the graph contradicts, and how to mend it.
    """
    entry = _choose(card, "input", card.input.name, inputs)
    _check_input(card, inputs[entry])
    result = _choose(card, "output", card.output.name, outputs)
    _check_output(card, outputs[result])
    return entry, result


def is_identity(card: ModelCard) -> bool:
    """Return whether the graph wants pixel values as they are: no scale, mean or std."""
    return card.input.maximum == 255 and not any(card.input.mean) and set(card.input.std) == {1.0}


def refuse(card: ModelCard, what: str) -> NoReturn:
    """Raise ModelError naming the card."""
    raise ModelError(f"model card '{card.name}' and its graph do not fit: {what}")


def _choose(card: ModelCard, kind: str, wanted: str | None, ports: Sequence[Port]) -> int:
    if wanted is None:
        if len(ports) == 1:
            return 0
        listed = ", ".join(str(port) for port in ports)
        refuse(card, f'the graph has {len(ports)} {kind}s: {listed}. Say which: {kind}.name = "{ports[0].name}"')
    for position, port in enumerate(ports):
        if wanted in port.names:
            return position
    listed = ", ".join(f"'{port.name}'" for port in ports)
    hint = nearest(wanted, [port.name for port in ports])
    refuse(card, f"the card's {kind}.name is '{wanted}', but the graph's {kind}s are: {listed}.{hint}")


def _check_input(card: ModelCard, port: Port) -> None:
    if port.dtype not in FEEDABLE:
        refuse(card, f"the graph's input '{port.name}' takes {port.dtype}; {_either(FEEDABLE)} can be fed")
    if port.dtype == "uint8" and not is_identity(card):
        refuse(
            card,
            f"the graph's input '{port.name}' takes uint8, so pixels go in as they are, but the card declares a "
            f"normalisation: remove input.maximum, input.mean and input.std",
        )
    if port.dims is None:
        return
    layout, sizes = card.input.layout, {"C": 3, "H": card.input.height, "W": card.input.width}
    if _fits(port.dims, layout, sizes):
        return
    declared = (
        f"the card says {layout} {_wanted(layout, sizes)}, the graph's input '{port.name}' is {_shape(port.dims)}"
    )
    refuse(card, f"{declared}: {_mend(port.dims, layout, sizes, 'input')}")


def _check_output(card: ModelCard, port: Port) -> None:
    kind, layout, classes = card.output.kind, card.output.layout, len(card.classes)
    known = INDICES if kind == "index" else SCORES
    if port.dtype not in known:
        hint = ': output.kind = "index"?' if port.dtype in INDICES else ""
        refuse(card, f"the card says {kind}, the graph's output '{port.name}' is {port.dtype}{hint}")
    if port.dims is None:
        return
    sizes = {"C": classes, "H": card.output_height, "W": card.output_width, "1": 1}
    if _fits(port.dims, layout, sizes):
        return
    declared = (
        f"the card says {kind} {layout} {_wanted(layout, sizes)} ({classes} classes), "
        f"the graph's output '{port.name}' is {port.dtype} {_shape(port.dims)}"
    )
    refuse(card, f"{declared}: {_mend_kind(port.dims, card, sizes) or _mend(port.dims, layout, sizes, 'output')}")


def _fits(dims: Dims, layout: str, sizes: dict[str, int]) -> bool:
    expected = {**sizes, "N": 1}
    return len(dims) == len(layout) and all(
        size is None or size == expected[axis] for size, axis in zip(dims, layout, strict=True)
    )


def _mend_kind(dims: Dims, card: ModelCard, sizes: dict[str, int]) -> str | None:
    """What to write into the card if the graph gives another kind or layout of output than it says."""
    scores, indices = ("NCHW", "NHWC"), ("NHW", "N1HW", "NHW1")
    for layout in (*scores, *indices):
        if layout == card.output.layout or not _fits(dims, layout, sizes):
            continue
        if (layout in scores) == (card.output.kind != "index"):
            return f'output.layout = "{layout}"?'
        kind = "logits" if layout in scores else "index"
        return f'output.kind = "{kind}" and output.layout = "{layout}"?'
    return None


def _mend(dims: Dims, layout: str, sizes: dict[str, int], table: str) -> str:
    """What to write into the card (or do to the graph) so that shapes agree, as far as can be told."""
    if len(dims) != len(layout):
        return f"{len(layout)} dimensions are needed, the graph has {len(dims)}"
    if dims[0] not in (None, 1):
        return f"a fixed batch of {dims[0]} cannot be served: export it with a batch of 1 or a symbolic one"
    for possible in (layout, {"NCHW": "NHWC", "NHWC": "NCHW"}.get(layout, layout)):
        found = dict(zip(possible, dims, strict=True))
        if found.get("C") in (None, sizes.get("C")):
            changes = [] if possible == layout else [f'{table}.layout = "{possible}"']
            changes += [
                f"{table}.{key} = {found[axis]}"
                for key, axis in (("height", "H"), ("width", "W"))
                if found[axis] not in (None, sizes[axis])
            ]
            return f"{' and '.join(changes)}?" if changes else f"check {table}.layout"
    channels = dims[layout.index("C")]
    if table == "input":
        return f"the graph wants {channels} channels, a picture has 3: check input.layout and the weights"
    return (
        f"the graph scores {channels} classes, the card names {sizes['C']}: "
        f"check the class names, output.layout and the weights"
    )


def _wanted(layout: str, sizes: dict[str, int]) -> str:
    return "x".join(str(sizes[axis]) for axis in layout if axis != "N")


def _shape(dims: Dims) -> str:
    return "x".join("?" if size is None else str(size) for size in dims) or "a scalar"


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
