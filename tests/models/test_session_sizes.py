"""Models that run at the size of each image: padded to one of few sizes, and cropped back."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from segment.errors import ModelError
from segment.images.resize import resize_image, unpadded
from segment.models.buckets import bucket_side
from segment.models.card import ModelCard, parse_card
from segment.models.sessions import Runtime, open_session
from segment.models.sessions.extras import Extras
from segment.models.sessions.footprint import footprint
from segment.models.sessions.predict import GraphSession
from segment.models.sessions.sizes import SizedSession, SizeFailed, most_sizes
from segment.pipeline.prediction import predict, stack
from tests.graphs import as_weights, colour_classifier, painted
from tests.models.test_card import CARD
from tests.serving import BOTH, ORT, message, tiny

SIZES = [(40, 50), (33, 64), (64, 33), (20, 70), (40, 50), (39, 49), (100, 8), (70, 70)]


def card_of(multiple_of: int = 8, resize: str = "{}", **changes: Any) -> ModelCard:
    text = CARD.replace("height = 32", 'height = "image"').replace("width = 48", 'width = "image"')
    text = text.replace("[output]", f"multiple_of = {multiple_of}\n[output]")
    card = parse_card(text[: text.index("resize = ")] + f"resize = {resize}" + text[text.index("\nmultiple_of") :])
    return card.model_copy(update={"output": card.output.model_copy(update=changes)})


def masks_of(
    session: Any, images: Sequence[NDArray[np.uint8]], batch_size: int = 1, faults: dict[int, str] | None = None
) -> list[NDArray[np.uint8]]:
    """Segment images as a job does, up to the cropped masks."""
    spec = session.card.input
    found = predict(stack([resize_image(image, spec) for image in images], spec), session, batch_size)
    assert {number: each.fault for number, each in enumerate(found) if each.fault} == (faults or {})
    return [unpadded(each.mask, spec, image.shape[:2]) for each, image in zip(found, images, strict=True)]


def blocks(card: ModelCard, sizes: Sequence[tuple[int, int]] = SIZES) -> list[tuple[NDArray[np.uint8], Any]]:
    return [painted(card.at(size), seed) for seed, size in enumerate(sizes)]


def filtering(layout: str = "NCHW") -> bytes:
    """Return a graph of two 3 x 3 convolutions with zero padding, of any size: a mask depends on 5 x 5 pixels."""
    noise = np.random.default_rng(3)
    first, second = noise.normal(size=(6, 3, 3, 3)), noise.normal(size=(2, 6, 3, 3))
    arrays = {"first": first / 50, "second": second, "bias": np.array([0.0, 0.3])}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Sin", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second", "bias"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    ]
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    return tiny(nodes, [("x", ("N", 3, "H", "W"))], [("y", ("N", 2, "H", "W"))], stored)


def pooling(side: int) -> bytes:
    """Return a graph that fails unless height and width are multiples of `side`."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["low"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("Resize", ["low", "", "scales"], ["high"], mode="nearest"),
        helper.make_node("Add", ["x", "high"], ["sum"]),
        helper.make_node("Gather", ["sum", "two"], ["y"], axis=1),
    ]
    arrays = {"scales": np.array([1, 1, side, side], np.float32), "two": np.array([0, 1])}
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return tiny(nodes, [("x", ("N", 3, "H", "W"))], [("y", ("N", 2, "h", "w"))], stored)


# ---- sizes


@pytest.mark.parametrize("multiple_of", [1, 14, 32, 64])
def test_sides_grow_by_less_than_an_eighth_and_few_are_left(multiple_of: int) -> None:
    sides = np.arange(1, 16385)
    grown = np.array([bucket_side(side, multiple_of) for side in sides])
    assert (grown >= sides).all()
    assert (np.diff(grown) >= 0).all()
    assert (grown % multiple_of == 0).all()
    large = sides >= 8 * multiple_of
    assert ((grown - sides)[large] < sides[large] / 8).all()
    assert ((grown - sides)[~large] < multiple_of).all()
    assert len(np.unique(grown)) <= 96
    assert all(bucket_side(side, multiple_of) == side for side in np.unique(grown))


# ---- masks


