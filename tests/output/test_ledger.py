"""The ledger: the frozen plan, the identity of a run and its differences, statistics, and the audit."""

import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment.errors import SegmentError, UsageError
from segment.inputs.findings import LeftOut
from segment.inputs.parts import Member, Part, Span
from segment.metrics import Confusion
from segment.output.audit import Audit, audit_listing
from segment.output.identity import begin, differences, fingerprint_of, identity_of
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.plan_rows import PLAN_SCHEMA, parts_of
from segment.output.results import PartResult
from segment.output.shard_stats import ShardStats, stats_table
from segment.output.tables import ImageRow, to_parquet, write_masks
from segment.pipeline.part_results import failed
from segment.runs.rounds import ShardStatistics
from segment.store.client import Store
from segment.store.entries import Entries
from tests.runs import CARD, CLASSES, Place, png, read_rows, scene

STORE = Store()
MEMBERS = tuple(Member(f"{i}.png", Span(f"file:///in/{i}.png", 0, 10 + i), None) for i in range(10))


def part(shard: str = "in-00000-abc", start: int = 0, stop: int = 4) -> Part:
    members = MEMBERS[start:stop]
    identity = f"{shard[-3:]}-{start:06d}-{stop:06d}"
    return Part(identity, shard, "files", "file:///in", 100, "e", start, stop, -1, members)


PARTS = [part(), part(start=4, stop=8), part(start=8, stop=10), part("in-00001-def", 0, 3)]
PLAN = Plan.of(PARTS)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
spans = st.builds(Span, names, st.integers(0, 2**62), st.integers(-3, 2**62))


@st.composite
def odd_parts(draw: st.DrawFn) -> Part:
    members = draw(st.lists(st.builds(Member, names, spans, st.none() | spans), max_size=4))
    size, start = draw(st.integers(0, 2**62)), draw(st.integers(0, 2**61))
    stop = start + (len(members) or draw(st.integers(1, 2**61)))
    kind = draw(st.sampled_from(["files", "webdataset"])) if members else "parquet"
    texts = {name: draw(names) for name in ("url", "etag")}
    texts |= {name: draw(names.filter(lambda text: "/" not in text and text.strip("."))) for name in ("id", "shard")}
    group = draw(st.integers(-1, 2**31 - 1))
    return Part(format=kind, row_group=group, members=tuple(members), size=size, start=start, stop=stop, **texts)


# --- the plan --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(odd_parts(), max_size=5, unique_by=lambda part: part.id))
def test_a_plan_comes_back_as_it_was_made_whatever_the_names(parts: list[Part]) -> None:
    plan = Plan.of(parts)
    found = Plan.from_bytes(plan.to_bytes())
    assert list(found.parts()) == parts
    assert list(plan.parts()) == parts
    assert found.to_bytes() == plan.to_bytes()
    assert len(found) == len(parts)


def test_what_a_plan_counts() -> None:
    assert len(PLAN) == 4
    assert PLAN.images == 13
    assert PLAN.images_by_shard() == {"in-00000-abc": 10, "in-00001-def": 3}
    assert PLAN.parts_by_shard() == {"in-00000-abc": [p.id for p in PARTS[:3]], "in-00001-def": ["def-000000-000003"]}
    assert Plan.of([]).images == 0
    labelled = replace(PARTS[0], members=(*MEMBERS[:3], replace(MEMBERS[3], label=MEMBERS[4].image)))
    assert [Plan.of(parts).names_labels for parts in ([], PARTS, [*PARTS, labelled])] == [False, False, True]
    assert list(Plan.of([]).parts()) == []


def test_what_is_left_of_a_plan() -> None:
    left = PLAN.without({PARTS[0].id, PARTS[2].id, "of no plan"})
    assert list(left.parts()) == [PARTS[1], PARTS[3]]
    assert list(PLAN.without(set()).parts()) == PARTS
    assert len(PLAN.without({p.id for p in PARTS})) == 0


