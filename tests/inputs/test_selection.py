"""`--limit` and `--sample`: the selected images of every input format, and the messages about the others."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment.errors import UsageError
from segment.inputs.discover import select_images
from segment.inputs.findings import Findings
from segment.inputs.parts import Member, Part, Span
from segment.inputs.shards import Shard, cut
from segment.job import InputOptions, Job
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.report.aggregate import load_report
from segment.report.console import summary_phrases
from segment.runs.driver import run, task_and_plan
from segment.runs.estimate import estimate, estimate_lines
from segment.store.client import Store
from tests.calls import Call
from tests.calls import segment as segment
from tests.datasets import FORMATS, Item, read_rows, write_parquet, write_tars
from tests.graphs import colour_classifier
from tests.reliability.trouble import assert_sound
from tests.runs import CARD, CARD_TOML, Notes, expect, png, scene

IMAGES = 23


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same 23 images in each format, every other one labelled; a card and its weights."""
    folder = tmp_path_factory.mktemp("choice")
    (folder / "card.toml").write_text(CARD_TOML)
    (folder / "model.onnx").write_bytes(colour_classifier(CARD))
    scenes = [scene(seed) for seed in range(IMAGES)]
    items = [Item(f"{i:02d}.png", png(a), png(b) if i % 2 else None) for i, (a, b) in enumerate(scenes)]
    for name, write in FORMATS.items():
        write(folder / name, items)
    return folder


def job(world: Path, kind: str, output: Path, **changes: Any) -> Job:
    inputs = {"files": "files/images", "tars": "tars", "parquet": "parquet", "list": "list/val.txt"}
    values: dict[str, Any] = {
        "input": str(world / inputs[kind]), "output": str(output), "model": str(world / "card.toml"),
        "weights": str(world / "model.onnx"), "runtime": "onnxruntime", "engine": "local", "workers": "1",
    }  # fmt: skip
    if kind == "files":
        values["labels"] = str(world / "files/labels")
    return Job(**{**values, **changes})


def stems(output: Path) -> list[str]:
    return [row["stem"] for row in read_rows(output)]


