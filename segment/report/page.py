"""The HTML report of a run: one self-contained file, readable offline, in any browser, and on paper."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segment.job import Job
from segment.metrics.bootstrap import Interval
from segment.output.attempts import Attempt, read_attempts
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of
from segment.output.plan import Plan
from segment.output.results import STAGES
from segment.output.speed import Speed, read_speed
from segment.pipeline.stages import Task
from segment.report import charts, wording
from segment.report.aggregate import RunReport, shards_table
from segment.report.boundary_tables import boundary_in_words
from segment.report.console import accuracies
from segment.report.exhibits import Group, classes_in
from segment.report.gallery import difference_legend, gallery
from segment.report.image_list import ImageList, list_images
from segment.report.label_error_gallery import LabelErrorGallery, label_error_gallery
from segment.report.notable import read_notable
from segment.report.pictures import GONE
from segment.report.rows import ImageScores, read_scores
from segment.report.score_formats import class_records
from segment.report.templating import render_template
from segment.report.wording import when_in_words
from segment.scores.scored import Scored
from segment.store.names import basename, shown

_ARGUMENTS = ("input", "output")

QUICK = 256  # parts read for the page at the end of a run: all of them, up to 16,384 images
_SHARDS_IN_FULL = 24  # of more shards the page shows a histogram and the lowest ones
_TIMELINE_BINS = 60
_SMOOTHED = 12  # a bin is spread over this share of the bins on either side
_LATEST_ATTEMPTS = 50

AttemptSpeeds = Sequence[tuple[Attempt, Speed | None]]


def write_page(ledger: Ledger, report: RunReport, task: Task, plan: Plan, most_parts: int | None = None) -> str:
    """Write `report/index.html` and return its URL.

    Args:
        ledger, report, task, plan: of the run. The page covers the parts of the report.
        most_parts: read the images of at most this many parts, evenly spread; the page says so.

    Raises:
        SegmentError: a masks file is damaged or lost, or the store refuses a request.
    """
    scores = read_scores(ledger, plan, report.parts, most_parts)
    numbers = numbers_of(plan, report.parts, most_parts)
    groups = gallery(ledger, scores, task, read_notable(ledger, plan, report.card, report.total.confusion, numbers))
    errors = label_error_gallery(ledger, plan, task, report.parts, most_parts) if report.is_scored else None
    earlier, latest = _attempts(ledger)
    html = render(report, task, scores, groups, latest, errors, list_images(ledger, scores), earlier)
    url = ledger.url("report", "index.html")
    ledger.store.write(url, html.encode())
    return url


def render(
    report: RunReport,
    task: Task,
    scores: ImageScores,
    groups: Sequence[Group],
    attempts: AttemptSpeeds,
    errors: LabelErrorGallery | None = None,
    images: ImageList | None = None,
    earlier: Sequence[Attempt] = (),
) -> str:
    """Return the page as HTML; all text that comes from the input is escaped. `earlier` attempts are only counted."""
    shown_images = [one for group in groups for one in group.exhibits]
    outlined = [one.exhibit for one in errors.regions] if errors else []
    return render_template(
        "report.html.j2",
        scripts=("report.js", "viewer.js", "images.js"),
        run_name=shown(basename(report.output)) or shown(report.output),
        when=when_in_words([attempt.facts for attempt in (*earlier, *(attempt for attempt, _ in attempts))]),
        earlier=len(earlier),
        command=command_of(report.run["job"]),
        gone=GONE,
        conventions=wording.CONVENTIONS,
        interval=report.scored.intervals.get("miou") if report.scored else None,
        accuracies=accuracies(report),
        task_runtime=task.runtime,
        report=report,
        card=report.card,
        names=[shown(name) for name in report.card.classes.names],
        input=shown(report.run["contract"]["input"]["url"]),
        output=shown(report.output),
        lines=_class_lines(report),
        boundary=boundary_in_words(report.boundary) if report.boundary else "",
        heat=charts.heat_map(report.total.confusion),
        mistakes=charts.mistakes(report.total.confusion, report.card),
        scores=scores,
        image_bars=charts.histogram(scores.scored),
        image_quantiles=charts.quantiles(scores.scored) if len(scores.scored) else {},
        shards=_shards(report),
        groups=groups,
        label_errors=errors,
        images=images,
        exhibited=classes_in(shown_images),
        differences=difference_legend(shown_images),
        outlined=classes_in(outlined),
        outlined_differences=difference_legend(outlined),
        facts=wording.fact_rows(report, task),
        **_speed(attempts),
    )


def _class_lines(report: RunReport) -> list[dict[str, Any]]:
    """Return the rows of the class table, under the card's own convention."""
    classes = report.card.classes
    scored = report.scored or Scored(0, 0, report.total.confusion, report.score(), {}, boundary=report.boundary)
    return [
        record
        | {"index": index, "interval": _bounds(record, "iou"), "boundary_interval": _bounds(record, "boundary_iou")}
        for index, record in enumerate(class_records(classes.names, classes.ignored_classes, scored))
    ]


