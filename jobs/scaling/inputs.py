"""The null model and images of 64x64."""

import shutil
from pathlib import Path

from jobs.scaling.figures import Scale

SIZE = 64  # pixels of a side


def write_model(folder: Path, name: str, size: int) -> dict[str, str]:
    """Write card and graph of a null model whose input has `size` pixels a side; as a job names them."""
    card, graph = folder / f"{name}.toml", folder / f"{name}.onnx"
    card.write_text(null_card(size), encoding="utf-8")
    graph.write_bytes(null_graph(size))
    return {"model": str(card), "weights": str(graph)}


def null_card(size: int) -> str:
    """The card of that graph."""
    return f"""
name = "null"
description = "a constant mask: what is left is the machinery"
licence = "none"
source = "jobs/scale.py"

[input]
layout = "NHWC"
height = {size}
width = {size}
channels = "RGB"
resize = {{ resampler = "pillow", interpolation = "bilinear" }}

[output]
kind = "index"
layout = "NHW"

[metric]
convention = "cityscapes"
resolution = "source"

[classes]
names = ["nothing", "something"]
palette = [[0, 0, 0], [255, 255, 255]]
"""


def null_graph(size: int) -> bytes:
    """An ONNX graph `uint8[N, size, size, 3] -> int64[N, size, size]`, zero whatever comes in."""
    from numpy import array
    from onnx import TensorProto, helper, numpy_helper

    constants = {"first": [0], "second": [1], "channel": [3]}
    initial = [numpy_helper.from_array(array(value, "int64"), name) for name, value in constants.items()]
    initial.append(numpy_helper.from_array(array(0, "float32"), "zero"))
    nodes = [
        helper.make_node("Slice", ["image", "first", "second", "channel"], ["red"]),
        helper.make_node("Squeeze", ["red", "channel"], ["plane"]),
        helper.make_node("Cast", ["plane"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["mask"], to=TensorProto.INT64),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 3])
    mask = helper.make_tensor_value_info("mask", TensorProto.INT64, ["N", size, size])
    graph = helper.make_graph(nodes, "null", [image], [mask], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def tiny_images(number: int) -> list[bytes]:
    """Different JPEGs of 64x64."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)
    return [cv2.imencode(".jpg", picture.repeat(8, 0).repeat(8, 1))[1].tobytes() for picture in coarse]


def make_inputs(scale: Scale) -> None:
    """Write the null model and the shards; all of them hold the same images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (scale.folder / "input").mkdir(parents=True)
    write_model(scale.folder, "null", SIZE)
    pictures = tiny_images(scale.images // scale.shards)
    table = pa.table({"id": [f"{i:06d}" for i in range(len(pictures))], "image": pa.array(pictures, pa.binary())})
    first = scale.folder / "input" / "000000.parquet"
    pq.write_table(table, first, row_group_size=len(pictures))
    for number in range(1, scale.shards):
        shutil.copyfile(first, first.with_name(f"{number:06d}.parquet"))


def some_images(scale: Scale, number: int) -> dict[str, str]:
    """A folder of loose images, made once."""
    folder = scale.folder / f"some-{number}"
    if not folder.exists():
        folder.mkdir()
        for i, picture in enumerate(tiny_images(number)):
            (folder / f"{i:06d}.jpg").write_bytes(picture)
    return {"input": str(folder)}
