"""What exporters leave: metadata in the graph, and files beside it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from segment.drafts.contract import Hints, Said
from segment.errors import SegmentError
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
_KERNELS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def read_hints(url: str, facts: GraphFacts, store: Store) -> Hints:
    """Return what exporters say of a model.

    Args:
        url: of the graph; files beside it are read.
        facts: of the graph.
        store: reads the files.
    """
    found = [*_in_the_graph(facts), *_beside(url, store)]
    remarks = tuple(remark for hints in found for remark in hints.remarks)
    merged: dict[str, Any] = {
        item.name: next((value for hints in found if (value := getattr(hints, item.name))), item.default)
        for item in fields(Hints)
    }
    return Hints(**{**merged, "remarks": remarks})


def _in_the_graph(facts: GraphFacts) -> Iterator[Hints]:
    metadata = facts.metadata
    if "task" in metadata and ("stride" in metadata or "ltralytics" in metadata.get("author", "")):
        yield _ultralytics(metadata)
    elif "names" in metadata:
        yield Hints(names=_names(_literal(metadata["names"]), "metadata 'names' of the file"))
    if any(key.startswith("tflite.") for key in metadata):
        yield _tensorflow_lite(metadata)
    if any(key.startswith("model_info.") for key in metadata):
        yield _model_api({key.removeprefix("model_info."): value for key, value in metadata.items()})
    if "conversion_parameters.reverse_input_channels" in metadata:
        yield _conversion(metadata)


def _ultralytics(metadata: Mapping[str, str]) -> Hints:
    task = metadata["task"]
    if task in _ULTRALYTICS_TASKS:
        return Hints(refusal=f"its metadata says task '{task}', {_ULTRALYTICS_TASKS[task]}")
    sizes = _literal(metadata.get("imgsz", ""))
    why = "ultralytics prepares images so"
    letterbox = {
        "method": "letterbox", "anchor": "centre", "resampler": "opencv", "interpolation": "bilinear",
        "pad": [114, 114, 114],
    }  # fmt: skip
    return Hints(
        size=Said((int(sizes[0]), int(sizes[1])), "metadata 'imgsz'") if _is_pair(sizes) else None,
        channels=Said("RGB", why),
        scaling=Said(Scaling(1), why),
        resize=Said(letterbox, why),
        names=_names(_literal(metadata.get("names", "")), "metadata 'names'"),
    )


def _tensorflow_lite(metadata: Mapping[str, str]) -> Hints:
    """Metadata of a TFLite file: its normalisation is `(pixel - mean) / std` of 0 to 255."""
    why = "the file's TFLite metadata"
    mean, std = _numbers(metadata.get("tflite.mean", "")), _numbers(metadata.get("tflite.std", ""))
    labels = [line for line in metadata.get("tflite.labels", "").splitlines() if line.strip()]
    return Hints(
        scaling=Said(Scaling(255, mean, std), why) if mean and std and all(std) else None,
        names=_names(labels, "the labels in the file's TFLite metadata"),
    )


def _model_api(info: Mapping[str, str]) -> Hints:
    """OpenVINO's Model API: `model_info` in the `rt_info` of an IR."""
    why = "model_info in the IR's rt_info"
    mean, std = _numbers(info.get("mean_values", "")), _numbers(info.get("scale_values", ""))
    reverse = info.get("reverse_input_channels", "").lower()
    kinds = {"standard": "stretch", "fit_to_window": "letterbox", "fit_to_window_letterbox": "letterbox"}
    method = kinds.get(info.get("resize_type", ""))
    resize: dict[str, Any] = {"method": method}
    if info.get("resize_type") == "fit_to_window_letterbox":
        resize["anchor"] = "centre"
    # The library reads BGR, and reverses it for a model of RGB.
    channels = {"yes": "RGB", "true": "RGB", "no": "BGR", "false": "BGR"}.get(reverse)
    labels = info.get("labels", "").split()
    refused = "yolo" in info.get("model_type", "").lower() or info.get("model_type", "").lower() == "ssd"
    return Hints(
        channels=Said(channels, f"{why} (reverse_input_channels = {reverse})") if channels else None,
        scaling=Said(Scaling(255, mean or (0.0,) * 3, std or (1.0,) * 3), why) if mean or std else None,
        resize=Said(resize, f"{why} (resize_type)") if method else None,
        names=_names(labels, why) if labels else None,
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
        config, processor = _json(place, "config.json", store), _json(place, "preprocessor_config.json", store)
        yield _understood("config.json or preprocessor_config.json", _hugging_face, config, processor)
    yield _understood("pipeline.json", _mmdeploy, _json(folder, "pipeline.json", store))


def _understood(name: str, read: Callable[..., Hints], *tables: Mapping[str, Any]) -> Hints:
    """Return what files say; a remark where they have another form than their exporters give them."""
    try:
        return read(*tables)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return Hints(remarks=(f"{name} beside the model has a form that is not known here, and is not used",))


def _json(folder: str, name: str, store: Store) -> dict[str, Any]:
    with suppress(SegmentError, OSError, ValueError):  # a file that cannot be read says nothing
        found = json.loads(store.read_if_exists(join_url(folder, name)) or b"{}")
        return found if isinstance(found, dict) else {}
    return {}


def _hugging_face(config: Mapping[str, Any], processor: Mapping[str, Any]) -> Hints:
    labels, why = config.get("id2label"), "preprocessor_config.json"
    if any("ImageClassification" in str(name) for name in config.get("architectures") or []):
        return Hints(refusal="config.json beside it describes a classifier: one class an image, not one a pixel")
    names = [str(labels[key]) for key in sorted(labels, key=int)] if isinstance(labels, dict) else []
    remarks: tuple[str, ...] = ()
    if processor.get("do_reduce_labels") or processor.get("reduce_labels"):
        remarks = ("its labels are numbered from 1, 0 being ignored (do_reduce_labels): use --label-remap with such",)
    return Hints(
        size=_hugging_face_size(processor, why),
        channels=Said("RGB", f"{why}: its images are RGB") if processor else None,
        scaling=_hugging_face_scaling(processor, why),
        resize=_hugging_face_resize(processor, why),
        names=_names(names, "id2label of config.json"),
        remarks=remarks,
    )


def _hugging_face_size(processor: Mapping[str, Any], why: str) -> Said[tuple[int, int]] | None:
    size = processor.get("size")
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if not isinstance(size, dict):
        return None
    side = size.get("shortest_edge")
    height, width = size.get("height", side), size.get("width", side)
    return Said((int(height), int(width)), f"size in {why}") if height and width else None


def _hugging_face_scaling(processor: Mapping[str, Any], why: str) -> Said[Scaling] | None:
    if not {"do_normalize", "do_rescale", "image_mean"} & set(processor):
        return None
    factor = float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 1.0
    maximum = 1 if abs(factor * 255 - 1) < 0.01 else 255
    unit = 1 if maximum == 1 else 1 / factor
    mean, std = _numbers(processor.get("image_mean")), _numbers(processor.get("image_std"))
    if not processor.get("do_normalize", True) or not mean or not std:
        return Said(Scaling(maximum, (0.0,) * 3, (unit,) * 3), why)
    return Said(Scaling(maximum, _times(mean, unit), _times(std, unit)), why)


def _hugging_face_resize(processor: Mapping[str, Any], why: str) -> Said[dict[str, Any]] | None:
    kernel = _KERNELS.get(processor.get("resample", -1))
    if kernel is None:
        return None
    table = {"method": "stretch", "resampler": "pillow", "interpolation": kernel}
    return Said(table, f"resample = {processor['resample']} in {why}")


def _mmdeploy(pipeline: Mapping[str, Any]) -> Hints:
    tasks = (pipeline.get("pipeline") or {}).get("tasks") or []
    steps = [step for task in tasks for step in task.get("transforms") or [] if isinstance(step, dict)]
    by_type = {str(step.get("type")): step for step in steps}
    normalise, resize = by_type.get("Normalize"), by_type.get("Resize")
    why = "pipeline.json"
    mean, std = (_numbers((normalise or {}).get(key)) for key in ("mean", "std"))
    size = _literal(str((resize or {}).get("size") or (resize or {}).get("scale") or ""))
    keeps = bool((resize or {}).get("keep_ratio"))
    table = {"method": "letterbox" if keeps else "stretch", "resampler": "opencv", "interpolation": "bilinear"}
    return Hints(
        size=Said((int(size[1]), int(size[0])), f"Resize in {why}") if _is_pair(size) else None,
        channels=Said("RGB" if normalise.get("to_rgb", True) else "BGR", f"to_rgb in {why}") if normalise else None,
        scaling=Said(Scaling(255, mean, std), f"Normalize in {why}") if mean and std else None,
        resize=Said(table, f"Resize in {why}") if resize else None,
    )


def _literal(text: str) -> Any:
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    return None


def _names(found: Any, why: str) -> Said[tuple[str, ...]] | None:
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found)]
    names = tuple(str(name).strip() for name in found) if isinstance(found, list | tuple) else ()
    return Said(names, why) if names and all(names) else None


def _numbers(found: Any) -> Triple | None:
    """Return three numbers from a list or from text such as `123.7 116.3 103.5`; one number counts three times."""
    with suppress(ValueError, TypeError):
        parts = found.replace(",", " ").replace("[", " ").replace("]", " ").split() if isinstance(found, str) else found
        numbers = [float(part) for part in parts]
        if len(numbers) in (1, 3):
            first, second, third = numbers * (3 // len(numbers))
            return first, second, third
    return None


def _is_pair(found: Any) -> bool:
    return isinstance(found, list | tuple) and len(found) == 2 and all(isinstance(side, int) for side in found)


def _times(numbers: Triple, factor: float) -> Triple:
    return numbers[0] * factor, numbers[1] * factor, numbers[2] * factor
