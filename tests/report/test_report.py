"""The report on a terminal, in Markdown, JSON and CSV; of unlabelled, unfinished and complete runs."""

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from segment.errors import TooManyErrors, UsageError
from segment.metrics import Confusion
from segment.models.card import Convention, ModelCard, built_in_cards, load_card
from segment.output.ledger import Ledger
from segment.output.shard_stats import ShardStats, merge
from segment.progress import Progress
from segment.report.aggregate import ErrorExample, RunReport, classes_table, load_report, shards_table
from segment.report.cards import _some, print_card, print_cards
from segment.report.console import print_report
from segment.report.markdown import to_markdown
from segment.report.spreadsheet import to_csv
from segment.runs.driver import run
from segment.store.client import Store
from tests.calls import Call
from tests.datasets import Item, write_tars
from tests.runs import CARD, CLASSES, Place, png, read_rows, scene

CAMVID, VOC = load_card("unet-camvid-onnx-0001"), load_card("deeplabv3-mobilenetv2")
RUNTIME = {"name": "openvino", "device": "cpu", "precision": "bf16", "version": "2026.4"}


def report_of(
    *shards: ShardStats, card: ModelCard = CARD, errors: tuple[ErrorExample, ...] = (), planned: int | None = None
) -> RunReport:
    run = {"contract": {"runtime": RUNTIME}, "scored_at": "model", "fingerprint": "f" * 64}
    total = merge(shards, len(card.classes))
    named = {f"shard-{i}": stats for i, stats in enumerate(shards)}
    by_shard = {shard: stats.images for shard, stats in named.items()} if planned is None else {"shard": planned}
    return RunReport("s3://bucket/out", run, card, by_shard, named, total, errors, planned is None)


def stats_of(card: ModelCard = CARD, most: int = 1000, labelled: bool = True, images: int = 10) -> ShardStats:
    classes = len(card.classes)
    counts = np.random.default_rng(most).integers(0, most, (classes + 1, classes))
    if not labelled:
        counts[:-1] = 0
    return ShardStats(Confusion(counts.astype(np.int64)), images, 1, images - 1, 0.5 * (images - 1))


def printed(report: RunReport, width: int = 80) -> list[str]:
    buffer = io.StringIO()
    print_report(report, Console(file=buffer, width=width, highlight=False))
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


def convention(card: ModelCard, name: Convention) -> ModelCard:
    return card.model_copy(update={"metric": card.metric.model_copy(update={"convention": name})})


# --- console ---------------------------------------------------------------------------------------------------------

LONG = ErrorExample("s", "a very/" + "long/" * 60 + "name.png", "label_size: the label's width and height are not")


