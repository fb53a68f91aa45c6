"""`jobs/averaging.py` on real images."""

from pathlib import Path

import pytest

from jobs import averaging


@pytest.mark.slow
@pytest.mark.shared
def test_a_line_for_each_model(shared: Path) -> None:
    if not (shared / "voc" / "images").is_dir():
        pytest.skip(f"REAL FILES MISSING: {shared / 'voc'} (set SEGMENT_SHARED)")
    lines = averaging.measure(shared, "ensemble", 101, runtime="openvino", precision="f32")
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert [line[1] for line in cells] == [
        "depth 1.0",
        "depth 0.5",
        "depths 1.0 and 0.5",
        "depths 1.0 and 0.5, flip",
    ]
    assert all(30 < float(line[2]) <= 100 and line[5] == "2" for line in cells)
    assert float(cells[0][4]) == 1
