"""What is measured: models with their runtimes, contenders, and how each is started."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segment.models.card import load_card
from segment.models.weights import Weights, load_weights

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared"))
GRAPHS = Path(".bench") / "graphs"


@dataclass(frozen=True)
class Case:
    """One model on one runtime.

    Attributes:
        name: of the case.
        model: name of a built-in card, or path of a card.
        weights: path; `graph:NAME` is a reference graph, `shared:PATH` a file of ../shared, None the card's own.
        runtime, precision: as `segment run` takes them.
        images: how many: half a minute on two cores, and enough for both engines to work as in large jobs.
        size: (width, height) to which pictures are enlarged, as JPEGs; None leaves them as they are.
    """

    name: str
    model: str
    weights: str | None
    runtime: str
    precision: str
    images: int
    size: tuple[int, int] | None = None

    def locate(self) -> str:
        """Return the path of the weights, having written a reference graph that is not there.

        Raises:
            FileNotFoundError: the weights are not on this machine.
            SegmentError: the card is wrong, or does not say where its weights are.
        """
        if self.weights is None:
            return str(_write_weights(load_weights(load_card(self.model), None), Path(self.model).stem).resolve())
        kind, _, name = self.weights.partition(":")
        if kind == "graph":
            from jobs.reference_graphs import write_graph

            return str(write_graph(name, GRAPHS).resolve())
        path = SHARED / name if kind == "shared" else Path(self.weights)
        if not path.is_file():
            raise FileNotFoundError(path)
        return str(path.resolve())


def _write_weights(weights: Weights, name: str) -> Path:
    """Write the files of a model among the reference graphs, for runtimes that read paths; return that of the graph."""
    GRAPHS.mkdir(parents=True, exist_ok=True)
    path = GRAPHS / f"{name}.{'xml' if weights.format == 'ir' else weights.format}"
    path.write_bytes(weights.graph)
    if weights.data:
        path.with_suffix(".bin").write_bytes(weights.data)
    return path


_UNET, _ICNET = "unet-camvid-onnx-0001", "icnet-camvid-ava-sparse-60-0001"
_UNET32 = "shared:models/unet32-camvid.onnx"
_DEEPLAB = "shared:models/deeplabv3_mnv2_dm05_pascal_quant.tflite"
CASES = {
    case.name: case
    for case in (
        Case("unet32-bf16", _UNET, _UNET32, "openvino", "bf16", 404),
        Case("unet32-f32", _UNET, _UNET32, "openvino", "f32", 101),
        Case("unet32-onnxruntime", _UNET, _UNET32, "onnxruntime", "f32", 101),
        Case("unet-bf16", _UNET, "graph:unet", "openvino", "bf16", 404),
        Case("unet-f32", _UNET, "graph:unet", "openvino", "f32", 64),
        Case("unet-onnxruntime", _UNET, "graph:unet", "onnxruntime", "f32", 40),
        Case("unet-int8", _UNET, "graph:unet-int8", "openvino", "bf16", 404),
        Case("unet-int8-onnxruntime", _UNET, "graph:unet-int8", "onnxruntime", "f32", 64),
        Case("icnet-bf16", _ICNET, "graph:icnet", "openvino", "bf16", 404),
        Case("icnet-f32", _ICNET, "graph:icnet", "openvino", "f32", 101),
        Case("icnet-sparse-60-bf16", _ICNET, "graph:icnet-sparse-60", "openvino", "bf16", 404),
        Case("icnet-onnxruntime", _ICNET, "graph:icnet", "onnxruntime", "f32", 101),
        Case("icnet-int8", "icnet-camvid-int8-onnx-0001", "graph:icnet-int8", "openvino", "bf16", 404),
        Case("deeplab-int8", "deeplabv3-mobilenetv2-dm05-int8", _DEEPLAB, "openvino", "f32", 808),
        Case("deeplab-int8-litert", "deeplabv3-mobilenetv2-dm05-int8", _DEEPLAB, "litert", "f32", 808),
        Case("deeplab-1080p", "deeplabv3-mobilenetv2-dm05", "graph:deeplab", "openvino", "f32", 404, (1920, 1080)),
        Case("deeplab-12mp", "deeplabv3-mobilenetv2-dm05", "graph:deeplab", "openvino", "f32", 202, (4000, 3000)),
        Case("deeplab-f32", "deeplabv3-mobilenetv2-dm05", "graph:deeplab", "openvino", "f32", 606),
        Case("deeplab-onnxruntime", "deeplabv3-mobilenetv2-dm05", "graph:deeplab", "onnxruntime", "f32", 404),
        Case("demo", "demo-streets", None, "openvino", "f32", 1600),
    )
}

OURS = {
    f"{engine}{'' if form == 'files' else f'-{form}'}": (engine, form)
    for engine in ("local", "ray")
    for form in ("files", "tars", "parquet", "list")
}
BEFORE = ", before"  # ends the name of a contender of ours that runs the code of an earlier checkout
PEERS = {"plain-loop": "plain_loop", "ray-data": "ray_data", "daft": "daft_udf", "torch": "torch_loader"}
CONTENDERS = ("limit", *OURS, *PEERS)


def command(contender: str, spec: Path, peer_python: str, before: Path | None) -> list[str]:
    """Return the command line of a contender; those of `before`, an absolute path, run the files of that checkout."""
    if before and contender.endswith(BEFORE):
        engine, form = OURS[contender.removesuffix(BEFORE)]
        script = str(before / "jobs/bench/ours.py")
        there = ["env", "-C", str(before), f"PYTHONPATH={before}"]
        return [*there, sys.executable, script, str(spec), engine, form]
    if contender == "limit":
        return [sys.executable, str(ROOT / "jobs/bench/limit.py"), str(spec)]
    if contender in OURS:
        return [sys.executable, str(ROOT / "jobs/bench/ours.py"), str(spec), *OURS[contender]]
    return [peer_python, str(ROOT / f"jobs/peers/{PEERS[contender]}.py"), str(spec)]


def contract_of(model: str) -> dict[str, Any]:
    """The card as plain data, for those who import nothing of ours."""
    card = load_card(model)
    given = card.input
    assert given.resize.method in ("stretch", "pad"), "the limit and the peers stretch or pad"
    assert given.resize.anchor == "top-left", "the limit and the peers pad on the right and below"
    assert given.resize.interpolation == "bilinear", "the limit and the peers resize bilinearly"
    assert card.metric.resolution in ("model", "source")
    return {
        "layout": given.layout,
        "height": given.height,
        "width": given.width,
        "bgr": given.channels == "BGR",
        "maximum": given.maximum,
        "mean": list(given.mean),
        "std": list(given.std),
        "normalised": given.maximum != 255 or any(given.mean) or set(given.std) != {1.0},
        "resampler": given.resize.resampler,
        "pad": list(given.resize.pad) if given.resize.method == "pad" else None,
        "kind": card.output.kind,
        "output_layout": card.output.layout,
        "output_height": card.output_height,
        "output_width": card.output_width,
        "classes": len(card.classes),
        "scored_at": card.metric.resolution,
        "label_resampler": card.metric.label_resampler,
    }
