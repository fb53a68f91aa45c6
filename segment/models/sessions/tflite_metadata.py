"""The metadata of a TFLite file: labels and normalisation, as TensorFlow Lite's metadata writer leaves them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress

from segment.models.sessions.flatbuffer import MOST, Table

_METADATA_NAME = b"TFLITE_METADATA"
_NORMALISATION = 1  # the place of NormalizationOptions in the union of process units

# Places of fields in the schemas of a TFLite model and of its metadata.
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_SUBGRAPHS, _INPUTS, _UNITS = 3, 2, 4


def tflite_metadata(data: bytes) -> dict[str, str]:
    """Return what the metadata of a TFLite file says.

    Returns:
        `labels`: class names, one a line; `mean` and `std`: numbers parted by blanks. Keys are missing where the file
        says nothing, or nothing that can be read.
    """
    found = {}
    if labels := _labels(data):
        found["labels"] = labels
    with suppress(struct.error, IndexError, ValueError):
        for key, numbers in _normalisation(data).items():
            found[key] = " ".join(f"{number:.7g}" for number in numbers)
    return found


def _labels(data: bytes) -> str:
    """Return the text of the only text file in the archive behind the model."""
    with suppress(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError):
        archive = zipfile.ZipFile(io.BytesIO(data))
        texts = [item for item in archive.infolist() if item.filename.endswith(".txt") and item.file_size < MOST]
        return archive.read(texts[0]).decode() if len(texts) == 1 else ""
    return ""


def _normalisation(data: bytes) -> dict[str, tuple[float, ...]]:
    model = Table.root(data)
    entry = next((item for item in model.tables(_MODEL_METADATA) if item.text(0) == _METADATA_NAME), None)
    if entry is None:
        return {}
    content = model.tables(_MODEL_BUFFERS)[entry.number(1, "I")].text(0)
    tensors = [tensor for graph in Table.root(content).tables(_SUBGRAPHS)[:1] for tensor in graph.tables(_INPUTS)]
    for unit in tensors[0].tables(_UNITS) if len(tensors) == 1 else []:
        if unit.number(0, "B") == _NORMALISATION and (options := unit.table(1)):
            return {"mean": options.floats(0), "std": options.floats(1)}
    return {}
