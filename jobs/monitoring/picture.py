"""Draw the Grafana dashboard from what a Prometheus knows, without Grafana: for README.md, and to see that it answers.

    python jobs/monitoring/picture.py http://127.0.0.1:9090 dashboard.png --minutes 5

Every panel is its own PromQL, evaluated by Prometheus. Needs matplotlib (`pip install 'segment-job[notebooks]'`).
"""

import argparse
import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "grafana" / "dashboards" / "segment.json"
STEP = 5  # seconds
UNITS = {"percentunit": (100.0, " %"), "s": (1.0, " s"), "Bps": (1e-6, " MB/s"), "short": (1.0, "")}


def expressions(panel: dict[str, Any], window: str = "30s") -> list[tuple[str, str]]:
    """PromQL and legend of each target, Grafana's variables replaced."""
    return [
        (target["expr"].replace("$__rate_interval", window).replace("$run", ".*"), target["legendFormat"])
        for target in panel["targets"]
    ]


def ask(prometheus: str, expression: str, minutes: float, end: float | None = None) -> list[dict[str, Any]]:
    """Series of a range query."""
    end = end or time.time()
    question = {"query": expression, "start": end - 60 * minutes, "end": end, "step": STEP}
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(question)}") as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def draw(prometheus: str, to: Path, minutes: float) -> None:
    """One picture, panels placed as in Grafana."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    pyplot.rcParams.update({"font.size": 7, "axes.spines.top": False, "axes.spines.right": False})
    figure = pyplot.figure(figsize=(11, 0.36 * rows))
    grid = figure.add_gridspec(rows, 24, left=0.09, right=0.97, top=0.96, bottom=0.04, wspace=2.5, hspace=1.6)
    for panel in panels:
        place = panel["gridPos"]
        left = place["x"] + (place["x"] > 0)  # room for the axis
        low = place["y"] + place["h"] - (place["h"] > 4)  # and for the next title
        rectangle = grid[place["y"] : low, left : place["x"] + place["w"]]
        axes = figure.add_subplot(rectangle)
        axes.set_title(panel["title"], loc="left", fontsize=8, fontweight="bold")
        scale, unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        series = [
            (_legend(legend, found["metric"]), found["values"])
            for expression, legend in expressions(panel)
            for found in ask(prometheus, expression, minutes)
        ]
        {"stat": _stat, "bargauge": _bars, "timeseries": _lines}[panel["type"]](axes, series, scale, unit)
        if panel["type"] == "timeseries":
            axes.set_xlim(-60 * minutes, 0)
    figure.savefig(to, dpi=90)


def _legend(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], "").rpartition("/")[2], text)


def _stat(axes: Any, series: list[Any], scale: float, unit: str) -> None:
    axes.axis("off")
    value = scale * float(series[0][1][-1][1]) if series else None
    text = "no data" if value is None else f"{value:,.3g}{unit}"
    axes.text(0.0, 0.45, text, fontsize=17, transform=axes.transAxes, va="center")


def _bars(axes: Any, series: list[Any], scale: float, unit: str) -> None:
    names = [name for name, _ in series]
    values = [scale * float(points[-1][1]) for _, points in series]
    bars = axes.barh(names, values, color="#3a7ca5")
    axes.bar_label(bars, [f"{value:.1f}{unit}" for value in values], padding=2)
    axes.set_xlim(0, 1.15 * scale)
    axes.invert_yaxis()


def _lines(axes: Any, series: list[Any], scale: float, unit: str) -> None:
    end = max((points[-1][0] for _, points in series), default=0.0)
    for name, points in series:
        axes.plot([at - end for at, _ in points], [scale * float(value) for _, value in points], label=name)
    axes.set_ylim(0, 1.25 * max(axes.get_ylim()[1], 1e-9))  # room for the legend
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{unit}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    axes.grid(alpha=0.25)
    if any(name for name, _ in series):
        axes.legend(frameon=False, ncols=5, loc="upper left")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prometheus", help="URL")
    parser.add_argument("to", type=Path, help="PNG or SVG")
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    draw(arguments.prometheus, arguments.to, arguments.minutes)
