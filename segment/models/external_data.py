"""ONNX files whose tensors lie in other files ("external data"): made whole, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from segment.errors import ModelError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

LARGEST_MODEL = 2**31 - 1  # bytes; protobuf cannot hold more


def embed_external_data(graph: bytes, read: Callable[[str], bytes]) -> bytes:
    """Put the external data of an ONNX model into the model.

    A model without external data comes back as the very same bytes.

    Args:
        graph: bytes of an .onnx file.
        read: from a name inside the model's own folder to that file's bytes. It is only called with relative names
            that have no `..` in them; that no link leads out of the folder is for `read` to see to. It raises
            ModelError for what it refuses, FileNotFoundError for what is not there.

    Raises:
        ModelError: a name leads out of the model's folder, a file is missing or too short, the model does not parse,
            or would grow beyond the 2 GB that an ONNX file can hold.
    """
    if b"location" not in graph:  # the key every reference has; spares most models the parse
        return graph
    model = _parse(graph)
    outside = [tensor for tensor in _tensors(model) if _is_external(tensor)]
    if not outside:
        return graph
    by_name: dict[str, list[TensorProto]] = {}
    for tensor in outside:
        by_name.setdefault(_checked_name(tensor), []).append(tensor)
    total = len(graph)
    for name, tensors in by_name.items():  # file by file: one of them in memory at a time
        data = _read(name, tensors[0], read)
        for tensor in tensors:
            start, stop = _extent(tensor, name, len(data))
            total += stop - start
            if total > LARGEST_MODEL:
                raise ModelError(
                    "the ONNX model and its external data are larger than the 2 GB that one ONNX file can hold. "
                    "Convert it to OpenVINO IR (ovc model.onnx) and give the .xml"
                )
            tensor.raw_data = data[start:stop]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return bytes(model.SerializeToString(deterministic=True))


def _parse(graph: bytes) -> ModelProto:
    import onnx  # half a second that most runs do not need

    try:
        return onnx.load_model_from_string(graph)
    except Exception as error:  # protobuf's DecodeError, which onnx does not re-export
        raise ModelError("this is not an ONNX model: the bytes cannot be parsed") from error


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == tensor.EXTERNAL


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _checked_name(tensor: TensorProto) -> str:
    """Return where the tensor's bytes are, as a plain name below the model's folder."""
    name = _entries(tensor).get("location", "")
    folders = name.split("/")
    if not name or name.startswith("/") or ".." in folders or any(char in name for char in "\\:\0"):
        raise ModelError(
            f"the ONNX model's tensor '{tensor.name}' points to {name!r}: external data may only be in the model's own "
            "folder"
        )
    return "/".join(folder for folder in folders if folder not in ("", "."))


def _read(name: str, tensor: TensorProto, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(name)
    except FileNotFoundError:
        raise ModelError(
            f"the ONNX model keeps tensor '{tensor.name}' in {name!r}, which is not there: put that file "
            "beside the model"
        ) from None


def _extent(tensor: TensorProto, name: str, size: int) -> tuple[int, int]:
    """Return the tensor's first byte in the file and the one after its last."""
    entries = _entries(tensor)
    try:
        start = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else size - start
    except ValueError:
        start, length = -1, -1
    if start < 0 or length < 0 or start + length > size:
        raise ModelError(
            f"the ONNX model's tensor '{tensor.name}' should be at offset {entries.get('offset', '0')}, length "
            f"{entries.get('length', 'unknown')} of {name!r}, which has {size} bytes: it is not the file that "
            "belongs to this model"
        )
    return start, start + length


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model, at any depth."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _sparse_tensors(graph.sparse_initializer)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from _sparse_tensors([attribute.sparse_tensor])
    yield from _sparse_tensors(attribute.sparse_tensors)
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def _sparse_tensors(sparse: Iterable[SparseTensorProto]) -> Iterator[TensorProto]:
    for item in sparse:
        yield item.values
        yield item.indices