@BOTH
@pytest.mark.parametrize("stride", [1, 4])
def test_masks_have_the_size_of_their_images(stride: int, runtime: Runtime) -> None:
    card = card_of(enlarge="nearest")
    session = open_session(card, as_weights(colour_classifier(card, dynamic=True, stride=stride)), runtime)
    pairs = blocks(card)
    found = masks_of(session, [image for image, _ in pairs])
    for mask, (_, wanted) in zip(found, pairs, strict=True):
        assert mask.shape == wanted.shape
        assert stride > 1 or np.array_equal(mask, wanted)
        assert (mask != wanted).mean() <= (0 if stride == 1 else 0.25)


@BOTH
@pytest.mark.parametrize("pad", [(0, 0, 0), (200, 30, 90)])
def test_a_local_filter_sees_the_padding_within_its_reach_only(pad: tuple[int, int, int], runtime: Runtime) -> None:
    import onnxruntime

    graph = filtering()
    session = open_session(card_of(resize=f"{{ pad = {list(pad)} }}"), as_weights(graph), runtime)
    noise = np.random.default_rng(1)
    images = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    plain = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for image, mask in zip(images, masks_of(session, images), strict=True):
        (scores,) = plain.run(None, {"x": image[np.newaxis].transpose(0, 3, 1, 2).astype(np.float32)})
        wanted, margin = scores[0].argmax(axis=0), np.abs(np.diff(scores[0], axis=0))[0]
        clear = margin > 1e-4
        clear[-2:], clear[:, -2:] = False, False
        assert np.array_equal(mask[clear], wanted[clear])
        assert 0.2 < wanted.mean() < 0.8


@BOTH
def test_masks_depend_neither_on_the_batch_nor_on_the_order(runtime: Runtime) -> None:
    noise = np.random.default_rng(2)
    images = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES[:4] * 2]
    session = open_session(card_of(), as_weights(filtering()), runtime)
    alone = [masks_of(session, [image])[0] for image in images]
    for batch_size in (1, 3):
        order = noise.permutation(len(images))
        other = open_session(card_of(), as_weights(filtering()), runtime, batch=batch_size)
        found = masks_of(other, [images[i] for i in order], batch_size)
        assert all(np.array_equal(mask, alone[i]) for mask, i in zip(found, order, strict=True))


def test_the_shorter_side_is_scaled() -> None:
    """The scaled mask comes back at the size of its image."""
    card = card_of(resize='{ method = "short_side", short_side = 24, resampler = "opencv", interpolation = "nearest" }')
    for size, wanted in (((48, 70), (24, 40, 3)), ((70, 48), (40, 24, 3)), ((24, 5), (120, 24, 3))):
        assert resize_image(np.zeros((*size, 3), np.uint8), card.input).shape == wanted
    session = open_session(card, as_weights(colour_classifier(card, dynamic=True)), ORT)
    image, mask = painted(card.at((48, 72)), 0)
    (found,) = masks_of(session, [image])
    assert found.shape == (24, 36)
    assert np.array_equal(found, mask[::2, ::2])


# ---- what stays compiled


def test_the_sizes_used_last_stay_compiled() -> None:
    card, weights = card_of(), as_weights(filtering())
    loads: list[tuple[int, int]] = []

    def load(sized: ModelCard, check: bool) -> GraphSession:
        loads.append((sized.input.height, sized.input.width))
        session = open_session(sized.model_copy(update={"input": fixed(sized)}), weights, ORT, sanity_check=check)
        assert isinstance(session, GraphSession)
        return session

    session = SizedSession(card, load, 3)
    for size in ((8, 8), (16, 8), (8, 8), (8, 16), (24, 8), (8, 8), (16, 8)):
        session.predict(np.zeros((1, *size, 3), np.uint8))
    assert loads == [(264, 264), (8, 8), (16, 8), (8, 16), (24, 8), (16, 8)]
    assert session.sizes == [(24, 8), (8, 8), (16, 8)]
    with ThreadPoolExecutor(8) as pool:  # one of them loads it, the others wait
        list(pool.map(lambda _: session.predict(np.zeros((1, 32, 32, 3), np.uint8)), range(16)))
    assert loads.count((32, 32)) == 1


