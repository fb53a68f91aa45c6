"""The gate of `segment compare`: what passes, and what its verdict says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segment as api
from segment.errors import UsageError
from segment.report.comparison.comparing import RunComparison
from segment.report.comparison.gate import Limits, verdicts
from tests.calls import Call
from tests.calls import segment as segment  # a fixture
from tests.runs import Place
from tests.written_runs import Made, read_template, write_run

LABEL = np.zeros((10, 100), np.uint8)
LABEL[:, 50:] = 1


def mask(wrong: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The label with some pixels of the second class taken for the first."""
    made = LABEL.copy()
    made[0, 50 : 50 + wrong] = 0
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = Place(tmp_path_factory.mktemp("gate"))
    place.add("a.png", 1)
    place.run()
    return read_template(place.output)


@pytest.fixture
def compared(tmp_path: Path, template: dict[str, Any]) -> Any:
    def of(a: Sequence[int | None], b: Sequence[int | None], **asked: Any) -> RunComparison:
        """Compare two runs, given the wrong pixels of each image; None for an error."""
        outputs = [
            write_run(
                tmp_path / f"{name}{len(list(tmp_path.iterdir()))}",
                template,
                {"s": [Made(f"{n}.png", None if some is None else mask(some), LABEL) for n, some in enumerate(wrong)]},
            )
            for name, wrong in (("a", a), ("b", b))
        ]
        return api.compare(*outputs, **{"resamples": 0, **asked})

    return of


def test_images_that_only_the_other_run_cannot_segment_fail_it(compared: Any) -> None:
    found = compared([0, 0, None, 3], [0, None, None, 0])
    failed, change, agreement = verdicts(found, Limits(0.0, 0.5))
    assert (failed.passed, failed.words) == (False, "B: 1 image that A has segmented is an error")
    assert (change.passed, change.words.partition(" points ")[2]) == (True, "on 2 of A's 4 images is not below +0")
    assert agreement.words == "B: 99.8500 % of the pixels agree on 2 of A's 4 images: not below 50 %"
    assert verdicts(compared([None, 0], [0, 0]), Limits(agreement=1.0))[0].passed


def test_a_change_rests_on_the_images_that_are_labelled_in_both(tmp_path: Path, template: dict[str, Any]) -> None:
    outputs = [
        write_run(
            tmp_path / name, template, {"s": [Made(f"{n}.png", mask(0), LABEL if n < some else None) for n in range(4)]}
        )
        for name, some in (("a", 4), ("b", 1))
    ]
    change, agreement = verdicts(api.compare(*outputs, resamples=0), Limits(0.0, 0.5))
    assert change.words == "B: change of mIoU +0.00 points on 1 of A's 4 images is not below +0"
    assert agreement.words == "B: 100.0000 % of the pixels agree: not below 50 %"


def test_a_number_does_not_look_like_the_limit_that_it_misses(compared: Any) -> None:
    found = compared([0], [1])  # 1 of 1,000 pixels
    told = [verdicts(found, Limits(agreement=limit))[0] for limit in (0.999, 0.9990000001)]
    assert [one.passed for one in told] == [True, False]
    assert told[1].words == "B: 99.9000 % of the pixels agree: below 99.90000001 %"
    assert found.change == pytest.approx(-0.001998, abs=1e-6)
    (verdict,) = verdicts(found, Limits(change=-0.2))
    assert (verdict.passed, verdict.words) == (True, "B: change of mIoU -0.1998 points is not below -0.2")


def test_a_change_that_is_the_limit_is_not_below_it(compared: Any) -> None:
    """(500 / 512 + 488 / 500) / 2 - 1 is -2.371875 points, and 1e-15 less in binary."""
    found = compared([0], [12])
    assert 100 * found.change < -2.371875
    assert [verdicts(found, Limits(limit))[0].passed for limit in (-2.371875, -2.37187499)] == [True, False]


def test_the_lower_bound_is_told_with_more_digits_where_two_hide_the_verdict(compared: Any) -> None:
    found = compared([0] * 4, [1, 2, 3, 4], resamples=50)
    low = 100 * found.against[0].overall.scores.changes["miou"].interval.low
    (clear,) = verdicts(found, Limits(change=-50))
    assert clear.words.endswith(": its lower bound is not below -50")
    (close,) = verdicts(found, Limits(change=round(low, 2)))
    assert close.passed == (low >= round(low, 2))
    assert f"its lower bound, {low:+.3f}"[:-1] in close.words


def test_a_change_without_an_interval_does_not_pass_unless_none_is_asked_for(compared: Any) -> None:
    wrong = [0, 0, 0], [1, 2, 3]
    (verdict,) = verdicts(compared(*wrong, resamples=20, group_by="(png)"), Limits(change=-50))
    assert (verdict.passed, "of 1 group there is none (--resamples 0" in verdict.words) == (False, True)
    assert verdicts(compared(*wrong), Limits(change=-50))[0].passed
    assert verdicts(compared(*wrong, resamples=20), Limits(change=-50))[0].passed


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_limit_is_a_number(value: str, segment: Call) -> None:
    called = segment("compare", "nowhere", "nowhere", "--fail-below", value)
    assert (called.code, f"fail_below = {value}: give a number" in called.err) == (2, True)
    with pytest.raises(UsageError, match="fail_below_agreement"):
        Limits(agreement=float(value))


def test_what_is_not_compared_is_refused_before_anything_is_read(segment: Call) -> None:
    called = segment("compare", "nowhere", "nowhere", "--fail-below-agreement", "0.9", "--no-masks")
    assert (called.code, "masks are not compared (--no-masks)" in called.err) == (2, True)


def test_no_change_is_known_of_classes_that_do_not_occur(compared: Any) -> None:
    with pytest.raises(UsageError, match="no pixel of a class that is scored"):
        verdicts(compared([0], [0], classes=["Car"]), Limits(change=0.0))
