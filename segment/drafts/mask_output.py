"""The output that holds the mask: which one, its layout, its kind, its number of classes."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from segment.drafts.contract import Said, guess, refusal
from segment.models.card_output import MULTILABEL
from segment.models.sessions.graph_facts import GraphFacts, OutputFacts
from segment.models.sessions.ports import Dims

Size = tuple[int, int]  # height, width

_DETECTING = {"NonMaxSuppression", "MulticlassNms", "DetectionOutput", "RoiAlign", "ROIAlign"}
_BOXES = {"boxes", "dets", "num_detections", "detection_boxes"}
_QUERIES = ("masks_queries_logits", "class_queries_logits", "pred_masks", "pred_logits")
_MOST_CLASSES = 255
_COMPARISONS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or"}
MULTILABEL_KIND = "multilabel"  # in no card
_RANKS = {MULTILABEL_KIND: 0, "sigmoid": 1}  # of kinds that are only taken where there is no other


@dataclass(frozen=True)
class Mask:
    """An output that holds a mask.

    Attributes:
        kind: `index`, `probabilities`, `logits` or `sigmoid`.
        size: height and width.
        classes: number of classes; None if nothing says it.
    """

    facts: OutputFacts
    layout: str
    kind: Said[str]
    size: Size
    classes: int | None

    @property
    def logit(self) -> bool:
        """Whether it is one channel without a sigmoid."""
        return self.kind.value == "sigmoid" and self.facts.operator not in ("Sigmoid", "Softmax")

    @property
    def name(self) -> str:
        """Name of the output."""
        return self.facts.port.name


def choose_output(
    facts: GraphFacts, size: Size, input_layout: str, classes: int | None = None
) -> tuple[Mask, Sequence[Mask]]:
    """Return the output that holds the mask, and the others that could.

    Args:
        facts: of the graph, its outputs' shapes inferred for `size`.
        size: height and width of the input.
        input_layout: `NCHW` or `NHWC`, preferred where an output could have both.
        classes: number of classes, where the user or the exporter says it: an output of as many is preferred.

    Raises:
        ModelError: no output holds a class for every pixel; the message says what they hold.
    """
    _refuse_other_tasks(facts, size)
    found = [mask for output in facts.outputs if (mask := _as_mask(output, size, input_layout))]
    if not found:
        _refuse_outputs(facts, size)
    best = max(found, key=lambda mask: _rank(mask, classes))
    if best.kind.value == MULTILABEL_KIND:
        raise refusal(f"its output {best.facts.port} {best.kind.why} of each of {best.classes} channels: {MULTILABEL}")
    if best.classes is not None and best.classes > _MOST_CLASSES:
        raise refusal(f"its output {best.facts.port} has {best.classes} classes, and a mask holds {_MOST_CLASSES}")
    return best, [mask for mask in found if mask is not best]


def _refuse_other_tasks(facts: GraphFacts, size: Size) -> None:
    names = {name for output in facts.outputs for name in output.port.names}
    shapes = [output.port.dims or () for output in facts.outputs]
    prototypes = {dims[1] for dims in shapes if len(dims) == 4}
    if len(shapes) > 1 and any(_are_boxes(dims, size, prototypes) for dims in shapes):
        listed = ", ".join(str(output.port) for output in facts.outputs)
        raise refusal(f"it gives boxes, and perhaps masks of single objects, but no class for every pixel: {listed}")
    if facts.operators & _DETECTING or names & _BOXES:
        raise refusal("it is a detector: its graph selects boxes, and gives no class for every pixel")
    if names & set(_QUERIES):
        raise refusal(
            "it classifies masks (MaskFormer, Mask2Former and the like): queries and their masks have to be combined "
            "into scores for every pixel. Export the graph with that step"
        )


def _are_boxes(dims: Dims, size: Size, prototypes: Set[int | None]) -> bool:
    """Whether a shape is that of a list of boxes, such as YOLO's 1x116x8400: coordinates, scores and coefficients.

    Of boxes already chosen, such as 1x300x38, each has four coordinates, score, class, and a number a prototype.
    """
    if len(dims) != 3 or None in dims[1:] or size[0] * size[1] in dims:
        return False
    shorter, longer = sorted(side or 0 for side in dims[1:])
    return longer > 16 * shorter >= 5 * 16 or (dims[2] or 0) - 6 in prototypes


def _as_mask(output: OutputFacts, size: Size, input_layout: str) -> Mask | None:
    dims = output.port.dims
    if dims is None or len(dims) not in (2, 3, 4) or dims[0] not in (None, 1):
        return None
    if mask := _flat(output, dims, size):
        return mask
    if len(dims) == 3:
        return _plane(output, "NHW", dims[1:], size)
    for layout in ("NCHW", "NHWC") if input_layout == "NCHW" else ("NHWC", "NCHW"):
        if len(dims) == 4 and (mask := _scores(output, layout, dims, size)):
            return mask
    return None


def _flat(output: OutputFacts, dims: Dims, size: Size) -> Mask | None:
    """The pixels of the input in one row."""
    pixels = size[0] * size[1]
    if dims == (dims[0], pixels):
        return Mask(output, "N(HW)", _plane_kind(output), size, _indexed(output))
    for layout, place in (("NC(HW)", 2), ("N(HW)C", 1)):
        if len(dims) == 3 and dims[place] == pixels:
            classes = dims[3 - place]
            kind = _plane_kind(output) if classes == 1 else _kind(output)
            return Mask(output, layout, kind, size, classes) if kind.value != "index" else None
    return None


def _scores(output: OutputFacts, layout: str, dims: Dims, size: Size) -> Mask | None:
    channels, plane = (dims[1], dims[2:]) if layout == "NCHW" else (dims[3], dims[1:3])
    if channels == 1:
        return _plane(output, layout.replace("C", "1"), plane, size)
    return Mask(output, layout, _kind(output), _pair(plane), channels) if _covers(plane, size) else None


def _plane(output: OutputFacts, layout: str, plane: Dims, size: Size) -> Mask | None:
    if not _covers(plane, size):
        return None
    return Mask(output, layout, _plane_kind(output), _pair(plane), _indexed(output))


def _is_truth(output: OutputFacts) -> bool:
    return output.operator in _COMPARISONS or output.port.dtype == "bool"


def _indexed(output: OutputFacts) -> int | None:
    """Return the number of classes of an index; None if nothing says it."""
    return 2 if _is_truth(output) else output.scored


def _plane_kind(output: OutputFacts) -> Said[str]:
    """The kind of one number a pixel."""
    if output.operator == "ArgMax":
        return Said("index", "the graph ends in an argmax")
    if _is_truth(output):
        return Said("index", "the graph ends in a comparison: a pixel is of one class or the other")
    if "int" in output.port.dtype and not output.is_quantised:
        return Said("index", f"whole numbers ({output.port.dtype}), one a pixel")
    if output.operator == "Sigmoid":
        return Said("sigmoid", "the graph ends in a sigmoid of one channel")
    if output.operator == "Softmax":
        why = "the graph ends in one channel of a softmax, usually that of the foreground"
        return guess("sigmoid", why, "that of the background: name the classes in the other order")
    return guess("sigmoid", "one channel, and no sigmoid: it may be a logit", "no mask, such as depth")


def _kind(output: OutputFacts) -> Said[str]:
    if output.operator == "Softmax":
        return Said("probabilities", "the graph ends in a softmax")
    if output.operator == "Sigmoid":
        return Said(MULTILABEL_KIND, "ends in a sigmoid")
    if _is_truth(output) and output.operator != "Equal":  # whose channels are equal to their maximum once a pixel
        return Said(MULTILABEL_KIND, "ends in a comparison")
    return Said("logits", "the graph ends in no softmax (masks are the same for probabilities)")


def _covers(plane: Dims, size: Size) -> bool:
    """Whether an array has the input's shape at its size or smaller, up to a row and column of rounding, or larger."""
    height, width = plane
    if height is None or width is None or min(height, width) < 2:
        return False
    least, most = _strides((height, width), size)
    return least <= most and least <= 64


