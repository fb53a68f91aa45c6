"""Graphs that no converter writes are refused in words: declarations of XML, no input, no output."""

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress

import flatbuffers
import onnx
import pytest
from onnx import TensorProto, helper

from segment.errors import ModelError
from segment.models.sessions import capabilities, open_session, runtime_for
from segment.models.sessions.flatbuffer import Table
from segment.models.sessions.inspection import inspect_graph
from segment.models.sessions.tflite_graph import read_tflite, tflite_metadata
from segment.models.weights import Weights
from tests.graphs import colour_classifier
from tests.runs import CARD

CONSTANT = """<layer id="0" name="c" type="Const" version="opset1">
<data element_type="f32" shape="1,4,24,32" offset="0" size="12288"/>
<output><port id="0" precision="FP32"><dim>1</dim><dim>4</dim><dim>24</dim><dim>32</dim></port></output></layer>"""
PARAMETER = """<layer id="0" name="c" type="Parameter" version="opset1"><data element_type="f32" shape="1,3,24,32"/>
<output><port id="0" precision="FP32"><dim>1</dim><dim>3</dim><dim>24</dim><dim>32</dim></port></output></layer>"""
RESULT = """<layer id="1" name="r" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>1</dim>
<dim>4</dim><dim>24</dim><dim>32</dim></port></input></layer>"""
EDGE = '<edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>'
LAUGHS = "<!DOCTYPE l [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def ir(declared: str = "", layers: str = CONSTANT + RESULT, edges: str = EDGE, more: str = "") -> Weights:
    text = (
        f'<?xml version="1.0"?>{declared}<net name="m" version="11"><layers>{layers}</layers>'
        f"<edges>{edges}</edges><rt_info>{more}</rt_info></net>"
    )
    return Weights("ir", text.encode(), bytes(12288), "0", "m.xml")


DECLARED = {
    "billion laughs": ir(LAUGHS + "]>", more='<a value="&i;"/>'),
    "a file of the machine": ir("<!DOCTYPE l [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>", more="&a;"),
    "a lower-case one": ir("<!doctype l>"),
    "parameters": ir("<!DOCTYPE l [<!ENTITY % a 'b'> %a;]>"),
}


def refuse(weights: Weights, runtime: str, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        open_session(CARD, weights, runtime_for(CARD, weights, runtime, nodes=[capabilities()]))


@pytest.mark.parametrize("which", DECLARED)
def test_an_ir_with_declarations_is_not_read(which: str) -> None:
    refused = r"the \.xml has a declaration <!\w+>, by which a small file can stand for a huge one: it is not read"
    refuse(DECLARED[which], "openvino", refused)
    with pytest.raises(ModelError, match=refused):
        inspect_graph(DECLARED[which])


@pytest.mark.parametrize("name", [None, "image"])
def test_a_graph_without_an_input_is_refused(name: str | None) -> None:
    card = CARD.model_copy(update={"input": CARD.input.model_copy(update={"name": name})})
    for weights, runtime in ((ir(), "openvino"), (constant_onnx(), "openvino"), (constant_onnx(), "onnxruntime")):
        with pytest.raises(ModelError, match="the graph has no input, so that no image goes through it"):
            open_session(card, weights, runtime_for(card, weights, runtime, nodes=[capabilities()]))
    assert inspect_graph(ir()).inputs == ()


def test_a_graph_without_an_output_is_refused() -> None:
    refuse(ir(layers=PARAMETER.replace(">3<", ">4<"), edges=""), "openvino", "no output|cannot read the ir weights")


def test_nodes_that_read_each_other_are_refused() -> None:
    """openvino would read such a file for ever."""
    graph = onnx.load_model_from_string(constant_onnx().graph)
    graph.graph.node.extend([helper.make_node("Identity", ["b"], ["a"]), helper.make_node("Identity", ["a"], ["b"])])
    with pytest.raises(ModelError, match="nodes of the graph read each other's results"):
        inspect_graph(Weights("onnx", graph.SerializeToString(), b"", "0", "m.onnx"))


def test_a_graph_of_too_many_nodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.models.sessions.onnxfile._MOST_NODES", 1)
    data = colour_classifier(CARD)
    nodes = len(onnx.load_model_from_string(data).graph.node)
    with pytest.raises(ModelError, match=f"^the graph has {nodes} nodes, and at most 1 are read"):
        inspect_graph(Weights("onnx", data, b"", "0", "m.onnx"))


def lying(change: Callable[[onnx.GraphProto], object]) -> Weights:
    model = onnx.load_model_from_string(colour_classifier(CARD))
    change(model.graph)
    return Weights("onnx", model.SerializeToString(), b"", "0", "m.onnx")


LIES: dict[str, Callable[[onnx.GraphProto], object]] = {
    "no such type of an input": lambda graph: setattr(graph.input[0].type.tensor_type, "elem_type", 99),
    "no such type of an output": lambda graph: setattr(graph.output[0].type.tensor_type, "elem_type", -1),
    "numbers without a type": lambda graph: setattr(graph.initializer[0], "data_type", 0),
    "numbers of another type": lambda graph: setattr(graph.initializer[0], "data_type", TensorProto.FLOAT16),
    "more numbers than there are": lambda graph: graph.initializer[0].dims.append(1 << 40),
    "declared numbers that are not there": lambda graph: graph.initializer[0].ClearField("raw_data"),
}


@pytest.mark.parametrize("lie", LIES)
def test_graphs_that_contradict_themselves_are_refused(lie: str) -> None:
    weights, refused = lying(LIES[lie]), []
    for runtime in ("openvino", "onnxruntime"):
        with suppress(ModelError):  # one of them may read what the other one refuses
            open_session(CARD, weights, runtime_for(CARD, weights, runtime, nodes=[capabilities()]))
            continue
        refused.append(runtime)
    assert refused
    with pytest.raises(ModelError, match=r"the graph cannot be used \(\w+: .*export the model anew"):
        inspect_graph(weights)


def test_tables_that_share_vectors_stand_for_no_more_than_a_few_files() -> None:
    builder = flatbuffers.Builder(1 << 16)
    shape = _vector(builder, [1] * 1000)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, shape, 0)
    tensor = builder.EndObject()
    tensors = _vector(builder, [tensor] * 1000)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, tensors, 0)
    graphs = _vector(builder, [builder.EndObject()])
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(2, graphs, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    data = bytes(builder.Output())
    assert len(Table.root(data).tables(2)[0].tables(0)[999].integers(0)) == 1000
    with pytest.raises(ModelError, match="a wrong or damaged file"):
        read_tflite(data)


def _vector(builder: flatbuffers.Builder, items: list[int]) -> int:
    """A vector of tables, or of numbers if they are 1."""
    builder.StartVector(4, len(items), 4)
    for item in items:
        (builder.PrependInt32 if item == 1 else builder.PrependUOffsetTRelative)(item)
    return int(builder.EndVector())


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_archives_behind_a_model_are_not_unpacked_beyond_what_they_declare(packing: int) -> None:
    behind = io.BytesIO()
    with zipfile.ZipFile(behind, "w", packing) as archive:
        archive.writestr("labels.txt", bytes(1 << 23))
    lie = behind.getvalue().replace((1 << 23).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        assert tflite_metadata(lie) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def constant_onnx() -> Weights:
    value = helper.make_tensor("v", TensorProto.FLOAT, [1, 4, 24, 32], bytes(12288), raw=True)
    node = helper.make_node("Constant", [], ["y"], value=value)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 24, 32])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return Weights("onnx", model.SerializeToString(), b"", "0", "m.onnx")
