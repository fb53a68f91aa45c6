"""What mmdeploy leaves beside a model: `pipeline.json`, `deploy.json` and `detail.json`.

Source: open-mmlab/mmdeploy, mmdeploy/backend/sdk/export_info.py and mmdeploy/codebase/mmseg/deploy/segmentation.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from segment.drafts.contract import Hints, Said
from segment.drafts.metadata_values import is_pair, numbers_of
from segment.readings.scalings import Scaling

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area")


def hints_of_pipeline(pipeline: Mapping[str, Any]) -> Hints:
    """Return what `pipeline.json` says of the preprocessing."""
    steps = {str(step.get("type")): step for step in _steps(pipeline)}
    normalise, resize = steps.get("Normalize"), steps.get("Resize")
    why = "pipeline.json"
    mean, std = (numbers_of((normalise or {}).get(key)) for key in ("mean", "std"))
    size = (resize or {}).get("size") or (resize or {}).get("scale")
    return Hints(
        size=_size(size, f"Resize in {why}"),
        channels=Said("RGB" if normalise.get("to_rgb", True) else "BGR", f"to_rgb in {why}") if normalise else None,
        scaling=Said(Scaling(255, mean, std), f"Normalize in {why}") if mean and std and all(std) else None,
        resize=_resize(resize, why) if resize else None,
        remarks=tuple(_remarks(resize)),
    )


def hints_of_deploy(deploy: Mapping[str, Any]) -> Hints:
    """Return what `deploy.json` says of the task."""
    if "models" not in deploy or "task" not in deploy:  # another program's
        return Hints()
    task = str(deploy["task"])
    return Hints(refusal="" if task == "Segmentor" else f"deploy.json beside it says task '{task}', no Segmentor")


def hints_of_detail(detail: Mapping[str, Any]) -> Hints:
    """Return what `detail.json` says of the task and of the size of the input."""
    codebase = detail.get("codebase")
    if not isinstance(codebase, dict) or "task" not in codebase:  # another program's
        return Hints()
    task = str(codebase["task"])
    if task != "Segmentation":
        return Hints(refusal=f"detail.json beside it says task '{task}', not Segmentation")
    size = (detail.get("onnx_config") or {}).get("input_shape")
    return Hints(size=_size(size, "onnx_config.input_shape in detail.json"))


def _steps(pipeline: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for task in (pipeline.get("pipeline") or {}).get("tasks") or []:
        yield from (step for step in task.get("transforms") or [] if isinstance(step, dict))


def _size(found: Any, why: str) -> Said[tuple[int, int]] | None:
    """A size is width and height there; -1 is a side that is free."""
    return Said((found[1], found[0]), why) if is_pair(found) and min(found) > 0 else None


def _resize(step: Mapping[str, Any], why: str) -> Said[dict[str, Any]]:
    named = str(step.get("interpolation", "bilinear"))
    kernel = named if named in _INTERPOLATIONS else "bilinear"
    method = "letterbox" if step.get("keep_ratio") else "stretch"
    return Said({"method": method, "resampler": "opencv", "interpolation": kernel}, f"Resize in {why}")


def _remarks(resize: Mapping[str, Any] | None) -> Iterator[str]:
    if resize and resize.get("keep_ratio"):
        yield (
            "pipeline.json keeps the aspect ratio (keep_ratio) without a border, so that each image has its own size; "
            "the card adds a border, which may cost a little"
        )
