"""What one must know of a comparison, in words: what it covers, and what was left out, enlarged or regrouped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from segment.metrics.bootstrap import FEWEST
from segment.store.names import basename, count, listed, shown

if TYPE_CHECKING:
    from segment.report.comparison.comparing import Against, ComparedRun, RunComparison
    from segment.scores.paired import PairedScores


def run_in_words(run: ComparedRun) -> str:
    """Return what a run is, in one line: its model, with the weights if it was given others, its output, and how much
    of it there is.
    """
    report = run.report
    card, runtime = report.card, report.run["contract"]["runtime"]
    so_far = "" if report.is_whole else f", {report.total.images:,} of {report.planned_in_words} images so far"
    given = report.run["job"].get("weights")
    weights = f" with {shown(basename(given))}" if given else ""
    return f"{card.name}{weights} ({runtime['name']}, {runtime['precision']}), {shown(report.output)}{so_far}"


def notes(against: Against) -> list[str]:
    """Return the notes on a comparison with A, one line each."""
    return [*_of_images(against), *_of_classes(against), *_of_scores(against)]


def all_notes(found: RunComparison) -> list[str]:
    """Return the notes on all comparisons; where there are several, each with the letter of its run."""
    if len(found.against) == 1:
        return notes(found.against[0])
    lines = [(one.b.letter, line) for one in found.against for line in notes(one)]
    everywhere = {line for _, line in lines if sum(line == other for _, other in lines) == len(found.against)}
    alike = list(dict.fromkeys(line for _, line in lines if line in everywhere))
    return [*alike, *(f"{letter}: {line}" for letter, line in lines if line not in everywhere)]


def _of_images(found: Against) -> Iterator[str]:
    a, b, matches, pairs = found.a.letter, found.b.letter, found.matches, found.pairs
    missing = [(a, matches.only_a), (b, matches.only_b)]
    if any(number for _, number in missing):
        words = " and ".join(f"{count(number, 'image')} of {run}" for run, number in missing if number)
        yield f"not compared, as the other run has no image of this id: {words}"
    failed = [(a, matches.failed_a), (b, matches.failed_b)]
    if any(number for _, number in failed):
        words = " and ".join(f"{count(number, 'image')} of {run}" for run, number in failed if number)
        yield f"not compared, because of an error: {words}"
    if matches.by_shard:
        yield "ids come several times, so that images are matched by shard and id"
    left_out = pairs.read
    if left_out.other_size:
        yield f"not compared, as its source has another size in the other run: {count(left_out.other_size, 'image')}"
    if left_out.example:
        images, where = count(left_out.elsewhere, "image"), " and ".join(map(shown, left_out.example))
        yield f"taken as the same by their id, though from elsewhere in the other run: {images}, such as {where}"
    if left_out.rewritten:
        yield f"taken as the same by their id, though their file was written anew: {count(left_out.rewritten, 'image')}"
    for run, resized in zip((a, b), left_out.resized.tolist(), strict=True):
        if resized:
            yield f"{count(resized, 'mask')} of {run} at model size: resized to the image's (nearest neighbour)"
    yield from found.sliced.notes
    yield from _of_metadata(found)
    if not pairs.with_masks:
        yield "masks were not compared"


def _of_metadata(found: Against) -> Iterator[str]:
    """Tell of slices and groups that would be others by the metadata of the other run."""
    a, b = found.a.letter, found.b.letter
    for name, (differ, not_in_a, not_in_b) in found.pairs.read.meta.items():
        numbers = ((differ, f"with another value in {b}"), (not_in_a, f"without one in {a}"))
        words = [
            f"{count(int(number), 'image')} {what}"
            for number, what in (*numbers, (not_in_b, f"without one in {b}"))
            if number
        ]
        if words:
            yield f"{shown(name)!r} is taken from {a}: {', '.join(words)}"


def _of_classes(found: Against) -> Iterator[str]:
    common, names = found.common, found.common.classes.names
    for run, only in ((found.a.letter, common.only_a), (found.b.letter, common.only_b)):
        if only:
            words = listed([names[index] for index in only], 6)
            yield (
                f"only {run} has {count(len(only), 'class', 'classes')}, {words}: their pixels count as disagreement, "
                "and they are in no mean of scores (--map pairs classes)"
            )
    if found.asked.classes is not None:
        yield found.grouping.means_in_words
    ignored = found.grouping.ignored
    if ignored and found.overall.scores:
        yield f"ignored in scores: {listed([found.grouping.names[index] for index in ignored], 6)}"


def _of_scores(found: Against) -> Iterator[str]:
    scores, a, b = found.overall.scores, found.a, found.b
    if scores is None:
        yield "no image is labelled in both runs: compared by agreement alone"
        return
    if scores.images < len(found.pairs):
        images = count(len(found.pairs), "image")
        yield f"{scores.images:,} of {images} labelled in both runs: the scores are of these"
    convention, other = found.protocols[0].convention, b.report.card.metric.convention
    if other != a.report.card.metric.convention:
        yield f"both scored by the {convention} convention; the cards say {a.report.card.metric.convention} and {other}"
    ignored = [
        {run.report.card.classes.names[index].lower() for index in run.report.card.classes.ignored_classes}
        for run in (a, b)
    ]
    if ignored[0] != ignored[1]:
        yield f"the cards of {a.letter} and {b.letter} do not ignore the same classes: both are scored alike"
    yield from _of_means(found, scores)
    sizes = a.report.run["scored_at"], b.report.run["scored_at"]
    pixels = [int(one.confusion.counts.sum()) for one in (scores.a, scores.b)]
    if sizes[0] != sizes[1]:
        yield f"{a.letter} is scored at {sizes[0]} size and {b.letter} at {sizes[1]} size, of other pixels"
    elif pixels[0] != pixels[1]:
        yield f"{a.letter} is scored on {pixels[0]:,} pixels and {b.letter} on {pixels[1]:,}, at the size of each model"
    elif sizes[0] == "source" and (differ := _labels_that_differ(scores)):
        yield (
            f"the labels are not the same in both runs, of {differ:,} of {pixels[0]:,} pixels at least: a part "
            "of the change may come from them"
        )
    if found.boundary.note:
        yield found.boundary.note
    if found.asked.resamples:
        yield from _of_intervals(found)


def _of_means(found: Against, scores: PairedScores) -> Iterator[str]:
    """Tell of classes without a label: predicted by one run alone they are in its mean IoU, as 0, and in no other."""
    names, chosen = found.grouping.names, found.protocols[0].grouping.chosen
    in_a, in_b = (~np.isnan(one.score.iou) for one in (scores.a, scores.b))
    a, b = found.a.letter, found.b.letter
    for run, other, alone in ((a, b, in_a & ~in_b), (b, a, in_b & ~in_a)):
        extra = [names[index] for index in np.flatnonzero(alone).tolist() if chosen is None or index in chosen]
        if extra:
            yield (
                f"predicted by {run} alone, and in no label: {listed(extra, 6)}. IoU 0 in the mIoU of {run}, not in "
                f"that of {other}: a part of the change (--classes takes means over chosen classes)"
            )


def _labels_that_differ(scores: PairedScores) -> int:
    """Return the number of pixels whose label cannot be the same in both runs, by the sums of each class and void."""
    one, other = (scored.confusion.counts.sum(axis=1) for scored in (scores.a, scores.b))
    return int(np.abs(one - other).sum()) // 2


def _of_intervals(found: Against) -> Iterator[str]:
    assert found.overall.scores is not None
    scores = found.overall.scores
    # A change has an interval only where both runs have one; of a class that only A has there is no change.
    pairs = zip(scores.class_changes["iou"], scores.a.class_intervals, strict=False)
    scored = replace(scores.a, class_intervals=[own if np.isnan(one.value) else one.interval for one, own in pairs])
    first, *others = scored.notes(found.grouping.names, found.units)
    if scored.units < FEWEST:
        yield first
    else:
        yield first.replace("by bootstrap", "by paired bootstrap")
        yield from others
