"""Merges the views and members of a card into one openvino model; see `averaging`.

Every view and member is a clone. Clones share their constants, and compiled models share what is made of them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset15 as ops

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.sessions.averaging import (
    View,
    activation,
    check_members,
    check_windows,
    member_in_errors,
    penalty,
    refuse_view,
    views_of,
)
from segment.models.sessions.openvino_enlarging import interpolated
from segment.models.sessions.openvino_ports import Member, dims_of
from segment.models.sessions.openvino_postprocess import (
    as_numbers,
    as_type,
    beyond,
    check_of_masked,
    check_of_probability,
    finite_check,
    in_channels,
    with_pixels,
)
from segment.models.sessions.ports import Size, check_output, with_dims
from segment.models.sessions.sanity_check import output_shape_by_run
from segment.models.weights import Weights

# Returns the part of a clone from the image to the output, reshaped to a card's input size and a batch; and the output.
Needed = Callable[[ModelCard, Member, int], tuple[Any, Any]]
# Runs a model by itself on `uint8[1, H, W, 3]` of a card's input size.
RunAlone = Callable[[ModelCard, Member, NDArray[np.uint8]], NDArray[np.float32]]


def checked_size(
    card: ModelCard, weights: Weights, members: Sequence[Member], needed: Needed, run: RunAlone | None
) -> Size | None:
    """Check that all models fit the card, take all views and agree; return (height, width) of their outputs.

    Args:
        run: runs a model whose output has an unknown size; None leaves it unknown.

    Raises:
        ModelError: a model does not.
    """
    views, sizes = views_of(card), []
    for number, member in enumerate(members):
        with member_in_errors(weights, number):
            sizes.append(_size(views[0].card, member, needed, run))
            for view in views[1:]:
                _check_view(card, view, member, needed, run)
    check_members(card, weights, [each.input for each in members], [each.levels for each in members], sizes)
    return sizes[0]


def _size(card: ModelCard, member: Member, needed: Needed, run: RunAlone | None) -> Size | None:
    dims = dims_of(needed(card, member, 1)[1])
    if run and (dims is None or None in dims):
        dims = output_shape_by_run(card, lambda images: run(card, member, images))
    return check_output(card, with_dims(member.output, dims))


def _check_view(card: ModelCard, view: View, member: Member, needed: Needed, run: RunAlone | None) -> None:
    if member.input.dims and None not in member.input.dims[1:]:
        pools = [node for node in member.model.get_ops() if node.get_type_name() == "AvgPool"]
        check_windows(card, view, [list(node.get_attributes()["kernel"]) for node in pools])
    try:
        needed(view.card, member, 1)
    except ModelError as error:
        refuse_view(card, view, str(error))
    try:
        _size(view.card, member, needed, run)
    except ModelError:
        refuse_view(card, view, "its output would not be of that shape")


def merged_value(
    card: ModelCard, members: Sequence[Member], needed: Needed, batch: int, size: Size | None, precision: str
) -> tuple[Any, Any]:
    """Merge the views and members of a card into one model.

    Args:
        batch: number of images, -1 for any.
        size: (height, width) of the output for the plain view.
        precision: of the session: `f32`, `bf16` or `f16`.

    Returns:
        The parameters of the merged model, and its output; its contract is `merged_card(card)`.
    """
    views = views_of(card)
    alone, _ = needed(views[0].card, members[0], batch)
    declared = alone.inputs[0]
    image = ops.parameter(declared.get_partial_shape(), declared.get_element_type())
    image.output(0).set_names(declared.get_names())
    sums = []
    for view in views:
        found = []
        for mirrored, source in enumerate(_images(card, image, view)):
            for member in members:
                model, value = needed(view.card, member, batch)
                model.inputs[0].get_node().output(0).replace(source)
                scores = in_channels(view.card, as_numbers(view.card, with_pixels(view.card, value), averaged=True))
                wrong = _check(card, scores, beyond(precision))
                probabilities = ops.add(_activated(card, scores), _penalty(card, wrong))
                found.append(_flipped(probabilities, 3) if mirrored else probabilities)
        total = functools.reduce(ops.add, found)
        sums.append((interpolated(total, size) if view.scale is not None and size else total, len(found)))
    count = sum(number for _, number in sums)
    mean = ops.multiply(functools.reduce(ops.add, [total for total, _ in sums]), np.float32(1 / count))
    return [image], mean.output(0)


def _images(card: ModelCard, image: Any, view: View) -> list[Any]:
    """Return a view of the image, and the same mirrored."""
    source, layout = image.output(0), view.card.input.layout
    if view.scale is not None:
        source = _resized_image(image, layout, view.size)
    return [source, _flipped(source, layout.index("W")).output(0)] if card.input.flips else [source]


def _resized_image(image: Any, layout: str, size: Size) -> Any:
    dtype = image.get_element_type()
    pixels = as_type(image, openvino.Type.f32)
    if layout == "NHWC":
        pixels = ops.transpose(pixels, [0, 3, 1, 2])
    pixels = interpolated(pixels, size)
    pixels = pixels if dtype.is_real() else ops.round(pixels, "half_to_even")
    pixels = as_type(pixels, dtype)
    if layout == "NHWC":
        pixels = ops.transpose(pixels, [0, 2, 3, 1])
    return pixels.output(0)


def _flipped(value: Any, axis: int) -> Any:
    """Reverse an axis; not by a slice, for which the plugin keeps two addresses, 16 bytes, of each element."""
    along, one = ops.constant(np.int64(axis)), ops.constant(np.int64(1))
    last = ops.subtract(ops.gather(ops.shape_of(value), along, np.int64(0)), one)
    places = ops.range(last, np.int64(-1), np.int64(-1), "i64")
    return ops.gather(value, places, along)


def _check(card: ModelCard, scores: Any, limit: float) -> Any:
    """Return a value per image: 0 if all its numbers are what the card says."""
    if card.output.kind == "logits":
        return check_of_masked(scores, 1, limit)
    if not card.output.logit:
        return check_of_probability(scores, limit)
    finite = ops.less(ops.abs(finite_check(scores)), np.float32(limit))
    return as_type(ops.logical_not(finite), openvino.Type.f32)


def _activated(card: ModelCard, scores: Any) -> Any:
    name = activation(card)
    if name == "softmax":
        return ops.softmax(scores, 1)
    return ops.sigmoid(scores) if name else scores


def _penalty(card: ModelCard, wrong: Any) -> Any:
    """Return the penalty of each image, `[N, 1, 1, 1]`."""
    valid = ops.less(wrong, np.float32(0.5))  # false for NaN
    added = ops.select(valid, np.float32(0), np.float32(penalty(card)))
    return ops.reshape(added, [-1, 1, 1, 1], special_zero=False)
