"""Inputs and outputs of an openvino model, as ports."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.models.sessions.ports import Dims, Port
from segment.models.sessions.quantised import Levels


class Member(NamedTuple):
    """A model as read, not reshaped yet: the only one, or a member of an ensemble.

    Attributes:
        entry, result: positions of its input and output.
        levels: of its input; see `input_levels`.
    """

    model: Any
    entry: int
    result: int
    input: Port
    output: Port
    levels: Levels | None


def to_port(port: Any) -> Port:
    """Return an input or output of a model."""
    value = port.get_node().input_value(0) if port.get_node().get_type_name() == "Result" else port
    names, dtype = sorted(port.get_names()), port.get_element_type()
    # The node's name, too: an IR of before 2020 has no other.
    own, number = value.get_node().get_friendly_name(), value.get_node().get_output_size()
    own += f".{value.get_index()}" if number > 1 else ""
    known = {"bf16": "bfloat16", "boolean": "bool"}.get(dtype.get_type_name())
    return Port(tuple(dict.fromkeys([*names, own])), known or numpy_name(dtype), dims_of(port))


def dims_of(value: Any) -> Dims | None:
    """Return the size of each dimension of an output, None where it is not fixed; None if the rank is unknown."""
    shape = value.get_partial_shape()
    return tuple(dim.get_length() if dim.is_static else None for dim in shape) if shape.rank.is_static else None


def constant_of(value: Any) -> NDArray[Any] | None:
    """Return the elements of a constant, flat; None if the graph computes the value."""
    node = value.get_node()
    return np.ravel(node.data) if node.get_type_name() == "Constant" else None


def numpy_name(dtype: Any) -> str:
    """Return numpy's name of an element type, or openvino's of one that numpy lacks."""
    try:
        return str(np.dtype(dtype.to_dtype()).name)
    except (RuntimeError, TypeError):
        return str(dtype.get_type_name())
