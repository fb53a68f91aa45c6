"""What `auto` has chosen is tried on the first images of a run, against f32 on a CPU."""

import dataclasses
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from segment.engines import Node
from segment.engines.local import LocalEngine
from segment.errors import ModelError
from segment.inputs.discover import discover
from segment.job import Job
from segment.models.card import load_card
from segment.models.sessions import Runtime, capabilities, runtime_version
from segment.models.sessions.apart_process import LOADING, Ended
from segment.models.weights import load_weights
from segment.output.plan import Plan
from segment.pipeline import agreement
from segment.pipeline.agreement import Tried, try_runtimes
from segment.report.wording import agreement_in_words
from segment.runs import proof
from segment.runs.driver import run
from segment.runs.proof import prove
from segment.runs.resolve import task_of
from segment.store.client import Store
from tests.runs import Notes, Place, jpeg, scene

ORT, OPENVINO = (Runtime(name, "cpu", "f32", runtime_version(name)) for name in ("onnxruntime", "openvino"))
BF16 = dataclasses.replace(OPENVINO, precision="bf16")
CUDA = dataclasses.replace(ORT, device="cuda")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Ten images, the second of them damaged."""
    made = Place(tmp_path)
    for seed in range(10):
        made.add(f"{seed}.png", seed)
    made.write("1.png", jpeg(scene(0)[0])[:99])
    return made


def given(place: Place, **changes: Any) -> tuple[Job, Any, Any, Plan]:
    job = place.job(**{"runtime": "auto", "part_size": 16, **changes})
    card = load_card(job.model)
    return job, card, load_weights(card, job.weights), Plan.of(discover(job.input, job.input_options, Store()).parts)


def test_runtimes_on_the_same_images(place: Place) -> None:
    job, card, weights, plan = given(place)
    task = task_of(job, card, ORT, 1, Store(), "")
    found, reference = try_runtimes(task, weights, proof._first_part(plan), [ORT, CUDA, OPENVINO], [], 1e9)
    assert [each.runtime for each in found] == [ORT, CUDA, OPENVINO]
    assert reference == found[-1]
    for each in (found[0], found[2]):
        assert (each.images, each.equal, each.pixels, each.miou, each.reason) == (3, 3 * 768, 3 * 768, 1.0, "")
        assert each.seconds > 0
    assert found[1].agreement is None
    assert found[1].reason
    assert not Path(job.output).exists()


@pytest.mark.parametrize(("worth", "names"), [(0.0, ["onnxruntime", "openvino"]), (1e9, ["onnxruntime"])])
def test_rivals_are_tried_where_the_run_is_worth_it(place: Place, worth: float, names: list[str]) -> None:
    place.write("0.png", b"")  # with the second image the first two are broken: the third one tells
    job, card, weights, plan = given(place, limit=3)
    task = task_of(job, card, ORT, 1, Store(), "")
    found, reference = try_runtimes(task, weights, proof._first_part(plan), [ORT], [OPENVINO], worth)
    assert ([each.runtime.name for each in found], reference.runtime) == (names, ORT)
    assert {(each.images, each.agreement) for each in found} == {(1, 1.0)}


def test_a_runtime_that_takes_its_process_along(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job, card, weights, plan = given(place)
    begun = {"begun": dataclasses.asdict(BF16)}
    monkeypatch.setattr(agreement, "run_apart", lambda *_: ([begun], Ended(-signal.SIGSEGV)))
    task, part = task_of(job, card, BF16, 1, Store(), ""), proof._first_part(plan)
    found, reference = try_runtimes(task, weights, part, [BF16, OPENVINO], [], 1)
    assert [each.reason for each in found] == ["the process that tried openvino ended by SIGSEGV", ""]
    assert reference.runtime == OPENVINO


def test_a_first_runtime_that_does_not_load_in_time_fails_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers would wait as long, again and again; one that is late with its images is only not chosen."""
    job, card, weights, plan = given(place)
    task, part = task_of(job, card, BF16, 1, Store(), ""), proof._first_part(plan)
    ended = Ended(-signal.SIGKILL, LOADING, 300)
    monkeypatch.setattr(agreement, "run_apart", lambda *_: ([{"begun": dataclasses.asdict(BF16)}], ended))
    with pytest.raises(ModelError, match="openvino did not load the model within 300 s"):
        try_runtimes(task, weights, part, [BF16, ORT], [], 1)
    ended = Ended(-signal.SIGKILL, "end", 600)
    found, _ = try_runtimes(task, weights, part, [BF16, ORT], [], 1)
    late = "the process that tried openvino did not end within 600 s, and was ended"
    assert [each.reason for each in found] == [late, ""]