def test_damage_of_what_a_plan_leaves_out_is_noticed() -> None:
    """It is in the footer, which has no checksum of its own."""
    plan = PLAN.with_left_out([LeftOut("hidden", 3, {".png": 3}, ("in/.a",))])
    assert Plan.from_bytes(plan.to_bytes()) == plan
    table = pq.read_table(io.BytesIO(plan.to_bytes()))
    known = {key: text for key, text in table.schema.metadata.items() if key in (b"left_out", b"sha256")}
    damaged = known | {b"left_out": known[b"left_out"].replace(b"in/.a", b"in/.b")}
    for changed in (damaged, {b"left_ouu": known[b"left_out"], b"sha256": known[b"sha256"]}):
        with pytest.raises(ValueError, match="another text"):
            Plan.from_bytes(to_parquet(table.replace_schema_metadata(changed)))
    earlier = {b"left_out": known[b"left_out"]}  # as earlier versions wrote it
    assert Plan.from_bytes(to_parquet(table.replace_schema_metadata(earlier))) == plan


def test_any_slice_of_the_table_is_parts() -> None:
    assert list(parts_of(PLAN.rows(1, 3))) == PARTS[1:3]


def test_many_parts_come_in_order() -> None:
    many = [part(start=i, stop=i + 1) for i in range(10)] * 100
    assert list(Plan.of(many).parts()) == many


@pytest.mark.parametrize("change", [{"members": ()}, {"format": "parquet"}, {"start": -3, "stop": -1}])
def test_parts_that_do_not_name_their_images_are_no_plan(change: dict[str, Any]) -> None:
    wrong = replace(part(start=0, stop=2), **change)
    with pytest.raises(ValueError, match="a part of other images than it says"):
        Plan.from_bytes(Plan.of([PARTS[1], wrong]).to_bytes())


@pytest.mark.parametrize("stops", [None, ["x"] * 4], ids=["a column is missing", "a column is of another type"])
def test_what_is_no_plan_is_not_taken_for_one(ledger: Ledger, stops: list[str] | None) -> None:
    table = PLAN.rows().drop_columns("stop")
    STORE.write(ledger.url("plan.parquet"), to_parquet(table.append_column("stop", [stops]) if stops else table))
    with pytest.raises(
        SegmentError, match=r"plan\.parquet is damaged: delete it, and the same `segment run` writes it again"
    ):
        ledger.read_plan()
    assert PLAN_SCHEMA.names == PLAN.rows(0, 1).schema.names


# --- the identity ----------------------------------------------------------------------------------------------------


def test_a_flipped_bit_takes_no_rows_from_a_plan() -> None:
    """A footer has no checksum; without its number of rows a row group reads as empty, and the plan as done."""
    plan = Plan.of([part(start=4 * number, stop=4 * number + 4) for number in range(4)])
    data = plan.to_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    emptied = 0
    for at in range(footer, len(data)):
        if data[at] == 8:  # four, as Thrift writes it
            changed = data[:at] + b"\0" + data[at + 1 :]
            try:
                emptied += pq.read_metadata(io.BytesIO(changed)).row_group(0).num_rows == 0
                assert Plan.from_bytes(changed) == plan
            except (pa.ArrowException, OSError, ValueError):
                continue
    assert emptied == 1


def test_differences_are_named_by_their_path() -> None:
    ours = {"runtime": {"name": "openvino", "precision": "f32"}, "mask_size": "source", "new": 1}
    theirs = {"runtime": {"name": "openvino", "precision": "bf16"}, "mask_size": "source", "old": None}
    assert differences(ours, theirs) == ["new: None there, 1 now", "runtime.precision: 'bf16' there, 'f32' now"]
    assert differences(ours, ours) == []
    assert differences({"a": {"b": 1}}, {"a": 2}) == ["a: 2 there, {'b': 1} now"]


