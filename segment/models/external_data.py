"""ONNX external data (tensors stored in other files): embeds it into the model, or refuses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from segment.errors import ModelError, NotAModel

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

LARGEST_MODEL = 2**31 - 1  # bytes; the limit of protobuf


def embed_external_data(graph: bytes, read: Callable[[str], bytes]) -> bytes:
    """Embed the external data of an ONNX model into the model.

    Args:
        read: reads a file by its name in the model's folder. It is called only with relative names without `..`, and
            must itself refuse links that lead out of the folder. It raises ModelError for a refused file,
            FileNotFoundError for a missing one.

    Returns:
        Bytes of a self-contained .onnx file; `graph` itself if it has no external data.

    Raises:
        ModelError: a name leads out of the model's folder, a file is missing or too short, the model cannot be
            parsed, or the result exceeds the 2 GB limit of an ONNX file.
    """
    if b"location" not in graph:  # the key of every reference: most models need no parse
        return graph
    model = parse_model(graph)
    external = [tensor for tensor in stored_tensors(model) if tensor.data_location == tensor.EXTERNAL]
    if not external:
        return graph
    by_name: dict[str, list[TensorProto]] = {}
    for tensor in external:
        by_name.setdefault(_checked_name(tensor), []).append(tensor)
    total = len(graph)
    for name, tensors in by_name.items():  # one file in memory at a time
        data = _read(name, tensors[0], read)
        for tensor in tensors:
            start, stop = _extent(tensor, name, len(data))
            total += stop - start
            if total > LARGEST_MODEL:
                raise ModelError(
                    "the ONNX model and its external data exceed the 2 GB limit of one ONNX file. "
                    "Convert it to OpenVINO IR (ovc model.onnx) and give the .xml"
                )
            tensor.raw_data = data[start:stop]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return bytes(model.SerializeToString(deterministic=True))


def parse_model(data: bytes) -> ModelProto:
    """Parse the bytes of an .onnx file. Raises NotAModel: the bytes cannot be parsed."""
    import onnx  # takes half a second, and most runs do not need it

    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError, which onnx does not re-export
        raise NotAModel("this is not an ONNX model: the bytes cannot be parsed") from error


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _checked_name(tensor: TensorProto) -> str:
    """Return the name of the tensor's file, relative to the model's folder and normalised."""
    name = _entries(tensor).get("location", "")
    folders = name.split("/")
    if not name or name.startswith("/") or ".." in folders or any(char in name for char in "\\:\0"):
        raise ModelError(
            f"the ONNX model's tensor '{tensor.name}' refers to {name!r}: external data must be in the model's folder"
        )
    return "/".join(folder for folder in folders if folder not in ("", "."))


def _read(name: str, tensor: TensorProto, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(name)
    except FileNotFoundError:
        raise ModelError(
            f"the ONNX model stores tensor '{tensor.name}' in {name!r}, which does not exist: put that file "
            "beside the model"
        ) from None


def _extent(tensor: TensorProto, name: str, size: int) -> tuple[int, int]:
    """Return start and end (exclusive) of the tensor in the file, in bytes."""
    entries = _entries(tensor)
    try:
        start = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else size - start
    except ValueError:
        start, length = -1, -1
    if start < 0 or length < 0 or start + length > size:
        raise ModelError(
            f"the ONNX model's tensor '{tensor.name}' should be at offset {entries.get('offset', '0')}, length "
            f"{entries.get('length', 'unknown')} of {name!r}, which has {size} bytes: this is not the model's file"
        )
    return start, start + length


def stored_tensors(message: Any) -> Iterator[TensorProto]:
    """Yield every tensor of a model, or of another message: subgraphs, functions and sparse tensors included."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                if field.message_type.name == "TensorProto":
                    yield item
                else:
                    yield from stored_tensors(item)
