"""The published score is shown for comparison only if model and protocol agree; else the report lists differences."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from segment.metrics import Confusion
from segment.models.card import Published, WeightsFile
from segment.output.ledger import Ledger
from segment.output.shard_stats import ShardStats, merge
from segment.report.aggregate import RunReport, load_report
from segment.report.console import print_report
from segment.report.markdown import to_markdown
from segment.store.client import Store
from tests.runs import CARD, CARD_TOML, Place

DIGEST, OTHER = "a" * 96, "b" * 96
PUBLISHED = Published(miou=0.5, dataset="Streets", split="val", images=9, source="a paper")


def report_of(
    published: Published | None = PUBLISHED,
    metric: dict[str, Any] | None = None,
    weights: tuple[WeightsFile, ...] = (),
    run: dict[str, Any] | None = None,
) -> RunReport:
    """A run of ten images, nine of them scored."""
    changes = {"published": published, **(metric or {})}
    card = CARD.model_copy(update={"metric": CARD.metric.model_copy(update=changes), "weights": weights})
    counts = np.random.default_rng(0).integers(0, 1000, (len(card.classes) + 1, len(card.classes)))
    total = merge([ShardStats(Confusion(counts.astype(np.int64)), 10, 1, 9, 4.0)], len(card.classes))
    runtime = {"name": "openvino", "device": "cpu", "precision": "f32", "version": "1"}
    record = {
        "contract": {"runtime": runtime, "labels": {"encoding": "auto", "remap": {}}},
        "scored_at": card.metric.resolution,
        "fingerprint": "f" * 64,
        "weights": {"origin": "here", "format": "onnx", "sha384": DIGEST, "files": [DIGEST]},
        **(run or {}),
    }
    return RunReport("s3://bucket/out", record, card, {"s": 10}, {"s": total}, total, (), True)


def printed(report: RunReport) -> str:
    buffer = io.StringIO()
    print_report(report, Console(file=buffer, width=200, highlight=False, force_terminal=False))
    return " ".join(buffer.getvalue().split())


def file(digest: str) -> WeightsFile:
    return WeightsFile(url="https://example.com/a.onnx", size=1, sha384=digest)


DIFFERENT: dict[str, tuple[RunReport, str]] = {
    "fewer images": (
        report_of(PUBLISHED.model_copy(update={"images": 1449})),
        "1,449 images. Not comparable: 9 images are scored here",
    ),
    "unknown images": (
        report_of(PUBLISHED.model_copy(update={"images": None})),
        "on Streets val. Not comparable: the card does not give the number of images",
    ),
    "convention": (
        report_of(PUBLISHED.model_copy(update={"convention": "cityscapes"})), "published by the cityscapes convention"
    ),
    "resolution": (
        report_of(PUBLISHED.model_copy(update={"resolution": "model"})),
        "published at model size, scored here at source size",
    ),
    "views": (
        report_of(PUBLISHED.model_copy(update={"tta": ("flip", 0.75)})),
        "published with views (flip, 0.75), scored here without views",
    ),
    "precision": (
        report_of(run={"contract": {"runtime": {**report_of().run["contract"]["runtime"], "precision": "bf16"}}}),
        "computed here in bf16",
    ),
    "weights of the card": (report_of(weights=(file(OTHER),)), "these are other weights"),
    "weights of the score": (
        report_of(PUBLISHED.model_copy(update={"weights_sha384": (OTHER,)}), weights=(file(DIGEST),)),
        "these are other weights",
    ),
    "one of two files": (report_of(weights=(file(DIGEST), file(OTHER))), "these are other weights"),
    "remap": (
        report_of(run={"contract": {**report_of().run["contract"], "labels": {"remap": {"7": 255}}}}),
        "labels are remapped here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_difference_is_told_and_the_figures_stand_apart(case: str) -> None:
    report, words = DIFFERENT[case]
    found = report.published
    assert found is not None
    assert not found.agrees
    text = printed(report)
    assert "Published 50.00 % on Streets val" in text
    assert words in text
    assert "; published 50.00" not in text
    markdown = to_markdown(report)
    assert "| 50.00 |" not in markdown
    assert words.split(". ")[-1] in markdown
    summary = report.summary()["published"]
    assert (summary["miou"], summary["comparable"]) == (0.5, False)
    assert any(difference in words for difference in summary["differences"])


def test_several_differences_are_all_told() -> None:
    report = report_of(PUBLISHED.model_copy(update={"images": 8, "resolution": "model", "convention": "image-mean"}))
    assert len(report.summary()["published"]["differences"]) == 3


@pytest.mark.parametrize(
    "report",
    [
        report_of(),
        report_of(PUBLISHED.model_copy(update={"convention": "omz", "resolution": "source"})),
        report_of(weights=(file(DIGEST),)),
        report_of(PUBLISHED.model_copy(update={"weights_sha384": (DIGEST,)}), weights=(file(OTHER),)),
        report_of(weights=(file(OTHER), file(DIGEST)), run={
            "weights": {"origin": "", "format": "ir", "sha384": "c" * 96, "files": [DIGEST, OTHER]}}),
    ],
)  # fmt: skip
def test_what_agrees_stands_beside(report: RunReport) -> None:
    found = report.published
    assert found is not None
    assert found.agrees
    text = printed(report)
    assert "scored at source size; published 50.00" in text
    assert (
        "Published 50.00 % on Streets val, 9 images. "
        "The number of images is the same; the data set itself is not checked" in text
    )
    assert "Not comparable" not in text
    assert "| 50.00 |" in to_markdown(report)
    summary = report.summary()["published"]
    assert summary == {
        "miou": 0.5, "dataset": "Streets", "split": "val", "images": 9, "source": "a paper", "comparable": True,
        "differences": [],
    }  # fmt: skip


def test_nothing_is_said_where_nothing_is_published() -> None:
    report = report_of(None)
    assert report.published is None
    assert report.summary()["published"] is None
    assert "ublished" not in printed(report)
    assert "Published" not in to_markdown(report)


@pytest.mark.parametrize(("images", "words"), [(3, ""), (4, "Not comparable: 3 images are scored here")])
def test_a_whole_run_and_its_page(images: int, words: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    table = f"[metric.published]\nmiou = 0.25\nimages = {images}"
    place.card_path.write_text(CARD_TOML.replace("published = 0.5", table))
    for seed in range(3):
        place.add(f"{seed}.png", seed=seed)
    place.run()
    report = load_report(Ledger(Store(), f"file://{place.output}"))
    assert report.run["weights"]["files"] == [report.run["weights"]["sha384"]]
    assert report.published is not None
    assert report.published.agrees == (not words)
    page = (place.output / "report" / "index.html").read_text(encoding="utf-8")
    assert ("above the published 25.00 %" in page) == (not words)
    assert words in page
