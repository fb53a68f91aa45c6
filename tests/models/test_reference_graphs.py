"""The reference graphs have the published cost, match their cards, and their masks depend on the image."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import jobs.reference_graphs as graphs
from jobs.bench.layers import Cost, Layers, Value, cost
from segment.models.card import load_card
from segment.models.sessions import Runtime, open_session, runtime_version
from segment.models.weights import load_weights

SCRIPT = Path(__file__).parents[2] / "jobs" / "reference_graphs.py"
# by graph
CARDS = {
    "unet": "unet-camvid-onnx-0001",
    "unet-int8": "unet-camvid-onnx-0001",
    "icnet": "icnet-camvid-ava-sparse-60-0001",
    "icnet-sparse-60": "icnet-camvid-ava-sparse-60-0001",
    "icnet-int8": "icnet-camvid-int8-onnx-0001",
    "deeplab": "deeplabv3-mobilenetv2-dm05",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


def test_unet_costs_what_is_published(folder: Path) -> None:
    path = graphs.write_graph("unet", folder)

    counted = cost(onnx.load(path))

    card = load_card("unet-camvid-onnx-0001")
    assert counted.parameters / 1e6 == pytest.approx(card.mparams, rel=0.01)
    assert counted.flops / 1e9 == pytest.approx(card.gflops, rel=0.01)
    assert path.stat().st_size / 1e6 == pytest.approx(124, abs=1)


@pytest.mark.parametrize(("name", "zeros"), [("icnet", 0.0), ("icnet-sparse-60", 0.6)])
def test_icnet_costs_what_is_published(name: str, zeros: float) -> None:
    counted = cost(graphs.GRAPHS[name]())

    card = load_card("icnet-camvid-ava-sparse-60-0001")
    assert counted.parameters / 1e6 == pytest.approx(card.mparams, rel=0.05)
    assert counted.flops / 1e9 == pytest.approx(card.gflops, rel=0.05)
    assert counted.zeros == pytest.approx(zeros, abs=0.005)


def test_deeplab_costs_what_is_published() -> None:
    """1.76 GFLOPs at depth 0.5, and the 2.75 G multiply-adds that TensorFlow's model zoo gives for depth 1."""
    assert cost(graphs.deeplab()).flops / 1e9 == pytest.approx(load_card("deeplabv3-mobilenetv2-dm05").gflops, rel=0.05)
    assert cost(graphs.deeplab(depth=1.0)).flops / 1e9 == pytest.approx(
        load_card("deeplabv3-mobilenetv2").gflops, rel=0.05
    )


def test_costs_are_counted_by_hand() -> None:
    net = Layers(seed=0, zeros=0.5)
    x = net.conv(Value("in", 4, 6, 8), 10, 3, stride=2)  # 3x4 places, 10 x 4 x 9 taps
    x = net.conv(x, 10, 3, depthwise=True)  # 3x4 places, 10 x 9 taps
    x = net.op("Softmax", net.transposed(x, 2), axis=1)  # 3x4 places, 10 x 2 x 4 taps
    model = net.model(("in", [1, 4, 6, 8]), x, ("out", onnx.TensorProto.FLOAT, [1, 2, 6, 8]))

    counted = cost(model)

    taps = 360 + 90 + 80
    assert counted == Cost(taps + 10 + 10 + 2, 2 * 12 * taps, counted.zeros)
    assert counted.zeros == pytest.approx(0.5, abs=0.05)


def test_weights_follow_from_the_seed() -> None:
    assert graphs.deeplab().SerializeToString() == graphs.deeplab().SerializeToString()
    assert graphs.deeplab().SerializeToString() != graphs.deeplab(seed=5).SerializeToString()


@pytest.mark.parametrize(
    "name",
    [
        "deeplab",
        "icnet-int8",
        "icnet-sparse-60",
        "unet",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("icnet", "unet-int8")),
    ],
)
def test_it_fits_its_card_on_both_runtimes_and_masks_vary(name: str, folder: Path) -> None:
    """Masks have at least three classes and differ between images, and few pixels depend on rounding."""
    card = load_card(CARDS[name])
    weights = load_weights(card, str(graphs.write_graph(name, folder)))
    size = (card.input.height, card.input.width)
    pictures = np.stack([graphs.blocks_of_colour(*size, seed=seed).astype(np.uint8) for seed in (100, 101)])

    masks = {}
    for runtime in ("onnxruntime", "openvino"):
        session = open_session(card, weights, Runtime(runtime, "cpu", "f32", runtime_version(runtime)), threads=2)
        found = [session.predict(picture[np.newaxis]) for picture in pictures]
        assert not any(one.faults for one in found)
        masks[runtime] = np.concatenate([one.masks for one in found])

    shares = np.bincount(masks["openvino"].ravel(), minlength=len(card.classes)) / masks["openvino"].size
    assert (shares > 0.01).sum() >= 3
    assert shares.max() < 0.9
    assert (masks["openvino"][0] != masks["openvino"][1]).mean() > 0.2
    agreement = (masks["onnxruntime"] == masks["openvino"]).mean()
    assert agreement > (0.9 if name.endswith("int8") else 0.9999)


def test_the_command_writes_and_prints(tmp_path: Path) -> None:
    line = [sys.executable, SCRIPT, "deeplab", "--out", tmp_path]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)

    assert "0.69 M parameters, 1.73 GFLOPs" in ended.stdout
    onnx.checker.check_model(tmp_path / "deeplab.onnx")


def test_an_unknown_graph_is_named(tmp_path: Path) -> None:
    line = [sys.executable, SCRIPT, "unett", "--out", tmp_path]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 2
    assert "no graph named unett: use unet," in ended.stderr
