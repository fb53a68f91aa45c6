"""Clusters of unlike nodes: what all of them can do decides, those that hold the run back are named, or it is mixed."""

import json
import posixpath
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from segment.engines import Node
from segment.engines.local import LocalEngine
from segment.engines.ray import RayEngine
from segment.inputs.discover import discover
from segment.models.card import load_card
from segment.models.sessions import BF16, capabilities, resolve_runtime
from segment.models.weights import load_weights
from segment.output.attempts import read_attempts, read_timings
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.pipeline.agreement import Tried
from segment.runs.proof import prove
from segment.runs.resolve import remarks_on_nodes
from segment.store.client import Store
from tests.graphs import as_weights
from tests.jobs import ENGINES, run_on
from tests.reliability.trouble import assert_sound, street, trouble_in_children
from tests.runs import Notes, Place

CPU = frozenset({"onnxruntime:cpu", "openvino:cpu"})
NEW, OLD = CPU | {BF16}, CPU
GPU = NEW | {"gpu", "onnxruntime:cuda"}


@pytest.mark.parametrize(
    ("nodes", "allowed", "precision"),
    [
        ([NEW, NEW], True, "bf16"),  # nothing to mix
        ([NEW, OLD], False, "f32"),
        ([NEW, OLD], True, "mixed"),
        ([OLD, OLD], True, "f32"),
    ],
)
def test_one_precision_for_all_unless_mixing_is_allowed(
    nodes: list[frozenset[str]], allowed: bool, precision: str
) -> None:
    found = resolve_runtime("onnx", "openvino", nodes=nodes, mixed=allowed)
    assert (found.name, found.precision) == ("openvino", precision)
    assert resolve_runtime("onnx", "openvino", "auto", "f32", nodes=nodes, mixed=allowed).precision == "f32"
    assert resolve_runtime("tflite", "openvino", nodes=nodes, mixed=allowed).precision == "f32"
    assert resolve_runtime("onnx", "onnxruntime", nodes=nodes, mixed=allowed).precision == "f32"


