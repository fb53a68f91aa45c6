"""The charts of the HTML report: scales, colours, and the counts behind them."""

import re

import numpy as np
import pytest

from segment.metrics import Confusion
from segment.report import charts, templating, wording
from tests.runs import CARD


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2's contrast of two sRGB colours of 0-255."""

    def luminance(rgb: tuple[float, ...]) -> float:
        linear = [c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_text_of_every_cell_can_be_read_in_both_themes() -> None:
    white, black = (255.0, 255.0, 255.0), (0.0, 0.0, 0.0)
    counts = np.zeros((3, 2), np.int64)
    for n in range(1001):
        counts[0] = (n, 1000 - n)
        cell = charts.heat_map(Confusion(counts.copy())).rows[0].cells[0] if n else None
        for theme, text in ((0, white if cell and cell.white_on_light else black),
                            (1, black if cell and cell.black_on_dark else white)):  # fmt: skip
            ends = zip(charts.PAPER[theme], charts.HEAT[theme], strict=True)
            assert contrast(tuple(p + (h - p) * n / 1000 for p, h in ends), text) >= 4.5, (n, theme)


def test_the_colours_of_the_heat_map_are_those_of_the_style_sheet() -> None:
    css = templating._file("report.css")
    for name, (light, dark) in (("surface", charts.PAPER), ("heat", charts.HEAT)):
        found = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", css)
        assert found
        colours = [c if len(c) == 7 else "#" + "".join(2 * x for x in c[1:]) for c in found.groups()]
        assert colours == ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in (light, dark)]


def test_heat_maps_hold_the_shares_of_each_label() -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 4], [9, 9, 9]])
    heat = charts.heat_map(Confusion(counts))
    assert heat.classes == (0, 1, 2)
    assert [cell.share for cell in heat.rows[0].cells] == [0.75, 0.25, 0]
    assert heat.rows[1].cells == ()
    large = np.random.default_rng(0).integers(0, 9, (51, 50))
    heat = charts.heat_map(Confusion(large))
    squares = sum(path.count("M") for _, path in heat.paths)
    assert (heat.rows, squares) == ((), int((large[:-1] > 0).sum()))


def test_the_largest_mistakes_leave_out_what_is_ignored() -> None:
    counts = np.array([[50, 9, 0, 7], [3, 50, 0, 0], [0, 0, 9, 0], [90, 0, 0, 0], [5, 5, 5, 5]])
    found = [(m.label, m.prediction, m.pixels) for m in charts.mistakes(Confusion(counts), CARD)]
    assert found == [(0, 1, 9), (1, 0, 3)]
    assert charts.mistakes(Confusion(counts), CARD)[0].share == 9 / 66


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (999.7, "1 k"), (17_900_000, "17.9 M"), (999_600, "1 M"), (4e12, "4 T")],
)
def test_large_numbers_are_short(number: float, text: str) -> None:
    assert wording.short(number) == text


def test_histograms_count_every_value_once() -> None:
    values = np.sort(np.random.default_rng(1).random(500))
    bars = charts.histogram(np.concatenate([values, [0.0, 1.0]]))
    assert sum(bar.count for bar in bars) == 502
    assert max(bar.height for bar in bars) == 100
    assert all(bar.height == 0 for bar in charts.histogram(np.empty(0)))


@pytest.mark.parametrize(
    ("values", "start", "stop"),
    [
        ([0.91, 0.99], 0.91, 0.99),
        ([0.0, 1.0], 0, 1),
        ([0.72, 0.72], 0.714, 0.726),
        ([1.0], 0.988, 1),
        ([0.0], 0, 0.012),
    ],
)
def test_histograms_span_the_range_of_the_data(values: list[float], start: float, stop: float) -> None:
    bars = charts.histogram(np.array(values))
    assert sum(bar.count for bar in bars) == len(values)
    assert len(bars) in (12, 16, 20, 24)
    assert (bars[0].start, bars[-1].stop) == pytest.approx((start, stop))
    assert [bar.stop for bar in bars[:-1]] == [bar.start for bar in bars[1:]]
    labels = [float(text) for text in charts.ticks(bars)]
    assert labels == pytest.approx(np.linspace(100 * start, 100 * stop, 5).tolist(), abs=0.001)


def test_no_value_falls_out_of_a_histogram() -> None:
    random = np.random.default_rng(3)
    for _ in range(300):
        values = np.clip(random.random() + random.normal(0, 10 ** random.uniform(-6, 0), 50), 0, 1)
        assert sum(bar.count for bar in charts.histogram(values)) == 50


def test_smoothing_keeps_the_number_of_images() -> None:
    lumps = np.zeros(60)
    lumps[[0, 20, 40, 59]] = 100
    smooth = charts.smoothed(lumps, 3)
    assert smooth.sum() == pytest.approx(400)
    assert smooth.max() < 60
    assert charts.smoothed(np.full(60, 5.0), 3)[10:50] == pytest.approx(5)
    assert charts.smoothed(lumps, 0) == pytest.approx(lumps)


@pytest.mark.parametrize(("value", "end"), [(0, 1), (0.3, 0.5), (1, 1), (7, 10), (19, 20), (21, 25), (240, 250)])
def test_axes_end_at_round_numbers(value: float, end: float) -> None:
    assert charts.round_up(value) == pytest.approx(end)


def test_words_of_a_page() -> None:
    assert templating._code("a `segment demo`, <b> and `") == "a <code>segment demo</code>, &lt;b&gt; and `"
    began, day = "2026-11-30T17:24:00Z", "2026-11-30 17:24"
    for ended, words in (
        (None, f"{day} UTC"),
        (began, f"{day} UTC"),
        ("2026-11-30T17:25:00Z", f"{day} to 17:25 UTC"),
        ("2026-12-01T17:25:00Z", f"{day} UTC to 2026-12-01 17:25 UTC"),
    ):
        assert wording.when_in_words([{"began": began, **({"ended": ended} if ended else {})}]) == words