@pytest.mark.parametrize("kind", list(FORMATS))
@pytest.mark.parametrize("choice", ["limit", "sample"])
def test_some_images_of_every_format(kind: str, choice: str, world: Path, tmp_path: Path) -> None:
    output, notes = tmp_path / "out", Notes()
    report = run(job(world, kind, output, **{choice: 7}), notes)
    rows = read_rows(output)
    numbers = sorted(int(row["stem"]) for row in rows)
    assert (len(rows), report.total.images, report.complete) == (7, 7, True)
    assert numbers == list(range(7)) if choice == "limit" else numbers != list(range(7))
    for row in rows:
        expect(row, int(row["stem"]), labelled=int(row["stem"]) % 2 == 1)
    assert report.total.scored == sum(number % 2 for number in numbers)
    assert_sound(output)
    words = {"limit": "first 7 of 23 images", "sample": "sample of 7 of 23 images"}[choice]
    assert any(line.startswith(f"{words} in ") for line in notes.lines)
    left = {"limit": "left out: 16 images after the first ones (--limit)",
            "sample": "left out: 16 images that are not in the sample (--sample)"}[choice]  # fmt: skip
    assert left in notes.lines  # selected by an option: no warning
    assert summary_phrases(report)[0] == words
    record = json.loads((output / "run.json").read_text())
    assert record["job"][choice] == record["contract"]["input"][choice] == 7
    assert [(item["reason"], item["number"]) for item in record["input"]["left_out"]] == [
        ({"limit": "beyond_limit", "sample": "not_sampled"}[choice], 16)
    ]
    assert words in (output / "report" / "index.html").read_text()
    again = load_report(Ledger(Store(), f"file://{output}"))
    assert summary_phrases(again)[0] == words


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ("files", "parquet") else pytest.mark.slow) for kind in FORMATS]
)
def test_a_sample_is_always_the_same_wherever_the_input_is_stored(kind: str, world: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(world, moved)
    run(job(world, kind, tmp_path / "a", sample=5))
    run(job(moved, kind, tmp_path / "b", sample=5, part_size=2))
    assert sorted(stems(tmp_path / "a")) == sorted(stems(tmp_path / "b"))
    run(job(world, kind, tmp_path / "c", sample=6))
    assert set(stems(tmp_path / "a")) < set(stems(tmp_path / "c"))


@pytest.mark.parametrize("choice", ["limit", "sample"])
def test_more_than_there_are_is_all(choice: str, world: Path, tmp_path: Path) -> None:
    notes = Notes()
    report = run(job(world, "tars", tmp_path / "out", **{choice: 500}), notes)
    run(job(world, "tars", tmp_path / "whole"))
    assert stems(tmp_path / "out") == stems(tmp_path / "whole")
    assert summary_phrases(report)[0] == "23 images"
    assert not any(line.startswith("left out") for line in notes.lines)


def test_another_selection_is_another_run(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(job(world, "files", output, limit=4))
    before = sorted(path.name for path in output.rglob("*.parquet"))
    for changes, words in (
        ({}, r"input\.limit: 4 there, None now"),
        ({"limit": 5}, r"input\.limit: 4 there, 5 now"),
        ({"sample": 4}, r"input\.sample: None there, 4 now"),
    ):
        with pytest.raises(UsageError, match=words):
            run(job(world, "files", output, **changes))
    with pytest.raises(UsageError, match="--update works on a whole input, but this run is of a fixed choice"):
        run(job(world, "files", output, limit=4), update=True)
    assert sorted(path.name for path in output.rglob("*.parquet")) == before
    notes = Notes()
    run(job(world, "files", output, limit=4), notes)
    assert "complete already: 4 images, nothing to do" in notes.lines
    assert not any("--update" in line for line in notes.lines)  # which would be refused


def test_both_and_none_are_refused(world: Path, tmp_path: Path, segment: Call) -> None:
    with pytest.raises(UsageError, match="limit and sample both select images: give one of them"):
        job(world, "files", tmp_path, limit=1, sample=1)
    for flag in ("--limit=0", "--sample=-1"):
        assert segment("run", "in", "out", "--model=m", flag).code == 2
        assert "expected a whole number from 1 up" in segment.err


def test_the_plan_shows_the_selection(world: Path, tmp_path: Path) -> None:
    found = estimate(job(world, "parquet", tmp_path / "never", sample=9), Notes(), images=4)
    assert estimate_lines(found, None)[0].startswith("sample of 9 of 23 images in ")
    assert found.forecast.images == 9


@pytest.mark.slow
def test_input_bytes_are_those_of_the_selection(world: Path, tmp_path: Path) -> None:
    """The memory forecast needs the bytes of the selected images, not the size of their tar."""
    sizes = {}
    for kind in FORMATS:
        for choice in ({"limit": 2}, {"sample": 2}, {}):
            output = tmp_path / f"{kind}-{choice}"
            run(job(world, kind, output, **choice))
            sizes[kind, str(choice)] = task_and_plan(Ledger(Store(), f"file://{output}"))[1].input_bytes
    for kind in ("files", "tars", "list"):
        assert sizes[kind, "{'limit': 2}"] < sizes[kind, "{}"] / 5
        assert sizes[kind, "{'sample': 2}"] < sizes[kind, "{}"] / 5
    assert sizes["parquet", "{'sample': 2}"] < sizes["parquet", "{}"] / 2
    files = sum(path.stat().st_size for path in (world / "files").rglob("*.png"))
    assert sizes["files", "{}"] == sizes["tars", "{}"] == files
    assert sizes["parquet", "{}"] == sum(path.stat().st_size for path in (world / "parquet").glob("*.parquet"))


def test_only_row_groups_with_a_chosen_row_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segment.inputs.parquet import row_groups

    folder = tmp_path / "in"
    write_parquet(folder, [Item(f"{i:03d}.png", png(scene(0)[0])) for i in range(60)], shards=1, row_group=6)
    read: list[int] = []
    real = row_groups._read_row_group

    def note(part: Part, *rest: Any) -> Any:
        read.append(part.row_group)
        return real(part, *rest)

    monkeypatch.setattr(row_groups, "_read_row_group", note)
    (tmp_path / "card.toml").write_text(CARD_TOML)
    (tmp_path / "model.onnx").write_bytes(colour_classifier(CARD))
    values = {"model": str(tmp_path / "card.toml"), "weights": str(tmp_path / "model.onnx"), "engine": "local",
              "runtime": "onnxruntime", "workers": "1"}  # fmt: skip
    run(Job(input=str(folder), output=str(tmp_path / "out"), sample=4, **values))
    groups = {row["index"] // 6 for row in read_rows(tmp_path / "out")}
    assert set(read) == groups


def test_losses_in_damaged_tars_are_reported_apart_from_the_selection(tmp_path: Path) -> None:
    items = [Item(f"{i:02d}.png", png(scene(i)[0])) for i in range(10)]
    write_tars(tmp_path / "in", items, shards=1)
    (tar,) = (tmp_path / "in").glob("*.tar")
    with tarfile.open(tar) as opened:
        cut_at = opened.getmembers()[5].offset_data + 10
    tar.write_bytes(tar.read_bytes()[:cut_at])
    (tmp_path / "card.toml").write_text(CARD_TOML)
    (tmp_path / "model.onnx").write_bytes(colour_classifier(CARD))
    values = {"input": str(tmp_path / "in"), "model": str(tmp_path / "card.toml"), "engine": "local",
              "weights": str(tmp_path / "model.onnx"), "runtime": "onnxruntime"}  # fmt: skip
    notes = Notes()
    report = run(Job(output=str(tmp_path / "some"), limit=2, **values), notes)
    assert report.complete
    assert any("cut off" in line or "damage" in line for line in notes.warnings)
    assert audit_run(Ledger(Store(), f"file://{tmp_path}/some")).images == 2


def test_flags_and_job_files(world: Path, tmp_path: Path, segment: Call) -> None:
    file = tmp_path / "job.toml"
    file.write_text(f'input = "{world}/files/images"\noutput = "{tmp_path}/out"\nmodel = "{world}/card.toml"\n'
                    f'weights = "{world}/model.onnx"\nsample = 3\nengine = "local"\n')  # fmt: skip
    assert segment("run", f"--job={file}").code == 0, segment.err
    assert "sample of 3 of 23 images" in segment.out
    assert segment("report", str(tmp_path / "out")).code == 0
    assert "sample of 3 of 23 images" in segment.out
    assert segment("status", str(tmp_path / "out")).code == 0
    assert segment.out.splitlines()[0].endswith(" (sample of 3 of 23 images): complete")
    page = (tmp_path / "out/report/index.html").read_text()
    assert "<span>sample of 3 of 23 images, 1 shard" in " ".join(page.split())
    assert pq.read_metadata(next((tmp_path / "out").glob("plan.parquet"))).num_rows == 1


# --- the selection itself ---------------------------------------------------------------------------------------------


def parquet_shard(groups: list[int]) -> Shard:
    starts = [sum(groups[:i]) for i in range(len(groups))]
    runs = [(i, start, rows, 10) for i, (start, rows) in enumerate(zip(starts, groups, strict=True))]
    return Shard("a", "h", "parquet", "s3://b/a.parquet", 1, "", (), runs)


def member_shard(number: int, images: int) -> Shard:
    members = [Member(f"{number}/{i}", Span("", i, 7), None) for i in range(images)]
    return Shard(f"t{number}", f"h{number}", "webdataset", f"s3://b/{number}.tar", 1, "", members, [(-1, 0, images, 0)])


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from(["limit", "sample"]),
    st.integers(1, 60),
    st.integers(1, 5),
)
def test_rows_are_chosen_once_within_their_row_group(groups: list[list[int]], how: str, n: int, size: int) -> None:
    shards = [parquet_shard(some) for some in groups]
    total = sum(map(sum, groups))
    options, findings = InputOptions(**{how: n, "part_size": size}), Findings()
    chosen = select_images(shards, options, "s3://b", findings)
    parts = list(cut(chosen, options))
    assert sum(map(len, parts)) == min(n, total) == sum(shard.images for shard in chosen)
    assert sum(item.number for item in findings.left_out) == total - min(n, total)
    assert max(map(len, parts)) <= size
    bounds = {(i, start, start + rows) for shard in shards for i, start, rows, _ in shard.runs}
    for part in parts:
        assert any(g == part.row_group and a <= part.start and part.stop <= b for g, a, b in bounds)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 80))
