"""`jobs/tta.py` on real images."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import tta


@pytest.mark.slow
@pytest.mark.shared
def test_a_line_for_each_set_of_views(shared: Path) -> None:
    if not (shared / "camvid" / "images").is_dir():
        pytest.skip(f"REAL FILES MISSING: {shared / 'camvid'} (set SEGMENT_SHARED)")
    lines = [line.split(" | ") for line in tta.measure(shared, "camvid", 51, "openvino", "f32")]
    assert [line[1] for line in lines] == ["-", "flip", "0.75, 1.25", "flip, 0.75, 1.25"]
    assert all(30 < float(line[2]) < 90 and line[5] == "2 |" for line in lines)
    costs = [float(line[4]) for line in lines]
    assert costs[0] == 1 < costs[1] < costs[3]
