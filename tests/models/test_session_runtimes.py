"""Runtime, device and precision: resolved from the capabilities of every node, never a silent fallback."""

from typing import Any

import pytest

from segment.errors import UsageError
from segment.models.sessions import Runtime, capabilities, resolve_runtime
from tests.graphs import colour_classifier
from tests.serving import message, opened, small

CPU = frozenset({"onnxruntime:cpu", "openvino:cpu"})
BF16 = CPU | {"openvino:cpu:bf16"}
GPU = CPU | {"gpu", "onnxruntime:cuda", "onnxruntime:tensorrt"}


@pytest.mark.parametrize(
    ("asked", "nodes", "decided"),
    [
        ({}, [CPU], ("openvino", "cpu", "f32")),
        ({}, [BF16, BF16], ("openvino", "cpu", "bf16")),
        ({}, [BF16, CPU], ("openvino", "cpu", "f32")),
        ({"precision": "f32"}, [BF16], ("openvino", "cpu", "f32")),
        ({"precision": "bf16"}, [BF16], ("openvino", "cpu", "bf16")),
        ({}, [frozenset({"onnxruntime:cpu"})], ("onnxruntime", "cpu", "f32")),
        ({}, [GPU, GPU], ("onnxruntime", "cuda", "f32")),
        ({}, [GPU, CPU], ("openvino", "cpu", "f32")),
        ({"device": "cuda"}, [GPU, CPU], ("onnxruntime", "cuda", "f32")),
        ({"device": "cpu"}, [GPU], ("openvino", "cpu", "f32")),
        ({"device": "tensorrt", "precision": "f16"}, [GPU], ("onnxruntime", "tensorrt", "f16")),
        ({"runtime": "onnxruntime"}, [BF16], ("onnxruntime", "cpu", "f32")),
        ({"runtime": "openvino"}, [GPU], ("openvino", "cpu", "f32")),
        ({"weights_format": "tflite"}, [GPU], ("openvino", "cpu", "f32")),
        ({"weights_format": "ir"}, [BF16], ("openvino", "cpu", "bf16")),
    ],
)
def test_resolve_runtime(asked: dict[str, Any], nodes: list[frozenset[str]], decided: tuple[str, str, str]) -> None:
    runtime = resolve_runtime(**{"weights_format": "onnx", **asked}, nodes=nodes)
    assert (runtime.name, runtime.device, runtime.precision) == decided
    assert runtime.version[0].isdigit()


INSTALL = "uv pip install --override jobs/cuda-overrides.txt . onnxruntime-gpu (by uv, in a clone)"


@pytest.mark.parametrize(
    ("asked", "nodes", "said"),
    [
        ({"runtime": "openvin"}, [CPU], "--runtime openvin: use one of auto, onnxruntime, openvino, litert"),
        ({"device": "gpu"}, [CPU], "--device gpu: use one of auto, cpu, cuda, tensorrt"),
        ({"precision": "fp32"}, [CPU], "--precision fp32: use one of auto, f32, bf16, f16"),
        ({"weights_format": "tflite", "runtime": "onnxruntime"}, [CPU],
         "onnxruntime serves .onnx only; openvino serves .xml and .tflite: use --runtime openvino"),
        ({"weights_format": "ir", "device": "cuda"}, [GPU],
         "--device cuda needs .onnx weights; openvino serves .xml and .tflite, on the CPU: use --device cpu"),
        ({"runtime": "openvino", "device": "cuda"}, [GPU],
         "openvino runs on the CPU here: use --runtime onnxruntime for --device cuda"),
        ({"device": "cuda"}, [CPU], "--device cuda: no node has an NVIDIA GPU: use --device cpu. Beside that, the CPU "
         f"build of onnxruntime is installed. Replace it: {INSTALL}"),
        ({"device": "cuda"}, [CPU | {"gpu"}],
         f"--device cuda: the CPU build of onnxruntime is installed. Replace it: {INSTALL}"),
        ({"device": "cuda"}, [GPU, CPU | {"gpu"}],
         f"--device cuda: onnxruntime on 1 of 2 nodes with a GPU lacks it: {INSTALL}"),
        ({"device": "cuda"}, [GPU | {"onnxruntime:both-builds"}],
         "onnxruntime and onnxruntime-gpu are both installed and have overwritten each other's files: "
         f"uv pip uninstall onnxruntime onnxruntime-gpu && {INSTALL}"),
        ({"precision": "bf16"}, [BF16, CPU], "the CPUs of 1 of 2 nodes do not compute in bf16: use --precision f32"),
        ({"precision": "bf16", "runtime": "onnxruntime"}, [BF16],
         "onnxruntime computes in f32 on cpu, not in bf16: use --precision f32, or --runtime openvino where the "
         "CPUs have bf16"),
        ({"runtime": "openvino"}, [frozenset({"onnxruntime:cpu"})],
         "openvino is not installed on every node: pip install openvino"),
    ],
)  # fmt: skip
def test_unavailable_runtimes_are_errors(asked: dict[str, Any], nodes: list[frozenset[str]], said: str) -> None:
    assert message(lambda: resolve_runtime(**{"weights_format": "onnx", **asked}, nodes=nodes), UsageError) == said


def test_capabilities_of_this_machine_are_real() -> None:
    found = capabilities()
    assert {"onnxruntime:cpu", "openvino:cpu"} <= found
    assert resolve_runtime("onnx", nodes=[found]).name == "openvino" or "onnxruntime:cuda" in found


@pytest.mark.skipif("onnxruntime:cuda" in capabilities(), reason="there is a GPU here")
def test_no_silent_fallback_from_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    cuda = Runtime("onnxruntime", "cuda", "f32", "")
    said = message(lambda: opened(small(), colour_classifier(small()), cuda))
    assert said == f"the onnxruntime installed on this machine has no cuda: {INSTALL}"
    # A GPU build whose libraries do not load lists the provider, warns, and runs without it.
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        said = message(lambda: opened(small(), colour_classifier(small()), cuda))
    assert said == (
        "the job requires device cuda, but onnxruntime fell back to ['CPUExecutionProvider']: its CUDA libraries "
        "(or TensorRT's) do not load here. Repair the installation, or use --device cpu"
    )


def test_both_builds_of_onnxruntime_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import segment.models.sessions.runtimes as module

    assert "onnxruntime:both-builds" not in capabilities()
    monkeypatch.setattr(module, "_installed_version", lambda name: "1.31.1")
    assert "onnxruntime:both-builds" in capabilities()


def test_unknown_runtime() -> None:
    said = message(lambda: opened(small(), b"", Runtime("torch", "cpu", "f32", "")), UsageError)
    assert said == "no runtime named 'torch': use onnxruntime, openvino, litert"


def test_precision_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import segment.models.sessions.openvino as module

    monkeypatch.setitem(module.CAPABILITY, "bf16", "A_PRECISION_NO_CPU_HAS")
    said = message(lambda: opened(small(), colour_classifier(small()), Runtime("openvino", "cpu", "bf16", "")))
    assert said == (
        "this machine's CPU does not compute in bf16, as all nodes did when the run began: keep it out of the run, or "
        "begin another run with --precision f32, or with --allow-mixed-precision and this machine in it"
    )
