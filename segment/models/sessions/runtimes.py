"""Runtime, device and precision: resolved once, at plan time, from the capabilities of all nodes."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segment.errors import ModelError, UsageError
from segment.models.sessions.base import INSTALL_CUDA, INSTALL_LITERT, MIXED, ONNX_ONLY, TFLITE_ONLY, Runtime
from segment.models.sessions.cpu import cpu_flags
from segment.models.weights import Format

RUNTIMES = ("auto", "onnxruntime", "openvino", "litert")
DEVICES = ("auto", "cpu", "cuda", "tensorrt")
PRECISIONS = ("auto", "f32", "bf16", "f16")

BOTH_BUILDS = "onnxruntime:both-builds"
AMX = "cpu:amx"
BF16 = "openvino:cpu:bf16"

# When and on what the providers of GPUs last ran; empty: never. `jobs/gpu_check.sh` tells; docs/gpus.md says it, too.
LAST_RUN = {"cuda": "", "tensorrt": ""}

# The distributions that provide a runtime, by preference.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai-edge-litert",),
}
_BEHIND_LITERT = " + openvino "  # computes what surrounds the network, so that its version counts, too


def capabilities() -> frozenset[str]:
    """Return the capabilities of this machine. Runs on every node.

    Returns:
        Any of `onnxruntime:cpu`, `onnxruntime:cuda`, `onnxruntime:tensorrt` (in the build, and there is a GPU),
        `openvino:cpu`, `openvino:cpu:bf16`, `openvino:cpu:f16` (the CPU computes in it), `gpu` (there is an NVIDIA
        device), `onnxruntime:both-builds` (the CPU and the GPU build have overwritten each other's files),
        `litert:cpu`, `cpu:amx` (the CPU multiplies matrices in tiles).
    """
    found: set[str] = set()
    if importlib.util.find_spec("onnxruntime"):
        found.add("onnxruntime:cpu")
        if len(_onnxruntime_builds()) > 1:
            found.add(BOTH_BUILDS)
        if has_gpu():
            from segment.models.sessions.onnxruntime import gpu_capabilities

            found |= {"gpu"} | gpu_capabilities()
    if importlib.util.find_spec("openvino"):
        from segment.models.sessions.openvino import cpu_capabilities

        found |= cpu_capabilities()
    if importlib.util.find_spec("ai_edge_litert"):
        found.add("litert:cpu")
    if "amx_tile" in cpu_flags():
        found.add(AMX)
    return frozenset(found)


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA device, from its device file or the driver's list.

    CUDA_VISIBLE_DEVICES does not count: this runs in a Ray task without a GPU, for which Ray empties it.
    """
    return any(Path("/dev").glob("nvidia[0-9]*")) or any(Path("/proc/driver/nvidia/gpus").glob("*"))


def resolve_runtime(
    weights_format: Format,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    *,
    nodes: Sequence[frozenset[str]],
    mixed: bool = False,
) -> Runtime:
    """Resolve `auto`, and refuse what the nodes do not provide.

    Args:
        weights_format: `onnx`, `ir` or `tflite`.
        runtime: `auto`, `onnxruntime`, `openvino` or `litert`.
        device: `auto`, `cpu`, `cuda` or `tensorrt`.
        precision: `auto`, `f32`, `bf16` or `f16`.
        nodes: `capabilities()` of every node. `auto` uses only what all of them provide. An explicit GPU device must
            work on every node that has a GPU; the other nodes do not take part.
        mixed: let `auto` be the precision `mixed` where some nodes, not all, have a faster one than f32.

    Raises:
        UsageError: runtime, device or precision is unavailable; the message says how to fix it.
        ModelError: the runtime cannot read these weights.
    """
    for word, known, option in (
        (runtime, RUNTIMES, "runtime"),
        (device, DEVICES, "device"),
        (precision, PRECISIONS, "precision"),
    ):
        if word not in known:
            raise UsageError(f"--{option} {word}: use one of {', '.join(known)}")
    common = frozenset.intersection(*nodes) if nodes else frozenset()
    name, device = _choose(weights_format, runtime, device, common)
    if device != "cpu":
        _check_gpu(device, nodes)
    elif f"{name}:cpu" not in common:
        how = INSTALL_LITERT if name == "litert" else f"pip install {name}"
        raise UsageError(f"{name} is not installed on every node: {how}")
    if precision == "auto" and weights_format == "tflite":
        precision = "f32"  # bf16 does not accelerate quantised graphs, but changes their masks
    return Runtime(name, device, _precision(name, device, precision, nodes, mixed), runtime_version(name))


def _choose(weights_format: Format, runtime: str, device: str, common: frozenset[str]) -> tuple[str, str]:
    on_gpu = device in ("cuda", "tensorrt")
    if runtime == "litert" and weights_format != "tflite":
        raise ModelError(TFLITE_ONLY)
    if weights_format != "onnx":
        if runtime == "onnxruntime":
            raise ModelError(ONNX_ONLY)
        if on_gpu:
            raise ModelError(
                f"--device {device} needs .onnx weights; openvino serves .xml and .tflite, on the CPU: use --device cpu"
            )
    if on_gpu:
        if runtime == "openvino":
            raise UsageError(f"openvino runs on the CPU here: use --runtime onnxruntime for --device {device}")
        return "onnxruntime", device
    if runtime != "openvino" and weights_format == "onnx" and device == "auto" and "onnxruntime:cuda" in common:
        return "onnxruntime", "cuda"
    if runtime != "auto":
        return runtime, "cpu"
    usable = "openvino:cpu" in common or weights_format != "onnx"
    return ("openvino" if usable else "onnxruntime"), "cpu"


def _check_gpu(device: str, nodes: Sequence[frozenset[str]]) -> None:
    if any(BOTH_BUILDS in node for node in nodes):
        raise UsageError(
            "onnxruntime and onnxruntime-gpu are both installed and have overwritten each other's files: "
            f"uv pip uninstall onnxruntime onnxruntime-gpu && {INSTALL_CUDA}"
        )
    with_gpu = [node for node in nodes if "gpu" in node]
    if with_gpu and all(f"onnxruntime:{device}" in node for node in with_gpu):
        return
    no_gpu = "" if with_gpu else "no node has an NVIDIA GPU: use --device cpu"
    if not any(f"onnxruntime:{device}" in node for node in with_gpu) and _onnxruntime_builds() != ["onnxruntime-gpu"]:
        first = f"{no_gpu}. Beside that, " if no_gpu else ""
        raise UsageError(
            f"--device {device}: {first}the CPU build of onnxruntime is installed. Replace it: {INSTALL_CUDA}"
        )
    lacking = sum(f"onnxruntime:{device}" not in node for node in with_gpu)
    reason = no_gpu or f"onnxruntime on {lacking} of {len(with_gpu)} nodes with a GPU lacks it: {INSTALL_CUDA}"
    raise UsageError(f"--device {device}: {reason}")


def own_runtime(runtime: Runtime) -> Runtime:
    """Return the runtime with which this machine computes: in a run of mixed precision, with its own fastest one."""
    if runtime.precision != MIXED:
        return runtime
    return replace(runtime, precision="bf16" if BF16 in capabilities() else "f32")


def fastest(runtime: Runtime) -> Runtime:
    """Return the runtime of the fastest nodes of a run; it differs from `runtime` in one of mixed precision."""
    return replace(runtime, precision="bf16") if runtime.precision == MIXED else runtime


def _precision(name: str, device: str, precision: str, nodes: Sequence[frozenset[str]], mixed: bool) -> str:
    if name == "openvino":
        if precision == "auto":
            able = [BF16 in node for node in nodes]
            return "bf16" if all(able) else MIXED if mixed and any(able) else "f32"
        lacking = sum(f"openvino:cpu:{precision}" not in node for node in nodes)
        if precision != "f32" and lacking:
            raise UsageError(
                f"the CPUs of {lacking} of {len(nodes)} nodes do not compute in {precision}: use --precision f32"
            )
        return precision
    if precision == "auto":
        return "f32"
    served = ("f32",) if device == "cpu" else ("f32", "f16")
    if precision not in served:
        raise UsageError(
            f"{name} computes in {' and '.join(served)} on {device}, not in {precision}: use --precision f32, "
            f"or --runtime openvino where the CPUs have {precision}"
        )
    return precision


def _onnxruntime_builds() -> list[str]:
    return [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed_version(name)]


def runtime_version(name: str) -> str:
    """Return the installed version of a runtime; `unknown` if its package has no metadata."""
    found = map(_installed_version, _DISTRIBUTIONS.get(name, (name,)))
    version = next((version for version in found if version), "unknown")
    return f"{version}{_BEHIND_LITERT}{runtime_version('openvino')}" if name == "litert" else version


def requirement_of(runtime: Runtime) -> str:
    """Return what pip installs for a runtime."""
    return f"{_DISTRIBUTIONS[runtime.name][-1]}=={runtime.version.replace(_BEHIND_LITERT, ' openvino==')}"


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