@pytest.mark.parametrize(
    ("nodes", "options", "lines"),
    [
        ({"a": NEW, "b": NEW}, {}, []),
        ({"a": OLD, "b": OLD}, {}, []),
        (
            {"a": NEW, "b": OLD, "c": OLD},
            {},
            [
                "f32 for the whole run: 2 of 3 nodes do not compute in bf16 (b, c); with --allow-mixed-precision the "
                "others do"
            ],
        ),
        (
            {"a": NEW, "b": OLD},
            {"allow_mixed_precision": True},
            ["mixed precision: 1 of 2 nodes compute in f32 (b); the others in bf16; masks differ a little"],
        ),
        ({"a": NEW, "b": OLD}, {"precision": "f32"}, []),  # as it was asked for
        (
            {"a": NEW, **{f"n{i}": OLD for i in range(7)}},
            {},
            [
                "f32 for the whole run: 7 of 8 nodes do not compute in bf16 (n0, n1, n2, n3, n4 and 2 more); "
                "with --allow-mixed-precision the others do"
            ],
        ),
        (
            {"a": GPU, "b": NEW},
            {},
            [
                "cpu for the whole run: 1 of 2 nodes have no GPU that onnxruntime can use (b); --device cuda leaves "
                "only reading and writing to them"
            ],
        ),
        (
            {"a": NEW, "b": frozenset({"onnxruntime:cpu"})},
            {},
            ["onnxruntime for the whole run: 1 of 2 nodes lack openvino (b); pip install openvino there"],
        ),
    ],
)
def test_nodes_that_hold_the_run_back_are_named(
    nodes: dict[str, frozenset[str]], options: dict[str, Any], lines: Sequence[str], place: Place
) -> None:
    job = place.job(runtime="auto", **options)
    mixed = job.allow_mixed_precision
    chosen = resolve_runtime("onnx", "auto", "auto", job.precision, nodes=list(nodes.values()), mixed=mixed)
    weights = as_weights(place.weights_path.read_bytes())
    assert remarks_on_nodes([Node(*node) for node in nodes.items()], job, weights, chosen) == lines


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Eight images in four parts."""
    return street(tmp_path, 8)


@pytest.fixture
def unlike(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """Two nodes, as the driver sees them: this machine, and one that does not compute in bf16."""
    if BF16 not in capabilities():
        pytest.skip("this CPU does not compute in bf16")
    nodes = [Node("old", capabilities() - {BF16}), Node("new", capabilities())]
    monkeypatch.setattr(LocalEngine, "nodes", lambda self: nodes)
    return nodes


def test_each_part_of_a_mixed_run_says_its_precision(
    place: Place, unlike: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two attempts stand for two nodes: the first one's CPU has no bf16."""
    options: dict[str, Any] = {"allow_mixed_precision": True, "runtime": "openvino", "min_agreement": 0}
    notes = Notes()
    trouble_in_children(monkeypatch, "no-bf16")
    run_on(ENGINES["local-1"], place.job(**options), notes)
    (told,) = [line for line in notes.lines if "mixed precision" in line]
    assert told == "mixed precision: 1 of 2 nodes compute in f32 (old); the others in bf16; masks differ a little"
    assert any("openvino" in line and line.endswith(", cpu, mixed") for line in notes.lines)
    assert precisions(place) == ["f32"] * 4
    for path in sorted(place.output.glob("masks/*/*.parquet"))[:2]:
        path.unlink()
    shutil.rmtree(place.output / "stats")
    (place.output / "_SUCCESS").unlink()
    trouble_in_children(monkeypatch, "")
    run_on(ENGINES["local-1"], place.job(runtime="openvino"))  # frozen: it goes on as it was begun
    assert precisions(place) == ["bf16", "bf16", "f32", "f32"]
    assert_sound(place.output)
    ledger = Ledger(Store(), f"file://{place.output}")
    tables = [read_timings(ledger, attempt) for attempt in read_attempts(ledger)]
    assert [sorted(table["precision"].to_pylist()) for table in tables if table] == [["f32"] * 4, ["bf16"] * 2]


def precisions(place: Place) -> list[str]:
    return [footer(path)["precision"] for path in sorted(place.output.glob("masks/*/*.parquet"))]


def footer(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[b"segment"])
    return found


def test_a_run_of_one_precision_has_the_bytes_that_it_had(place: Place) -> None:
    place.run()
    assert "precision" not in footer(next(place.output.glob("masks/*/*.parquet")))


@pytest.mark.parametrize(("equal", "precision"), [(100, "mixed"), (50, "f32")])
def test_the_fastest_precision_is_tried_where_it_is_there(
    equal: int, precision: str, place: Place, unlike: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def call_on(self: LocalEngine, node: Node, function: Any, *given: Any) -> Any:
        bf16, f32 = given[3]  # the runtimes
        asked.append((node.name, [bf16.precision, f32.precision]))
        tried = [Tried(bf16, images=4, seconds=1.0, pixels=100, equal=equal), Tried(f32, "", 4, 2.0, 100, 100)]
        return tried, tried[-1]

    monkeypatch.setattr(LocalEngine, "call_on", call_on)
    mixed = resolve_runtime("onnx", "openvino", nodes=[node.can for node in unlike], mixed=True)
    job = place.job(allow_mixed_precision=True, runtime="openvino", min_agreement=0.9)
    card = load_card(job.model)
    weights = load_weights(card, job.weights)
    plan = Plan.of(discover(job.input, job.input_options, Store()).parts)
    found, _ = prove(job, card, weights, mixed, plan, LocalEngine(1), Store(), Notes())
    assert found.precision == precision
    assert asked == [("new", ["bf16", "f32"])]


@pytest.mark.ray
def test_nodes_of_a_cluster_have_names_and_can_be_called(ray_cluster: Path) -> None:
    engine = RayEngine()
    (node,) = engine.nodes()
    assert node.can == capabilities()
    assert node.name
    assert engine.call_on(node, posixpath.basename, "a/b") == "b"
    engine.close()