def _strides(plane: Size, size: Size) -> tuple[float, float]:
    """Return the least and the largest stride that makes an array of the input, up to a row and column of rounding."""
    least = max(size[0] / (plane[0] + 1), size[1] / (plane[1] + 1))
    return least, min(size[0] / (plane[0] - 1), size[1] / (plane[1] - 1))


def is_crop(mask: Mask, size: Size) -> bool:
    """Whether an output is smaller than the input by no whole stride, as that of a network without borders."""
    least, most = _strides(mask.size, size)
    return least > 1 and math.floor(most) < least


def _pair(plane: Dims) -> Size:
    return plane[0] or 0, plane[1] or 0


def _rank(mask: Mask, classes: int | None) -> tuple[bool, int, int, bool]:
    """Return what makes an output the mask rather than another; of equal ones those called auxiliary come last."""
    kind = _RANKS.get(mask.kind.value, 2)
    is_known = classes is not None and mask.classes == classes and kind > 0
    return is_known, kind, mask.size[0] * mask.size[1], "aux" not in mask.name.lower()


def _refuse_outputs(facts: GraphFacts, size: Size) -> None:
    if not facts.outputs:
        raise refusal("it has no output: a wrong or damaged file")
    listed = ", ".join(str(output.port) for output in facts.outputs)
    if any(output.port.dims is None or None in output.port.dims[1:] for output in facts.outputs):
        entries = ", ".join(str(entry.port) for entry in facts.inputs)
        several = f" and with one input, the image (it takes {entries})" if len(facts.inputs) > 1 else ""
        raise refusal(
            f"the shape of its output is not known before a run: {listed}. Export it with fixed sizes{several}"
        )
    dims = [output.port.dims or () for output in facts.outputs]
    if any(len(shape) in (2, 3) and _covers(shape[-2:], size) for shape in dims):
        raise refusal(
            f"its output has no dimension for the batch: {listed}. Export it with a batch of 1 that no node removes"
        )
    if all(len([side for side in shape[1:] if side != 1]) <= 1 for shape in dims):
        raise refusal(f"it is a classifier: it gives one row of scores an image, not one a pixel ({listed})")
    if any(len(shape) == 3 for shape in dims):
        raise refusal(f"it looks like a detector or an encoder: no output has a class for every pixel ({listed})")
    raise refusal(f"no output has the shape of the input, {size[0]}x{size[1]}, at any scale: {listed}")
