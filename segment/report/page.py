"""The HTML report: one file that shows a run to a colleague, without network, in any browser, and printed."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from segment.metrics import image_scores
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.report import charts, wording
from segment.report.aggregate import RunReport
from segment.report.attempts import Attempt, read_attempts, total_stages
from segment.report.gallery import Group, gallery
from segment.report.pictures import GONE
from segment.report.rows import ImageScores, read_scores
from segment.store.names import shown

QUICK = 256  # parts that the end of a run looks at for its report: all of them, up to 16,384 images
_SHARDS_IN_FULL = 24  # more are a histogram and the lowest of them
_TIMELINE_BINS = 60


@dataclass(frozen=True)
class ClassLine:
    """A row of the class table; shares are 0-1 and None where there is nothing to divide by."""

    index: int
    ignored: bool
    iou: float | None
    precision: float | None
    recall: float | None
    label_share: float | None
    predicted_share: float | None
    predicted_pixels: int


@dataclass(frozen=True)
class ShardLine:
    """A row of the shard table; `planned` images of it, of which `images` are committed."""

    name: str
    images: int
    planned: int
    errors: int
    miou: float | None
    accuracy: float | None


def write_page(ledger: Ledger, report: RunReport, task: Task, plan: Plan, most_parts: int | None = None) -> str:
    """Write `report/index.html` and return its URL.

    Args:
        ledger, report, task, plan: of the run; the report's parts are what the page is about.
        most_parts: look at the images of no more parts than this, evenly spread; the page says so.

    Raises:
        SegmentError: a masks file is damaged or lost; the store refused.
    """
    scores = read_scores(ledger, plan, report.parts, most_parts)
    html = render(report, task, scores, gallery(ledger, scores, task), read_attempts(ledger))
    url = ledger.url("report", "index.html")
    ledger.store.write(url, html.encode())
    return url


def render(
    report: RunReport, task: Task, scores: ImageScores, groups: Sequence[Group], attempts: Sequence[Attempt]
) -> str:
    """Return the page; everything that came from the input is escaped."""
    style, script = (Markup(_file(name)) for name in ("report.css", "report.js"))
    page = _template().render(
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        gone=GONE,
        conventions=wording.CONVENTIONS,
        task_runtime=task.runtime,
        report=report,
        card=report.card,
        names=[shown(name) for name in report.card.classes.names],
        input=shown(report.run["contract"]["input"]["url"]),
        output=shown(report.output),
        lines=class_lines(report),
        heat=charts.heat_map(report.total.confusion),
        mistakes=charts.mistakes(report.total.confusion, report.card),
        scores=scores,
        image_bars=charts.histogram(scores.scored),
        image_quantiles=charts.quantiles(scores.scored) if len(scores.scored) else {},
        shards=_shards(report),
        groups=groups,
        exhibited=sorted({index for group in groups for item in group.exhibits for index in item.classes}),
        facts=wording.facts(report, task),
        **_speed(attempts),
    )
    return str(page)


def _file(name: str) -> str:
    return (files("segment") / "report" / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {name: getattr(wording, name) for name in wording.FILTERS}
    return environment.from_string(_file("report.html.j2"))


def class_lines(report: RunReport) -> list[ClassLine]:
    """The class table, by the card's own convention."""
    score, confusion = report.score(), report.total.confusion
    labels, predicted = confusion.label_pixels, confusion.predicted_pixels
    ignored = report.card.classes.ignored_classes

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return [
        ClassLine(
            index,
            index in ignored,
            None if np.isnan(score.iou[index]) else float(score.iou[index]),
            share(int(score.tp[index]), int(score.tp[index] + score.fp[index])),
            share(int(score.tp[index]), int(score.tp[index] + score.fn[index])),
            share(int(labels[index]), int(labels.sum())),
            share(int(predicted[index]), int(predicted.sum())),
            int(predicted[index]),
        )
        for index in range(len(report.card.classes))
    ]


def _shards(report: RunReport) -> dict[str, Any]:
    """The shard table: all shards if they are few, else the lowest, and a histogram of all."""
    metric, ignore = report.card.metric, report.card.classes.ignored_classes
    lines = []
    for name, stats in report.shards.items():
        accuracy, miou = image_scores(stats.confusion, ignore, metric.convention)
        miou = stats.image_miou if metric.convention == "image-mean" else miou
        lines.append(ShardLine(shown(name), stats.images, report.planned[name], stats.errors, miou, accuracy))
    scored = np.array([line.miou for line in lines if line.miou is not None])
    if len(lines) <= _SHARDS_IN_FULL:
        return {"lines": lines, "number": len(lines), "bars": []}
    lowest = sorted(lines, key=lambda line: (line.miou is None, line.miou or 0.0, -line.errors))
    return {"lines": lowest[:_SHARDS_IN_FULL], "number": len(lines), "bars": charts.histogram(scored)}


def _speed(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Throughput of the attempt that did most, and the stages of all."""
    largest = max(attempts, key=lambda attempt: attempt.images, default=None)
    rates = largest.rates(min(_TIMELINE_BINS, max(1, len(largest.at) // 2))) if largest else np.empty(0)
    top = charts.round_up(float(rates.max())) if rates.size else 1.0
    hosts: dict[str, int] = {}
    for attempt in attempts:
        for host, images in attempt.hosts.items():
            hosts[shown(host)] = hosts.get(shown(host), 0) + images
    return {
        "attempts": attempts,
        "largest": largest,
        "timeline": charts.step_path(rates.tolist(), top) if len(rates) >= 4 else "",
        "timeline_top": top,
        "stages": charts.stacked(total_stages(attempts)),
        "hosts": hosts,
    }