def test_words_about_a_model_are_no_part_of_its_contract_all_else_is() -> None:
    contract = identity_of(CARD, mask_size="source")
    worded = CARD.model_copy(
        update={
            "description": "x",
            "licence": "x",
            "source": "x",
            "gflops": 1.0,
            "mparams": 1.0,
            "metric": CARD.metric.model_copy(update={"published": 0.9, "note": "x"}),
        }
    )
    assert fingerprint_of(identity_of(worded, mask_size="source")) == fingerprint_of(contract)
    changes: list[dict[str, Any]] = [
        {"name": "other"},
        {"input": CARD.input.model_copy(update={"channels": "BGR"})},
        {"output": CARD.output.model_copy(update={"kind": "probabilities"})},
        {"metric": CARD.metric.model_copy(update={"convention": "cityscapes"})},
        {"classes": CARD.classes.model_copy(update={"ignore": ()})},
    ]
    prints = {fingerprint_of(identity_of(CARD.model_copy(update=change), mask_size="source")) for change in changes}
    prints |= {fingerprint_of(contract), fingerprint_of(identity_of(CARD, mask_size="model"))}
    assert len(prints) == len(changes) + 2
    assert fingerprint_of(json.loads(json.dumps(contract))) == fingerprint_of(contract)  # as read back from run.json


# --- the run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(STORE, f"file://{tmp_path}/out")


def record(**settings: Any) -> dict[str, Any]:
    contract = identity_of(CARD, **settings)
    return {"card": CARD.model_dump(mode="json"), "contract": contract, "fingerprint": fingerprint_of(contract)}


def test_a_run_begins_once_and_again_the_same(ledger: Ledger) -> None:
    assert ledger.read_run() is None
    assert ledger.read_plan() is None
    begin(ledger, record(precision="f32"))
    before = STORE.read(ledger.url("run.json"))
    begin(ledger, record(precision="f32"))
    assert STORE.read(ledger.url("run.json")) == before
    assert ledger.read_run() == json.loads(before)


def test_another_run_in_the_same_place_is_refused_with_the_difference(ledger: Ledger, tmp_path: Path) -> None:
    begin(ledger, record(precision="bf16", mask_size="source"))
    before = STORE.read(ledger.url("run.json"))
    STORE.write(ledger.masks_url("shard", "part"), b"committed")
    with pytest.raises(UsageError) as caught:
        begin(ledger, record(precision="f32", mask_size="source"))
    assert str(caught.value).splitlines()[0].endswith("holds another run; its masks would mix with these:")
    assert str(caught.value).splitlines()[1:] == [
        "  precision: 'bf16' there, 'f32' now",
        "Choose another output, or use the options of that run.",
    ]
    assert STORE.read(ledger.url("run.json")) == before


def test_a_run_of_another_version_is_refused_without_advice_that_cannot_be_taken(ledger: Ledger) -> None:
    begin(ledger, record(format=3))
    STORE.write(ledger.masks_url("shard", "part"), b"committed")
    with pytest.raises(UsageError) as caught:
        begin(ledger, record(format=4))
    assert str(caught.value).splitlines()[1:] == [
        "  format: 3 there, 4 now",
        "Choose another output, since another version of segment began that run.",
    ]


def test_a_run_that_committed_nothing_is_replaced(ledger: Ledger) -> None:
    begin(ledger, record(precision="bf16"))
    ledger.freeze_plan(PLAN)
    STORE.write(ledger.url("masks", "shard", ".DS_Store"), b"what a file manager leaves")
    STORE.write(ledger.url("runs", "1.json"), b"{}")
    with pytest.raises(UsageError, match="another run is starting at "):
        begin(ledger, record(precision="f32"))  # its driver may still be alive
    STORE.write(ledger.url("runs", "1.parquet"), b"it ended")
    begin(ledger, record(precision="f32"))
    assert ledger.read_run() == record(precision="f32")
    assert ledger.read_plan() is None  # the plan of the other run is deleted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"job": 1}',
        b'{"contract": {}, "fingerprint": "f"}',
        b"{" * 10,
    ],
)
def test_a_run_json_that_is_not_ours_is_refused(ledger: Ledger, data: bytes) -> None:
    STORE.write(ledger.url("run.json"), data)
    for call in (ledger.read_run, lambda: begin(ledger, record())):
        with pytest.raises(
            UsageError, match=r"run\.json is not a run of this program: restore it if it is damaged, or "
        ):
            call()
    assert STORE.read(ledger.url("run.json")) == data


