"""The main graph of a TFLite file and its metadata, read without a runtime."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segment.errors import NotAModel
from segment.models.sessions.flatbuffer import MOST, Table

_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_METADATA_NAME = b"TFLITE_METADATA"
_NORMALISATION = 1  # the place of NormalizationOptions in the union of process units
# Places of fields in the schemas of a TFLite model and of its metadata.
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_SUBGRAPHS, _INPUTS, _OUTPUTS, _CONTENT, _UNITS, _FILES = 3, 2, 3, 3, 4, 6
_IMAGE, _AXIS_LABELS = 2, 2  # in the unions of contents, and of kinds of files
_COLOURS = {1: "RGB", 2: "GREY"}

# Numbers of the schema, as far as they are of use here.
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
_OPERATORS = {
    0: "ADD", 6: "DEQUANTIZE", 14: "LOGISTIC", 16: "LSTM", 18: "MUL", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 24: "RNN",
    25: "SOFTMAX", 27: "SVDF", 34: "PAD", 35: "UNIDIRECTIONAL_SEQUENCE_RNN", 39: "TRANSPOSE", 41: "SUB", 42: "DIV",
    43: "SQUEEZE", 44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 45: "STRIDED_SLICE", 46: "BIDIRECTIONAL_SEQUENCE_RNN",
    52: "BIDIRECTIONAL_SEQUENCE_LSTM", 53: "CAST", 56: "ARG_MAX", 65: "SLICE", 70: "EXPAND_DIMS", 77: "SHAPE",
    97: "RESIZE_NEAREST_NEIGHBOR", 114: "QUANTIZE", 142: "VAR_HANDLE", 143: "READ_VARIABLE", 144: "ASSIGN_VARIABLE",
    146: "RANDOM_STANDARD_NORMAL", 148: "RANDOM_UNIFORM", 149: "MULTINOMIAL",
}  # fmt: skip
_CUSTOM = 32


@dataclass(frozen=True)
class Tensor:
    """A value of the graph.

    Attributes:
        dtype: numpy's name of its type; empty for one that is of no use here.
        dims: size of each dimension, None where it is not fixed.
        scale, zero_point: what levels mean; empty if it is not quantised.
        content: bytes of a constant.
    """

    name: str
    dtype: str
    dims: tuple[int | None, ...]
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    content: bytes

    def numbers(self) -> NDArray[np.float64] | None:
        """Return the numbers of a constant; None if it is none."""
        if not self.content or not self.dtype:
            return None
        return np.frombuffer(self.content, self.dtype).astype(np.float64)

    def integers(self) -> list[int]:
        """Return the numbers of a constant of whole numbers; none of another tensor."""
        numbers = self.numbers() if self.dtype in ("int32", "int64") else None
        return [] if numbers is None else [int(number) for number in numbers]


@dataclass(frozen=True)
class Operator:
    """An operator.

    Attributes:
        name: in the schema, or of a custom operator; a number for one that is of no use here.
        inputs, outputs: positions of the tensors that it reads and writes; -1 for one left out.
        options: its table.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None


@dataclass(frozen=True)
class TfliteGraph:
    """The main graph.

    Attributes:
        tensors: by position.
        nodes: operators in the order in which they run.
        inputs, outputs: positions of tensors.
        operators: names of the operators of all graphs of the file.
        places: where the vectors of operators and of outputs begin in the file.
    """

    tensors: tuple[Tensor, ...]
    nodes: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: frozenset[str]
    places: tuple[int, int]

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """The operator that writes a tensor, which is no input and no constant."""
        return {place: node for node in reversed(self.nodes) for place in node.outputs}

    @cached_property
    def readers(self) -> dict[int, list[Operator]]:
        """The operators that read a tensor, in the order in which they run."""
        found: dict[int, list[Operator]] = {}
        for node in self.nodes:
            for place in dict.fromkeys(node.inputs):
                found.setdefault(place, []).append(node)
        return found


@contextmanager
def damage_in_words() -> Iterator[None]:
    """Turn the errors of damaged bytes into those of a model."""
    try:
        yield
    except (struct.error, IndexError, ValueError, OverflowError):
        raise NotAModel("this is not a model in tflite format: a wrong or damaged file") from None


