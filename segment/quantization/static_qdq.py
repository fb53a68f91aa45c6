"""INT8 by onnxruntime: QuantizeLinear and DequantizeLinear around each operator, ranges by percentile.

The file that results gives the same score in onnxruntime and openvino.
"""

import io
import logging
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.sessions.apart_process import Within
from segment.models.sessions.base import first_line
from segment.models.sessions.onnxfile import stored_names
from segment.models.sessions.surgery import Surgeon
from segment.models.weights import Weights
from segment.process.temporaries import TemporaryFolder
from segment.quantization.calibration import Calibration
from segment.quantization.network_input import NetworkInputs
from segment.quantization.quiet import quiet

SETTINGS = "static QDQ, percentile 99.999, per channel, activations uint8, weights int8"
_OPSET = 13  # the first in which a scale has a value for each channel
_IR_VERSION = 7  # that of this opset
_OPTIONS = {
    "CalibPercentile": 99.999,
    # One image at a time: percentiles are of histograms, and else every activation of every image is kept for them.
    "CalibStridedMinMax": 1,
}


def quantise_onnx(card: ModelCard, weights: Weights, calibration: Calibration, within: Within) -> bytes:
    """Return the bytes of a quantised model, without what the card's output does not need.

    `within` is entered for each image, see `call_apart`: the time of a block around it is from one to the next.

    Raises ModelError: card and graph do not match, or the graph cannot be quantised.
    """
    size = calibration[0].shape[1:3]
    whole = Surgeon(card.at((size[0], size[1])), weights.graph)
    reader = _Reader(NetworkInputs(card, whole.entry, calibration, within), whole.entry.name)
    # Its progress is a line for each image, and its remarks are on tensors.
    with TemporaryFolder() as folder, quiet(None, logging.CRITICAL, io.StringIO()):
        source, prepared, quantised = (folder.path / f"{name}.onnx" for name in ("source", "prepared", "quantised"))
        try:
            onnx.save_model(_modern(whole.model, whole.opset), source)
            quant_pre_process(source, prepared, skip_symbolic_shape=True)  # given a model it loses stored tensors
            quantize_static(
                prepared,
                quantised,
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options=_OPTIONS,
            )
        except Exception as error:  # of many types: AssertionError, ValueError, those of onnx and of onnxruntime
            raise ModelError(f"onnxruntime cannot quantise this graph: {first_line(error)}") from error
        return quantised.read_bytes()


def _modern(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a copy in which no stored tensor is an input, as in IR version 3, which keeps it from being a constant."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset < _OPSET:
        copy = onnx.version_converter.convert_version(copy, _OPSET)
    copy.ir_version = max(copy.ir_version, _IR_VERSION)
    stored = stored_names(copy.graph)
    for item in [item for item in copy.graph.input if item.name in stored]:
        copy.graph.input.remove(item)
    return copy


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives the inputs one after the other; `set_range` says from which to which."""

    def __init__(self, inputs: NetworkInputs, name: str) -> None:
        self._inputs, self._name = inputs, name
        self.set_range(0, len(inputs))

    def __len__(self) -> int:
        return len(self._inputs)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._waiting = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        index = next(self._waiting, None)
        return None if index is None else {self._name: self._inputs[index]}
