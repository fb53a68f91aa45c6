"""Rows sorted piece by piece: the order of a plain sort, whatever is in memory; two sorted sequences side by side."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment.store import sorted_rows
from segment.store.sorted_rows import SortedRows, beside, not_in

SCHEMA = pa.schema([("url", pa.binary()), ("number", pa.int64()), ("is", pa.bool_())])
ROWS = st.lists(st.tuples(st.text("a/\udcff\u00e9\U0001f600", max_size=3), st.integers(-9, 9), st.booleans()))
KEYS = st.sets(st.integers(0, 9)).map(sorted)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_rows_come_in_order_again_and_again(rows: list[tuple[str, int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_rows, "_PIECE", 4)
        patch.setattr(sorted_rows, "_BLOCK", 3)
        found = SortedRows(iter(rows), SCHEMA)
        assert list(found) == list(found) == sorted(rows)


@given(st.lists(st.integers(0, 9)).map(sorted), KEYS)
def test_rows_beside_others(rows: list[int], others: list[int]) -> None:
    pairs = beside(((key, "row") for key in rows), ((key, key * key) for key in others))
    assert list(pairs) == [(key, "row", key * key if key in others else None) for key in rows]
    names = [str(key) for key in rows]
    assert list(not_in(names, map(str, others))) == [name for name in names if int(name) not in others]


@pytest.mark.parametrize(("rows", "others"), [([2, 1], [1, 2]), ([9], [1, 1]), ([9], [2, 1])])
def test_what_is_in_no_order_is_not_joined(rows: list[int], others: list[int]) -> None:
    with pytest.raises(AssertionError, match="not in order: 1 after"):
        list(beside(((key, None) for key in rows), ((key, None) for key in others)))