def test_a_plan_that_is_there_is_kept_and_used(ledger: Ledger) -> None:
    """Of two drivers at once, the plan of the first one counts."""
    assert ledger.freeze_plan(Plan.of(PARTS[:1])) == Plan.of(PARTS[:1])
    before = STORE.read(ledger.url("plan.parquet"))
    assert ledger.freeze_plan(PLAN) == Plan.of(PARTS[:1])
    assert STORE.read(ledger.url("plan.parquet")) == before
    STORE.write(ledger.url("plan.parquet"), before[:-9])
    with pytest.raises(SegmentError, match=r"plan\.parquet is damaged: delete it"):
        ledger.freeze_plan(PLAN)


# --- committed parts and the audit --------------------------------------------------------------------------------


def commit(ledger: Ledger, some: Part, rows: int | None = None) -> None:
    _, mask = scene(1)
    confusion = Confusion.of(mask, mask, CLASSES)
    made = [
        ImageRow(member.id, member.image.url, some.start + i, mask.shape, None, png(mask), confusion, 1.0, 1.0)
        for i, member in enumerate(some.members[:rows])
    ]
    STORE.write(
        ledger.masks_url(some.shard, some.id), write_masks(made, shard=some.shard, part=some.id, fingerprint="f")
    )


def test_a_part_that_was_written_anew_since_it_was_listed_is_read(ledger: Ledger) -> None:
    """Another driver repairs it; only what is small, and read whole, may be taken for as long as it was."""
    row = ImageRow("0.png", "file:///in/0.png", 0, (1, 1), None, bytes(range(256)) * 400, None, None, None)
    data = write_masks([row], shard="s", part="p", fingerprint="f")
    STORE.write(ledger.masks_url("s", "p"), data)
    for listed in (100, 70_000, len(data) - 9, len(data), len(data) + 9, 1 << 30):
        assert ledger.read_rows("s", "p", ["id"], size=listed)["id"].to_pylist() == ["0.png"]


@pytest.fixture
def finished(ledger: Ledger) -> Ledger:
    """A ledger with all parts of PLAN committed and the statistics of both shards."""
    for some in PARTS:
        commit(ledger, some)
    for shard, parts in PLAN.parts_by_shard().items():
        ledger.finish_shard(shard, parts, CARD, "f")
    return ledger


def test_committed_parts_are_found_with_and_without_statistics(ledger: Ledger) -> None:
    assert ledger.committed(PLAN) == set()
    for some in (PARTS[1], PARTS[3]):
        commit(ledger, some)
    assert ledger.committed(PLAN) == {PARTS[1].id, PARTS[3].id}
    ledger.finish_shard("in-00001-def", [PARTS[3].id], CARD, "f")
    assert ledger.finished_shards() == {"in-00001-def"}
    assert ledger.committed(PLAN) == {PARTS[1].id, PARTS[3].id}


def test_many_unfinished_shards_are_found_by_one_listing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [part(f"in-{number:05d}-abc", 0, 2) for number in range(100)]
    commit(ledger, many[7])
    listed: list[str] = []
    real = Store.list

    def listing(self: Store, url: str, *, irregular: bool = False) -> Entries:
        listed.append(url)
        return real(self, url, irregular=irregular)

    monkeypatch.setattr(Store, "list", listing)
    assert ledger.committed(Plan.of(many)) == {many[7].id}
    assert listed == [ledger.url("stats"), ledger.url("masks")]


def test_statistics_of_a_shard_are_the_same_bytes_every_time(finished: Ledger) -> None:
    url = finished.stats_url("in-00000-abc")
    before = STORE.read(url)
    stats = finished.finish_shard("in-00000-abc", PLAN.parts_by_shard()["in-00000-abc"], CARD, "f")
    assert STORE.read(url) == before
    assert (stats.images, stats.errors, stats.scored, stats.image_miou_sum) == (10, 0, 10, 10.0)
    assert stats.confusion.counts.sum() == 10 * 24 * 32
    assert finished.shard_stats(["in-00000-abc"]) == {"in-00000-abc": stats}


def test_an_audit_that_holds(finished: Ledger) -> None:
    audit = audit_listing(finished, PLAN, CARD)
    assert audit == Audit(shards=2, parts=4, images=13, errors=0, scored=13)
    assert audit.problems == ()
    assert not finished.is_complete()
    finished.succeed(audit.totals, "f" * 64)
    assert finished.is_complete()
    totals = json.loads(STORE.read(finished.url("_SUCCESS")))
    assert totals == {"shards": 2, "parts": 4, "images": 13, "errors": 0, "scored": 13, "fingerprint": "f" * 64}