def _bounds(record: Mapping[str, Any], kind: str) -> Interval | None:
    low, high = record.get(f"{kind}_low"), record.get(f"{kind}_high")
    return None if low is None or high is None else Interval(low, high)


def _shards(report: RunReport) -> dict[str, Any]:
    """Return the shard table: every shard of a few; of many the lowest ones and a histogram."""
    lines = [line | {"planned": report.planned[line["shard"]]} for line in shards_table(report).to_pylist()]
    scored = np.array([line["miou"] for line in lines if line["miou"] is not None])
    if len(lines) <= _SHARDS_IN_FULL:
        return {"lines": lines, "number": len(lines), "bars": []}
    lowest = sorted(lines, key=lambda line: (line["miou"] is None, line["miou"] or 0.0, -line["errors"]))
    return {"lines": lowest[:_SHARDS_IN_FULL], "number": len(lines), "bars": charts.histogram(scored)}


def _attempts(ledger: Ledger) -> tuple[list[Attempt], AttemptSpeeds]:
    """Read all attempts, the latest ones with their speeds; a damaged record is left out."""
    attempts = [attempt for attempt in read_attempts(ledger) if attempt.facts]
    earlier, latest = attempts[:-_LATEST_ATTEMPTS], attempts[-_LATEST_ATTEMPTS:]
    return earlier, [(attempt, read_speed(ledger, attempt)) for attempt in latest]


def _speed(attempts: AttemptSpeeds) -> dict[str, Any]:
    """Return the throughput of the attempt with the most images, and the sums over these attempts."""
    speeds = [speed for _, speed in attempts if speed]
    largest = max(speeds, key=lambda speed: speed.images, default=None)
    rates = largest.rates(min(_TIMELINE_BINS, max(1, len(largest.at) // 2))) if largest else np.empty(0)
    width = 1 + len(rates) // _SMOOTHED
    rates = charts.smoothed(rates, width)
    top = charts.round_up(float(rates.max())) if rates.size else 1.0
    hosts: Counter[str] = Counter()
    for speed in speeds:
        hosts.update({shown(host): images for host, images in speed.hosts.items()})
    return {
        "attempts": attempts,
        "largest": largest,
        "timeline": charts.line_path(rates.tolist(), top) if len(rates) >= 4 else "",
        "timeline_width": largest.total_seconds * (width + 1) / len(rates) if largest else 0.0,
        "timeline_top": top,
        "stages": charts.stacked({stage: sum(speed.stages[stage] for speed in speeds) for stage in STAGES}),
        "hosts": hosts,
    }


def command_of(job: Mapping[str, Any]) -> str:
    """Return the command line of a job, as `run.json` records it: `segment run in/ out/ --model unet`.

    Options with their defaults are left out. Storage options are no part of it: they are never recorded.
    """
    words = ["segment", "run", *(shown(str(job[name])) for name in _ARGUMENTS)]
    for name, field in Job.model_fields.items():
        default = field.get_default()
        given = job.get(name, default)
        if name not in _ARGUMENTS and given != (list(default) if isinstance(default, tuple) else default):
            words += _option("--" + name.replace("_", "-"), given)
    return shlex.join(words)


def _option(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield name if value else f"--no-{name.removeprefix('--')}"
        return
    values = [f"{key}={item}" for key, item in value.items()] if isinstance(value, Mapping) else value
    for item in values if isinstance(values, list) else [values]:
        yield from (name, shown(str(item)))
