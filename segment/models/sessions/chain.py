"""A builder for a linear sequence of ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper


class NodeChain:
    """A sequence of nodes, each of which takes the output of the previous one.

    Constant operands become Constant nodes: IR version 3 requires every initialiser to be an input as well.

    Args:
        prefix: prefix of the names of its values.
        source: name of the first node's input.
        opset: ONNX opset of the model.

    Attributes:
        nodes: nodes so far.
        tip: name of the last output.
    """

    def __init__(self, prefix: str, source: str, opset: int) -> None:
        self.nodes: list[NodeProto] = []
        self.tip = source
        self._prefix = prefix
        self._opset = opset

    def add(self, op: str, *operands: NDArray[Any] | str, **attributes: Any) -> None:
        """Append a node whose inputs are the last output and `operands`: constants, or names of other values."""
        inputs = [self.tip, *(operand if isinstance(operand, str) else self.constant(operand) for operand in operands)]
        self.tip = f"{self._prefix}{len(self.nodes)}"
        node = helper.make_node(op, inputs, [self.tip], name=self.tip)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)

    def look_up(self, table: NDArray[Any]) -> None:
        """Append a node that replaces each index by its value in a table `[size]`."""
        indices, self.tip = self.tip, self.constant(table)
        self.add("Gather", indices)

    def over_axes(self, op: str, axes: list[int], *, since: int, **attributes: Any) -> None:
        """Append an operation whose axes are an attribute before opset `since`, and an input from it on."""
        if self._opset >= since:
            self.add(op, np.array(axes, np.int64), **attributes)
        else:
            self.add(op, axes=axes, **attributes)

    def finish(self, name: str) -> None:
        """Rename the last output."""
        self.nodes[-1].output[0] = name
        self.tip = name

    def constant(self, value: NDArray[Any]) -> str:
        """Append a constant beside the sequence, and return its name."""
        name = f"{self._prefix}{len(self.nodes)}_constant"
        self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value)))
        return name