def test_large_images_leave_room_for_fewer_sizes() -> None:
    card = card_of()
    session = open_session(card, as_weights(colour_classifier(card, dynamic=True)), ORT, sanity_check=False)
    assert isinstance(session, SizedSession)
    for size in ((1000, 1000), (1000, 1008), (8, 8)):
        session.predict(np.zeros((1, *size, 3), np.uint8))
    assert session.sizes == [(264, 264), (1000, 1000), (1000, 1008), (8, 8)]
    session.predict(np.zeros((1, 1000, 1016, 3), np.uint8))
    assert session.sizes == [(1000, 1008), (8, 8), (1000, 1016)]
    session.predict(np.zeros((1, 1504, 1504, 3), np.uint8))
    assert session.sizes == [(1504, 1504)]


def fixed(card: ModelCard) -> Any:
    return card.input.model_copy(update={"multiple_of": None})


def test_large_weights_leave_room_for_fewer_sizes() -> None:
    assert [most_sizes(size) for size in (0, 62_000_000, 100_000_000, 3_000_000_000)] == [8, 8, 5, 2]


def test_forecasts_take_a_usual_size() -> None:
    card = card_of(multiple_of=32)
    weights = as_weights(filtering())
    usual, same = footprint(card, weights, ORT, 1), footprint(card.at((1024, 2048)), weights, ORT, 1)
    assert usual == same
    assert usual is not None
    assert usual.per_stream > 1024 * 2048 * 6 * 4


# ---- graphs that do not fit


@BOTH
def test_a_graph_of_a_fixed_size_is_refused(runtime: Runtime) -> None:
    graph = colour_classifier(card_of().at((32, 48)))
    assert message(lambda: open_session(card_of(), as_weights(graph), runtime)) == (
        "model card 'mine' and its graph do not match: the card says height = 'image' and width = 'image', but the "
        "graph's input is ?x3x32x48: input.height = 32 and input.width = 48, or export it with symbolic ones"
    )


@BOTH
def test_a_multiple_that_is_too_small_is_found_when_the_model_is_loaded(runtime: Runtime) -> None:
    with pytest.raises(ModelError):
        open_session(card_of(multiple_of=8), as_weights(pooling(16)), runtime)
    open_session(card_of(multiple_of=16), as_weights(pooling(16)), runtime)


@BOTH
def test_a_size_that_fails_is_the_fault_of_its_image(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """264 = 8 * 33 is the size of the trial; 88 divides it and 40 does not."""
    session = open_session(card_of(), as_weights(pooling(88)), runtime)
    images = [np.full((*size, 3), 9, np.uint8) for size in ((88, 88), (40, 40), (81, 88))]
    with pytest.raises(SizeFailed):
        session.predict(np.full((1, 40, 40, 3), 9, np.uint8))
    found = masks_of(session, images, faults={1: "model_failed"})
    assert [mask.shape for mask in found] == [(88, 88), (40, 40), (81, 88)]
    assert "the model failed on an image" in caplog.text


def test_tensorrt_is_refused() -> None:
    runtime = Runtime("onnxruntime", "tensorrt", "f32", "")
    said = message(lambda: open_session(card_of(), as_weights(filtering()), runtime))
    assert said.endswith("TensorRT builds an engine of minutes for each size: use --device cuda")


@BOTH
def test_confidence_and_probabilities_are_cropped_too(runtime: Runtime) -> None:
    card, extras = card_of(), Extras("maximum", (1, 0))
    session = open_session(card, as_weights(filtering()), runtime, extras=extras)
    noise = np.random.default_rng(4)
    images = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES[1:4]]
    found = predict(stack([resize_image(image, card.input) for image in images], card.input), session, 3)
    for each, image in zip(found, images, strict=True):
        assert each.confidence is not None
        assert each.probabilities is not None
        fixed_card = card.at(card.input.size_for(image.shape[:2]))
        alone = open_session(
            fixed_card.model_copy(update={"input": fixed(fixed_card)}), as_weights(filtering()), runtime, extras=extras
        ).predict(resize_image(image, card.input)[np.newaxis])
        assert alone.confidence is not None
        assert alone.probabilities is not None
        height, width = image.shape[:2]
        confidence = unpadded(each.confidence, card.input, (height, width))
        assert np.array_equal(confidence, alone.confidence[0, :height, :width])
        probabilities = unpadded(each.probabilities, card.input, (height, width))
        assert np.array_equal(probabilities, alone.probabilities[0, :, :height, :width])