def path(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def lose_part(ledger: Ledger) -> None:
    path(ledger.masks_url("in-00000-abc", PARTS[1].id)).unlink()


def add_part(ledger: Ledger) -> None:
    commit(ledger, part(start=4, stop=6))


def add_shard(ledger: Ledger) -> None:
    commit(ledger, part("other-00000-xyz", 0, 1))


def lose_stats(ledger: Ledger) -> None:
    path(ledger.stats_url("in-00001-def")).unlink()


def add_stats(ledger: Ledger) -> None:
    STORE.write(ledger.stats_url("other-00000-xyz"), STORE.read(ledger.stats_url("in-00001-def")))


def lose_row(ledger: Ledger) -> None:
    commit(ledger, PARTS[3], rows=2)
    ledger.finish_shard("in-00001-def", [PARTS[3].id], CARD, "f")


def forget_part(ledger: Ledger) -> None:
    ledger.finish_shard("in-00000-abc", [PARTS[0].id, PARTS[2].id], CARD, "f")


def count_twice(ledger: Ledger) -> None:
    stats = ShardStats(Confusion.zeros(CLASSES), 6, 0, 0, 0.0)
    table = stats_table("in-00001-def", stats, CARD)
    STORE.write(ledger.stats_url("in-00001-def"), to_parquet(table))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lose_part,
            "masks/in-00000-abc/abc-000004-000008.parquet was committed and has been lost: "
            "run the same `segment run` again",
        ),
        (add_part, "masks/in-00000-abc/abc-000004-000006.parquet is in no plan: delete it"),
        (add_shard, "masks/other-00000-xyz/xyz-000000-000001.parquet is in no plan: delete it"),
        (lose_stats, "1 shard has no statistics yet: run the same `segment run` again"),
        (add_stats, "stats/other-00000-xyz.parquet is in no plan: delete it"),
        (
            lose_row,
            "shard in-00001-def has 2 rows for 3 planned images: run the same `segment run` again with --verify",
        ),
        (
            forget_part,
            "shard in-00000-abc has 6 rows for 10 planned images: run the same `segment run` again with --verify",
        ),
        (
            count_twice,
            "shard in-00001-def has 6 rows for 3 planned images: run the same `segment run` again with --verify",
        ),
    ],
)
def test_the_audit_finds(finished: Ledger, damage: Callable[[Ledger], None], problem: str) -> None:
    damage(finished)
    assert audit_listing(Ledger(STORE, finished.output), PLAN, CARD).problems == (problem,)


def test_what_is_not_done_yet_is_one_line(ledger: Ledger) -> None:
    commit(ledger, PARTS[1])
    audit = audit_listing(ledger, PLAN, CARD)
    assert audit.problems == ("9 of 13 images not done yet: run the same `segment run` again",)
    assert (audit.wrong, audit.faults) == ((), 0)


def test_one_cause_with_many_effects_is_a_few_lines(finished: Ledger) -> None:
    for number in range(200):
        STORE.write(finished.url("masks", "old", f"{number:03d}.parquet"), b"")
    lose_part(finished)
    audit = audit_listing(finished, PLAN, CARD)
    assert audit.faults == 201
    assert len(audit.problems) == 12
    assert audit.problems[1] == "masks/old/000.parquet is in no plan: delete it"
    assert audit.problems[-1] == "190 more objects under masks/ that are in no plan"


@pytest.mark.parametrize(
    "name",
    [
        "masks/x.parquet",
        "masks/{shard}/x.PARQUET",
        "masks/{shard}/{part}.Parquet",
        "masks/{shard}/nested/{part}.parquet",
        "masks/a/b/c/x.parquet",
        "masks/{shard}/.hidden.parquet",
        "masks/{shard}/{part}.pq",
        "masks/{shard}/spark.parquet/part-00000",
        "masks/{shard}/{part}.parquet.bak",
        "masks/{shard}/copy",
        "masks/copy/{part}",
        "stats/x.PARQUET",
        "stats/nested/{shard}.parquet",
        "stats/{shard}.PARQUET",
    ],
)
def test_whatever_a_reader_would_count_and_the_plan_does_not_know_is_a_problem(finished: Ledger, name: str) -> None:
    name = name.format(shard=PARTS[3].shard, part=PARTS[3].id)
    STORE.write(finished.url(*name.split("/")), STORE.read(finished.masks_url(PARTS[3].shard, PARTS[3].id)))
    assert audit_listing(finished, PLAN, CARD).problems == (f"{name} is in no plan: delete it",)


