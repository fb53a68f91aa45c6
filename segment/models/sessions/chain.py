"""ONNX nodes that each take the one before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper


class Chain:
    """Nodes that each take the one before; a constant operand becomes a node, not an initialiser.

    Models of IR version 3 want every initialiser listed as an input as well; a Constant node is right in all.

    Args:
        prefix: of the names of its values.
        source: name of the value that the first node takes.
        opset: of the model.

    Attributes:
        nodes: so far.
        tip: name of the last value.
    """

    def __init__(self, prefix: str, source: str, opset: int) -> None:
        self.nodes: list[NodeProto] = []
        self.tip = source
        self._prefix = prefix
        self._opset = opset

    def add(self, op: str, *operands: NDArray[Any] | str, **attributes: Any) -> None:
        """Add a node that takes the last value, then `operands`: constants, or names of other values."""
        inputs = [self.tip, *(operand if isinstance(operand, str) else self._constant(operand) for operand in operands)]
        self.tip = f"{self._prefix}{len(self.nodes)}"
        node = helper.make_node(op, inputs, [self.tip], name=self.tip)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)

    def over_axes(self, op: str, axes: list[int], *, since: int, **attributes: Any) -> None:
        """Add an operation whose axes moved from attribute to input in opset `since`."""
        if self._opset >= since:
            self.add(op, np.array(axes, np.int64), **attributes)
        else:
            self.add(op, axes=axes, **attributes)

    def finish(self, name: str) -> None:
        """Give the last value the name the rest of the graph knows."""
        self.nodes[-1].output[0] = name
        self.tip = name

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"{self._prefix}{len(self.nodes)}_constant"
        self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value)))
        return name
