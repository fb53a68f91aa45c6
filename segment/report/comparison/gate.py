"""What a comparison must hold for a program to go on: the limits behind the exit code of `segment compare`.

A change of the score is a claim about images of this kind, so its interval decides: the lower bound must not be below
the limit, which says that a larger loss is unlikely (a test of non-inferiority). Without an interval the change itself
decides. Agreement is counted, not estimated: its value decides. A run that is not finished does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from segment.errors import UsageError
from segment.report.comparison.comparing import Against, RunComparison
from segment.report.comparison.points import points, points_span


@dataclass(frozen=True)
class Limits:
    """The limits of a comparison; None for none.

    Attributes:
        change: of the mIoU, B minus A, in points (per cent).
        agreement: of the pixels that agree, 0-1.
    """

    change: float | None = None
    agreement: float | None = None

    def __bool__(self) -> bool:
        return self.change is not None or self.agreement is not None


@dataclass(frozen=True)
class Verdict:
    """Whether a limit is held, and how that is found."""

    passed: bool
    words: str


def verdicts(found: RunComparison, limits: Limits) -> list[Verdict]:
    """Return a verdict for each limit and run; and one that does not pass for each run that is not finished.

    Raises:
        UsageError: a limit is of what was not compared.
    """
    if not limits:
        return []
    given = [Verdict(False, f"{run.letter} is not finished") for run in found.runs if not run.report.is_whole]
    return [*given, *(one for against in found.against for one in _of_run(against, limits))]


def _of_run(found: Against, limits: Limits) -> Iterator[Verdict]:
    run = found.b.letter
    if limits.change is not None:
        if found.change is None or found.overall.scores is None:
            raise UsageError(
                f"fail_below: no image is labelled in both A and {run}, so that no change of mIoU is known"
            )
        change = found.overall.scores.changes["miou"]
        bounds = change.interval
        passed = 100 * (bounds.low if bounds else change.value) >= limits.change
        which = f" ({points_span(bounds)}): its lower bound" if bounds else ""
        how = f"{which} is {'not below' if passed else 'below'} {limits.change:+g}"
        yield Verdict(passed, f"{run}: change of mIoU {points(change)} points{how}")
    if limits.agreement is not None:
        if found.agreement is None:
            raise UsageError("fail_below_agreement: masks were not compared (--no-masks)")
        passed = found.agreement >= limits.agreement
        words = f"{run}: {100 * found.agreement:.4f} % of the pixels agree"
        yield Verdict(passed, f"{words}: {'not below' if passed else 'below'} {100 * limits.agreement:g} %")
