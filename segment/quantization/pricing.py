"""The price of quantisation: the source in f32 and the quantised model segment the same images, and are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segment.errors import TooManyErrors
from segment.job import Job
from segment.models.quantisation import Price
from segment.models.sessions import Runtime, capabilities, resolve_runtime
from segment.models.weights import Format
from segment.output.error_rate import too_many_errors
from segment.output.ledger import Ledger
from segment.pipeline.stages import Task
from segment.progress import Progress
from segment.report.aggregate import RunReport
from segment.report.comparison.comparing import ComparisonRequest, RunComparison, compare_ledgers
from segment.runs.driver import run, task_and_plan
from segment.store.client import Store
from segment.store.names import shown
from segment.store.urls import to_url

# However a job is spread, and whatever it writes beside masks: these runs are of one machine, and of masks alone.
_PLAIN = {
    "engine": "local", "address": None, "device": "cpu", "batch_size": 1, "mask_size": "source", "keep": (),
    "confidence": None, "confidence_maps": False, "probabilities": (), "boundary": None, "max_error_rate": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Priced:
    """What comes of it.

    Attributes:
        comparison: A is the source, in f32 on the first runtime; the others are the quantised model, on each runtime.
        tasks: of these runs, as their pages need them.
    """

    comparison: RunComparison
    tasks: list[Task]

    @property
    def prices(self) -> list[Price]:
        """The price on each runtime, as a card holds it."""
        return [
            Price(
                runtime="{name} {version}, {precision}".format(**one.b.report.run["contract"]["runtime"]),
                images=len(one.pairs),
                agreement=one.agreement or 0.0,
                miou_before=one.overall.scores.a.miou if one.overall.scores else None,
                miou_after=one.overall.scores.b.miou if one.overall.scores else None,
            )
            for one in self.comparison.against
        ]


def served_by(job: Job, weights_format: Format) -> list[Runtime]:
    """Return the runtimes that may serve weights of a format: the job's, or both where it names none.

    Raises UsageError, ModelError: the job names one that cannot.
    """
    both = job.runtime == "auto" and weights_format == "onnx"
    names = ("openvino", "onnxruntime") if both else (job.runtime,)
    precisions = {name: "auto" if both and name == "onnxruntime" else job.precision for name in names}
    return [_on_cpu(weights_format, name, precision) for name, precision in precisions.items()]


def _on_cpu(weights_format: Format, name: str, precision: str) -> Runtime:
    return resolve_runtime(weights_format, name, "cpu", precision, nodes=[capabilities()])


def in_f32(runtime: Runtime, weights_format: Format) -> Runtime:
    """Return the same runtime in f32."""
    return _on_cpu(weights_format, runtime.name, "f32")


def price(
    job: Job,
    card: Path,
    runtimes: Sequence[Runtime],
    folder: Path,
    store: Store,
    *,
    seed: int,
    progress: Progress | None,
) -> Priced:
    """Segment the job's images by the source and by a quantised card, and compare; see `Priced`.

    Args:
        job: input and labels; card and weights of the source.
        runtimes: those that serve the quantised model.
        seed: of the intervals.

    Raises:
        TooManyErrors: too many of the images cannot be segmented.
    """
    source = job.model_copy(update={"runtime": runtimes[0].name, "precision": "f32"})
    jobs = [source, *(_quantised(job, card, runtime) for runtime in runtimes)]
    ledgers = []
    for number, one in enumerate(jobs):
        output = str(folder / str(number))
        report = run(one.model_copy(update={**_PLAIN, "output": output}), progress)
        _check_errors(report, job.max_error_rate)
        ledgers.append(Ledger(store, to_url(output)))
    found = compare_ledgers(ledgers, ComparisonRequest(seed=seed))
    comparison = replace(found, against=tuple(one.without_store() for one in found.against))
    return Priced(comparison, [task_and_plan(ledger)[0] for ledger in ledgers])


def _check_errors(report: RunReport, limit: float) -> None:
    """Refuse a run with too many errors, without the advice of a run that can be resumed."""
    if failure := too_many_errors(report.total.errors, report.total.images, report.left_out, limit):
        name = report.run["contract"]["runtime"]["name"]
        first = f"; the first is {shown(report.errors[0].id)}, {report.errors[0].error}" if report.errors else ""
        raise TooManyErrors(f"{report.card.name} on {name}: {failure}{first}. Nothing was written")


def _quantised(job: Job, card: Path, runtime: Runtime) -> Job:
    made = {"model": str(card), "weights": None, "runtime": runtime.name, "precision": runtime.precision}
    return job.model_copy(update=made)
