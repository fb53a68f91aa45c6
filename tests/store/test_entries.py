"""Listed objects in packed columns: what comes back, its order, and what their names may be."""

import pickle
import random
import resource
import signal

import pytest

from segment.errors import SegmentError
from segment.store import entries, spooled_batches
from segment.store.entries import Entries, Entry, pieces_of

ODD = [
    Entry("s3://b/a.png", 1, "e"), Entry("file:///x/\udcff.png", -1, "", irregular=True),
    Entry("file:///x/ä 日.png", 1 << 40, "mtime-1", link_to="file:///y/\udc80"), Entry("", -1, ""),
]  # fmt: skip


def entry(number: int) -> Entry:
    return Entry(f"s3://bucket/{number:06d}.png", number, f"{number:032x}")


@pytest.fixture(params=[1, 10, 10_000], ids=["each alone", "packed", "few"])
def packed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(entries, "_BATCH", request.param)
    monkeypatch.setattr(spooled_batches, "IN_MEMORY", 100)  # the others go to a file
    return int(request.param)


def test_entries_come_back_in_their_order(packed: int) -> None:
    given = [*ODD, *map(entry, range(25)), *ODD]
    found = Entries(iter(given))
    assert list(found) == list(found) == given
    assert found == pickle.loads(pickle.dumps(found)) == given
    assert (len(found), found[0], found[-1], found[7], found[2:5]) == (33, ODD[0], ODD[3], given[7], given[2:5])
    assert list(found.urls()) == [each.url for each in given]
    assert list(found.urls_ending("4.png")) == [f"s3://bucket/{number:06d}.png" for number in (4, 14, 24)]
    assert not found.are_plain
    assert Entries(map(entry, range(25))).are_plain
    with pytest.raises(IndexError):
        found[33]
    assert list(Entries()) == []
    assert not Entries()


def test_pieces_in_any_order_are_sorted(packed: int) -> None:
    pieces = [*pieces_of(map(entry, range(100))), []]
    random.Random(0).shuffle(pieces)
    found = Entries.of_pieces(pieces)
    assert list(found) == [found[number] for number in range(100)] == [entry(number) for number in range(100)]


def test_pieces_that_overlap_are_sorted_and_what_is_listed_last_is_kept(packed: int) -> None:
    pieces = [[entry(number) for number in range(first, 90, 3)] for first in (0, 1, 2, 1)]
    pieces[3] = [Entry(one.url, 7, "again") for one in pieces[3]]
    found = Entries.of_pieces(pieces)
    assert [one.url for one in found] == [entry(number).url for number in range(90)]
    assert [number for number, one in enumerate(found) if one.etag == "again"] == [*range(1, 90, 3)]


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled_batches, "IN_MEMORY", 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(SegmentError, match=r"no room for the listing .*File too large.*: TMPDIR names another"):
            Entries(map(entry, range(20_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("numbers", [[[0, 5, 9], [6]], [[3], [1, 2, 3, 4]], [[7, 8], [8, 9]]])
def test_pieces_that_overlap_are_sorted_all_the_same(packed: int, numbers: list[list[int]]) -> None:
    found = Entries.of_pieces([entry(number) for number in piece] for piece in numbers)
    assert list(found) == [entry(number) for number in sorted({*numbers[0], *numbers[1]})]


def test_an_object_that_is_listed_twice_is_kept_once(packed: int) -> None:
    changed = Entry(entry(2).url, 99, "new")
    assert list(Entries.of_pieces([[entry(1), entry(2)], [changed, entry(3)]])) == [entry(1), changed, entry(3)]