@pytest.mark.parametrize("most", [10, 10**7, 10**10, 10**13, 10**15])
@pytest.mark.parametrize("card", [CAMVID, VOC], ids=["12 classes", "21 classes"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_report_fits_80_columns_with_every_number_whole(card: ModelCard, most: int, labelled: bool) -> None:
    report = report_of(stats_of(card, most, labelled, images=10**7), card=card, errors=(LONG,))
    lines = printed(report)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    assert all(name in text for name in card.classes.names)
    if labelled:
        assert f"{100 * (report.miou() or 0):.2f}" in text


def test_counts_are_exact_until_they_need_a_unit() -> None:
    small = report_of(stats_of(most=10**7))
    assert f"{int(small.score().tp[0]):,}" in "\n".join(printed(small))
    assert "classes, in pixels" in printed(small)
    large = report_of(stats_of(most=10**10))
    lines = printed(large)
    assert "classes, in thousand pixels" in lines
    row = next(line for line in lines if line.startswith("■ Sky"))
    assert f"{round(int(large.score().tp[0]) / 1000):,}" in row


def test_long_class_names_wrap_instead_of_pushing_numbers_out() -> None:
    names = (*(f"class with quite a long name, number {i} of some" for i in range(3)), "Unlabeled")
    card = CARD.model_copy(update={"classes": CARD.classes.model_copy(update={"names": names})})
    lines = printed(report_of(stats_of(card, 10**8), card=card))
    assert max(map(len, lines)) <= 80
    assert "…" not in "\n".join(lines)


def test_the_cards_own_convention_comes_first_beside_the_published_score() -> None:
    for own in ("omz", "cityscapes", "mmseg", "image-mean"):
        report = report_of(stats_of(), card=convention(CARD, own))
        assert report.conventions[0] == own
        assert sorted(report.conventions) == ["cityscapes", "image-mean", "mmseg", "omz"]
        lines = printed(report)
        first = lines[lines.index("mIoU") + 2]
        assert first.split()[:2] == [own, f"{100 * (report.miou() or 0):.2f}"]
        assert first.endswith("the card's own")
        assert "scored at source size" in lines  # the card gives no number of images: nothing published beside it
        told = "Published 50.00 %. Not comparable: the card does not give the number of images; computed here in bf16"
        assert told in " ".join(lines)
        assert sum("the card's own" in line for line in lines) == 1
        markdown = to_markdown(report)
        assert f"| **{own}** (the card's own) | {100 * (report.miou() or 0):.2f} | - |" in markdown


def test_image_mean_is_the_mean_over_images_not_of_the_counts() -> None:
    report = report_of(stats_of(), stats_of(images=30))
    assert report.miou("image-mean") == 0.5
    assert report.miou("omz") != 0.5


def test_an_ignored_class_has_a_dash_and_says_so() -> None:
    row = next(line for line in printed(report_of(stats_of())) if "Unlabeled" in line)
    assert row.startswith("■ Unlabeled (ignored)")
    assert row.split()[-5:-1] == ["0", "0", "0", "-"]


def test_without_labels_there_are_shares_and_no_iou() -> None:
    report = report_of(stats_of(labelled=False))
    assert not report.is_scored
    text = "\n".join(printed(report)) + to_markdown(report)
    assert "IoU" not in text
    assert "TP" not in text
    pixels = report.total.confusion.predicted_pixels
    share = f"{100 * pixels[1] / pixels.sum():.2f}"
    row = next(line for line in printed(report) if "Road" in line)
    assert row.split()[:4] == ["■", "Road", f"{pixels[1]:,}", share]
    assert f"| Road | {pixels[1]} | {share} |" in to_markdown(report)
    assert report.miou() is None


def test_nothing_predicted_yet_is_no_division_by_zero() -> None:
    report = report_of(planned=7)
    assert "0 of 7 images so far · 0 of 1 shard finished · 0 errors" in printed(report)[2]
    assert printed(report)[2].startswith("blocks · not complete · ")
    assert to_markdown(report)
    assert len(shards_table(report)) == 0


def test_names_reach_the_terminal_without_control_characters_or_markup() -> None:
    report = report_of(
        stats_of(), errors=(ErrorExample("s", "a\x1b[31mb\r\n[bold]c[/bold]\u202e.png", "empty: no bytes"),)
    )
    text = "\n".join(printed(report, width=200))
    assert "a\\x1b[31mb\\r\\n[bold]c[/bold]\\u202e.png" in text
    assert "errors (first 1 of 1)" in text


# --- Markdown --------------------------------------------------------------------------------------------------------


def cells(markdown: str) -> list[str]:
    """Return the rendered text of every table cell."""
    found, tokens = [], MarkdownIt("commonmark").enable("table").parse(markdown)
    for before, token in itertools.pairwise(tokens):
        if before.type in ("td_open", "th_open"):
            found.append("".join(child.content for child in token.children or []))
    return found


@settings(max_examples=80, deadline=None)
@given(st.text(st.sampled_from("ab_*`|\\<>[]()~&#!-+.\n\r\t{}$\"' é漢\x1b;lt"), min_size=1, max_size=20))
def test_any_name_reads_in_markdown_as_it_is_spelled(name: str) -> None:
    report = report_of(stats_of(), errors=(ErrorExample("s", name, "empty: x"),))
    spelled = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert cells(to_markdown(report).partition("First 1 of 1 errors:")[2]) == [
        "image",
        "error",
        spelled.strip(),
        "empty: x",
    ]


def test_markdown_tables_hold_exact_counts() -> None:
    report = report_of(stats_of(VOC, 10**13), card=VOC)
    score = report.score()
    found = cells(to_markdown(report))
    at = found.index("aeroplane")
    assert found[at + 1 : at + 4] == [str(score.tp[1]), str(score.fp[1]), str(score.fn[1])]
    assert "Unlabeled (ignored)" in cells(to_markdown(report_of(stats_of())))


# --- data ------------------------------------------------------------------------------------------------------------


def test_the_summary_is_plain_json() -> None:
    report = report_of(stats_of(), stats_of(most=50))
    summary = json.loads(json.dumps(report.summary(), allow_nan=False))
    assert list(summary["miou"]) == ["omz", "cityscapes", "mmseg", "image-mean"]
    assert summary["miou"]["omz"] == report.miou()
    assert (summary["images"], summary["errors"], summary["scored"], summary["shards"]) == (20, 2, 18, 2)
    assert (summary["convention"], summary["runtime"]) == ("omz", RUNTIME)
    assert (summary["published"]["miou"], summary["published"]["comparable"]) == (0.5, False)
    assert summary["complete"] is True


def test_tables_have_a_row_per_class_and_shard() -> None:
    report = report_of(stats_of(), stats_of(most=50, labelled=False))
    classes = classes_table(report).to_pylist()
    assert [row["class_name"] for row in classes] == ["Sky", "Road", "Car", "Unlabeled"]
    assert [row["ignored"] for row in classes] == [False, False, False, True]
    assert classes[0]["iou"] == classes[0]["iou_omz"] == report.score("omz").iou[0]
    assert classes[0]["iou_cityscapes"] == report.score("cityscapes").iou[0]
    assert classes[3]["iou"] is None  # and not NaN
    shards = shards_table(report).to_pylist()
    assert [row["shard"] for row in shards] == ["shard-0", "shard-1"]
    assert shards[1]["miou"] is None
    assert shards[1]["pixel_accuracy"] is None


def test_the_summary_has_the_results_of_every_class() -> None:
    report = report_of(stats_of())
    classes = report.summary()["classes"]
    assert classes == classes_table(report).to_pylist()
    assert [one["class_name"] for one in classes] == list(CARD.classes.names)
    assert classes[1]["iou"] == report.score().iou[1]
    assert classes[3]["iou"] is None
    json.dumps(classes, allow_nan=False)


def test_comma_separated_values_are_read_back_by_any_reader() -> None:
    names = ('=HYPERLINK("http://x")', "a,b", 'say "hi"', "@two words")
    card = CARD.model_copy(update={"classes": CARD.classes.model_copy(update={"names": names})})
    report = report_of(stats_of(card), card=card)
    text = to_csv(report)
    assert text.count("\r\n") == 5
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["class"] for row in rows] == ["'" + names[0], names[1], names[2], "'" + names[3]]
    score = report.score()
    assert [int(row["tp"]) for row in rows] == score.tp.tolist()
    assert [int(row["fn"]) for row in rows] == score.fn.tolist()
    assert [row["iou"] for row in rows[:3]] == [repr(value) for value in score.iou[:3].tolist()]
    assert (rows[3]["iou"], rows[3]["ignored"], rows[0]["ignored"]) == ("", "true", "false")
    table = pa_csv.read_csv(io.BytesIO(text.encode()), parse_options=pa_csv.ParseOptions(newlines_in_values=True))
    assert table["class"].to_pylist() == [row["class"] for row in rows]


# --- real runs ----------------------------------------------------------------------------------------------------


def report_at(place: Place) -> RunReport:
    return load_report(Ledger(Store(), f"file://{place.output}"))


def test_a_run_leaves_its_report(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for seed in range(3):
        place.add(f"{seed}.png", seed)
    place.write("bad.png", b"", png(scene(9)[1]))
    returned = place.run().report
    report = report_at(place)
    assert report.summary() == returned.summary()
    assert json.loads((place.output / "report/summary.json").read_text()) == returned.summary()
    assert report.errors == (ErrorExample(next(iter(report.shards)), "bad.png", "empty: the image has no bytes"),)
    assert (report.total.images, report.total.errors, report.total.scored, report.complete) == (4, 1, 3, True)
    assert report.miou() == report.pixel_accuracy == 1.0
    table = pq.read_table(place.output / "report/classes.parquet")
    assert table["tp"].to_pylist()[:3] == [int(sum((scene(s)[1] == c).sum() for s in range(3))) for c in range(3)]
    assert pq.read_table(place.output / "report/shards.parquet").num_rows == 1


def test_a_report_on_a_run_that_broke_off_tells_of_what_is_committed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for seed in range(40):
        place.add(f"{seed:02d}.png", seed)
    place.write("00.png", b"", None)

    class Breaks(Progress):
        def update(self, tally: Any) -> None:
            if tally.done >= 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(place.job(), Breaks())
    report = report_at(place)
    done = 2 * len(list(place.output.glob("masks/*/*.parquet")))
    assert 2 <= done < 40
    assert (report.planned_images, report.total.images, report.complete) == (40, done, False)
    assert f"{done} of 40 images so far · 0 of 1 shard finished · 1 error" in printed(report)[2]
    assert [error.id for error in report.errors] == ["00.png"]
    outcome = place.run()
    assert (outcome.report.total.images, outcome.report.complete) == (40, True)


def broken_off(place: Place, items: int = 8, shards: int = 2, **changes: Any) -> RunReport:
    """Run over tars, then delete the second half of the last shard; return the report of the whole run."""
    made = [Item(f"{seed}.png", png(scene(seed)[0]), png(scene(seed)[1])) for seed in range(items)]
    tars = write_tars(place.folder / "tars", made, shards=shards)
    whole = place.run(**tars, **changes).report
    last = list(whole.shards)[-1]
    lost = sorted((place.output / "masks" / last).iterdir())
    for file in [*lost[len(lost) // 2 :], place.output / "stats" / f"{last}.parquet", place.output / "_SUCCESS"]:
        file.unlink()
    return whole


def test_an_unfinished_run_is_reported_to_the_last_committed_image(tmp_path: Path) -> None:
    place = Place(tmp_path)
    whole = broken_off(place)
    report = report_at(place)
    rows = read_rows(place.output)
    assert (len(rows), report.total.images, report.total.scored) == (6, 6, 6)
    assert (report.finished_shards, report.planned_shards, report.is_whole, report.complete) == (1, 2, False, False)
    first, last = whole.shards
    assert report.shards[first] == whole.shards[first]
    assert report.shards[last].images == 2
    cells = [row["confusion"] for row in rows]
    counted = [Confusion.from_cells(some["cell"], some["count"], CLASSES) for some in cells]
    assert report.total.confusion == sum(counted, Confusion.zeros(CLASSES))
    assert report.summary()["images"] == 6
    assert place.run(input=str(place.folder / "tars")).report.summary() == whole.summary()


def test_an_unfinished_run_in_every_form(segment: Call, tmp_path: Path) -> None:
    place = Place(tmp_path)
    broken_off(place, shards=1)
    output = str(place.output)
    printed = segment("report", output).out
    assert "4 of 8 images so far · 0 of 1 shard finished" in " ".join(printed.split())
    page = (place.output / "report/index.html").read_text()
    assert "of 8 so far, 0 of 1 shard finished" in page
    assert page.count("<article") == 4
    assert "4 of 8 images so far" in segment("report", output, "-f", "markdown").out
    assert json.loads(segment("report", output, "-f", "json").out)["images"] == 4
    assert len(segment("overlay", output, "--worst=9", f"--to={tmp_path}/worst").out.splitlines()) == 4
    assert len(segment("overlay", output, "--sample=9", f"--to={tmp_path}/some").out.splitlines()) == 4
    assert segment("overlay", output, "--sample=9", "--contact-sheet", f"--to={tmp_path}/some").code == 0


def test_an_unlabelled_run_that_has_just_begun_says_how_far_it_is(segment: Call, tmp_path: Path) -> None:
    place = Place(tmp_path)
    for seed in range(4):
        place.add(f"{seed}.png", seed, label=False)
    place.run()
    for file in [*place.output.glob("masks/*/*"), *place.output.glob("stats/*"), place.output / "_SUCCESS"]:
        file.unlink()
    assert "0 of 4 images so far" in segment("report", str(place.output)).out
    page = (place.output / "report/index.html").read_text()
    assert "no image is segmented yet" in page
    assert "Nothing is scored yet" in page
    assert segment("overlay", str(place.output), "--worst=2").err.endswith(" is done yet\n")
    assert segment("audit", str(place.output)).out.splitlines() == [
        "4 of 4 images not done yet: run the same `segment run` again",
        "nothing is done yet",
    ]


def test_a_part_that_is_taken_back_while_a_report_is_made_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    broken_off(place, shards=1)
    listed = Ledger.committed

    def listed_and_then_lost(self: Ledger, *arguments: Any) -> set[str]:
        found = listed(self, *arguments)
        min(place.output.glob("masks/*/*")).unlink()
        return found

    monkeypatch.setattr(Ledger, "committed", listed_and_then_lost)
    report = report_at(place)
    assert (report.total.images, len(report.parts)) == (2, 1)


def test_statistics_that_are_deleted_after_they_were_listed_are_those_of_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver reopens a part (`--retry-errors`), which deletes the statistics first."""
    place = Place(tmp_path)
    for seed in range(2):
        place.add(f"{seed}.png", seed)
    place.run(part_size=1)
    whole = report_at(place)
    monkeypatch.setattr(Ledger, "finished_shards", lambda _: set(whole.shards))
    next(place.output.glob("stats/*")).unlink()
    assert report_at(place).total == whole.total
    min(place.output.glob("masks/*/*")).unlink()
    report = report_at(place)
    assert (report.total.images, len(report.parts)) == (1, 1)


def test_a_lost_part_of_a_finished_shard_is_an_error_and_no_traceback(segment: Call, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1)
    place.run()
    lost = next(place.output.glob("masks/*/*"))
    lost.unlink()
    for command in (["report", str(place.output)], ["overlay", str(place.output), "--sample=1"],
                    ["export", str(place.output), str(tmp_path / "to")]):  # fmt: skip
        called = segment(*command)
        assert called.code == 1
        assert called.err == (
            f"error: {lost} was committed and has been lost: run the same `segment run` again, or try again if one is "
            "at work\n"
        )


def test_a_run_with_too_many_errors_can_be_reported(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for seed in range(3):
        place.add(f"{seed}.png", seed)
    place.write("9.png", b"", None)
    with pytest.raises(TooManyErrors):
        place.run(max_error_rate=0.1)
    with pytest.raises(TooManyErrors, match=r"1 of 4 images failed, more than --max-error-rate 0\.1 allows"):
        place.run(max_error_rate=0.1)
    report, page = report_at(place), place.output / "report/index.html"
    assert (report.total.images, report.total.errors, report.complete) == (4, 1, False)
    assert "Not complete" in page.read_text()
    assert [error.id for error in report.errors] == ["9.png"]
    words = "1 of 4 images failed, more than --max-error-rate 0.1 allows"  # the reason why it is not complete
    assert report.warnings == (words,)
    assert json.loads((place.output / "report/summary.json").read_text())["warnings"] == [words]
    place.run(max_error_rate=0.5)
    assert report_at(place).warnings == ()
    assert "Not complete" not in page.read_text()  # drawn anew, though no image was
    with pytest.raises(TooManyErrors):
        place.run(max_error_rate=0.1)  # a complete run, by a stricter limit
    assert "Not complete" in page.read_text()


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run at .*: give the OUTPUT of a `segment run INPUT OUTPUT .*`"):
        load_report(Ledger(Store(), f"file://{tmp_path}/nowhere"))


# --- cards -----------------------------------------------------------------------------------------------------------


def test_the_list_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    print_cards()
    text = capsys.readouterr().out
    for name, size in (("unet-camvid-onnx-0001", "480x368"), ("deeplabv3-mobilenetv2", "513x513")):
        assert any(line.startswith(f"{name} ") and size in line for line in text.splitlines())
    assert all(name in text for name in built_in_cards())  # never cut: users type them
    assert max(map(len, text.splitlines())) <= 80
    assert "71.95" in text
    assert "\n21 classes: aeroplane, bicycle, bird, boat, bottle, bus, car and others\n" in text  # what they see
    assert "\n12 classes: Sky, Building, Pole, Road, Pavement, Tree, SignSymbol and others\n" in text


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["background", "person"], "background, person"),
        (list("abcdefg"), "a, b, c, d, e, f, g"),
        (list("abcdefgh"), "a, b, c, d, e, f, g and others"),
        (["background", *"abcdefgh"], "a, b, c, d, e, f, g and others"),
    ],
)
def test_some_classes_tell_what_a_model_is_for(names: list[str], told: str) -> None:
    assert _some(names) == told


def test_a_cards_contract_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_card(CAMVID)
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "Nx3x368x480 NCHW, BGR, 0-255",
        "pillow bilinear",
        "mIoU 71.95 %",
        "11 Unlabeled (ignored)",
        "62,064,926",
    ):
        assert words in text, words
    print_card(VOC)
    text = " ".join(capsys.readouterr().out.split())
    assert "void: 255" in text
    assert "20 tvmonitor" in text


def test_a_card_of_ones_own_is_readable_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_card(CARD)
    text = " ".join(capsys.readouterr().out.split())
    assert "(the only one): Nx3x24x32 NCHW, RGB, 0-255" in text
    assert f"{CLASSES - 1} Unlabeled (ignored)" in text