def decide(
    monkeypatch: pytest.MonkeyPatch, place: Place, chosen: Runtime, found: Sequence[Tried], **changes: Any
) -> tuple[Runtime, Any, list[str]]:
    """What `prove` makes of what was tried; the last one is the reference."""
    job, card, weights, plan = given(place, **changes)
    monkeypatch.setattr(proof, "try_runtimes", lambda *_: (list(found), found[-1]))
    nodes = [Node("here", capabilities() | {"openvino:cpu:bf16"})]
    monkeypatch.setattr(LocalEngine, "nodes", lambda _: nodes)
    notes = Notes()
    runtime, record = prove(job, card, weights, chosen, plan, LocalEngine(1), Store(), notes)
    return runtime, record, notes.lines


def tried(runtime: Runtime, equal: int, seconds: float = 1.0, **more: Any) -> Tried:
    return Tried(runtime, images=4, seconds=seconds, pixels=1000, equal=equal, **more)


def test_one_that_agrees_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [tried(BF16, 997, 1.0, miou=0.6102), tried(OPENVINO, 1000, 7.1, miou=0.6106)]
    runtime, record, lines = decide(monkeypatch, place, BF16, both)
    assert runtime == BF16
    assert lines == [
        "bf16: 99.70 % of pixels as f32, 7.1 times as fast (4 images)",
        "mIoU on 4 images: bf16 61.02 %, f32 61.06 %",
    ]
    kept = {"proof": json.loads(json.dumps(record)), "contract": {"runtime": dataclasses.asdict(BF16)}}
    assert agreement_in_words(kept) == "bf16 gives 99.70 % of pixels as f32 on the first 4 images"
    assert agreement_in_words({"contract": kept["contract"]}) == ""
    mixed = {**kept, "contract": {"runtime": dataclasses.asdict(dataclasses.replace(BF16, precision="mixed"))}}
    assert agreement_in_words(mixed) == (
        "bf16 gives 99.70 % of pixels as f32 on the first 4 images; bf16 or f32, by node: each masks file says which"
    )