def test_members_are_chosen_in_order(sizes: list[int], n: int) -> None:
    shards = [member_shard(number, images) for number, images in enumerate(sizes)]
    everything = [member.id for shard in shards for member in shard.members]
    first = select_images(shards, InputOptions(limit=n), "s3://b", Findings())
    assert [member.id for shard in first for member in shard.members] == everything[:n]
    some = [m.id for s in select_images(shards, InputOptions(sample=n), "s3://b", Findings()) for m in s.members]
    assert len(some) == min(n, sum(sizes))
    assert some == [name for name in everything if name in set(some)]


def test_a_sample_is_spread_evenly() -> None:
    shards = [parquet_shard([5000, 5000]), member_shard(1, 10_000)]
    chosen = select_images(shards, InputOptions(sample=2000), "s3://b", Findings())
    assert abs(chosen[0].images - 1000) < 100  # four standard deviations of a hypergeometric draw are 85
    low = sum(rows for _, start, rows, _ in chosen[0].runs if start < 5000)
    assert abs(low - chosen[0].images / 2) < 70


def test_a_reduced_shard_has_parts_of_other_names() -> None:
    whole, (some,) = (
        member_shard(1, 9),
        select_images([member_shard(1, 9)], InputOptions(limit=4), "s3://b", Findings()),
    )
    options = InputOptions(part_size=4)
    assert next(cut([whole], options)).id != next(cut([some], options)).id
    assert next(cut([some], options)).size == whole.size  # the tar's own size, by which a change is detected
