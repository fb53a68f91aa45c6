"""How pixels become the input: channel order, value range, mean and standard deviation."""

import re

import numpy as np

from segment.drafts.contract import Hints, Said, guess
from segment.models.sessions.graph_facts import GraphFacts, InputFacts
from segment.models.weights import Format
from segment.readings.scalings import IMAGENET, SYMMETRIC, Scaling

GREY = Said("GREY", "the graph takes one channel")
_SIGNED = Scaling(255, (128.0, 128.0, 128.0))
_OTHERS = {
    "0-255": "0 to 255: no maximum, mean, std",
    "0-1": "0 to 1: maximum = 1 alone",
    "-1..1": "-1 to 1: mean and std 127.5",
    "ImageNet": "ImageNet: maximum = 1, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]",
}


def scaling_of(entry: InputFacts, facts: GraphFacts, fmt: Format, hints: Hints) -> Said[Scaling]:
    """Return the normalisation, from the graph, from the exporter, or by the habits of the program that wrote it."""
    if entry.port.dtype == "uint8":
        return Said(Scaling(), "the graph takes bytes")
    if hints.scaling is not None and (hints.scaling.value == Scaling() or not entry.is_normalised_inside):
        return hints.scaling
    if entry.is_normalised_inside:
        return _inside(entry)
    if found := _of_levels(entry):
        return found
    if is_of_model_optimizer(facts):
        why = "nothing says so; OpenVINO's Model Optimizer usually builds mean and scale into the graph"
        return guess(Scaling(), why, _others("0-255"))
    if is_of_keras(entry, facts):
        why = "nothing says so; many networks of Keras take 0 to 1"
        return guess(Scaling(1), why, _others("0-1"))
    if fmt == "tflite" or is_of_tensorflow(entry, facts):
        why = "nothing says so; most networks of TensorFlow take -1 to 1"
        return guess(SYMMETRIC, why, _others("-1..1"))
    if "paddle" in facts.producer.lower():
        return guess(SYMMETRIC, "nothing says so; PaddleSeg takes -1 to 1 unless told otherwise", _others("-1..1"))
    why = "nothing says so; most networks of PyTorch take ImageNet's mean and deviation"
    return guess(IMAGENET, why, _others("ImageNet"))


def scaling_of_grey(entry: InputFacts, hints: Hints) -> Said[Scaling]:
    """Return the normalisation of a grey input; a card takes the first value of mean and std."""
    if entry.port.dtype == "uint8":
        return Said(Scaling(), "the graph takes bytes")
    if entry.is_normalised_inside:
        return _inside(entry)
    return (
        hints.scaling
        or _of_levels(entry)
        or guess(Scaling(1), "nothing says so; most grey networks take 0 to 1", "0 to 255: maximum = 255")
    )


def _of_levels(entry: InputFacts) -> Said[Scaling] | None:
    """Return the normalisation whose numbers, at black and at white, are the ends of an input's levels."""
    dtype = entry.port.dtype
    if dtype not in ("int8", "int16"):
        return None
    if entry.scales is None:
        return guess(_SIGNED, f"the graph takes {dtype}, and nothing says its scale; usually pixel - 128")
    limits = np.iinfo(dtype)
    low, high = entry.scales.numbers(np.array([limits.min, limits.max], np.float64))[0]
    for scaling in (Scaling(1), Scaling(), SYMMETRIC, _SIGNED):
        black, white = ((number - scaling.mean[0]) / scaling.std[0] for number in (0, scaling.maximum))
        if max(abs(low - black), abs(high - white)) < (high - low) / 100:
            return Said(scaling, f"scale and zero point of the graph's {dtype} input: it holds {low:.4g} to {high:.4g}")
    return None


def _inside(entry: InputFacts) -> Said[Scaling]:
    if max(entry.subtracted, default=0.0) < 0:
        return guess(SYMMETRIC, f"the graph begins with a normalisation of -1 to 1 ({_told(entry)})", _others("-1..1"))
    largest = max((abs(number) for number in entry.subtracted), default=0.0)
    factor = max((abs(number) for number in entry.multiplied), default=1.0)
    if largest > 2 or (largest <= 2 and factor < 0.1 and entry.multiplied):
        return Said(Scaling(), f"the graph begins with a normalisation of 0 to 255 ({_told(entry)})")
    return guess(Scaling(1), f"the graph begins with a normalisation of 0 to 1 ({_told(entry)})", _others("0-1"))


def _told(entry: InputFacts) -> str:
    parts = [f"subtracts {_few(entry.subtracted)}"] if entry.subtracted else []
    parts += [f"multiplies by {_few(entry.multiplied)}"] if entry.multiplied else []
    return ", ".join(parts)


def _few(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)


def is_of_keras(entry: InputFacts, facts: GraphFacts) -> bool:
    """Whether a converter of Keras wrote the file, or the input has a name that Keras gives."""
    names = re.compile(r"(serving_default_)?(input_\d+|(input_layer|keras_tensor)(_\d+)?)(:0)?")
    return facts.producer.lower() in ("keras2onnx", "onnxmltools") or bool(names.fullmatch(entry.port.name))


def is_of_tensorflow(entry: InputFacts, facts: GraphFacts) -> bool:
    """Whether an ONNX file is a conversion from TensorFlow."""
    writer = facts.producer.lower()
    return any(word in writer for word in ("tf2onnx", "tensorflow")) or entry.port.name.endswith(":0")


def is_of_model_optimizer(facts: GraphFacts) -> bool:
    """Whether an IR is from OpenVINO's converter of before 2024, as are those of Open Model Zoo."""
    return "conversion_parameters.framework" in facts.metadata


def channels_of(entry: InputFacts, facts: GraphFacts, hints: Hints, classes: int) -> Said[str]:
    """Return the order of the channels: the graph never says it, but a mean that it subtracts may."""
    if hints.channels is not None:
        return hints.channels
    if len(entry.subtracted) == 3 and len(set(entry.subtracted)) == 3:
        return _by_mean(entry.subtracted, classes)
    if is_of_model_optimizer(facts):
        return guess("BGR", "nothing says so; Open Model Zoo's networks take blue first", '"RGB"')
    if entry.port.name == "data":
        why = "most networks take red first, but networks of Caffe, whose inputs are called 'data', take blue first"
        return guess("RGB", why, '"BGR"')
    return guess("RGB", "nothing says so; most networks take red first", '"BGR" (OpenCV, Caffe)')


def _by_mean(mean: tuple[float, ...], classes: int) -> Said[str]:
    """ImageNet's mean falls from red to blue, CamVid's rises."""
    falls = mean[0] > mean[2]
    camvid = classes == 12
    order = "BGR" if falls == camvid else "RGB"
    which = "CamVid's mean rises" if camvid else "ImageNet's mean falls"
    how = "falls" if falls else "rises"
    other = "RGB" if order == "BGR" else "BGR"
    return guess(order, f"{which} from red to blue, and the mean that the graph subtracts {how}", f'"{other}"')


def _others(chosen: str) -> str:
    return "; ".join(text for key, text in _OTHERS.items() if key != chosen)
