"""From calibration images to the numbers at a graph's own input, by the nodes that a session puts there."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.apart_process import Within
from segment.models.sessions.onnx_nodes import Nodes
from segment.models.sessions.onnx_preprocess import Preprocessing
from segment.models.sessions.ports import Port
from segment.quantization.calibration import Calibration

_OPSET, _IR_VERSION = 17, 8


class NetworkInputs:
    """The numbers that a graph gets for each array of a calibration; `within` is entered for each."""

    def __init__(self, card: ModelCard, entry: Port, calibration: Calibration, within: Within) -> None:
        self._card, self._entry, self._calibration, self._within = card, entry, calibration, within
        self._session = functools.lru_cache(maxsize=1)(self._preprocessing)

    def __len__(self) -> int:
        return len(self._calibration)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return the numbers of one array, of the shape and type of the graph's input for one image."""
        images = self._calibration[index]
        with self._within():
            return np.asarray(self._session(images.shape).run(None, {"images": images})[0])

    def _preprocessing(self, shape: tuple[int, ...]) -> Any:
        nodes = Nodes("in", _OPSET)
        result = Preprocessing(self._card, ModelProto(), self._entry).added(nodes, "images")
        images = helper.make_tensor_value_info("images", TensorProto.UINT8, shape)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self._entry.dtype))
        numbers = helper.make_tensor_value_info(result, kind, None)
        graph = helper.make_graph(nodes.all, "preprocessing", [images], [numbers])
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=opset)
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
