"""Text of the HTML report: formats of numbers (filters of the template) and the facts of a run."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from segment.models.sessions import MIXED, Runtime, fastest
from segment.pipeline.stages import Task
from segment.report.aggregate import RunReport
from segment.report.cards import views_in_words
from segment.report.certain_images import confidence_in_words
from segment.report.percents import percent
from segment.report.published import published_in_words
from segment.store import names
from segment.store.names import shown

FILTERS = ("pct", "num", "short", "rate", "duration", "points", "when")

CONVENTIONS = {
    "omz": "Ignored classes are left out of labels and predictions (Open Model Zoo)",
    "cityscapes": "Ignored labels are left out; predicting an ignored class is a miss (Cityscapes, TF-DeepLab)",
    "mmseg": "As cityscapes, but an ignored class that is predicted counts with IoU 0 (mmsegmentation, Hugging Face)",
    "image-mean": "The mIoU of each image, averaged over images",
}
_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def pct(share: float | None, digits: int = 2) -> str:
    """Format a share of 0-1 in percent, without the sign; None and NaN become a dash."""
    return "–" if share is None or share != share else f"{100 * share:.{digits}f}"


def num(number: float) -> str:
    """Format a number without decimals, with thousands separators."""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """Format a large number with three digits and a decimal prefix: `17.9 M`."""
    for size, unit in _UNITS:
        if number >= 0.9995 * size:  # below 0.9995 it rounds to at most 999 of the smaller unit
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def rate(number: float | None) -> str:
    """Format a rate as the terminal does; None becomes a dash."""
    return "–" if number is None else names.rate(number)


def duration(seconds: float | None) -> str:
    """Format seconds, rounded: `19.8 s`, `3 min 20 s`, `2 h 5 min`; None becomes a dash."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def points(difference: float) -> str:
    """Format a difference of shares in percentage points: `10.86 points below`."""
    if abs(difference) < 0.00005:
        return "the same as"
    return f"{abs(100 * difference):.2f} points {'above' if difference > 0 else 'below'}"


def when(iso: str) -> str:
    """Format an ISO time: `2026-11-21 03:06 UTC`."""
    return f"{datetime.datetime.fromisoformat(iso).astimezone(datetime.UTC):%Y-%m-%d %H:%M UTC}"


def when_in_words(attempts: Sequence[Mapping[str, Any]]) -> str:
    """Return when a run was made, by the records of its attempts, oldest first; `""` without one."""
    if not attempts:
        return ""
    began, last = when(attempts[0]["began"]), attempts[-1]
    ended = when(last["ended"]) if "ended" in last else ""
    is_same_day = ended.startswith(began.partition(" ")[0])
    span = f"{began.removesuffix(' UTC')} to {ended.partition(' ')[2]}" if is_same_day else f"{began} to {ended}"
    words = began if ended in ("", began) else span
    return f"{words}, {len(attempts)} attempts" if len(attempts) > 1 else words


def agreement_in_words(run: Mapping[str, Any]) -> str:
    """Return how the runtime of a run agreed with f32 on its first images; `""` if there is nothing to say.

    In a run of mixed precision that is said, too.
    """
    is_mixed = run["contract"]["runtime"]["precision"] == MIXED
    mixed = "bf16 or f32, by node: each masks file says which" if is_mixed else ""
    return "; ".join(filter(None, [_agreement(run), mixed]))


def _agreement(run: Mapping[str, Any]) -> str:
    proof = run.get("proof")
    if not proof:
        return ""
    own = fastest(_runtime(proof.get("refused") or run["contract"]["runtime"]))
    other = _runtime(proof["reference"])
    images = f"the first {proof['images']} images" if proof["images"] > 1 else "the first image"
    gives = "gave" if "refused" in proof else "gives"
    words = f"{own.beside(other)} {gives} {percent(proof['agreement'])} % of pixels as {other.beside(own)} on {images}"
    return f"{words}, so {other.beside(own)} is used" if "refused" in proof else words


def _runtime(record: Mapping[str, Any]) -> Runtime:
    return Runtime(**{name: record[name] for name in Runtime.__annotations__})


def fact_rows(report: RunReport, task: Task) -> list[tuple[str, str]]:
    """Return the facts of the run as pairs of name and text: input, output, model, runtime, versions."""
    run, runtime, card = report.run, task.runtime, report.card
    job = run["job"]
    labels = job.get("labels") or job.get("label_pattern") or ("in the input" if report.is_scored else "")
    done = f"{report.total.images:,} of {report.planned_in_words}{'' if report.is_whole else ' so far'}"
    done += f" ({report.choice})" if report.choice else ""
    method = "tile by tile" if card.input.tiles else card.input.resize.method
    differ = ": scores of the masks differ a little" if report.size_note else ""
    height, width = card.input.sides
    rows = [
        ("Input", shown(run["contract"]["input"]["url"])),
        ("Labels", shown(labels)),
        ("Output", shown(report.output)),
        ("Images", f"{done}; {report.finished_shards:,} of {report.planned_shards:,} shards finished"),
        ("Left out", "; ".join(str(item).removeprefix("left out: ") for item in report.left_out if not item.matters)),
        ("Model", f"{card.name}{': ' + card.description if card.description else ''}"),
        ("Model licence", card.licence),
        ("Weights", f"{shown(run['weights']['origin'])} ({run['weights']['format']})"),
        ("Weights SHA-384", run["weights"]["sha384"]),
        ("Input size", f"{width} × {height}, {card.input.channels_in_words}, {method}"),
        ("Views", views_in_words(card) if card.input.tta else ""),
        ("Runtime", f"{runtime.name} {runtime.version}, {runtime.device}, {runtime.precision}"),
        ("Agreement", agreement_in_words(run)),
        ("Scored at", f"{card.metric.resolution} size, masks stored at {task.settings.mask_size} size{differ}"),
        ("Intervals", "; ".join(report.scored.notes(card.classes.names)) if report.scored else ""),
        ("Confidence", confidence_in_words(report.certainty)),
        ("Score", card.metric.note),
        ("Published score", published_in_words(card)),
        ("Fingerprint", run["fingerprint"]),
        ("Signed", f"by the key {report.signed_by}, not verified here" if report.signed_by else "not signed"),
        ("Made by", f"segment {run['versions']['segment']}, Python {run['versions']['python']}"),
    ]
    return [(name, value) for name, value in rows if value]
