"""Ensembles: the probabilities of several models in one graph, against numpy, in both runtimes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from segment.errors import UsageError
from segment.models.card import ModelCard, load_card, parse_card
from segment.models.sessions import Runtime, footprint, open_session, resolve_runtime
from segment.models.weights import Weights, load_weights
from segment.output.identity import fingerprint_of, identity_of
from segment.report.cards import print_card
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph
from tests.models.test_session_views import CLASSES, SIZE, card_of, images_of, lopsided, probabilities
from tests.runs import CARD as BLOCKS
from tests.runs import Place, expect
from tests.serving import BOTH, OPENVINO, ORT, message

CPU = frozenset({"onnxruntime:cpu", "openvino:cpu"})


def ensemble(*members: Weights | bytes) -> Weights:
    models = tuple(each if isinstance(each, Weights) else as_weights(each) for each in members)
    formats = {model.format for model in models}
    digest = hashlib.sha384("".join(model.sha384 for model in models).encode()).hexdigest()
    return Weights("onnx" if formats == {"onnx"} else "ir", b"", b"", digest, "tests", models)


def as_ir(graph: bytes, folder: Path) -> Weights:
    """Convert an ONNX model to OpenVINO IR."""
    model = openvino.Core().read_model(model=graph)
    openvino.save_model(model, folder / "m.xml", compress_to_fp16=False)
    return as_weights((folder / "m.xml").read_bytes(), "ir", (folder / "m.bin").read_bytes())


def assert_mean(card: ModelCard, weights: Weights, graphs: list[bytes], runtime: Runtime, count: int = 2) -> None:
    """The masks are the argmax of the mean over the graphs, wherever that is beyond rounding."""
    images = images_of(card, count)
    masks, faults, *_ = open_session(card, weights, runtime).predict(images)
    assert not faults
    for image, mask in zip(images, masks, strict=True):
        mean = np.mean([probabilities(card, graph, image) for graph in graphs], axis=0)
        second, first = np.sort(mean, axis=0)[-2:]
        sure = first - second > 1e-4
        assert sure.mean() > 0.9
        assert np.array_equal(mask[sure], mean.argmax(0)[sure])
        alone = [probabilities(card, graph, image).argmax(0) for graph in graphs]
        assert all((other[sure] != mask[sure]).any() for other in alone)


# ---- answers


@BOTH
@pytest.mark.parametrize("tta", [(), ("flip",), ("flip", 0.75)], ids=str)
def test_the_mean_of_the_members(runtime: Runtime, tta: tuple[Any, ...]) -> None:
    """The members have the same names within, and different weights."""
    graphs = [lopsided(seed=seed) for seed in range(3)]
    assert_mean(card_of(tta), ensemble(*graphs), graphs, runtime)


@BOTH
def test_members_with_batches_of_one_and_any(runtime: Runtime) -> None:
    graphs = [lopsided(seed=seed) for seed in range(2)]
    fixed = lopsided(seed=1, batch=1, sides=SIZE)
    assert_mean(card_of(), ensemble(graphs[0], fixed), graphs, runtime, count=3)


def test_openvino_reads_members_of_two_formats_and_opsets(tmp_path: Path) -> None:
    graphs = [lopsided(seed=0), lopsided(seed=1, opset=13)]
    weights = ensemble(as_ir(graphs[0], tmp_path), graphs[1])
    assert_mean(card_of(("flip",)), weights, graphs, OPENVINO)


@BOTH
def test_a_nan_in_one_member_is_a_fault(runtime: Runtime) -> None:
    card = card_of()
    session = open_session(card, ensemble(lopsided(), nan_graph(card)), runtime)
    images = images_of(card, 2)
    images[1, 20:22, 30:32] = TRIGGER
    assert session.predict(images).faults == {1: "model_not_finite"}


@BOTH
def test_a_member_without_finite_scores_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    card = written(tmp_path, [lopsided(), lopsided(last="Log")])  # logarithms of negative numbers
    session = open_session(card, load_weights(card), runtime)
    text = message(lambda: session.predict(images_of(card, 1)))
    assert "the scores of a member of the ensemble are not finite numbers, or no probabilities" in text


# ---- refusals


@BOTH
def test_outputs_of_two_sizes_are_refused(runtime: Runtime) -> None:
    text = message(lambda: open_session(card_of(), ensemble(lopsided(), lopsided(stride=4)), runtime))
    assert "the output of member 2 of the ensemble (a test) is 9x13, that of member 1 36x52" in text


@BOTH
def test_a_member_that_contradicts_the_card_is_named(runtime: Runtime) -> None:
    text = message(lambda: open_session(card_of(), ensemble(lopsided(), lopsided(channels=7, sides=SIZE)), runtime))
    assert text.startswith("member 2 of the ensemble (a test): model card")
    assert "7" in text


def test_two_opsets_are_refused_by_onnxruntime() -> None:
    text = message(lambda: open_session(card_of(), ensemble(lopsided(), lopsided(opset=13)), ORT))
    assert "member 2 of the ensemble (a test) needs version 13 of the operators of ai.onnx" in text
    assert "or use --runtime openvino" in text


def test_an_ensemble_of_two_formats_is_for_openvino(tmp_path: Path) -> None:
    weights = ensemble(lopsided(), as_ir(lopsided(seed=1), tmp_path))
    assert resolve_runtime(weights.format, nodes=[CPU]).name == "openvino"
    assert "use --runtime openvino" in message(lambda: resolve_runtime(weights.format, "onnxruntime", nodes=[CPU]))


# ---- the card and its files


def written(folder: Path, graphs: list[bytes]) -> ModelCard:
    lines = [
        'name = "both"',
        "[input]",
        'layout = "NCHW"',
        f"height = {SIZE[0]}\nwidth = {SIZE[1]}",
        'channels = "RGB"\nmaximum = 1',
        "[output]",
        'kind = "logits"\nlayout = "NCHW"',
        "[classes]",
        f"names = {[f'c{i}' for i in range(CLASSES)]}",
        f"palette = {[[i, i, i] for i in range(CLASSES)]}",
    ]
    lines += as_tables(folder, graphs)
    (folder / "card.toml").write_text("\n".join(lines), encoding="utf-8")
    return load_card(str(folder / "card.toml"))


def as_tables(folder: Path, graphs: list[bytes]) -> list[str]:
    """Write the graphs, and return the tables of a card that name them."""
    lines = []
    for number, graph in enumerate(graphs):
        (folder / f"{number}.onnx").write_bytes(graph)
        digest = hashlib.sha384(graph).hexdigest()
        file = f'{{ url = "{number}.onnx", size = {len(graph)}, sha384 = "{digest}" }}'
        lines += ["[[ensemble]]", f"weights = [{file}]"]
    return lines


def test_a_card_names_its_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphs = [lopsided(seed=seed) for seed in range(2)]
    card = written(tmp_path, graphs)
    weights = load_weights(card)
    assert [model.graph for model in weights.models] == graphs
    assert weights.size == sum(map(len, graphs))
    assert weights.file_digests == [file.sha384 for file in card.files]
    assert weights.format == "onnx"
    assert_mean(card, weights, graphs, ORT)
    print_card(card)
    shown = capsys.readouterr().out
    assert "member 1" in shown
    assert "1.onnx" in "".join(shown.split())  # paths are folded


def test_each_file_of_a_member_is_verified(tmp_path: Path) -> None:
    card = written(tmp_path, [lopsided(seed=seed) for seed in range(2)])
    (tmp_path / "1.onnx").write_bytes(lopsided(seed=9))
    assert "1.onnx" in message(lambda: load_weights(card))


def test_weights_of_the_user_replace_no_member(tmp_path: Path) -> None:
    card = written(tmp_path, [lopsided(seed=seed) for seed in range(2)])
    text = message(lambda: load_weights(card, str(tmp_path / "0.onnx")), UsageError)
    assert "is an ensemble of 2 models, and --weights names one: change the files in the card" in text


def test_the_fingerprint_knows_the_members_by_their_digests(tmp_path: Path) -> None:
    card = written(tmp_path, [lopsided(seed=seed) for seed in range(2)])
    moved = card.model_copy(update={"ensemble": card.ensemble[::-1]})
    assert identity_of(card) == identity_of(moved)  # where the files are says nothing
    digests = {load_weights(each).sha384 for each in (card, moved)}
    assert len({fingerprint_of(identity_of(card, weights_sha384=digest)) for digest in digests}) == 2


def test_runs_of_an_ensemble_with_views(tmp_path: Path) -> None:
    """Both runtimes, from the card's files to masks, counts and the identity of the run."""
    place = Place(tmp_path)
    for seed in (1, 2):
        place.add(f"{seed}.png", seed)
    graphs = [colour_classifier(BLOCKS), colour_classifier(BLOCKS, batch=1)]
    text = place.card_path.read_text().replace("[output]", 'tta = ["flip"]\n[output]')
    place.card_path.write_text("\n".join([text, *as_tables(tmp_path, graphs)]))
    for runtime in ("onnxruntime", "openvino"):
        output = tmp_path / runtime
        outcome = place.run(weights=None, runtime=runtime, precision="f32", output=str(output))
        for seed in (1, 2):
            expect(outcome.rows[f"{seed}.png"], seed)
        record = json.loads((output / "run.json").read_text())
        assert record["weights"]["files"] == [hashlib.sha384(graph).hexdigest() for graph in graphs]
        assert record["contract"]["card"]["input"]["tta"] == ["flip"]
        assert [len(member["weights"]) for member in record["card"]["ensemble"]] == [1, 1]
        assert ", each plain and mirrored: 2 averaged" in (output / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("end", "text"),
    [
        ("", "an ensemble has two or more members"),
        ('[[weights]]\nurl = "b.onnx"\nsize = 1\nsha384 = "{0}"', "a card has weights or an ensemble"),
        ("[[ensemble]]\nweights = []", "ensemble.1.weights: expected a list"),
    ],
)
def test_cards_that_are_refused(end: str, text: str) -> None:
    start = (
        'name = "m"\n[input]\nlayout = "NCHW"\nheight = 8\nwidth = 8\nchannels = "RGB"\n[output]\nkind = "logits"\n'
        'layout = "NCHW"\n[classes]\nnames = ["a", "b"]\npalette = [[0, 0, 0], [1, 1, 1]]\n[[ensemble]]\n'
        'weights = [{{ url = "a.onnx", size = 1, sha384 = "{0}" }}]\n'
    )
    assert text in message(lambda: parse_card((start + end).format("0" * 96)), UsageError)


def test_a_footprint_counts_the_weights_of_all() -> None:
    graph = lopsided()
    one, two = (footprint(card_of(), each, OPENVINO, 1) for each in (as_weights(graph), ensemble(graph, graph)))
    assert one is not None
    assert two is not None
    assert two.shared == one.shared + len(graph)
