"""What exporters say of a preprocessing in steps: mmdeploy's JSON files, PaddleSeg's `deploy.yaml`, `inference.yml`.

Sources: open-mmlab/mmdeploy, mmdeploy/backend/sdk/export_info.py, csrc/mmdeploy/preprocess/transform/{resize,pad}.cpp;
PaddlePaddle/PaddleSeg, tools/export.py, paddleseg/transforms/transforms.py.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from segment.drafts.contract import Hints, Said
from segment.drafts.metadata_values import is_pair, numbers_of
from segment.readings.scalings import Scaling

_Size = tuple[int, int]  # height, width
_KERNELS = {"linear": "bilinear", "cubic": "bicubic", **{name: name for name in ("nearest", "bicubic", "area")}}


def hints_of_pipeline(pipeline: Mapping[str, Any]) -> Hints:
    """Return what mmdeploy's `pipeline.json` says of the preprocessing."""
    tasks = (pipeline.get("pipeline") or {}).get("tasks") or []
    steps = _by_type(step for task in tasks for step in task.get("transforms") or [])
    normalise, resize, pad = (steps.get(kind, {}) for kind in ("Normalize", "Resize", "Pad"))
    scaling = _scaling(normalise.get("mean"), normalise.get("std"), 255)
    value = pad.get("pad_val", 0)
    border: tuple[float, ...] = numbers_of(value.get("img", 0) if isinstance(value, dict) else value) or (0.0,) * 3
    if scaling and [kind for kind in steps if kind in ("Normalize", "Pad")] == ["Normalize", "Pad"]:
        border = tuple(number * std + mean for number, mean, std in zip(border, scaling.mean, scaling.std, strict=True))
    return _hints(
        "pipeline.json",
        channels=("RGB" if normalise.get("to_rgb", True) else "BGR") if normalise else None,
        scaling=scaling,
        size=_turned(resize.get("size") or resize.get("scale")),
        padded=_pair(pad.get("size")),
        scaled=("ratio" if resize.get("keep_ratio") else "stretch") if resize else "",
        kernel=str(resize.get("interpolation")),
        border=border if pad.get("size") or pad.get("pad_to_square") else None,
    )


def hints_of_paddle(found: Mapping[str, Any]) -> Hints:
    """Return what PaddleSeg's `deploy.yaml` or `inference.yml` says of the preprocessing."""
    deploy = found.get("Deploy")
    if not isinstance(deploy, dict) or "transforms" not in deploy:  # another program's
        return Hints()
    steps = _by_type(deploy["transforms"] or [])
    normalise, resize, pad = (steps.get(kind) for kind in ("Normalize", "Resize", "Padding"))
    scaling: Scaling | None = Scaling()
    if normalise is not None:
        scaling = _scaling(normalise.get("mean", 0.5), normalise.get("std", 0.5), 1)
    border = None if pad is None else numbers_of(pad.get("im_padding_value", 127.5))
    return _hints(
        "PaddleSeg's deploy.yaml or inference.yml",
        channels="RGB",
        scaling=scaling,
        size=_turned((resize or {}).get("target_size")),
        padded=_turned((pad or {}).get("target_size")),
        scaled="stretch" if resize is not None else "ratio" if {"ResizeByLong", "LimitLong"} & set(steps) else "",
        kernel=str((resize or {}).get("interp", "")).lower(),
        border=border,
    )


def _by_type(steps: Iterable[Any]) -> dict[str, Mapping[str, Any]]:
    return {str(step.get("type")): step for step in steps if isinstance(step, dict)}


def _scaling(mean: Any, std: Any, maximum: int) -> Scaling | None:
    means, stds = numbers_of(mean), numbers_of(std)
    return Scaling(maximum, means, stds) if means and stds and all(stds) else None


def _turned(found: Any) -> _Size | None:
    """Return the size of a width and height, or of one number for both; -1 is a side that is free."""
    found = [found, found] if isinstance(found, int) else found
    return (found[1], found[0]) if is_pair(found) and min(found) > 0 else None


def _pair(found: Any) -> _Size | None:
    size = _turned(found)
    return size and (size[1], size[0])


def _hints(
    why: str,
    *,
    channels: str | None,
    scaling: Scaling | None,
    size: _Size | None,
    padded: _Size | None,
    scaled: str,
    kernel: str,
    border: tuple[float, ...] | None,
) -> Hints:
    """Return the hints of a preprocessing.

    Args:
        why: name of the file.
        channels, scaling, size: what it says.
        padded: size of what the network gets, with its border.
        scaled: `stretch`, `ratio` where the shape of images is kept, or empty where they are not scaled.
        kernel: of the resize.
        border: colour of what is added right and below so that all images have one size; None without it.
    """
    resize: dict[str, Any] = {"resampler": "opencv", "interpolation": _KERNELS.get(kernel, "bilinear")}
    if border is not None:
        resize["pad"] = [round(min(255, max(0, number))) for number in border]
    method = {"stretch": "stretch", "ratio": "letterbox"}.get(scaled, "" if border is None else "pad")
    remarks = []
    if scaled == "ratio" and border is None:
        remarks.append(
            f"{why} keeps the shape of images without a border to one size, so that each has its own; the card adds a "
            "border, which may cost a little"
        )
    if size and padded and size != padded:
        remarks.append(
            f"{why} resizes images to {size[0]}x{size[1]} and adds a border to {padded[0]}x{padded[1]}; the card "
            "resizes them to the second size, by another scale, which may cost much"
        )
    size = padded or size
    return Hints(
        size=Said(size, f"the size of images in {why}") if size else None,
        channels=Said(channels, why) if channels else None,
        scaling=Said(scaling, f"Normalize in {why}") if scaling else None,
        resize=Said({"method": method, **resize}, why) if method else None,
        remarks=tuple(remarks),
    )


def hints_of_deploy(deploy: Mapping[str, Any]) -> Hints:
    """Return what mmdeploy's `deploy.json` says of the task."""
    if "models" not in deploy or "task" not in deploy:  # another program's
        return Hints()
    task = str(deploy["task"])
    return Hints(refusal="" if task == "Segmentor" else f"deploy.json beside it says task '{task}', no Segmentor")


def hints_of_detail(detail: Mapping[str, Any]) -> Hints:
    """Return what mmdeploy's `detail.json` says of the task and of the size of the input."""
    codebase = detail.get("codebase")
    if not isinstance(codebase, dict) or "task" not in codebase:  # another program's
        return Hints()
    task = str(codebase["task"])
    if task != "Segmentation":
        return Hints(refusal=f"detail.json beside it says task '{task}', not Segmentation")
    size = _turned((detail.get("onnx_config") or {}).get("input_shape"))
    return Hints(size=Said(size, "onnx_config.input_shape in detail.json") if size else None)
