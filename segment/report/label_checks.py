"""Checks of the labels of a run: warnings if the confusion counts suggest that the labels mean something else.

The checks use the confusion counts of the run. These do not hold which raw label values are void; the card and the
remap do.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.images.label_sources import parse_source
from segment.inputs.parquet.footers import has_label_column
from segment.job import InputOptions
from segment.metrics import Confusion
from segment.models.card import ModelCard
from segment.output.plan import Plan
from segment.store.client import Store
from segment.store.names import shown

_NAMED = 4  # classes that a warning names


def label_warnings(
    confusion: Confusion, card: ModelCard, *, remap: Mapping[str, str | int], labelled: bool, so_far: bool = False
) -> list[str]:
    """Return a line for each warning about the labels of a run.

    Args:
        confusion: counts of all committed parts.
        remap: `label_remap` of the job.
        labelled: whether the input has labels, scored or not.
        so_far: whether the run is not finished.
    """
    if not labelled:
        return []
    labels = _Labels(confusion, card, remap)
    lines = [
        line for line in (labels.nothing_counts(), labels.one_class(), labels.shifted() or labels.disjoint()) if line
    ]
    return [f"so far {line}" for line in lines] if so_far else lines


def holds_labels(run: Mapping[str, Any], plan: Plan, store: Store) -> bool:
    """Return whether the input of a run has labels: by the plan, or by the columns of the first Parquet file."""
    options = InputOptions.of_run(run)
    if not len(plan) or plan.table["format"][0].as_py() == "parquet":
        return any(has_label_column(part, options, store) for part in plan.between(0, 1))
    return plan.names_labels


class _Labels:
    """The labels of a run: pixels by class, among the classes that count, and pixels that are void or ignored."""

    def __init__(self, confusion: Confusion, card: ModelCard, remap: Mapping[str, str | int]) -> None:
        self._names, ignored = card.classes.names, list(card.classes.ignored_classes)
        self._counting = [index for index in range(len(card.classes)) if index not in ignored]
        counts = confusion.counts[:-1].copy()
        self._ignored = int(counts[ignored].sum())
        counts[ignored] = 0
        self._counts: NDArray[np.int64] = counts
        self._present = np.flatnonzero(counts.sum(axis=1)).tolist()
        self._void = int(confusion.counts[-1].sum())
        self._values, self._others = _void_sources(card, remap)

    def nothing_counts(self) -> str | None:
        """Warn if no label pixel is of a class that counts."""
        if self._present or not self._void + self._ignored:
            return None
        return (
            f"the input has labels, but none of their pixels counts: every label is void{self._void_sources()}, of "
            f"ignored classes, missing, or an error row{self._advice()}"
        )

    def one_class(self) -> str | None:
        """Warn if the labels hold one class only."""
        if len(self._present) != 1 or len(self._counting) < 2:
            return None
        left_out = []
        if self._void and (self._values or self._others):
            left_out.append(f"{self._void:,} pixels are void{self._void_sources()} or of images without a label")
        if self._ignored:
            left_out.append(f"{self._ignored:,} pixels are of ignored classes")
        besides = f"; {' and '.join(left_out)}" if left_out else ""
        predicted = np.flatnonzero(self._counts.sum(axis=0)).tolist()
        mean = ", so that mIoU is the IoU of one class" if predicted == self._present else ""
        return f"the only class in any label is {self._list(self._present)}{mean}{besides}{self._advice()}"

    def shifted(self) -> str | None:
        """Warn if the predictions fit labels that are numbered one higher or lower."""
        total, right = int(self._counts.sum()), int(np.trace(self._counts))
        for offset, words, example in ((-1, "lower", "1=0 --label-remap 2=1"), (1, "higher", "0=1 --label-remap 1=2")):
            diagonal = np.diagonal(self._counts, offset)
            agree = int(diagonal.sum())
            if np.count_nonzero(diagonal) >= 2 and agree > total / 2 and agree > 2 * right:
                return (
                    f"{agree / total:.0%} of the labelled pixels are predicted as the class numbered one {words}, "
                    f"{right / total:.0%} as their own. If the labels are numbered differently from the card, run "
                    f"again with another output and --label-remap {example} and so on"
                )
        return None

    def disjoint(self) -> str | None:
        """Warn if no labelled pixel is predicted as its class."""
        if not self._present or np.trace(self._counts):
            return None
        predicted = np.flatnonzero(self._counts.sum(axis=0)).tolist()
        return (
            f"no labelled pixel is predicted as its class: the labels hold {self._list(self._present)}, the "
            f"predictions there {self._list(predicted)}. If the labels are numbered or coloured differently from "
            "the card, run again with another output and --label-remap FROM=TO"
        )

    def _list(self, classes: Sequence[int]) -> str:
        some = ", ".join(f"'{shown(self._names[index])}' ({index})" for index in classes[:_NAMED])
        return some + (f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else "")

    def _void_sources(self) -> str:
        """Return the label values and colours that are void, in parentheses; `""` if there are none."""
        sources = [f"label value {', '.join(map(str, self._values))}"] if self._values else []
        sources += self._others
        return f" ({' or '.join(sources)})" if sources else ""

    def _advice(self) -> str:
        """Suggest a remap if a label value is void and a class is free for it; else `""`."""
        free = [index for index in self._counting if index not in self._present]
        if not self._void or not self._values or not free:
            return ""
        value = self._values[-1]
        target = free[0] if self._present else free[:2][-1]  # labels of void alone are probably a foreground
        return (
            f". If {value} is meant as a class, run again with another output and name the class, for example "
            f"--label-remap {value}={target} for '{shown(self._names[target])}'"
        )


def _void_sources(card: ModelCard, remap: Mapping[str, str | int]) -> tuple[list[int], list[str]]:
    """Return the label values that the card makes void, and descriptions of all other void sources."""
    sources = {parse_source(key): target for key, target in remap.items() if key.strip() != "*"}
    values = [value for value in card.classes.void_values if value not in sources]
    colours = [colour for colour in card.classes.void_colours if colour not in sources]
    others = [f"colour {_numbers(colour)}" for colour in colours]
    if any(isinstance(target, str) and target.lower() == "ignore" for target in remap.values()):
        others.append("what --label-remap ignores")
    return values, others


def _numbers(colour: Iterable[int]) -> str:
    return ",".join(map(str, colour))
