"""`segment run --verify`: what is committed but damaged is done again, by looking at the ends of the files alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segment.store.client import Store
from tests.calls import Call
from tests.graphs import colour_classifier
from tests.reliability.arena import Arena, note, proxied
from tests.reliability.trouble import assert_sound, masks, street
from tests.runs import CARD, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Six images in three parts; done."""
    place = street(tmp_path)
    place.run()
    return place


def truncate(place: Place, file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose_the_last_byte(place: Place, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(place: Place, file: Path) -> None:
    file.write_bytes(b"")


def put_zeros_over_the_end(place: Place, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500] + bytes(500))


def take_another_part(place: Place, file: Path) -> None:
    shutil.copy(max(place.output.glob("masks/*/*.parquet")), file)


def take_another_runs(place: Place, file: Path) -> None:
    (place.folder / "other.onnx").write_bytes(colour_classifier(CARD, opset=16))
    place.run(output=str(place.folder / "other"), weights=str(place.folder / "other.onnx"))
    shutil.copy(place.folder / "other" / file.relative_to(place.output), file)


def delete(place: Place, file: Path) -> None:
    file.unlink()


DAMAGES: list[Callable[[Place, Path], None]] = [
    truncate, lose_the_last_byte, empty, put_zeros_over_the_end, take_another_part, take_another_runs, delete,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_done_again_and_no_other(
    segment: Call, place: Place, damage: Callable[[Place, Path], None]
) -> None:
    before = masks(place.output)
    first = min(place.output.glob("masks/*/*.parquet"))
    written = {file: file.stat().st_mtime_ns for file in place.output.glob("masks/*/*.parquet") if file != first}
    damage(place, first)
    assert segment("audit", str(place.output)).code == 1
    called = segment(*place.flags(), "--verify")
    assert called.code == 0, called.err
    assert "verified: 1 damaged or lost part done again" in called.err
    assert masks(place.output) == before
    assert written == {file: file.stat().st_mtime_ns for file in written}
    assert_sound(place.output)


@pytest.mark.parametrize("how", ["truncated", "of another run"])
def test_damaged_statistics_are_folded_again(segment: Call, place: Place, how: str) -> None:
    (stats,) = place.output.glob("stats/*")
    kept = stats.read_bytes()
    if how == "truncated":
        stats.write_bytes(kept[:-9])
    else:
        place.add("9.png", 9)
        place.run(output=str(place.folder / "other"))
        (theirs,) = (place.folder / "other").glob("stats/*")
        stats.write_bytes(theirs.read_bytes())
    called = segment(*place.flags(), "--verify")
    assert called.code == 0, called.err
    assert "verified: 0 damaged or lost parts done again" in called.err
    assert stats.read_bytes() == kept
    assert_sound(place.output)


def test_what_is_sound_is_left_alone(segment: Call, place: Place) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.output.rglob("*.parquet")}
    called = segment(*place.flags(), "--verify")
    assert called.code == 0
    assert "verified: 0 damaged or lost parts done again" in called.err
    assert {path: path.stat().st_mtime_ns for path in place.output.glob("*s/*/*.parquet")}.items() <= before.items()


def test_on_s3_it_is_one_request_a_part(arena: Arena) -> None:
    assert arena.here("verified").code == 0
    url = next(e.url for e in arena.store().list("s3://arena-out/verified/masks"))
    arena.store().write(url, arena.store().read(url)[:-30])
    with proxied(arena.server) as proxy:
        ended = arena.here("verified", proxy, "--verify")
    assert ended.code == 0, ended.text
    assert "verified: 1 damaged or lost part done again" in ended.text
    arena.check("verified")
    requests = [(method, target.partition("?")[0]) for method, target in proxy.log]
    done = next(i for i, (method, path) in enumerate(requests) if method == "PUT" and path.endswith("/_SUCCESS"))
    # after that the page is drawn
    looked = [path for method, path in requests[:done] if method == "GET" and "/masks/" in path]
    # four parts looked at, the damaged one twice; then the two of its shard are folded
    assert len(looked) <= 4 + 1 + 2 * 3
    note("committed masks file cut off, then --verify", 1, 1, ended.seconds)


def test_the_store_being_away_is_no_damage(place: Place, segment: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from segment.errors import StoreError

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("the store is away")

    before = masks(place.output)
    monkeypatch.setattr(Store, "read", refuse)
    called = segment(*place.flags(), "--verify")
    assert called.code == 1
    assert "the store is away" in called.err
    assert masks(place.output) == before
