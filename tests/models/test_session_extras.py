"""Confidence maps and probabilities of classes, computed in the graph: equal to numpy's to one level of 255."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from segment.errors import UsageError
from segment.models.card import ModelCard
from segment.models.sessions import Extras, Runtime, capabilities, onnxruntime, open_session
from segment.models.sessions.extras import MEASURES, extras_of
from segment.models.sessions.io_binding import bound_run
from segment.models.sessions.predict import GraphSession
from segment.models.sessions.surgery import Surgeon
from tests.graphs import as_weights, colour_classifier, nan_graph
from tests.models.test_session_enlarging import enlarged, noise
from tests.models.test_session_quantised import mixtures, quantised, rounded
from tests.serving import BOTH, OPENVINO, ORT, message, small, tiny

SIZE = (32, 48)
CLASSES = 12
CHOSEN = (7, 0, 3)


class Case(NamedTuple):
    """A graph of random mixtures of the colours."""

    kind: str = "logits"
    layout: str = "NCHW"
    stride: int = 1
    enlarge: str | None = None
    logit: bool = False
    masked: bool = False
    opset: int = 17
    batch: int | str = "N"

    @property
    def channels(self) -> int:
        return 1 if self.kind == "sigmoid" else CLASSES

    def card(self) -> ModelCard:
        given = {"channels": "RGB", "maximum": 1, "height": SIZE[0], "width": SIZE[1]}
        output = {"kind": self.kind, "layout": self.layout, "enlarge": self.enlarge, "logit": self.logit}
        card = small(input=given, output=output)
        if self.kind != "sigmoid":
            return card
        names, palette = ("ground", "person"), ((0, 0, 0), (255, 255, 255))
        return card.model_copy(
            update={"classes": card.classes.model_copy(update={"names": names, "palette": palette, "ignore": ()})}
        )

    def graph(self) -> bytes:
        """Return a graph whose scores are mixtures of every `stride`-th pixel."""
        stored = [numpy_helper.from_array(4 * mixtures(self.channels)[:, :, None, None], "kernel")]
        kernel = {"kernel_shape": [1, 1], "strides": [self.stride, self.stride]}
        nodes = [helper.make_node("Conv", ["x", "kernel"], ["scores"], **kernel)]
        if self.masked:
            stored.append(numpy_helper.from_array(self.mask(), "mask"))
            nodes.append(helper.make_node("Add", [nodes[-1].output[0], "mask"], ["masked"]))
        if self.kind == "probabilities":
            nodes.append(helper.make_node("Softmax", [nodes[-1].output[0]], ["p"], axis=1))
        if self.kind == "sigmoid" and not self.logit:
            nodes.append(helper.make_node("Sigmoid", [nodes[-1].output[0]], ["p"]))
        perm = [0, 2, 3, 1] if self.layout == "NHWC" else [0, 1, 2, 3]
        nodes.append(helper.make_node("Transpose", [nodes[-1].output[0]], ["y"], perm=perm))
        axes: dict[str, Any] = {"N": self.batch, "C": self.channels}
        axes |= {"H": -(-SIZE[0] // self.stride), "W": -(-SIZE[1] // self.stride)}
        shape = tuple(axes[axis] for axis in self.layout)
        return tiny(nodes, [("x", (self.batch, 3, *SIZE))], [("y", shape)], stored, self.opset)

    def mask(self) -> NDArray[np.float32]:
        """Minus infinity for two classes."""
        mask = np.zeros((1, CLASSES, 1, 1), np.float32)
        mask[0, [2, 7]] = -np.inf
        return mask

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return `float64[N, C, h, w]`, of the size at which the graph's extras are computed."""
        pixels = images[:, :: self.stride, :: self.stride].astype(np.float64) / 255
        scores = 4 * np.einsum("nhwc,kc->nkhw", pixels, mixtures(self.channels).astype(np.float64))
        is_smaller = self.stride > 1 and self.enlarge != "nearest"
        if self.kind == "sigmoid":
            second = scores if self.logit else 1 / (1 + np.exp(-scores))
            second = enlarged(second, SIZE) if is_smaller else second
            second = 1 / (1 + np.exp(-second)) if self.logit else second
            return np.concatenate([1 - second, second], axis=1)
        scores = scores + (np.where(np.isinf(self.mask()), -1e30, 0) if self.masked else 0)
        scores = softmax(scores) if self.kind == "probabilities" else scores
        scores = enlarged(scores, SIZE) if is_smaller else scores
        return scores if self.kind == "probabilities" else softmax(scores)


CASES = [
    Case(),
    Case(layout="NHWC", stride=4),
    Case("probabilities", "NHWC"),
    Case("probabilities", stride=7),
    Case(stride=4, enlarge="nearest", opset=11),
    Case("probabilities", "NHWC", stride=7, enlarge="nearest"),
    Case(masked=True),
    Case(masked=True, stride=4),
    Case(opset=9, batch=1),
    Case("sigmoid"),
    Case("sigmoid", "NHWC", stride=4, logit=True),
    Case("sigmoid", stride=4, enlarge="nearest", opset=7),
]
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def measured(p: NDArray[np.float64], measure: str) -> NDArray[np.float64]:
    """Return a measure of `float64[N, C, h, w]` as `float64[N, h, w]`."""
    ordered = np.sort(p, axis=1)
    if measure == "maximum":
        return np.asarray(ordered[:, -1])
    if measure == "margin":
        return np.asarray(ordered[:, -1] - ordered[:, -2])
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    return np.asarray(1 - entropy / np.log(p.shape[1]))


