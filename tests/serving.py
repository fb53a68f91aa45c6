"""What the session tests share: runtimes to run on, cards at a small size, and short ways to open and to fail."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from jobs.voc_independent import cpu_adds_bytes_exactly
from segment.errors import ModelError
from segment.models.card import ModelCard, load_card
from segment.models.sessions import Runtime, open_session
from segment.models.sessions.predict import GraphSession
from tests.graphs import as_weights, painted

ORT = Runtime("onnxruntime", "cpu", "f32", "")
OPENVINO = Runtime("openvino", "cpu", "f32", "")
LITERT = Runtime("litert", "cpu", "f32", "")
BOTH = pytest.mark.parametrize("runtime", [ORT, OPENVINO], ids=lambda runtime: runtime.name)
NEEDS_LITERT = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="LITERT MISSING: pip install 'segment-job[litert]'"
)
ON_LITERT = pytest.param(LITERT, marks=NEEDS_LITERT, id="litert")
ON_TFLITE = pytest.mark.parametrize("runtime", [pytest.param(OPENVINO, id="openvino"), ON_LITERT])
SHARED = Path(os.environ.get("SEGMENT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared(path: str) -> Path:
    """A real file, or a skip that says what is missing."""
    if not (SHARED / path).is_file():
        pytest.skip(f"REAL FILE MISSING: {SHARED / path} (set SEGMENT_SHARED)")
    return SHARED / path


def plain_openvino(path: Path) -> Any:
    """A model as openvino alone compiles it, in f32 and with exact sums of bytes, which openvino lacks without VNNI."""
    import openvino

    exact = {} if cpu_adds_bytes_exactly() else {"LP_TRANSFORMS_MODE": False}
    return openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **exact})


def small(name: str = "unet-camvid-onnx-0001", **changes: dict[str, Any]) -> ModelCard:
    """A built-in card at 32x48 pixels, with changes by table: `small(input={"channels": "RGB"})`."""
    card = load_card(name)
    tables: dict[str, Any] = {"input": {"height": 32, "width": 48}, "output": {}}
    for table, values in changes.items():
        tables[table] = {**tables[table], **values}
    return card.model_copy(
        update={table: getattr(card, table).model_copy(update=values) for table, values in tables.items()}
    )


def opened(card: ModelCard, graph: bytes, runtime: Runtime, **settings: int) -> GraphSession:
    session = open_session(card, as_weights(graph), runtime, **settings)
    assert isinstance(session, GraphSession)
    return session


def pictures(card: ModelCard, count: int) -> tuple[Any, Any]:
    pairs = [painted(card, seed) for seed in range(count)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def message(call: Callable[[], object], kind: type[Exception] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def tiny(
    nodes: list[Any],
    inputs: list[tuple[str, Any]],
    outputs: list[tuple[str, Any]],
    initialisers: Any = (),
    opset: int = 17,
    **model: Any,
) -> bytes:
    """A model of these nodes, all float32."""
    entries, results = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports]
        for ports in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "tiny", entries, results, initialisers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **model)
    return bytes(made.SerializeToString())


PICTURE, SCORES = (1, 3, 32, 48), (1, 12, 32, 48)
