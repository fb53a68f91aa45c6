"""What exporters leave: metadata in the graph, and files beside it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import yaml

from segment.drafts.contract import Hints, Said, guess
from segment.drafts.metadata_values import is_pair, literal, names_of, numbers_of
from segment.drafts.pipelines import hints_of_deploy, hints_of_detail, hints_of_paddle, hints_of_pipeline
from segment.errors import SegmentError, TooManyBytes
from segment.models.sessions.graph_facts import GraphFacts
from segment.readings.scalings import Scaling, Triple
from segment.store.client import Store
from segment.store.names import basename
from segment.store.urls import join_url, parent_url

_ULTRALYTICS_TASKS = {
    "detect": "a detector: it gives boxes, not a class for every pixel",
    "obb": "a detector of rotated boxes, not a class for every pixel",
    "pose": "a pose estimator, not a class for every pixel",
    "classify": "a classifier: it gives one class an image, not one a pixel",
    "segment": "instance segmentation: boxes and mask prototypes, which have to be combined object by object; "
    "train or export a semantic model",
}
# Ends of Hugging Face's names of architectures.
_OTHER_TASKS = {
    "ImageClassification": "a classifier: one class an image, not one a pixel",
    "ObjectDetection": "a detector: it gives boxes, not a class for every pixel",
    "DepthEstimation": "a network of depth, not of classes",
}
_MOST = 1 << 20  # bytes of a JSON file beside the model
_MOST_YAML = 1 << 16  # PyYAML takes two seconds of them
_MOST_ALIASES = 8  # each may stand for all before it, twice
_KERNELS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def read_hints(url: str, facts: GraphFacts, store: Store) -> Hints:
    """Return what exporters say of a model.

    Args:
        url: of the graph; files beside it are read.
    """
    found = [*_in_the_graph(facts), *_beside(url, store)]
    remarks = tuple(remark for hints in found for remark in hints.remarks)
    merged: dict[str, Any] = {
        item.name: next((value for hints in found if (value := getattr(hints, item.name))), item.default)
        for item in fields(Hints)
    }
    return Hints(**{**merged, "remarks": remarks})


def _in_the_graph(facts: GraphFacts) -> Iterator[Hints]:
    # OpenVINO's Model API parts the names of its tables by a blank in ONNX, by a level in an IR.
    metadata = {key.replace("model_info ", "model_info."): value for key, value in facts.metadata.items()}
    if "task" in metadata and ("stride" in metadata or "ltralytics" in metadata.get("author", "")):
        yield _ultralytics(metadata)
    elif "names" in metadata:
        yield Hints(names=names_of(literal(metadata["names"]), "metadata 'names' of the file"))
    if any(key.startswith("tflite.") for key in metadata):
        yield _tensorflow_lite(metadata)
    if any(key.startswith("model_info.") for key in metadata):
        info = {key.removeprefix("model_info."): value for key, value in metadata.items()}
        yield _model_api(info, len(facts.outputs))
    if "conversion_parameters.reverse_input_channels" in metadata:
        yield _conversion(metadata)


def _ultralytics(metadata: Mapping[str, str]) -> Hints:
    task = metadata["task"]
    if task in _ULTRALYTICS_TASKS:
        return Hints(refusal=f"its metadata says task '{task}', {_ULTRALYTICS_TASKS[task]}")
    sizes = literal(metadata.get("imgsz", ""))
    why = "ultralytics prepares images so"
    letterbox = {
        "method": "letterbox", "anchor": "centre", "resampler": "opencv", "interpolation": "bilinear",
        "pad": [114, 114, 114],
    }  # fmt: skip
    return Hints(
        size=Said((int(sizes[0]), int(sizes[1])), "metadata 'imgsz'") if is_pair(sizes) else None,
        channels=Said("RGB", why),
        scaling=Said(Scaling(1), why),
        resize=Said(letterbox, why),
        names=names_of(literal(metadata.get("names", "")), "metadata 'names'"),
        remarks=() if task == "semantic" else (f"its metadata says task '{task}': does it give a class a pixel?",),
    )


def _tensorflow_lite(metadata: Mapping[str, str]) -> Hints:
    """Metadata of a TFLite file: its normalisation is `(pixel - mean) / std` of 0 to 255."""
    why = "the file's TFLite metadata"
    mean, std = numbers_of(metadata.get("tflite.mean", "")), numbers_of(metadata.get("tflite.std", ""))
    text = metadata.get("tflite.labels", "")
    labels, own = [line for line in text.splitlines() if line.strip()], literal(text)
    with suppress(ValueError, RecursionError):
        own = own or json.loads(text)
    if isinstance(own, dict) and "task" in own:  # ultralytics' own table stands in for the labels
        return _ultralytics({str(key): str(value) for key, value in own.items()})
    return Hints(
        channels=Said("RGB", why) if metadata.get("tflite.colours") == "RGB" else None,
        scaling=Said(Scaling(255, mean, std), why) if mean and std and all(std) else None,
        names=names_of(labels, "the labels in the file's TFLite metadata"),
    )


def _model_api(info: Mapping[str, str], outputs: int) -> Hints:
    """OpenVINO's Model API: `model_info` in the `rt_info` of an IR."""
    why = "model_info in the IR's rt_info"
    mean, std = numbers_of(info.get("mean_values", "")), numbers_of(info.get("scale_values", ""))
    reverse = info.get("reverse_input_channels", "").lower()
    kinds = {"standard": "stretch", "fit_to_window": "letterbox", "fit_to_window_letterbox": "letterbox"}
    method = kinds.get(info.get("resize_type", ""))
    resize: dict[str, Any] = {"method": method, "resampler": "opencv", "interpolation": "bilinear"}
    if info.get("resize_type") == "fit_to_window_letterbox":
        resize["anchor"] = "centre"
    if method == "letterbox" and info.get("pad_value", "").isdecimal():
        resize["pad"] = [min(int(info["pad_value"]), 255)] * 3
    # The library reads BGR, and reverses it for a model of RGB.
    channels = {"yes": "RGB", "true": "RGB", "no": "BGR", "false": "BGR"}.get(reverse)
    embedded = info.get("embedded_processing", "").lower() in ("true", "yes")
    if embedded:
        # The graph does it itself, from the library's BGR bytes.
        mean = std = None
        channels, method = "BGR", None
        why += ", with embedded_processing"
    labels = info.get("labels", "").split()
    kind = info.get("model_type", "").lower()
    # ultralytics writes YOLO for each of its tasks; a detector of one output is told by its shape.
    refused = kind == "ssd" or ("yolo" in kind and (kind != "yolo" or outputs > 1))
    return Hints(
        channels=Said(channels, f"{why} (reverse_input_channels = {reverse})") if channels else None,
        scaling=Said(Scaling(255, mean or (0.0,) * 3, std or (1.0,) * 3), why) if mean or std or embedded else None,
        resize=Said(resize, f"{why} (resize_type)") if method else None,
        names=names_of(labels, why) if labels else None,
        refusal=f"its model_info says {info['model_type']}, a detector" if refused else "",
    )


