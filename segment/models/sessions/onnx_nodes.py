"""A builder for nodes of an ONNX graph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper


class Nodes:
    """Nodes in the order in which they were added; a value is known by its name.

    Constant operands become Constant nodes: IR version 3 requires every initialiser to be an input as well.

    Args:
        prefix: prefix of the names of its values.
    """

    def __init__(self, prefix: str, opset: int) -> None:
        self.all: list[NodeProto] = []
        self.opset = opset
        self._prefix = prefix

    def add(self, op: str, *operands: NDArray[Any] | str, **attributes: Any) -> str:
        """Append a node of operands, constants or names of values, and return the name of its output."""
        inputs = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        name = self.new_name()
        node = helper.make_node(op, inputs, [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.all.append(node)
        return name

    def over_axes(self, op: str, value: str, axes: list[int], *, since: int, **attributes: Any) -> str:
        """Append an operation whose axes are an attribute before opset `since`, and an input from it on."""
        if self.opset >= since:
            return self.add(op, value, np.array(axes, np.int64), **attributes)
        return self.add(op, value, axes=axes, **attributes)

    def cast(self, value: str, elem_type: int) -> str:
        """Append a Cast."""
        return self.add("Cast", value, to=elem_type)

    def constant(self, value: NDArray[Any]) -> str:
        """Append a constant."""
        name = self.new_name()
        self.all.append(helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value)))
        return name

    def new_name(self) -> str:
        """Return a name for the next value."""
        return f"{self._prefix}{len(self.all)}"

    def rename(self, value: str, name: str) -> None:
        """Give the output of a node another name."""
        for node in self.all:
            for names in (node.input, node.output):
                names[:] = [name if known == value else known for known in names]
