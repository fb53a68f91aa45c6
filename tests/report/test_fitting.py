"""What a terminal shows: score and page first, blocks apart, words whole at 80 and 60 columns, numbers of the page."""

import html
import io
import itertools
import re
from pathlib import Path

import pytest
from rich.console import Console

from segment.models.card import load_card
from segment.output.ledger import Ledger
from segment.output.speed import last_speed
from segment.report.aggregate import RunReport, load_report
from segment.report.console import page_of, print_report
from segment.report.fitting import packed, print_rows
from segment.report.run_score import with_intervals
from segment.report.speed_lines import print_speed, speed_lines
from segment.store.client import Store
from tests.report.test_report import report_of, stats_of
from tests.runs import Place, png, scene

NUMBER = re.compile(r"\d[\d,]*\.\d+")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A run of images whose labels are those of others, and one that is an error."""
    place = Place(tmp_path_factory.mktemp("fitting"))
    for seed in range(12):
        place.write(f"{seed}.png", png(scene(seed)[0]), png(scene(seed // 2)[1]))
    place.write("broken.png", b"no image", png(scene(0)[1]))
    place.run()
    return Ledger(Store(), f"file://{place.output}")


def printed(report: RunReport, width: int, page: str | None = None) -> list[str]:
    buffer = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        print_report(report, Console(file=buffer), page)
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


def with_bounds(ledger: Ledger) -> RunReport:
    return with_intervals(ledger, ledger.read_run_and_plan()[1], load_report(ledger))


def test_the_score_and_the_page_come_first_and_blocks_are_apart(ledger: Ledger) -> None:
    report = with_bounds(ledger)
    lines = printed(report, 80, page_of(ledger))
    assert re.fullmatch(r"mIoU \d+\.\d\d % \(\d+\.\d to \d+\.\d\), pixel accuracy \d+\.\d\d %", lines[0])
    assert lines[1] == f"page:  {ledger.output.removeprefix('file://')}/report/index.html"
    assert lines[2].startswith("masks: ")
    assert lines[3] == "blocks · complete · 13 images · 1 shard · 1 error · 12 scored"
    titles = [line for before, line in itertools.pairwise(lines) if not before]
    assert titles == ["mIoU", "classes, in pixels", "errors (first 1 of 1)"]


@pytest.mark.parametrize("name", ["unet-camvid-onnx-0001", "deeplabv3-mobilenetv2-int8"])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("width", [80, 60])
def test_no_word_is_broken(name: str, labelled: bool, width: int) -> None:
    card = load_card(name)
    report = report_of(stats_of(card, 10**8, labelled, images=10**6), card=card)
    wide, narrow = printed(report, 400, "file:///p/index.html"), printed(report, width, "file:///p/index.html")
    assert max(map(len, narrow)) <= width
    told = [line for line in narrow if line.startswith("no room in ")]
    assert not told or "TP" in told[0]
    words = {word for line in wide for word in line.split()}
    assert {word for line in narrow if line not in told for word in line.split()} <= words
    if width == 80:
        assert told == []
        assert any(line.split()[-1] == "complete" or " complete " in line for line in narrow)


def test_intervals_fit_too(ledger: Ledger) -> None:
    for width in (80, 60):
        lines = printed(with_bounds(ledger), width)[3:]
        assert max(map(len, lines)) <= width
        assert sum(" to " in line for line in lines) >= 5  # mIoU, accuracy, three classes


def test_columns_without_room_are_named() -> None:
    console = Console(file=io.StringIO(), width=20)
    print_rows(console, [["class", "a", "empty", "rare", "IoU %"], ["Sky", "1", "", "123456", "9.00"]], first=[4])
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert [line.split() for line in said.splitlines()[:2]] == [["class", "a", "IoU", "%"], ["Sky", "1", "9.00"]]
    assert " ".join(said.split()).endswith("no room in 20 columns for: rare")


def test_phrases_stay_whole() -> None:
    assert packed([], ", ", 9) == []
    assert packed(["a longer one", "b", "c"], ", ", 4) == ["a longer one", "b, c"]


def test_numbers_on_the_terminal_are_those_of_the_page(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """To the digit that is shown: the page may show more of one."""
    page = html.unescape((Path(ledger.output.removeprefix("file://")) / "report" / "index.html").read_text())
    figures = set(NUMBER.findall(re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)))
    lines = [line for line in printed(with_bounds(ledger), 80) if not line.startswith(("masks:", "pixel accuracy"))]
    numbers = NUMBER.findall("\n".join(lines))  # the page has no interval of the pixel accuracy
    assert len(numbers) >= 20
    assert [number for number in numbers if number not in figures] == []
    speed = last_speed(ledger)
    assert speed is not None
    rate, seconds = NUMBER.findall(dict(speed_lines(speed))["speed"])
    assert rate in figures
    assert f"{float(seconds):.1f} s" in page
    print_speed(ledger)
    assert capsys.readouterr().out.startswith("\nspeed   ")
