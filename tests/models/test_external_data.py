"""External data of ONNX models: embedded if it is in the model's folder, else refused."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from segment.errors import ModelError
from segment.models.card import ModelCard, WeightsFile, load_card
from segment.models.external_data import embed_external_data
from segment.models.weights import load_weights
from segment.store.client import Store
from tests.s3 import S3Server
from tests.web import Web

VALUES = np.arange(64, dtype=np.float32)
DATA = b"\0" * 4096 + VALUES.tobytes()


def tensor(name: str, location: str | None, **where: int) -> TensorProto:
    """Return a tensor of 64 floats, stored in another file unless `location` is None."""
    proto = numpy_helper.from_array(VALUES, name)
    if location is not None:
        set_external_data(proto, location, **where)
        proto.ClearField("raw_data")
    return proto


def model(*tensors: TensorProto, nodes: list[Any] | None = None) -> bytes:
    """Return a model that adds every tensor to its input."""
    names = ["x", *(item.name for item in tensors)]
    nodes = nodes or [helper.make_node("Sum", names, ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def run(graph: bytes) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.ones(64, np.float32)})[0])


def no_file(name: str) -> bytes:
    raise AssertionError(f"{name} must not be read")


def test_embedded_model_is_self_contained_and_computes_the_same() -> None:
    outside = model(tensor("a", "w.bin", offset=4096, length=256), tensor("b", "w.bin", offset=4096), tensor("c", None))
    whole = embed_external_data(outside, {"w.bin": DATA}.__getitem__)
    assert np.array_equal(run(whole), 1 + 3 * VALUES)
    assert embed_external_data(outside, {"w.bin": DATA}.__getitem__) == whole
    assert not any(
        item.HasField("data_location") or item.external_data for item in onnx.load_from_string(whole).graph.initializer
    )


@pytest.mark.parametrize("name", ["a", "location"], ids=["no word of it", "the word, not the thing"])
def test_models_without_external_data_are_unchanged(name: str) -> None:
    plain = model(tensor(name, None))
    assert embed_external_data(plain, no_file) is plain


def test_tensors_at_every_depth() -> None:
    def constant(location: str, output: str) -> Any:
        return helper.make_node("Constant", [], [output], value=tensor(output, location, offset=4096))

    branches = [
        helper.make_graph([constant(f"{side}.bin", side)], side, [], [helper.make_tensor_value_info(side, 1, [64])])
        for side in ("then", "else")
    ]
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["z"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Sum", ["x", "z"], ["y"]),
    ]
    read: list[str] = []
    whole = embed_external_data(model(nodes=nodes), lambda name: read.append(name) or DATA)  # type: ignore[func-returns-value]
    assert sorted(read) == ["else.bin", "then.bin"]
    assert np.array_equal(run(whole), 1 + VALUES)


@pytest.mark.parametrize(
    "location",
    ["../w.bin", "a/../../w.bin", "/etc/passwd", "..", "..\\w.bin", "a\\w.bin", "C:/w.bin", "C:w.bin",
     "file:///etc/passwd", "s3://bucket/w.bin", "w\0.bin", ""],
)  # fmt: skip
def test_names_that_lead_out_are_refused_before_anything_is_read(location: str) -> None:
    with pytest.raises(ModelError, match=r"tensor 'a' refers to .*: external data must be in the model's folder"):
        embed_external_data(model(tensor("ok", "w.bin"), tensor("a", location)), no_file)


@pytest.mark.parametrize(
    "where",
    [{"offset": len(DATA) + 1}, {"offset": 4096, "length": 257}, {"offset": 4352, "length": 256}, {"length": -4},
     {"offset": -4, "length": 4}, {"length": 2**62}],
    ids=str,
)  # fmt: skip
def test_extents_outside_the_file(where: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"tensor 'a' should be at offset .* of 'w.bin', which has 4352 bytes"):
        embed_external_data(model(tensor("a", "w.bin", **where)), lambda name: DATA)


def test_extents_that_are_no_numbers() -> None:
    proto = tensor("a", "w.bin", offset=4096)
    proto.external_data[1].value = "many"
    with pytest.raises(ModelError, match=r"at offset many, length unknown of 'w.bin'"):
        embed_external_data(model(proto), lambda name: DATA)


def test_bytes_that_are_no_model() -> None:
    with pytest.raises(ModelError, match="not an ONNX model: the bytes cannot be parsed"):
        embed_external_data(b"\xff location", no_file)


def test_more_than_one_onnx_file_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.models.external_data.LARGEST_MODEL", 1200)
    large = model(*(tensor(f"t{i}", "w.bin", offset=4096) for i in range(4)))
    with pytest.raises(ModelError, match=r"exceed the 2 GB .* give the \.xml"):
        embed_external_data(large, lambda name: DATA)


# ---- through load_weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with `m.onnx` and `sub/w 50%.bin`, which contains its tensor."""
    home = tmp_path / "model"
    (home / "sub").mkdir(parents=True)
    (home / "m.onnx").write_bytes(model(tensor("a", "./sub/w 50%.bin", offset=4096)))
    (home / "sub" / "w 50%.bin").write_bytes(DATA)
    return home


