"""Prometheus metrics of a run, exported by Ray on each node; `jobs/monitoring/` has dashboards of them.

Ray puts `ray_` before each name. Workers count parts and images, the driver sets the gauges of the run. Ray reports
every ten seconds (RAY_metrics_report_interval_ms), so the last counts of a worker that ends may be lost: metrics are
for watching, exact numbers are in the ledger.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from segment.output.results import STAGES, PartResult
from segment.pipeline.stages import Task
from segment.progress import Tally
from segment.store import inflight
from segment.store.names import shown

_LABELS = ("run", "model")
# name: (what it is, further labels)
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "segment_images_total": ("Images committed.", ()),
    "segment_parts_total": (
        "Parts by outcome: committed, skipped (they were before), failed.",
        ("outcome",),
    ),
    "segment_errors_total": ("Error rows, by code.", ("code",)),
    "segment_read_bytes_total": ("Encoded images read.", ()),
    "segment_written_bytes_total": ("Masks files written.", ()),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "segment_run_active": ("1 while the run goes on, 0 when it has ended.", ()),
    "segment_planned_images": ("Images of the plan; an estimate while tars are indexed.", ()),
    "segment_done_images": ("Images committed, by earlier attempts too.", ()),
    "segment_failed_parts": ("Parts of this round that could not be committed and are run again.", ()),
    "segment_workers": ("Workers at work.", ()),
    "segment_pool_utilisation_ratio": ("Share of the workers' time spent in the model, last 30 s.", ()),
    "segment_stage_busy_ratio": ("Share of the workers' time spent in a stage, last 30 s.", ("stage",)),
    "segment_store_wait_seconds": ("Time that the slowest request to a store has taken so far; 0 below 10 s.", ()),
    "segment_eta_seconds": ("Time to go at the pace of the last minutes.", ()),
    "segment_miou_ratio": ("mIoU of this attempt so far, the card's convention.", ()),
    "segment_class_iou_ratio": ("IoU of a class in this attempt so far.", ("class",)),
}
STAGE_SECONDS = "segment_stage_seconds"
_BOUNDARIES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


@functools.cache
def _metric(name: str) -> Any:
    """Return a metric, made on first use: Ray allows one of each name in a process."""
    from ray.util import metrics

    if name == STAGE_SECONDS:
        what = "Time a part spends in a stage: read, decode, infer, encode, write."
        return metrics.Histogram(name, what, boundaries=_BOUNDARIES, tag_keys=(*_LABELS, "stage"))
    kind, (what, labels) = (metrics.Counter, COUNTERS[name]) if name in COUNTERS else (metrics.Gauge, GAUGES[name])
    return kind(name, what, tag_keys=(*_LABELS, *labels))


class RunMetrics:
    """Metrics of one run, with its labels."""

    def __init__(self, task: Task) -> None:
        self._tags = {"run": shown(task.output), "model": task.card.name}

    def counting(self, results: Iterable[PartResult | None]) -> Iterator[PartResult | None]:
        """Count results and yield them; None is passed on."""
        for result in results:
            if result is not None:
                self.count(result)
            yield result

    def count(self, result: PartResult) -> None:
        """Count the result of a part."""
        outcome = "failed" if result.failure is not None else "skipped" if result.skipped else "committed"
        self._add("segment_parts_total", 1, outcome=outcome)
        if outcome != "committed":
            return
        self._add("segment_images_total", result.images)
        self._add("segment_read_bytes_total", result.read_bytes)
        self._add("segment_written_bytes_total", result.written_bytes)
        for code, errors in result.errors.items():
            self._add("segment_errors_total", errors, code=code)
        for stage, seconds in result.seconds.items():
            _metric(STAGE_SECONDS).observe(seconds, self._tags | {"stage": stage})

    def publish(self, tally: Tally, *, ended: bool) -> None:
        """Set the gauges of the run."""
        busy = {} if ended else tally.busy()
        waiting = inflight.slow_request()
        self._set("segment_run_active", not ended)
        self._set("segment_planned_images", tally.images)
        self._set("segment_done_images", tally.done)
        self._set("segment_failed_parts", tally.failures)
        self._set("segment_workers", 0 if ended else inflight.workers() or 0)
        self._set("segment_pool_utilisation_ratio", busy.get("infer", 0.0))
        for stage in STAGES:
            self._set("segment_stage_busy_ratio", busy.get(stage, 0.0), stage=stage)
        self._set("segment_store_wait_seconds", waiting.seconds() if waiting and not ended else 0.0)
        eta = 0.0 if ended else tally.eta
        if eta is not None:
            self._set("segment_eta_seconds", eta)
        if tally.miou is not None:
            self._set("segment_miou_ratio", tally.miou)
        for name, iou in tally.iou().items():
            self._set("segment_class_iou_ratio", iou, **{"class": name})

    def _add(self, name: str, value: float, **labels: str) -> None:
        if value > 0:
            _metric(name).inc(value, self._tags | labels)

    def _set(self, name: str, value: float, **labels: str) -> None:
        _metric(name).set(float(value), self._tags | labels)
