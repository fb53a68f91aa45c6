"""Confidence and probabilities as nodes of an ONNX graph; see `Extras`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from segment.models.extra_options import Measure
from segment.models.sessions.chain import NodeChain
from segment.models.sessions.extras import LEAST, LEVELS, Extras, ScoreKind

_CLIP_INPUTS_SINCE = 11


class ExtraNodes:
    """Builds the nodes from scores to the extra outputs.

    Args:
        extras: the wanted outputs.
        classes: number of classes, C.
        chain: starts a chain of nodes; see `Postprocessing`.
        opset: ONNX opset of the model.
    """

    def __init__(self, extras: Extras, classes: int, chain: Callable[[str, str], NodeChain], opset: int) -> None:
        self._extras = extras
        self._classes = classes
        self._chain = chain
        self._opset = opset

    def of_scores(self, chain: NodeChain, kind: ScoreKind, axis: int) -> dict[str, NodeChain]:
        """Append the nodes to probabilities to a chain, and return the chains that end in the extra outputs, by name.

        Args:
            chain: ends in one score per class.
            kind: what the scores are.
            axis: of the classes, 1 or 3.
        """
        if kind == "logits":
            self._add_softmax(chain, axis)
        found = {}
        if self._extras.confidence is not None:
            found["confidence"] = self._confidence(chain.tip, self._extras.confidence, axis)
        if self._extras.probabilities:
            found["probabilities"] = self._probabilities(chain.tip, axis)
        return found

    def of_sigmoid(self, chain: NodeChain, logit: bool) -> dict[str, NodeChain]:
        """As `of_scores`, of a chain that ends in `[N, 1, H, W]`: of two classes, the first has what is left to 1.

        A logit z stands for the logits 0 and z.
        """
        first = self._chain("first", chain.tip)
        first.add("Mul", np.array(0 if logit else -1, np.float32))
        first.add("Add", np.array(0 if logit else 1, np.float32))
        first.add("Concat", chain.tip, axis=1)
        chain.nodes += first.nodes
        chain.tip = first.tip
        return self.of_scores(chain, "logits" if logit else "probabilities", 1)

    def _add_softmax(self, chain: NodeChain, axis: int) -> None:
        """Append a softmax: ONNX' own flattens the axes behind before opset 13, and is twice as slow on axis 1."""
        chain.add("Sub", self._reduced(chain, "ReduceMax", axis, since=18))
        chain.add("Exp")
        chain.add("Div", self._reduced(chain, "ReduceSum", axis, since=13))

    def _reduced(self, chain: NodeChain, op: str, axis: int, since: int) -> str:
        """Insert a reduction over the classes into a chain, beside its tip, and return its name."""
        reduced = self._chain(op.lower(), chain.tip)
        reduced.over_axes(op, [axis], since=since, keepdims=1)
        chain.nodes += reduced.nodes
        return reduced.tip

    def _confidence(self, probabilities: str, measure: Measure, axis: int) -> NodeChain:
        chain = self._chain("confidence", probabilities)
        if measure == "maximum":
            chain.over_axes("ReduceMax", [axis], since=18, keepdims=0)
        elif measure == "margin":
            self._add_margin(chain, axis)
        else:
            self._add_certainty(chain, axis)
        self._add_levels(chain)
        return chain

    def _add_margin(self, chain: NodeChain, axis: int) -> None:
        """Append the highest less the second highest: the highest of what is left without the first argmax.

        Half the time of TopK in onnxruntime.
        """
        self._add_clip(chain, 0, 1)
        highest = self._chain("highest", chain.tip)
        highest.over_axes("ReduceMax", [axis], since=18, keepdims=0)
        others = self._chain("others", chain.tip)
        others.add("ArgMax", axis=axis, keepdims=1)
        shape = [-1, 1, 1] if axis == 1 else [-1]
        others.add("Equal", np.arange(self._classes, dtype=np.int64).reshape(shape))
        others.add("Not")
        others.add("Cast", to=TensorProto.FLOAT)
        others.add("Mul", chain.tip)
        others.over_axes("ReduceMax", [axis], since=18, keepdims=0)
        chain.nodes += [*others.nodes, *highest.nodes]
        chain.tip = highest.tip
        chain.add("Sub", others.tip)

    def _add_certainty(self, chain: NodeChain, axis: int) -> None:
        """Append 1 + sum(p log p) / log C."""
        self._add_clip(chain, LEAST, 1)
        logarithm = self._chain("logarithm", chain.tip)
        logarithm.add("Log")
        chain.nodes += logarithm.nodes
        chain.add("Mul", logarithm.tip)
        chain.over_axes("ReduceSum", [axis], since=13, keepdims=0)
        chain.add("Mul", np.array(1 / math.log(self._classes), np.float32))
        chain.add("Add", np.array(1, np.float32))

    def _probabilities(self, probabilities: str, axis: int) -> NodeChain:
        """Return the probabilities of the chosen classes as `uint8[N, K, H, W]`."""
        chain = self._chain("chosen", probabilities)
        chain.add("Gather", np.array(self._extras.probabilities, np.int64), axis=axis)
        if axis == 3:
            chain.add("Transpose", perm=[0, 3, 1, 2])
        self._add_levels(chain)
        return chain

    def _add_levels(self, chain: NodeChain) -> None:
        """Append the nodes from numbers of 0 to 1 to bytes."""
        self._add_clip(chain, 0, 1)
        chain.add("Mul", np.array(LEVELS, np.float32))
        chain.add("Add", np.array(0.5, np.float32))
        chain.add("Cast", to=TensorProto.UINT8)

    def _add_clip(self, chain: NodeChain, low: float, high: float) -> None:
        if self._opset >= _CLIP_INPUTS_SINCE:
            chain.add("Clip", np.array(low, np.float32), np.array(high, np.float32))
        else:
            chain.add("Clip", min=float(low), max=float(high))