def load(path: Path | str, **how: Any) -> bytes:
    return load_weights(load_card("unet-camvid-onnx-0001"), str(path), **how).graph


def test_read_from_beside_the_model(folder: Path, web: Web, s3_server: S3Server) -> None:
    whole = load(folder / "m.onnx")
    assert np.array_equal(run(whole), 1 + VALUES)

    graph = (folder / "m.onnx").read_bytes()
    web.put("/m/m.onnx", graph)
    web.put("/m/sub/w%2050%25.bin", DATA)
    assert load(f"{web.url}/m/m.onnx?token=1/2") == whole

    store = Store(s3_server.options)
    bucket = s3_server.bucket_url("external")
    store.write(f"{bucket}/m.onnx", graph)
    store.write(f"{bucket}/sub/w 50%.bin", DATA)
    assert load(f"{bucket}/m.onnx", store=store) == whole


def test_names_on_the_web_are_names(web: Web) -> None:
    web.put("/secret", DATA)
    url = web.put("/m/m.onnx", model(tensor("a", "%2e%2e/secret", offset=4096)))
    with pytest.raises(ModelError, match=r"'%2e%2e/secret', which does not exist"):
        load(url)
    assert {path for _, path, _ in web.requests if "secret" in path} == {"/m/%252e%252e/secret"}


def link_symbolically(folder: Path, target: Path) -> None:
    (folder / "sub" / "w 50%.bin").symlink_to(target)


def link_folder(folder: Path, target: Path) -> None:
    (folder / "sub").rmdir()
    (folder / "sub").symlink_to(target.parent)


def link_hard(folder: Path, target: Path) -> None:
    os.link(target, folder / "sub" / "w 50%.bin")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (link_symbolically, "is a link to a file outside the model's folder"),
        (link_folder, "is a link to a file outside the model's folder"),
        (link_hard, "is a hard link, so it may be a file of another folder"),
    ],
)
def test_links_out_are_not_followed(folder: Path, link: Callable[[Path, Path], None], words: str) -> None:
    outside = folder.parent / "outside" / "w 50%.bin"
    outside.parent.mkdir()
    (folder / "sub" / "w 50%.bin").rename(outside)
    link(folder, outside)
    with pytest.raises(ModelError, match=rf"/m\.onnx: 'sub/w 50%\.bin' {words}.*replace it by a copy"):
        load(folder / "m.onnx")


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    (folder / "sub" / "w 50%.bin").rename(folder / "w.bin")
    link_symbolically(folder, folder / "w.bin")
    assert np.array_equal(run(load(folder / "m.onnx")), 1 + VALUES)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "sub" / "w 50%.bin").unlink()
    with pytest.raises(ModelError, match=r"/m\.onnx: .*tensor 'a' in 'sub/w 50%\.bin', which does not exist"):
        load(folder / "m.onnx")


def test_a_device_is_not_read(folder: Path) -> None:
    (folder / "sub" / "w 50%.bin").unlink()
    os.mkfifo(folder / "sub" / "w 50%.bin")
    with pytest.raises(ModelError, match="which does not exist"):
        load(folder / "m.onnx")


def test_a_huge_file_is_refused_unread(folder: Path) -> None:
    with (folder / "sub" / "w 50%.bin").open("wb") as file:
        file.truncate(3 << 30)  # sparse
    with pytest.raises(ModelError, match="is larger than the 2 GB limit of one ONNX file"):
        load(folder / "m.onnx")


def test_a_card_cannot_name_half_a_model(folder: Path) -> None:
    graph = (folder / "m.onnx").read_bytes()
    file = WeightsFile(url=f"file://{folder}/m.onnx", size=len(graph), sha384=hashlib.sha384(graph).hexdigest())
    card: ModelCard = load_card("unet-camvid-onnx-0001").model_copy(update={"weights": (file,)})
    with pytest.raises(ModelError, match=r"tensors are in 'sub/w 50%\.bin', which the card's digest does not cover"):
        load_weights(card)
