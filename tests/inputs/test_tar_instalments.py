"""A large input of tars is planned in instalments; the plan is the same however large they are."""

import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from segment.engines.local import LocalEngine
from segment.errors import InputChanged, SegmentError, TooManyErrors, UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery, Unindexed
from segment.inputs.lookup import in_threads
from segment.inputs.tars import instalments
from segment.inputs.tars.instalments import Spread, index_more
from segment.job import InputOptions
from segment.models.card import load_card
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.progress import Tally
from segment.report.aggregate import load_report
from segment.report.console import print_status, summary_phrases
from segment.report.exports.masked_images import MaskedImages
from segment.runs import growth
from segment.runs.driver import run
from segment.runs.error_limits import refuse_hopeless
from segment.runs.estimate import estimate
from segment.runs.growth import PlanGrowth
from segment.store.client import Store
from tests.runs import Notes, Place, expect, png, scene
from tests.tars import STORE, tar

TAR = 10 * 1024  # bytes of a small tar as Python writes it


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tars are indexed first, of inputs of more than three."""
    monkeypatch.setattr(instalments, "FIRST_BYTES", TAR + 1)
    monkeypatch.setattr(instalments, "WHOLE_BYTES", 3 * TAR + 1)
    monkeypatch.setattr(growth, "_FIRST", 1)
    monkeypatch.setattr(growth, "_MOST", 2)


def tars(folder: Path, number: int, names: Sequence[str] = ("a.jpg", "a.cls", "b.jpg", "b.seg.png")) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [tar(folder / f"{index:02}.tar", *names) for index in range(number)]


def find(where: Path, **options: Any) -> Discovery:
    return discover(str(where), InputOptions(**options), STORE, early=True)


def whole_plan(found: Discovery, sizes: Iterator[int], **options: Any) -> Plan:
    """The plan, when so many tars are indexed each time."""
    plan = Plan.of_discovery(found)
    while plan.unindexed:
        more = index_more(plan.unindexed, next(sizes), InputOptions(**options), STORE, None, in_threads)
        plan = growth._extended(plan, Plan.of_discovery(more))
    return plan


def test_the_plan_does_not_depend_on_the_instalments(tmp_path: Path) -> None:
    tars(tmp_path, 9)
    tar(tmp_path / "03.tar", "a.jpg", "a.jpg", "a.depth.png", "x.txt")  # an id twice, a member of no use, no image
    (tmp_path / "07.tar").write_bytes(b"\0" * TAR)
    found = find(tmp_path)
    assert found.unindexed is not None
    assert (len({part.url for part in found.parts}), len(found.unindexed.tars)) == (2, 7)
    assert found.unindexed.images == 14  # two a tar, as in the first
    plans = [whole_plan(found, iter(sizes)) for sizes in ([1] * 7, [2, 5], [7], [100])]
    assert {plan.to_bytes() for plan in plans} == {plans[0].to_bytes()}
    at_once = discover(str(tmp_path), InputOptions(), STORE)
    assert plans[0].table == Plan.of(at_once.parts).table
    assert [(i.reason, i.place, i.number) for i in plans[0].left_out] == [
        (i.reason, i.place, i.number) for i in Plan.of([], at_once.left_out).left_out
    ]


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    tars(tmp_path, 5)
    plan = Plan.of_discovery(find(tmp_path))
    again = Plan.from_bytes(plan.to_bytes())
    assert (again == plan, again.unindexed, again.tars_left) == (True, plan.unindexed, 3)
    assert (plan.images, plan.expected_images) == (4, 10)
    assert again != Plan(plan.rows(), plan.left_out)


@pytest.mark.parametrize(
    ("number", "options", "left"),
    [(3, {}, 0), (4, {}, 2), (9, {"limit": 2}, 0), (9, {"limit": 5}, 0), (9, {"sample": 2}, 0)],
)
def test_which_inputs_are_planned_in_instalments(
    tmp_path: Path, number: int, options: dict[str, int], left: int
) -> None:
    tars(tmp_path, number)
    found = find(tmp_path, **options)
    assert len(found.unindexed.tars if found.unindexed else ()) == left


@pytest.mark.parametrize(("limit", "indexed"), [(2, 2), (4, 2), (5, 4), (100, 9)])
def test_a_limit_reads_no_more_tars_than_it_needs(
    tmp_path: Path, limit: int, indexed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars(tmp_path, 9)
    seen: list[str] = []
    real = instalments.read_headers
    monkeypatch.setattr(
        instalments, "read_headers", lambda entry, store: (seen.append(entry.url), real(entry, store))[1]
    )
    found = discover(str(tmp_path), InputOptions(limit=limit), STORE)
    assert (found.images, len(seen)) == (min(limit, 18), indexed)
    left = [(item.number, item.exact) for item in found.left_out if item.is_choice]
    assert left == ([] if limit > 18 else [(2 * indexed - limit, False)])
    if limit == 2:
        assert "left out: at least 2 images after the first ones (--limit)" in found.lines


def test_the_part_size_follows_from_the_images_to_expect(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(8)]
    tars(tmp_path, 130, names)  # 1,040 images: five a part, by tars of eight
    found = find(tmp_path)
    assert found.unindexed is not None
    assert found.unindexed.part_size == 5
    assert [len(part) for part in found.parts[:2]] == [5, 3]
    sized = find(tmp_path, part_size=3)
    assert sized.unindexed is not None
    assert sized.unindexed.part_size == 3


@pytest.mark.parametrize("option", [{}, {"label_key": "seg.png"}])
def test_first_tars_of_no_use_are_no_reason_to_refuse_the_input(tmp_path: Path, option: dict[str, str]) -> None:
    tars(tmp_path, 9)
    for number in range(3):
        tar(tmp_path / f"{number:02}.tar", *(["x.txt"] if not option else ["a.jpg"]))
    found = find(tmp_path, **option)
    assert (found.images, len(found.unindexed.tars if found.unindexed else ())) == (2 if not option else 5, 5)
    with pytest.raises(UsageError, match=r"no member of the 9 tars ends in \.depth"):
        find(tmp_path, label_key="depth")


def test_later_tars_whose_names_would_have_decided_otherwise_are_told(tmp_path: Path) -> None:
    tars(tmp_path, 4)
    tar(tmp_path / "09.tar", "f.0000.jpg", "f.0001.jpg", "f.0002.jpg")
    found = find(tmp_path)
    plan = Plan.of_discovery(found)
    assert plan.unindexed is not None
    more = index_more(plan.unindexed, 9, InputOptions(), STORE, None, in_threads)
    assert more.notes == [
        "keys of tar members may contain dots: 2 images, such as f.0001.jpg, and 0 labels are not used, because keys "
        "of the first tars of the input end at the first dot. If these are samples of their own, --image-key names the "
        "member that is the image"
    ]
    assert ("unused_member", 2) in [(item.reason, item.number) for item in more.left_out]


def test_a_tar_that_cannot_be_indexed_later_says_how_to_go_on(tmp_path: Path) -> None:
    last = tars(tmp_path, 5)[-1]
    left = find(tmp_path).unindexed
    assert left is not None
    last.write_bytes(b"\x1f\x8b" + last.read_bytes())
    with pytest.raises(UsageError, match=r"compressed \(gzip\).*Then run the same command with --update"):
        index_more(left, 9, InputOptions(), STORE, None, in_threads)
    last.unlink()
    with pytest.raises(InputChanged, match=r"04\.tar has vanished since the run was planned"):
        index_more(left, 9, InputOptions(), STORE, None, in_threads)


def test_tars_that_another_driver_has_planned_are_not_planned_twice(tmp_path: Path) -> None:
    tars(tmp_path, 9)
    plan = Plan.of_discovery(find(tmp_path))
    left = plan.unindexed
    assert left is not None
    three, four, rest = (
        Plan.of_discovery(index_more(left, number, InputOptions(), STORE, None, in_threads)) for number in (3, 4, 9)
    )
    longer = growth._extended(plan, four)
    assert growth._extended(longer, three) == longer
    ledger = Ledger(Store(), f"file://{tmp_path}/out")
    ledger.freeze_plan(plan)
    assert ledger.extend_plan(longer) == longer
    assert ledger.extend_plan(growth._extended(plan, three)) == longer == ledger.read_plan()
    whole = growth._extended(plan, rest)
    updated = ledger.replace_plan(whole.without({whole.between(0, 1)[0].id}))  # by --update, meanwhile
    assert ledger.extend_plan(whole) == updated
    assert updated.since(plan) == updated.without(set(plan.table["id"].to_pylist()))


def test_tars_before_one_that_cannot_be_indexed_are_planned(tmp_path: Path) -> None:
    made = tars(tmp_path, 9)
    plan = Plan.of_discovery(find(tmp_path))
    made[7].unlink()

    def index(spread: Spread, left: Unindexed, number: int) -> Discovery:
        return index_more(left, number, InputOptions(), STORE, None, spread)

    with PlanGrowth(plan.unindexed, index, LocalEngine(1).spread, lambda: True) as growing:
        while plan.tars_left > 2:
            plan, _ = growing.next(plan)
        with pytest.raises(InputChanged, match=r"07\.tar has vanished"):
            growing.next(plan)
    assert plan.images == 14


def test_who_stops_waits_for_no_other_tar() -> None:
    begun, stopped = [], threading.Event()

    def read(number: int) -> None:
        begun.append(number)
        stopped.set()

    with pytest.raises(CancelledError):
        LocalEngine(1).spread(read, range(1000), stopped=stopped.is_set)
    assert len(begun) <= 16


class World(Place):
    """Six tars of three labelled images each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for index in range(6):
            members = []
            for seed in range(3 * index, 3 * index + 3):
                pixels, mask = scene(seed)
                members += [(f"{seed}.png", png(pixels)), (f"{seed}.seg.png", png(mask))]
            assert tar(self.images / f"{index}.tar", *members).stat().st_size == TAR

    def expect_all(self, rows: dict[str, Any]) -> None:
        assert sorted(rows, key=int) == [str(seed) for seed in range(18)]
        for name, row in rows.items():
            expect(row, int(name))


