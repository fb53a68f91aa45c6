"""`jobs/option_costs.py` on real images."""

from pathlib import Path

import pytest

from jobs.option_costs import AGAIN, CASES, OPTIONS, one_round


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_a_ratio_for_each_option(shared: Path, case: str) -> None:
    if not (shared / CASES[case].data / "images").is_dir():
        pytest.skip(f"REAL FILES MISSING: {shared / CASES[case].data} (set SEGMENT_SHARED)")
    off, ratios = one_round(shared, CASES[case], list(OPTIONS), engine="local", precision="f32", sample=2)
    assert off > 0
    assert [*OPTIONS, AGAIN] == list(ratios)
    assert ratios["flip"] < 0.9
    assert min(ratios.values()) > 0.1
