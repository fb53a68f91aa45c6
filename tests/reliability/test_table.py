"""The table of README.md is added up and written as told."""

from tests.reliability.table import BEGIN, END, README, rows, sweep, to_markdown


def test_figures_are_added_up_by_fault() -> None:
    figures = [
        {"kind": "reset", "injected": 2, "survived": 2, "recovery": 1.5},
        {"kind": "412", "injected": 1, "survived": 1, "recovery": 0},
        {"kind": "reset", "injected": 3, "survived": 3, "recovery": 0.5},
    ]
    assert rows(figures) == [("reset", 5, 5, 1.5), ("412", 1, 1, 0)]
    assert to_markdown(rows(figures)).splitlines()[2:] == ["| reset | 5 | 5 | 1.5 s |", "| 412 | 1 | 1 | – |"]


def test_the_readme_has_a_place_for_it() -> None:
    text = README.read_text(encoding="utf-8")
    assert 0 < text.index(BEGIN) < text.index(END)


def test_the_kill_points_are_summed_by_engine() -> None:
    before, after = "SIGKILL before a request reaches the store", "SIGKILL between apply and answer"
    table = [
        (before, 9, 9, 1.0),
        (after, 9, 8, 1.0),
        (f"{before}, Ray's driver", 3, 3, 1.0),
        ("SIGKILL of an actor", 5, 5, 1.0),
    ]
    assert sweep(table) == "Kill points survived: 17 of 18 on the local engine, 3 of 3 on Ray.\n"
