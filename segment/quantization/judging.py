"""Whether a quantised model is good enough to be written.

The measured loss decides, not the end of its interval: of the few labelled images that people have at hand the interval
is often wider than the limit, and quantisation would be refused that costs nothing. Where the interval does reach
beyond the limit, this is told. Who needs proof evaluates more images, or `segment compare --fail-below`, where the
interval decides.
"""

from collections.abc import Iterator, Sequence

from segment.quantization.asked import Asked
from segment.quantization.runtime_speeds import RuntimeSpeed
from segment.report.comparison.comparing import Against, RunComparison
from segment.report.comparison.gate import Verdict
from segment.report.percents import percent, points, points_span
from segment.scores.scored import FEW
from segment.store.names import count

_GAIN = 1.1


def judge(found: RunComparison, asked: Asked) -> list[Verdict]:
    """Return a verdict for each runtime: of the mIoU where images are labelled, else of the pixels that agree.

    An image on which the quantised model fails is in no figure, so it is a verdict of its own.
    """
    verdicts = [_of_labels(one, asked) if one.change is not None else _of_pixels(one, asked) for one in found.against]
    failed = ((_runtime(one), one.matches.failed_of_a) for one in found.against)
    return verdicts + [
        Verdict(False, f"{name}: {count(number, 'image')} that the source segments cannot be segmented")
        for name, number in failed
        if number
    ]


def _of_labels(found: Against, asked: Asked) -> Verdict:
    assert found.change is not None
    assert found.overall.scores is not None
    change, images = found.overall.scores.changes["miou"], found.overall.scores.images
    passed = -100 * change.value <= asked.max_drop
    span = f" (95 %: {points_span(change.interval)})" if change.interval else ""
    words = f"{_runtime(found)}: mIoU {points(change)} points{span} of {count(images, 'labelled image')}"
    return Verdict(passed, f"{words}: {'within' if passed else 'beyond'} --max-drop {asked.max_drop:g}")


def _of_pixels(found: Against, asked: Asked) -> Verdict:
    share, images = found.agreement or 0.0, count(len(found.pairs), "image")
    passed = share >= asked.min_agreement
    words = f"{_runtime(found)}: {percent(share)} % of the pixels of {images} keep their class"
    return Verdict(passed, f"{words}: {'within' if passed else 'beyond'} --min-agreement {asked.min_agreement:g}")


def _runtime(found: Against) -> str:
    return str(found.b.report.run["contract"]["runtime"]["name"])


def reservations(found: RunComparison, asked: Asked) -> Iterator[str]:
    """Yield what the images leave open, one line each."""
    yield from found.runs[0].report.label_warnings
    if failed := found.against[0].matches.failed_a:
        yield f"{count(failed, 'image')} in no figure, because of an error of image or label"
    first = found.against[0]
    if first.change is None or first.overall.scores is None:
        yield "no image is labelled: the price is told by pixels that change, which says nothing of right or wrong"
        return
    if (units := first.overall.scores.a.units) < FEW:
        yield f"{count(units, 'labelled image')}: of fewer than {FEW} the interval is too narrow, if there is one"
    for one in found.against:
        if (one.agreement or 0.0) < asked.min_agreement:
            yield (
                f"{_runtime(one)}: only {percent(one.agreement or 0.0)} % of the pixels keep their class, whatever the "
                "change of mIoU: are these the model's labels?"
            )
        bounds = one.overall.scores.changes["miou"].interval if one.overall.scores else None
        if bounds and -100 * bounds.low > asked.max_drop and -100 * (one.change or 0.0) <= asked.max_drop:
            yield (
                f"{_runtime(one)}: these images do not rule out a loss beyond {asked.max_drop:g} points: label more, "
                "or evaluate more (--evaluate-images)"
            )


def gains(speeds: Sequence[RuntimeSpeed]) -> Iterator[str]:
    """Yield a line if the quantised model is hardly faster here than its source is at best, as in bf16 with AMX."""
    source, quantised = (
        min((one for one in speeds if (one.numbers == "INT8") == is_quantised), key=lambda one: one.milliseconds)
        for is_quantised in (False, True)
    )
    if source.milliseconds < _GAIN * quantised.milliseconds:
        yield (
            f"INT8 gains little here: at best {quantised.milliseconds:.1f} ms of CPU an image ({quantised.runtime}); "
            f"the source in {source.numbers} takes {source.milliseconds:.1f} ms ({source.runtime})"
        )
