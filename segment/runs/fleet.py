"""Nodes that are not alike: what the whole run does without because some of them lack it."""

from __future__ import annotations

from collections.abc import Sequence

from segment.engines import Node
from segment.job import Job
from segment.models.sessions import BF16, MIXED, Runtime
from segment.models.weights import Weights
from segment.store.names import count, shown

_NAMED = 5  # nodes at most


def remarks_on_nodes(nodes: Sequence[Node], job: Job, weights: Weights, runtime: Runtime) -> list[str]:
    """Return a line on each choice of `auto` that would be another one without some of the nodes, and says which.

    Args:
        nodes: all that may run the model.
        job, weights: what was asked for, and of which model.
        runtime: what was chosen.
    """
    lines = []
    if job.device == "auto" and job.runtime in ("auto", "onnxruntime") and weights.format == "onnx":
        lines += _lacking(
            nodes, "onnxruntime:cuda", "cpu for the whole run", "have no GPU that onnxruntime can use",
            "--device cuda leaves only reading and writing to them",
        )  # fmt: skip
    if job.runtime == "auto" and runtime.name == "onnxruntime" and runtime.device == "cpu":
        lines += _lacking(
            nodes, "openvino:cpu", "onnxruntime for the whole run", "lack openvino", "pip install openvino there"
        )
    if job.precision != "auto" or runtime.name != "openvino":
        return lines
    if runtime.precision == MIXED:
        lines += _lacking(nodes, BF16, "mixed precision", "compute in f32", "the others in bf16; masks differ a little")
    elif runtime.precision == "f32" and weights.format != "tflite":  # of quantised graphs f32 is the choice anyway
        lines += _lacking(
            nodes, BF16, "f32 for the whole run", "do not compute in bf16", "with --allow-mixed-precision the others do"
        )
    return lines


def _lacking(nodes: Sequence[Node], capability: str, choice: str, what: str, then: str) -> list[str]:
    without = [node.name for node in nodes if capability not in node.can]
    if not without or len(without) == len(nodes):
        return []
    names = ", ".join(map(shown, without[:_NAMED])) + (f" and {len(without) - _NAMED} more" * (len(without) > _NAMED))
    return [f"{choice}: {len(without)} of {count(len(nodes), 'node')} {what} ({names}); {then}"]
