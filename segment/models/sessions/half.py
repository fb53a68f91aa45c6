"""FP16 for CUDA: converts a model's floating-point nodes and weights; inputs and outputs stay float32."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from graphlib import TopologicalSorter
from typing import Any

from onnx import GraphProto, NodeProto

from segment.errors import ModelError
from segment.models.sessions.onnxfile import names_read, read_model


def in_half_precision(data: bytes) -> bytes:
    """Convert an ONNX model to FP16 with onnxruntime's converter.

    Inputs and outputs keep their types, so the card matches as before, and argmax and the check for NaN use float32.
    Values beyond 65,504 become infinite; `predict` detects them in the scores.

    Raises:
        ModelError: the bytes are not a self-contained ONNX model, or the converter fails.
    """
    model = read_model(data)
    convert = _converter()
    try:
        converted = convert(model, keep_io_types=True)
    except Exception as error:  # the converter raises many types
        raise ModelError(f"the model cannot be converted to f16 ({error}): use --precision f32") from error
    _sort(converted.graph)
    return bytes(converted.SerializeToString())


def _sort(graph: GraphProto) -> None:
    """Sort the nodes topologically: the converter appends its casts at the end."""
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    before = {
        number: {maker[name] for name in names_read(node) if name in maker} for number, node in enumerate(graph.node)
    }
    copies = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    nodes = [copies[number] for number in TopologicalSorter(before).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def _converter() -> Callable[..., Any]:
    path = list(sys.path)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    sys.path[:] = path  # the import adds a folder of scripts
    # Hide its warnings about weights that round to 0.
    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    converter: Callable[..., Any] = convert_float_to_float16
    return converter