def _conversion(metadata: Mapping[str, str]) -> Hints:
    """Parameters of OpenVINO's converter, which builds mean and scale into the graph."""
    place = "conversion_parameters in the IR's rt_info"
    reverse = metadata["conversion_parameters.reverse_input_channels"].lower() == "true"
    given = [metadata.get(f"conversion_parameters.{key}", "") for key in ("mean_values", "scale_values", "scale")]
    baked = any(character.isdigit() for text in given for character in text)
    channels = Said("BGR", f"{place}: channels were reversed, so a network of RGB takes BGR") if reverse else None
    return Hints(
        channels=channels,
        scaling=Said(Scaling(), f"{place}: mean and scale are in the graph") if baked else None,
    )


def _beside(url: str, store: Store) -> Iterator[Hints]:
    folder = parent_url(url)
    places = [folder, parent_url(folder)] if basename(folder) == "onnx" else [folder]
    for place in places:
        names = ("config.json", "preprocessor_config.json", "processor_config.json")
        yield _understood(
            "config.json or preprocessor_config.json", _hugging_face, (_table(place, n, store) for n in names)
        )
    for name, read in (
        ("deploy.json", hints_of_deploy),
        ("detail.json", hints_of_detail),
        ("pipeline.json", hints_of_pipeline),
        ("deploy.yaml", hints_of_paddle),
        ("inference.yml", hints_of_paddle),
    ):
        yield _understood(name, read, (_table(folder, each, store) for each in [name]))


def _understood(name: str, read: Callable[..., Hints], tables: Iterable[Mapping[str, Any]]) -> Hints:
    """Return what files say; a remark where they have another form than their exporters give them."""
    try:
        return read(*tables)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError, TooManyBytes, yaml.YAMLError):
        return Hints(remarks=(f"{name} beside the model has a form that is not known here, and is not used",))


