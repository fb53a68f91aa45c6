"""The providers of a GPU, on a GPU: known masks, faults, and a run with its proof. On a CPU the same tests run there.

`jobs/gpu_check.sh` runs them where there is a GPU.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import segment
from segment.models.sessions import Runtime, capabilities, runtime_version
from tests.graphs import TRIGGER, colour_classifier, nan_graph
from tests.runs import Place
from tests.serving import opened, pictures, small

HERE = capabilities()


@pytest.fixture(params=["cpu", "cuda", "tensorrt"])
def device(request: pytest.FixtureRequest) -> str:
    if f"onnxruntime:{request.param}" not in HERE:
        pytest.skip(f"NO {request.param.upper()} HERE: this provider is not tested")
    return str(request.param)


def runtime(device: str, precision: str) -> Runtime:
    return Runtime("onnxruntime", device, precision, runtime_version("onnxruntime"))


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_a_provider_gives_the_known_masks(device: str, precision: str) -> None:
    card = small(output={"kind": "logits"})
    session = opened(card, colour_classifier(card), runtime(device, precision), batch=4)
    images, masks = pictures(card, 7)
    for number in (1, 7, 4):  # a batch that is not full, two batches, a full one
        assert np.mean(session.predict(images[:number]).masks == masks[:number]) > 0.99


def test_a_provider_shows_what_is_not_finite(device: str) -> None:
    card = small()
    images, masks = pictures(card, 4)
    images[2] = np.array(TRIGGER, np.uint8)
    found = opened(card, nan_graph(card), runtime(device, "f32"), batch=4).predict(images)
    assert dict(found.faults) == {2: "model_not_finite"}
    assert np.array_equal(found.masks[:2], masks[:2])


def test_a_run_proves_itself(device: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    for seed in range(6):
        place.add(f"{seed}.png", seed)
    segment.run(place.job(runtime="onnxruntime", device=device, precision="f32"))
    run = json.loads((Path(place.job().output) / "run.json").read_bytes())
    assert run["contract"]["runtime"]["device"] == device
    if device != "cpu":  # f32 on a CPU is what is compared with
        assert run["proof"]["agreement"] > 0.99
