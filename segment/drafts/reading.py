"""The draft of a model: its graph's facts, its exporter's hints, and guesses for the rest."""

import re
from collections.abc import Sequence

from segment.drafts.class_names import classes_of
from segment.drafts.contract import Draft, Hints, Said, guess, refusal, unanswered
from segment.drafts.exporters import read_hints
from segment.drafts.image_input import Size, choose_input, depth_of, layout_of, size_of
from segment.drafts.mask_output import Mask, choose_output, is_crop
from segment.drafts.pixels import GREY, channels_of, scaling_of, scaling_of_grey
from segment.errors import ModelError
from segment.models.classes import Classes
from segment.models.sessions.graph_facts import GraphFacts, InputFacts
from segment.models.sessions.inspection import inspect_graph
from segment.models.weights import Weights
from segment.store.client import Store
from segment.store.names import basename
from segment.store.urls import without_query

_STRETCH = {"method": "stretch", "resampler": "pillow", "interpolation": "bilinear"}


def read_draft(
    url: str, weights: Weights, store: Store, *, size: Size | None = None, classes: int | None = None, name: str = ""
) -> Draft:
    """Return the draft of a model.

    Args:
        url: of the graph; files beside it are read.
        weights: its bytes.
        store: reads the files beside it.
        size: height and width, where the graph leaves them free.
        classes: number of classes, where the graph does not say it.
        name: of the card; the default follows from the URL.

    Raises:
        ModelError: the model cannot be served; the message says why.
    """
    facts = _facts(weights)
    hints = read_hints(url, facts, store)
    if hints.refusal:
        raise refusal(hints.refusal)
    entry = choose_input(facts)
    layout = layout_of(entry.port)
    depth = depth_of(entry.port, layout.value)
    chosen = size_of(entry.port, layout.value, hints, size)
    facts = inspect_graph(weights, entry.port.name, _shape(layout.value, chosen.value, depth))
    said = classes or (len(hints.names.value) if hints.names else None)
    mask, others = choose_output(facts, chosen.value, layout.value, said)
    found = _classes(mask, hints, classes)
    number = len(found.value.names)
    return Draft(
        name or card_name(url),
        entry.port.name if len(facts.inputs) > 1 else None,
        layout,
        chosen,
        channels_of(entry, facts, hints, number) if depth == 3 else GREY,
        scaling_of(entry, facts, weights.format, hints) if depth == 3 else scaling_of_grey(entry, hints),
        hints.resize or guess(_STRETCH, "no file says how images were resized", 'method = "letterbox" or "pad"'),
        _output_name(mask, others, len(facts.outputs), said),
        mask.kind,
        mask.logit,
        1,
        Said(mask.layout, f"the graph's output is {mask.facts.port}"),
        _stated_size(mask, chosen.value),
        found,
        (*hints.remarks, *_remarks(entry, mask, chosen.value, depth)),
        mask.classes == 3 and mask.kind.value == "logits" and not mask.facts.is_quantised,
    )


def _facts(weights: Weights) -> GraphFacts:
    try:
        return inspect_graph(weights)
    except ModelError as error:
        raise refusal(f"no runtime here reads it: {error}") from None


def card_name(url: str) -> str:
    """Return a card's name from the URL of a graph.

    >>> card_name("file:///models/My net (v2).onnx")
    'My-net-v2'
    """
    stem = basename(without_query(url)).rpartition(".")[0]
    return re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-._")[:100] or "model"


def _shape(layout: str, size: Size, depth: int) -> list[int]:
    sides = {"N": 1, "C": depth, "H": size[0], "W": size[1]}
    return [sides[axis] for axis in layout]


def _classes(mask: Mask, hints: Hints, stated: int | None) -> Said[Classes]:
    """Return the classes: as many as the graph scores, else as stated, else as the exporter names."""
    if mask.kind.value == "sigmoid" and stated in (None, 2):
        return _two_classes(hints)
    if mask.classes is not None:
        if stated and stated != mask.classes:
            raise unanswered(f"--classes {stated}: the graph has {mask.classes}. Leave --classes out")
        return classes_of(mask.classes, f"the graph has {mask.classes} classes", hints.names)
    if stated:
        return classes_of(stated, f"--classes {stated}", hints.names)
    if hints.names:
        return classes_of(len(hints.names.value), "", hints.names)
    raise unanswered(
        f"nothing says how many classes the output {mask.facts.port} has: say it, for example --classes 19, or "
        "--classes 2 for 0 and 255"
    )


def _two_classes(hints: Hints) -> Said[Classes]:
    names = hints.names
    if names is not None and len(names.value) == 1:
        names = Said(("background", *names.value), names.why)
    return classes_of(2, "one channel, so two classes", names)


def _output_name(mask: Mask, others: Sequence[Mask], outputs: int, said: int | None) -> Said[str] | None:
    if outputs == 1:
        return None
    if not others:
        return Said(mask.name, "the only output with a class for every pixel")
    listed = ", ".join(f'"{other.name}"' for other in others)
    of = f" of {mask.classes} classes" if said and mask.classes == said else ""
    return guess(mask.name, f"the largest output{of}, of equal ones the first not called auxiliary", listed)


def _stated_size(mask: Mask, size: Size) -> Size | None:
    """Return the output's size if a card has to state it: it is larger than the input."""
    return mask.size if mask.size[0] > size[0] or mask.size[1] > size[1] else None


def _remarks(entry: InputFacts, mask: Mask, size: Size, depth: int) -> list[str]:
    remarks = []
    if mask.size[0] < size[0] and mask.size[1] < size[1]:
        remarks.append(f"the output, {mask.size[0]}x{mask.size[1]}, is enlarged to the input, {size[0]}x{size[1]}")
        if is_crop(mask, size):
            remarks.append("these sizes fit no stride: does the network crop its input? Then masks are wrong")
    if mask.kind.value == "sigmoid" and "dep" in mask.name.lower():
        remarks.append(f"the output is called '{mask.name}': is it a network of depth, not of classes?")
    if mask.classes == 3 and depth == 3 and mask.size[0] >= size[0]:
        remarks.append("three channels come out, as they go in: is it a network from images to images?")
    if entry.is_normalised_inside:
        remarks.append("the graph normalises its input itself; the card leaves pixels as they are")
    return remarks
