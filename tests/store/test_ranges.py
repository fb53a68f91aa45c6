"""Remote files as seekable ones: which ranges are read."""

import io

from segment.store.ranges import RangeReader

DATA = bytes(number % 251 for number in range(100_000))


def ranges_of(step: int, ahead: int) -> list[tuple[int, int]]:
    """Return the ranges that are read where two of each so many bytes are wanted, by blocks of 1,000."""
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return DATA[start:stop]

    file = io.BufferedReader(RangeReader(read, len(DATA), ahead), 1000)
    for start in range(0, len(DATA), step):
        file.seek(start)
        assert file.read(2) == DATA[start : start + 2]
    return asked


def test_where_nearly_all_is_read_ranges_get_longer() -> None:
    lengths = [stop - start for start, stop in ranges_of(100, 8000)]
    assert lengths[:5] == [1000, 2000, 4000, 8000, 8000]
    assert sum(lengths) == len(DATA)
    assert len(ranges_of(100, 0)) == 100


def test_where_much_is_skipped_nothing_is_read_ahead() -> None:
    assert ranges_of(900, 8000) == ranges_of(900, 0)
    assert len(ranges_of(5000, 8000)) == 20