@pytest.mark.parametrize(
    "name",
    ["masks/.DS_Store", "masks/Thumbs.db", "masks/desktop.ini", "masks/@eaDir/a/b", "masks/_tmp/a", "stats/.nfs0001"],
)
def test_what_file_managers_leave_is_nobodys_row(finished: Ledger, name: str) -> None:
    STORE.write(finished.url(*name.split("/")), b"a file manager was here")
    assert audit_listing(finished, PLAN, CARD).problems == ()


@pytest.mark.parametrize("name", ["masks/Thumbs.db", "masks/lost+found/part-0", "stats/@eaDir/a/b"])
def test_a_parquet_file_by_the_name_of_a_system_s_is_counted(finished: Ledger, name: str) -> None:
    """Readers of the folder count it."""
    STORE.write(finished.url(*name.split("/")), STORE.read(finished.masks_url(PARTS[3].shard, PARTS[3].id)))
    assert audit_listing(finished, PLAN, CARD).problems == (f"{name} is in no plan: delete it",)


@pytest.mark.parametrize(
    "name", ["nested/{part}.parquet", "{part}.PARQUET", "../{part}.parquet", "../x/{part}.parquet"]
)
def test_only_the_object_under_its_own_name_is_the_commit_of_a_part(ledger: Ledger, name: str) -> None:
    place = path(ledger.masks_url(PARTS[3].shard, PARTS[3].id))
    commit(ledger, PARTS[3])
    other = (place.parent / name.format(part=PARTS[3].id)).resolve()
    other.parent.mkdir(exist_ok=True)
    place.rename(other)
    assert ledger.committed(PLAN) == set()
    many = [part(f"in-{number:05d}-abc", 0, 2) for number in range(100)]
    assert ledger.committed(Plan.of([*PARTS, *many])) == set()
    stats = path(ledger.stats_url(PARTS[3].shard))
    (stats.parent / "nested").mkdir(parents=True)
    (stats.parent / "nested" / stats.name).touch()
    assert ledger.finished_shards() == set()


