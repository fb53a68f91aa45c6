"""Weights: find, fetch and verify them. What comes out is bytes that match their digest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Format = Literal["onnx", "ir", "tflite"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's verified bytes.

    Attributes:
        format: `onnx`, `ir` (OpenVINO: graph is the .xml, data the .bin) or `tflite`.
        graph: bytes of the .onnx (external data embedded), .xml or .tflite file.
        data: bytes of the .bin file; empty for the other formats.
        sha384: hexadecimal digest of graph followed by data.
        origin: where they came from, fit for printing.
    """

    format: Format
    graph: bytes = field(repr=False)
    data: bytes = field(repr=False)
    sha384: str
    origin: str