def contents(output: Path) -> dict[str, bytes]:
    kept = ("masks", "stats", "plan.parquet", "manifest.parquet")
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.relative_to(output).parts[0] in kept
    }


def test_a_run_in_instalments_ends_as_one_of_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    notes = Notes()
    report = run(world.job(), notes)
    assert (report.complete, report.total.images, report.miou("omz")) == (True, 18, 1.0)
    told = [line for line in notes.lines if "index" in line]  # between them as many as were indexed by then
    assert (told[0], told[-1]) == (
        "4 tars with about 12 images to be indexed while others are segmented",
        "all tars are indexed: 18 images",
    )
    monkeypatch.setattr(instalments, "WHOLE_BYTES", 1 << 40)
    outcome = world.run(output=str(tmp_path / "whole"))
    world.expect_all(outcome.rows)
    assert contents(world.output) == contents(tmp_path / "whole")


@pytest.mark.parametrize("after", [0, 2, 9])
def test_killed_while_tars_are_indexed_it_goes_on(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world, calls = World(tmp_path), [0]

    def broken(self: PlanGrowth, plan: Plan) -> tuple[Plan, list[str]]:
        calls[0] += 1
        if calls[0] > after:
            raise SegmentError("killed")
        found = self._take()
        assert not isinstance(found, BaseException)
        return growth._extended(plan, found.plan), found.lines

    with monkeypatch.context() as patch:
        patch.setattr(PlanGrowth, "next", broken)
        if after < 9:
            with pytest.raises(SegmentError, match="killed"):
                world.run()
        else:
            world.run()
    ledger = Ledger(Store(), f"file://{world.output}")
    if after < 9:
        run, plan = ledger.read_run_and_plan()
        assert run["input"]["images"] == 6
        if plan.unindexed:
            check_unfinished(ledger, plan)
    outcome = world.run()
    world.expect_all(outcome.rows)
    assert audit_run(ledger, deep=True).problems == ()
    assert (outcome.report.total.images, ledger.read_run()["input"]["images"]) == (18, 18)  # type: ignore[index]


def check_unfinished(ledger: Ledger, plan: Plan) -> None:
    """Whatever tells of the run says that tars are left, though all that is planned is done."""
    left = plan.tars_left
    tars_left = f"{left} tar{'s are' if left > 1 else ' is'} not indexed yet"
    assert audit_run(ledger).problems == (f"{tars_left}: run the same `segment run` again",)
    report = load_report(ledger)
    assert (report.is_whole, report.planned_in_words, report.planned_shards) == (False, "about 18", 6)
    assert (report.summary()["planned_images"], report.summary()["tars_not_indexed"]) == (18, left)
    assert f"{plan.images} of about 18 images so far" in summary_phrases(report)
    printed = io.StringIO()
    print_status(ledger, Console(file=printed, width=200))
    assert "all committed" not in printed.getvalue()
    assert tars_left in printed.getvalue()
    assert MaskedImages(ledger, plan, report.card.input).tars_left == left


def test_tars_that_are_gone_are_dropped_by_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(PlanGrowth, "next", lambda *_: (_ for _ in ()).throw(SegmentError("killed")))
        with pytest.raises(SegmentError, match="killed"):
            world.run()
    for number in range(2, 6):
        (world.images / f"{number}.tar").unlink()
    with pytest.raises(InputChanged, match=r"2.tar has vanished .* --update"):
        world.run()
    report = run(world.job(), Notes(), update=True)
    assert (report.complete, report.total.images) == (True, 6)


@pytest.mark.parametrize(
    ("images", "is_estimate", "ends"), [(1000, False, True), (1000, True, False), (500, True, True)]
)
def test_an_estimated_number_of_images_ends_no_run_early(images: int, is_estimate: bool, ends: bool) -> None:
    tally = Tally(load_card("unet-camvid-onnx-0001"), images, 120, 0, 1, is_estimate=is_estimate)
    tally.errors["undecodable"], tally.labelled = 101, 19
    with pytest.raises(TooManyErrors, match="101 of") if ends else nullcontext():
        refuse_hopeless(tally, 0.1, "file:///out")


def test_an_update_indexes_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(PlanGrowth, "next", lambda *_: (_ for _ in ()).throw(SegmentError("killed")))
        with pytest.raises(SegmentError, match="killed"):
            world.run()
    report = run(world.job(), Notes(), update=True)
    assert (report.complete, report.total.images) == (True, 18)


def test_an_estimate_reads_the_first_tars_only(tmp_path: Path) -> None:
    world = World(tmp_path)
    found = estimate(world.job(), Notes(), images=4)
    assert (found.images, found.forecast.images, found.forecast.shards) == ("about 18 images", 18, 6)
    assert found.forecast.input_bytes > 4 * TAR
