"""What a comparison must hold for a program to go on: the limits behind the exit code of `segment compare`.

A change of the score is a claim about images of this kind, so its interval decides: the lower bound must not be below
the limit, which says that a larger loss is unlikely (a test of non-inferiority). Without resamples the change itself
decides; where they give no interval, as of one image or group, nothing is known and the run does not pass. Agreement is
counted, not estimated: its value decides. A run that is not finished does not pass, nor does one in which an image of A
is an error: these images are in no score, and a model that fails on them is not as good as A.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from segment.errors import UsageError
from segment.report.comparison.comparing import Against, RunComparison
from segment.report.percents import points_span
from segment.store.names import count

_DIGITS = 9  # of points; beyond them 0.6 - 0.8 is less than -0.2


@dataclass(frozen=True)
class Limits:
    """The limits of a comparison; None for none.

    Attributes:
        change: of the mIoU, B minus A, in points (per cent).
        agreement: of the pixels that agree, 0-1.

    Raises:
        UsageError: a limit is no finite number, which nothing, or everything, would hold.
    """

    change: float | None = None
    agreement: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("fail_below", self.change), ("fail_below_agreement", self.agreement)):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name} = {value}: give a number")

    def __bool__(self) -> bool:
        return self.change is not None or self.agreement is not None

    def refuse_without_masks(self, masks: bool) -> None:
        """Raise UsageError for a limit of what is not compared."""
        if self.agreement is not None and not masks:
            raise UsageError("fail_below_agreement: masks are not compared (--no-masks)")


@dataclass(frozen=True)
class Verdict:
    """Whether a limit is held, and how that is found."""

    passed: bool
    words: str


def verdicts(found: RunComparison, limits: Limits) -> list[Verdict]:
    """Return a verdict for each limit and run, and one that does not pass for each run that cannot be judged.

    Raises:
        UsageError: a limit is of what is not known.
    """
    if not limits:
        return []
    given = [Verdict(False, f"{run.letter} is not finished") for run in found.runs if not run.report.is_whole]
    return [*given, *(one for against in found.against for one in _of_run(against, limits))]


def _of_run(found: Against, limits: Limits) -> Iterator[Verdict]:
    run = found.b.letter
    if failed := found.matches.failed_of_a:
        are = "is an error" if failed == 1 else "are errors"
        yield Verdict(False, f"{run}: {count(failed, 'image')} that A has segmented {are}")
    if limits.change is not None:
        yield _of_change(found, limits.change)
    if limits.agreement is not None:
        limits.refuse_without_masks(found.agreement is not None)
        value, limit = 100 * (found.agreement or 0), 100 * limits.agreement
        passed = value >= limit
        agreed = f"{run}: {_told(value, limit, '.4f')} % of the pixels agree{_cover(found, len(found.pairs))}"
        yield Verdict(passed, f"{agreed}: {_side(passed)} {limit:.10g} %")


def _of_change(found: Against, limit: float) -> Verdict:
    run, scores = found.b.letter, found.overall.scores
    if scores is None:
        raise UsageError(f"fail_below: no image is labelled in both A and {run}, so that no change of mIoU is known")
    if found.change is None:
        raise UsageError(f"fail_below: A or {run} has no pixel of a class that is scored: no change of mIoU is known")
    bounds, cover = scores.changes["miou"].interval, _cover(found, scores.images)
    value = round(100 * (bounds.low if bounds else found.change), _DIGITS)
    passed = value >= limit
    told = _told(value, limit, "+.2f")
    if bounds is None and found.asked.resamples:
        kind = count(scores.a.units, found.units[:-1])
        how = f"its lower bound would decide; of {kind} there is none (--resamples 0: the change decides)"
        return Verdict(False, f"{run}: change of mIoU {told} points has no interval: {how}")
    if bounds is None:
        how = f"{told} points{cover}"
    else:
        exactly = "" if told == f"{value:+.2f}" else f", {told},"
        how = f"{100 * found.change:+.2f} points ({points_span(bounds)}){cover}: its lower bound{exactly}"
    return Verdict(passed, f"{run}: change of mIoU {how} is {_side(passed)} {limit:+.10g}")


def _side(passed: bool) -> str:
    return "not below" if passed else "below"


def _cover(found: Against, compared: int) -> str:
    """Return how many of A's images decide; `""` if all do."""
    images = len(found.a.rows)
    return "" if compared == images else f" on {compared:,} of A's {count(images, 'image')}"


def _told(value: float, limit: float, form: str) -> str:
    """Return a number with so many digits that it does not look like a limit from which it differs."""
    sign, digits = form[:-2], int(form[-2])
    while digits < _DIGITS and value != limit and float(f"{value:.{digits}f}") == limit:
        digits += 1
    return f"{value:{sign}{digits}f}"