def test_one_that_disagrees_gives_way_to_f32(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [tried(BF16, 988), tried(OPENVINO, 1000, 7.0)]
    runtime, record, lines = decide(monkeypatch, place, BF16, both)
    assert runtime == OPENVINO
    assert lines[-1] == "warning: f32 is used, as bf16 agrees less than --min-agreement (0.99)"
    kept = {"proof": record, "contract": {"runtime": dataclasses.asdict(OPENVINO)}}
    assert agreement_in_words(kept) == "bf16 gave 98.80 % of pixels as f32 on the first 4 images, so f32 is used"
    assert decide(monkeypatch, place, BF16, both, min_agreement=0.98)[0] == BF16
    runtime, record, lines = decide(monkeypatch, place, BF16, both, precision="bf16")
    assert (runtime, record["agreement"]) == (BF16, 0.988)  # the user's choice is told, not replaced
    assert lines[-1] == "warning: bf16 agrees less with f32 than --min-agreement (0.99)"


@pytest.mark.parametrize(("seconds", "taken"), [(0.8, ORT), (0.96, OPENVINO), (2.0, OPENVINO)])
def test_a_rival_that_is_faster_is_taken(
    place: Place, seconds: float, taken: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tried(OPENVINO, 1000)
    assert decide(monkeypatch, place, OPENVINO, [])[2] == []  # of a run of few images nothing is measured
    monkeypatch.setattr(proof, "_SLOW", 1e9)
    assert decide(monkeypatch, place, OPENVINO, [own, tried(ORT, 1000, seconds), own])[0] == taken
    assert decide(monkeypatch, place, OPENVINO, [own, tried(ORT, 500, seconds), own])[0] == OPENVINO


@pytest.mark.parametrize(
    ("chosen", "changes", "taken"),
    [
        (BF16, {"precision": "bf16"}, BF16),
        (CUDA, {"device": "cuda"}, CUDA),
        (BF16, {"runtime": "openvino"}, OPENVINO),  # its precision is left open
        (BF16, {}, OPENVINO),
    ],
)
def test_what_the_user_asks_for_stays_where_f32_on_the_cpu_is_faster(
    place: Place, chosen: Runtime, changes: dict[str, Any], taken: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = ORT if chosen == CUDA else OPENVINO
    both = [tried(chosen, 1000), tried(reference, 1000, 0.5)]
    assert decide(monkeypatch, place, chosen, both, **changes)[0] == taken


def test_a_gpu_that_disagrees_or_fails_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in (tried(CUDA, 900), Tried(CUDA, reason="no kernel image is available")):
        with pytest.raises(ModelError, match=r"cuda: (90.00 %|no kernel).* Use --device cpu"):
            decide(monkeypatch, place, CUDA, [first, tried(OPENVINO, 1000)])
    runtime, _, lines = decide(monkeypatch, place, CUDA, [tried(CUDA, 999), tried(OPENVINO, 1000)])
    assert runtime == CUDA
    assert lines[0].startswith("warning: cuda was never run on a real GPU")
    monkeypatch.setitem(proof.LAST_RUN, "cuda", "2026-01-01, a GPU")
    assert len(decide(monkeypatch, place, CUDA, [tried(CUDA, 999), tried(OPENVINO, 1000)])[2]) == 1


@pytest.mark.parametrize(
    ("chosen", "why", "told"),
    [
        (BF16, "", "warning: bf16 is not compared with f32: no image could be segmented"),
        (BF16, "too slow", "warning: bf16 is not compared with f32: too slow"),
        (CUDA, "", "warning: cuda is not compared with cpu: no image could be segmented"),
        (CUDA, "too slow", "warning: cuda is not compared with cpu: too slow"),
    ],
)
def test_images_that_cannot_be_compared_are_told(
    place: Place, chosen: Runtime, why: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, record, lines = decide(monkeypatch, place, chosen, [Tried(chosen), Tried(OPENVINO, why)])
    assert (runtime, record, lines[-1]) == (chosen, None, told)


SINET = """
name = "sinet"
classes = {names = ["background", "person"], palette = [[0, 0, 0], [255, 255, 255]]}
output = {kind = "logits", layout = "NCHW"}

[input]
layout = "NCHW"
height = 320
width = 320
channels = "BGR"
mean = [102.89, 111.25, 126.91]
std = [62.93, 62.82, 66.36]
"""


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif("openvino:cpu:bf16" not in capabilities(), reason="openvino has no bf16 on this CPU")
def test_a_network_that_bf16_changes_runs_in_f32(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "sinet.toml").write_text(SINET)
    weights = str(shared / "models" / "strangers" / "SINet.onnx")
    images, model = str(shared / "voc" / "images"), str(tmp_path / "sinet.toml")
    job = Job(input=images, output=str(tmp_path / "out"), model=model, weights=weights, limit=16, part_size=16)
    notes = Notes()
    report = run(job, notes)
    assert report.run["contract"]["runtime"]["precision"] == "f32"
    assert "warning: f32 is used, as bf16 agrees less than --min-agreement (0.99)" in notes.lines


def test_nothing_is_tried_if_no_agreement_is_asked_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job, card, weights, plan = given(place, min_agreement=0.0)
    monkeypatch.setattr(proof, "try_runtimes", None)
    assert prove(job, card, weights, BF16, plan, LocalEngine(1), Store(), Notes()) == (BF16, None)


def test_f32_of_an_explicit_runtime_needs_no_proof(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job, card, weights, plan = given(place, runtime="onnxruntime")
    monkeypatch.setattr(proof, "try_runtimes", None)
    assert prove(job, card, weights, ORT, plan, LocalEngine(1), Store(), Notes()) == (ORT, None)