# --- through `segment.run` -------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for seed in range(4):
        place.add(f"{seed}.png", seed)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    """All files of an output that a rerun must not change: all but `runs/` and the page, which hold times."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "runs" not in file.parts and file.name != "index.html"
    }


def test_a_rerun_changes_nothing_and_a_lost_part_comes_back_byte_by_byte(place: Place) -> None:
    place.run()
    before = contents(place.output)
    attempts = len(list((place.output / "runs").iterdir()))
    place.run()
    assert contents(place.output) == before
    assert len(list((place.output / "runs").iterdir())) == attempts  # a run without work records no attempt
    next(place.output.glob("masks/*/*.parquet")).unlink()
    for file in place.output.glob("stats/*.parquet"):
        file.unlink()
    place.run()
    assert contents(place.output) == before


def test_what_is_in_the_output(place: Place) -> None:
    place.run()
    shard = next((place.output / "masks").iterdir()).name
    parts = sorted(Plan.from_bytes((place.output / "plan.parquet").read_bytes()).table["id"].to_pylist())
    assert set(contents(place.output)) == {
        "run.json",
        "plan.parquet",
        *(f"masks/{shard}/{part}.parquet" for part in parts),
        f"stats/{shard}.parquet",
        "report/classes.parquet",
        "report/shards.parquet",
        "report/summary.json",
        "README.md",
        "manifest.parquet",
        "_SUCCESS",
    }
    assert (place.output / "report" / "index.html").is_file()
    run = json.loads((place.output / "run.json").read_text())
    assert run["scored_at"] == "source"
    assert run["contract"]["runtime"]["name"] == "onnxruntime"
    assert run["job"]["input"] == str(place.images)
    assert "storage_options" not in run["job"]
    assert fingerprint_of(run["contract"]) == run["fingerprint"]


def test_a_run_asked_for_otherwise_is_refused_and_nothing_is_touched(place: Place) -> None:
    place.run()
    before = contents(place.output)
    with pytest.raises(UsageError, match=r"  mask_size: 'source' there, 'model' now\n"):
        place.run(mask_size="model")
    assert contents(place.output) == before


def test_a_remap_in_other_words_is_the_same_run(place: Place) -> None:
    place.run(label_remap={"#400080": "Sky", "77": "ignore", "*": "ignore"})
    before = contents(place.output)
    place.run(label_remap={"*": "ignore", " 64, 0,128": 0, "077": "Ignore"})
    assert contents(place.output) == before
    with pytest.raises(UsageError, match=r"  labels\.remap\.64,0,129: None there, 0 now\n"):
        place.run(label_remap={"*": "ignore", "64,0,128": 0, "64 0 129": 0, "77": "ignore"})


def test_an_image_that_changed_since_the_plan_is_no_mix(place: Place) -> None:
    place.run()
    for file in place.output.glob("masks/*/*.parquet"):
        file.unlink()
    for file in place.output.glob("stats/*.parquet"):
        file.unlink()
    (place.images / "2.png").write_bytes(b"another image")
    with pytest.raises(SegmentError, match=r"has changed since the run was planned"):
        place.run()
    assert sorted(row["id"] for row in read_rows(place.output)) == ["0.png", "1.png"]  # the other part is committed


@pytest.mark.parametrize(
    ("name", "column"),
    [("plan.parquet", "url"), ("stats/*.parquet", "images"), ("masks/*/*.parquet", "confusion.count.list.element")],
)
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_to_what_is_stored_is_named_and_mended_by_deleting(
    place: Place, name: str, column: str, damage: str
) -> None:
    place.run()
    before = contents(place.output)
    file = min(place.output.glob(name))
    file.write_bytes(file.read_bytes()[:-20] if damage == "cut" else flipped(file.read_bytes(), column))
    if name.startswith("masks"):
        next(place.output.glob("stats/*.parquet")).unlink()
    with pytest.raises(SegmentError) as caught:
        place.run()
    assert str(caught.value).startswith(f"{file} is damaged: delete it, and the same `segment run` writes it again")
    file.unlink()
    place.run()
    assert contents(place.output) == before


def flipped(data: bytes, column: str) -> bytes:
    """Flip the last byte of a column's pages."""
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
    at = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 1
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


class SlowLedger(Ledger):
    """A ledger whose statistics block until they are released."""

    def __init__(self) -> None:
        super().__init__(Store(), "memory://slow")
        self.begun: list[str] = []
        self.at_work, self.go_on = threading.Event(), threading.Event()

    def finish_shard(self, shard: str, *_: Any) -> ShardStats:
        self.begun.append(shard)
        self.at_work.set()
        assert self.go_on.wait(10)
        return ShardStats(0, 0, 0, 0.0, Confusion.zeros(1))


@pytest.mark.parametrize("stopped", [True, False])
def test_who_stops_a_run_waits_for_one_shard_of_its_books_not_for_all(stopped: bool) -> None:
    ledger, task = SlowLedger(), SimpleNamespace(card=None, fingerprint="f")
    parts = [part(f"in-{i:05d}-abc") for i in range(4)]

    def run() -> None:
        with ShardStatistics(ledger, task, Plan.of(parts), set()) as statistics:  # type: ignore[arg-type]
            for one in parts:
                statistics.add(PartResult(one.id, one.shard))
            assert ledger.at_work.wait(10)
            threading.Timer(0.2, ledger.go_on.set).start()
            if stopped:
                raise KeyboardInterrupt

    if stopped:
        with pytest.raises(KeyboardInterrupt):
            run()
    else:
        run()
    assert ledger.begun == [one.shard for one in parts][: 1 if stopped else 4]


def test_the_reason_of_a_failed_part_holds_no_signature() -> None:
    error = RuntimeError("GET https://host/a.png?X-Amz-Signature=HUSH")
    assert failed(PARTS[0], error).failure == "RuntimeError: GET https://host/a.png?***"
