"""The limit's models: each runtime as its own documentation advises, with all that can be in the graph in the graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bare_enlarging import onnx_best, openvino_best, openvino_small_scores, without_unused

Model = Callable[[np.ndarray], np.ndarray]  # uint8[1, H, W, 3] RGB to uint8[H, W]


def adds_bytes_exactly() -> bool:
    """Whether products of bytes are added in 32 bits: with VNNI. Other x86 CPUs use 16 bits, where sums saturate."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    return "avx2" not in flags or "vnni" in flags


def openvino_model(spec: dict[str, Any]) -> Model:
    """Load ONNX, IR or TFLite with openvino; its own pre- and postprocessing as its documentation advises."""
    import openvino as ov
    from openvino import opset15 as ops

    core, contract = ov.Core(), spec["contract"]
    model = core.read_model(spec["weights"])
    sizes = {"N": 1, "C": 3, "H": contract["height"], "W": contract["width"]}
    model.reshape([sizes[axis] for axis in contract["layout"]])
    output = model.outputs[0].get_node().input_value(0)
    if small := openvino_small_scores(output, contract["kind"], contract["output_layout"]):
        output = openvino_best(small)
    elif contract["kind"] == "index":
        if "1" in contract["output_layout"]:
            output = ops.squeeze(output, ops.constant(np.int64(contract["output_layout"].index("1")))).output(0)
    else:
        axis = contract["output_layout"].index("C")
        best = ops.topk(output, ops.constant(np.int64(1)), axis, "max", "value", index_element_type="i32", stable=True)
        output = best.output(1)
    model = ov.Model([ops.convert(output, "u8")], model.get_parameters())
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout(contract["layout"]))
    picture = steps.input().preprocess()
    if contract["bgr"]:
        picture.reverse_channels()
    if contract["normalised"]:
        picture.convert_element_type(ov.Type.f32)
        picture.scale(255 / contract["maximum"]).mean(contract["mean"]).scale(contract["std"])
    settings = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,  # pinned, all processes would share the first core
        "INFERENCE_PRECISION_HINT": spec["precision"],
    }
    if not adds_bytes_exactly():
        settings["LP_TRANSFORMS_MODE"] = False
    request = core.compile_model(steps.build(), "CPU", settings).create_infer_request()
    height, width = contract["output_height"], contract["output_width"]

    def run(images: np.ndarray) -> np.ndarray:
        return request.infer({0: images}, share_inputs=True, share_outputs=True)[0].reshape(height, width)

    return run


def onnxruntime_model(spec: dict[str, Any]) -> Model:
    """Load ONNX with onnxruntime, pre- and postprocessing added to the graph."""
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    contract = spec["contract"]
    model = onnx.load(spec["weights"])
    graph = model.graph
    given, made = graph.input[0].name, graph.output[0].name
    first, axes = contract["layout"] == "NCHW", (3, 1, 1) if contract["layout"] == "NCHW" else (3,)
    nodes: list[Any] = []

    def add(kind: str, operand: np.ndarray | None = None, **attributes: Any) -> None:
        source = nodes[-1].output[0] if nodes else "limit_in"
        inputs = [source]
        if operand is not None:
            inputs.append(f"limit_c{len(graph.initializer)}")
            graph.initializer.append(numpy_helper.from_array(operand, inputs[1]))
        nodes.append(helper.make_node(kind, inputs, [f"limit_{len(nodes)}"], **attributes))

    if first:
        add("Transpose", perm=[0, 3, 1, 2])
    if contract["bgr"]:
        add("Gather", np.array([2, 1, 0], np.int64), axis=1 if first else 3)
    add("Cast", to=TensorProto.FLOAT)
    if contract["normalised"]:
        add("Div", np.array(255 / contract["maximum"], np.float32))
        add("Sub", np.array(contract["mean"], np.float32).reshape(axes))
        add("Div", np.array(contract["std"], np.float32).reshape(axes))
    nodes[-1].output[0] = given
    back = onnx_best(model, made, contract["kind"], contract["output_layout"])
    if back:
        made = back[-1].output[0]
    elif contract["kind"] != "index":
        axis = contract["output_layout"].index("C")
        back.append(helper.make_node("ArgMax", [made], ["limit_best"], axis=axis, keepdims=0))
        made = "limit_best"
    back.append(helper.make_node("Cast", [made], ["limit_out"], to=TensorProto.UINT8))
    shape = [1, contract["height"], contract["width"], 3]
    nodes = without_unused([*nodes, *graph.node, *back])
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("limit_in", TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info("limit_out", TensorProto.UINT8, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not adds_bytes_exactly():
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    height, width = contract["output_height"], contract["output_width"]
    return lambda images: session.run(None, {"limit_in": images})[0].reshape(height, width)


def litert_model(spec: dict[str, Any]) -> Model:
    """Load TFLite with LiteRT, whose graph stays as it is; what surrounds it is numpy's."""
    from ai_edge_litert.interpreter import Interpreter

    contract = spec["contract"]
    interpreter = Interpreter(spec["weights"], num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert entry["dtype"] != np.int8, "the limit takes bytes or floats"
    axis = None if contract["kind"] == "index" else contract["output_layout"].index("C")
    height, width = contract["output_height"], contract["output_width"]

    def run(images: np.ndarray) -> np.ndarray:
        given = images[..., ::-1] if contract["bgr"] else images
        if contract["normalised"]:
            given = (given / np.float32(255 / contract["maximum"]) - contract["mean"]) / contract["std"]
        interpreter.set_tensor(entry["index"], given.astype(entry["dtype"], copy=False))
        interpreter.invoke()
        found = interpreter.get_tensor(result["index"])
        return (found if axis is None else found.argmax(axis=axis)).astype(np.uint8).reshape(height, width)

    return run


LOADERS = {"openvino": openvino_model, "onnxruntime": onnxruntime_model, "litert": litert_model}


def computes_in_bf16() -> bool:
    """Whether this CPU does; openvino emulates it on others."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