def assert_levels(found: NDArray[np.uint8] | None, numbers: NDArray[np.float64]) -> None:
    """Assert that bytes are 255 times the numbers: exactly, but where these are next to the middle of two levels."""
    assert found is not None
    if found.shape != numbers.shape:  # enlarged by nearest
        numbers = nearest(numbers)
    assert (found.dtype, found.shape) == (np.uint8, numbers.shape)
    assert np.abs(found - 255 * numbers).max() < 0.52
    assert len(np.unique(found)) > 20


def nearest(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Enlarge to the mask's size: each pixel takes the one whose area its centre lies in."""
    rows, columns = (
        ((np.arange(target) + 0.5) * size / target).astype(int)
        for size, target in zip(numbers.shape[-2:], SIZE, strict=True)
    )
    return np.asarray(numbers[..., rows[:, None], columns])


def opened(case: Case, runtime: Runtime, extras: Extras) -> GraphSession:
    session = open_session(case.card(), as_weights(case.graph()), runtime, extras=extras)
    assert isinstance(session, GraphSession)
    return session


@BOTH
@EACH_CASE
def test_confidence_and_probabilities_equal_those_of_numpy(case: Case, runtime: Runtime) -> None:
    if runtime == OPENVINO and case.opset == 7:
        pytest.skip("openvino reads the same nodes of every opset")
    images = noise(3, SIZE)
    wanted = case.probabilities(images)
    plain = opened(case, runtime, Extras()).predict(images)
    assert (plain.confidence, plain.probabilities) == (None, None)
    chosen = CHOSEN if case.channels > 1 else (1, 0)
    for measure in MEASURES if case in (Case(), Case("probabilities", "NHWC")) else ("margin",):
        session = opened(case, runtime, Extras(measure, chosen))
        found = session.predict(images)
        assert np.array_equal(found.masks, plain.masks)
        assert (found.faults, found.remarks) == (plain.faults, plain.remarks) == ({}, {})
        assert_levels(found.confidence, measured(wanted, measure))
        assert_levels(found.probabilities, wanted[:, chosen])
        assert session.batches is True
        one = session.predict(images[1:2])
        assert one.confidence is not None
        assert found.confidence is not None
        assert np.abs(one.confidence[0].astype(int) - found.confidence[1]).max() <= 1


@BOTH
def test_one_of_both_may_be_wanted(runtime: Runtime) -> None:
    images = noise(2, SIZE)
    wanted = Case().probabilities(images)
    only_map = opened(Case(), runtime, Extras("maximum")).predict(images)
    assert_levels(only_map.confidence, wanted.max(axis=1))
    assert only_map.probabilities is None
    only_class = opened(Case(), runtime, Extras(probabilities=(7,))).predict(images)
    assert_levels(only_class.probabilities, wanted[:, [7]])
    assert only_class.confidence is None


@BOTH
def test_of_no_images_there_are_empty_maps(runtime: Runtime) -> None:
    found = opened(Case(), runtime, Extras("margin", CHOSEN)).predict(np.empty((0, *SIZE, 3), np.uint8))
    assert found.confidence is not None
    assert found.probabilities is not None
    assert (found.confidence.shape, found.probabilities.shape) == ((0, *SIZE), (0, 3, *SIZE))


@BOTH
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_levels_of_eight_bits_become_numbers(kind: str, runtime: Runtime) -> None:
    scale, zero_point = (0.25, 3) if kind == "logits" else (1 / 256, -128)
    graph = quantised("int8", scale, zero_point, channels=CLASSES, last="Identity" if kind == "logits" else "Sigmoid")
    card = small(input={"channels": "RGB"}, output={"kind": kind, "layout": "NHWC"})
    images = noise(2, SIZE)
    scores = np.einsum("nhwc,kc->nkhw", images.astype(np.float64), mixtures(CLASSES).astype(np.float64))
    scores = scores if kind == "logits" else 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
    numbers = rounded(scores, "int8", scale, zero_point)
    wanted = softmax(numbers) if kind == "logits" else numbers
    session = open_session(card, as_weights(graph), runtime, extras=Extras("maximum", CHOSEN))
    found = session.predict(images)
    plain = open_session(card, as_weights(graph), runtime).predict(images)
    assert np.array_equal(found.masks, plain.masks)
    assert found.probabilities is not None
    near = np.abs(found.probabilities - 255 * wanted[:, CHOSEN]) < 0.6
    assert near.mean() > 0.99  # a score in the middle of two levels is rounded up or down


@BOTH
def test_levels_without_a_scale_are_refused(runtime: Runtime) -> None:
    graph = quantised("int8", 1.0, 0, channels=CLASSES, last="Identity", how="Cast")
    card = small(input={"channels": "RGB"}, output={"kind": "logits", "layout": "NHWC"})
    open_session(card, as_weights(graph), runtime)
    said = message(lambda: open_session(card, as_weights(graph), runtime, extras=Extras("maximum")))
    assert "the graph's output is int8, and no QuantizeLinear at its end says the scale and zero point" in said


@BOTH
def test_an_image_that_is_not_finite_stays_a_fault(runtime: Runtime) -> None:
    card = small(output={"kind": "logits"})
    images = np.random.default_rng(1).integers(0, 250, (3, *SIZE, 3), dtype=np.uint8)
    images[1, 5, 5] = (255, 0, 255)  # the trigger
    extras = Extras("entropy", (0,))
    found = open_session(card, as_weights(nan_graph(card)), runtime, extras=extras).predict(images)
    plain = open_session(card, as_weights(nan_graph(card)), runtime).predict(images)
    assert found.faults == plain.faults == {1: "model_not_finite"}
    assert np.array_equal(found.masks[[0, 2]], plain.masks[[0, 2]])


@BOTH
def test_scores_that_are_no_probabilities_are_no_confidence(runtime: Runtime) -> None:
    """Their argmax is a mask, whatever they are; as probabilities they would be clipped."""
    declared = Case("probabilities").card()
    weights = as_weights(Case("logits").graph())
    images = noise(2, SIZE)
    assert open_session(declared, weights, runtime).predict(images).faults == {}
    session = open_session(declared, weights, runtime, extras=Extras("maximum"))
    said = message(lambda: session.predict(images))
    assert 'are beyond 0 to 1, in the first image and in random images: output.kind = "logits"?' in said
    images[1] = 0  # whose scores are 0
    unchecked = open_session(declared, weights, runtime, extras=Extras(probabilities=(0,)), sanity_check=False)
    assert unchecked.predict(images).faults == {0: "model_range"}


def test_equal_scores_have_no_margin() -> None:
    card = small(output={"kind": "logits"})
    colours = [(0, 0, 0), (0, 0, 0), *[(255, 255, 255)] * 10]
    image = np.full((1, *SIZE, 3), 10, np.uint8)
    for runtime in (ORT, OPENVINO):
        weights = as_weights(colour_classifier(card, colours))
        session = open_session(card, weights, runtime, sanity_check=False, extras=Extras("margin"))
        found = session.predict(image)
        assert found.confidence is not None
        assert (found.masks == 0).all()
        assert (found.confidence == 0).all()


def test_in_half_the_precision_a_map_is_two_levels_off_at_most() -> None:
    if "openvino:cpu:bf16" not in capabilities():
        pytest.skip("this CPU does not compute in bf16")
    images = noise(2, SIZE)
    bf16 = Runtime("openvino", "cpu", "bf16", "")
    for case in (Case("probabilities"), Case("probabilities", stride=4)):
        plain = opened(case, bf16, Extras()).predict(images)
        found = opened(case, bf16, Extras("maximum")).predict(images)
        assert found.confidence is not None
        assert np.array_equal(found.masks, plain.masks)
        differences = np.abs(found.confidence - 255 * case.probabilities(images).max(axis=1))
        assert np.quantile(differences, 0.99) < 6


def test_bound_buffers_hold_the_extras() -> None:
    case, extras, images = Case(), Extras("maximum", CHOSEN), noise(3, SIZE)
    session = onnxruntime._load(Surgeon(case.card(), case.graph()).compiled(None, extras=extras), ORT, threads=1)
    masks, _, confidence, probabilities = bound_run(session, SIZE, pin=id, batch=2, extras=extras)(images)
    found = opened(case, ORT, extras).predict(images)
    assert np.array_equal(masks, found.masks)
    assert np.array_equal(confidence, found.confidence)
    assert np.array_equal(probabilities, found.probabilities)


@BOTH
def test_a_class_index_has_no_confidence(runtime: Runtime) -> None:
    card = small(output={"kind": "index", "layout": "NHW"})
    weights = as_weights(colour_classifier(card))
    said = message(lambda: open_session(card, weights, runtime, extras=Extras("maximum")), UsageError)
    assert said.startswith("confidence and probabilities need scores, but the graph of model card")


def test_an_unknown_measure_is_refused() -> None:
    said = message(lambda: Extras("margni").check(small()), UsageError)  # type: ignore[arg-type]
    assert said == "confidence: 'margni' is none of maximum, margin, entropy. Did you mean 'margin'?"


def test_classes_are_given_by_name_or_index() -> None:
    card = small()
    assert extras_of(card, None, ("Road, vehicle", 0, "11", "Road")) == Extras(None, (3, 8, 0, 11))
    assert not extras_of(card, None, ())
    said = message(lambda: extras_of(card, None, ("Raod",)), UsageError)
    assert said == "probabilities: model card 'unet-camvid-onnx-0001' has no class 'Raod'. Did you mean 'Road'?"
    assert message(lambda: extras_of(card, None, (12,)), UsageError).endswith("has no class 12")