def _table(folder: str, name: str, store: Store) -> dict[str, Any]:
    """Return the table of a JSON or YAML file; an empty one where there is none, or the store refuses to say."""
    is_json = name.endswith(".json")
    try:
        data = store.read_if_exists(join_url(folder, name), most=_MOST if is_json else _MOST_YAML)
    except TooManyBytes:
        raise
    except SegmentError:
        return {}
    found = json.loads(data or b"{}") if is_json else _Loader(data or b"").get_single_data()
    return found if isinstance(found, dict) else {}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is not typed
    """Refuses a file that a few lines of aliases blow up."""

    _aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._aliases += self.check_event(yaml.AliasEvent)
        if self._aliases > _MOST_ALIASES:
            raise yaml.YAMLError
        return super().compose_node(parent, index)


def _hugging_face(config: Mapping[str, Any], processor: Mapping[str, Any], outer: Mapping[str, Any]) -> Hints:
    processor = processor or outer.get("image_processor") or {}
    labels, why = config.get("id2label"), "the configuration of its image processor"
    for name in map(str, config.get("architectures") or []):
        if task := next((task for task in _OTHER_TASKS if name.endswith(task)), None):
            return Hints(refusal=f"config.json beside it describes {_OTHER_TASKS[task]} ({name})")
    if isinstance(labels, dict) and not all(str(key).isdecimal() for key in labels):
        raise ValueError("id2label is a table by number")
    order = "BGR" if processor.get("do_flip_channel_order") else "RGB"
    return Hints(
        size=_hugging_face_size(processor, why),
        channels=Said(order, f"{why}: its images are {order}") if processor else None,
        scaling=_hugging_face_scaling(processor, why),
        resize=_hugging_face_resize(processor, why),
        names=names_of(labels, "id2label of config.json"),
        remarks=tuple(_hugging_face_remarks(processor, why)),
    )


def _hugging_face_remarks(processor: Mapping[str, Any], why: str) -> Iterator[str]:
    if processor.get("do_reduce_labels") or processor.get("reduce_labels"):
        yield (
            "labels of its data set are numbered from 1, 0 being ignored (do_reduce_labels), so such labels need a "
            "remap: 0=ignore, 1=0, 2=1 and so on. `segment check` prints it in full"
        )
    if _keeps_shape(processor):
        cropped = ", and crops them" if processor.get("do_center_crop") else ""
        padded = ", and adds a border to them" if processor.get("do_pad") else ""
        yield f"{why} keeps the shape of images{cropped}{padded}; the card stretches them, which may cost a little"


def _keeps_shape(processor: Mapping[str, Any]) -> bool:
    size = processor.get("size")
    edges = {"shortest_edge", "longest_edge"} & set(size) if isinstance(size, dict) else set()
    return bool(edges or processor.get("keep_aspect_ratio") or processor.get("do_pad"))


def _hugging_face_size(processor: Mapping[str, Any], why: str) -> Said[tuple[int, int]] | None:
    size = processor.get("size")
    if processor.get("do_center_crop"):
        size = processor.get("crop_size", size)
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if isinstance(size, list) and is_pair(size):  # of before 2023
        size = {"height": size[1], "width": size[0]}
    if not isinstance(size, dict):
        return None
    side = size.get("shortest_edge")
    height, width = size.get("height", side), size.get("width", side)
    return Said((int(height), int(width)), f"size of images in {why}") if height and width else None


def _hugging_face_scaling(processor: Mapping[str, Any], why: str) -> Said[Scaling] | None:
    if not {"do_normalize", "do_rescale", "image_mean", "do_flip_channel_order"} & set(processor):
        return None
    factor = float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 1.0
    maximum = 1 if abs(factor * 255 - 1) < 0.01 else 255
    unit = 1 if maximum == 1 else 1 / factor
    mean, std = numbers_of(processor.get("image_mean")), numbers_of(processor.get("image_std"))
    if processor.get("do_normalize") and not (mean and std):  # those of its class, which the file does not say
        return None
    if not processor.get("do_normalize", True) or not mean or not std:
        return Said(Scaling(maximum, (0.0,) * 3, (unit,) * 3), why)
    if not all(std):
        raise ValueError("pixels are divided by image_std")
    return Said(Scaling(maximum, _times(mean, unit), _times(std, unit)), why)


def _hugging_face_resize(processor: Mapping[str, Any], why: str) -> Said[dict[str, Any]] | None:
    kernel = _KERNELS.get(processor.get("resample", -1))
    if kernel is None:
        return None
    table = {"method": "stretch", "resampler": "pillow", "interpolation": kernel}
    found = f"resample = {processor['resample']} in {why}"
    if _keeps_shape(processor):
        return guess(table, f"{found}, which keeps the shape of images", 'method = "letterbox" or "pad"')
    return Said(table, found)


def _times(numbers: Triple, factor: float) -> Triple:
    return numbers[0] * factor, numbers[1] * factor, numbers[2] * factor