@damage_in_words()
def read_tflite(data: bytes) -> TfliteGraph:
    """Read a file. Raises ModelError: it is damaged."""
    if data[4:8] != b"TFL3":
        raise ValueError
    return _read(Table.root(data))


def _read(model: Table) -> TfliteGraph:
    codes = [_name(code) for code in model.tables(1)]
    buffers, graph = model.tables(4), model.tables(2)[0]
    return TfliteGraph(
        tuple(_tensor(table, buffers) for table in graph.tables(0)),
        tuple(_operators(graph, codes)),
        graph.integers(1),
        graph.integers(2),
        frozenset(codes),
        (graph.place_of(3), graph.place_of(2)),
    )


def _name(code: Table) -> str:
    number = max(code.number(0, "b"), code.number(3, "i"))  # files of before 2020 have the first only
    return code.text(1).decode("utf-8", "replace") if number == _CUSTOM else _OPERATORS.get(number, str(number))


def _operators(graph: Table, codes: list[str]) -> Iterator[Operator]:
    for table in graph.tables(3):
        yield Operator(codes[table.number(0, "I")], table.integers(1), table.integers(2), table.table(4))


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    shape, signature, quantised = table.integers(0), table.integers(7), table.table(4)
    return Tensor(
        table.text(3).decode("utf-8", "replace"),
        _TYPES.get(table.number(1, "b"), ""),
        tuple(None if size < 0 else size for size in signature or shape),
        quantised.floats(2) if quantised else (),
        quantised.integers(3, "q") if quantised else (),
        buffers[table.number(2, "I")].text(0),
    )


def tflite_metadata(data: bytes) -> dict[str, str]:
    """Return what the metadata of a TFLite file says.

    Returns:
        `labels`: class names, one a line; `mean` and `std`: numbers parted by blanks; `colours`: `RGB` or `GREY`. Keys
        are missing where the file says nothing, or nothing that can be read.
    """
    found: dict[str, str] = {}
    named = ""
    with suppress(struct.error, IndexError, ValueError):
        for graph in _described(data):
            found |= _of_input(graph.tables(_INPUTS))
            named = _labels_named(graph.tables(_OUTPUTS))
    if labels := _labels(data, named):
        found["labels"] = labels
    return found


def _labels(data: bytes, named: str) -> str:
    """Return the text of a file in the archive behind the model: of a name, else the only text, else ultralytics'."""
    with suppress(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError):
        archive = zipfile.ZipFile(io.BytesIO(data))
        # of other compressions a few bytes can stand for gigabytes, which are unpacked at once
        files = [item for item in archive.infolist() if item.file_size < MOST and item.compress_type in _UNPACKED]
        for fits in (named, ".txt", "metadata.json"):
            texts = [item for item in files if fits and item.filename.endswith(fits)]
            if texts:
                with archive.open(texts[0]) as file:
                    return file.read(MOST).decode() if len(texts) == 1 else ""
    return ""


def _described(data: bytes) -> list[Table]:
    """Return the metadata of the main graph; none if there is none."""
    model = Table.root(data)
    entry = next((item for item in model.tables(_MODEL_METADATA) if item.text(0) == _METADATA_NAME), None)
    if entry is None:
        return []
    content = model.tables(_MODEL_BUFFERS)[entry.number(1, "I")].text(0)
    return Table.root(content).tables(_SUBGRAPHS)[:1]


def _labels_named(outputs: list[Table]) -> str:
    """Return the name of the file with the labels of an output: of several the first without a language."""
    files = [file for output in outputs for file in output.tables(_FILES) if file.number(2, "b") == _AXIS_LABELS]
    return min(files, key=lambda file: bool(file.text(3))).text(0).decode() if files else ""


def _of_input(inputs: list[Table]) -> dict[str, str]:
    """Return colours and normalisation of the only input."""
    found: dict[str, str] = {}
    if len(inputs) != 1:
        return found
    content = inputs[0].table(_CONTENT)
    image = content.table(1) if content and content.number(0, "B") == _IMAGE else None
    if image and (colours := _COLOURS.get(image.number(0, "b"))):
        found["colours"] = colours
    for unit in inputs[0].tables(_UNITS):
        if unit.number(0, "B") == _NORMALISATION and (options := unit.table(1)):
            for place, key in enumerate(("mean", "std")):
                found[key] = " ".join(f"{number:.7g}" for number in options.floats(place))
    return found
