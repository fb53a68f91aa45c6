"""Tables that fit the terminal: words stay whole, and columns for which there is no room are left out and named."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = str | Text

_GAP = 2  # columns between cells
_LONGEST_WORD = 32  # columns; a longer one, such as a path, is folded


def print_rows(
    console: Console, rows: Sequence[Sequence[Cell]], *, title: str = "", first: Sequence[int] = (), own: int = -1
) -> None:
    """Print rows, the first of which is the head, without columns that are empty and those that do not fit.

    Args:
        rows: cells of the same number; the first cell of a row is a name, which may wrap between words.
        first: columns that are kept before the others, which are kept from left to right.
        own: index of a row that is bold; -1 for none.
    """
    filled = [i for i in range(1, len(rows[0])) if any(str(row[i]) for row in rows[1:])]
    wanted = [*(i for i in first if i in filled), *(i for i in filled if i not in first)]
    kept, left_out = _fitting(rows, wanted, console.width)
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for i in kept:
        table.add_column(str(rows[0][i]), justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
    for index, row in enumerate(rows[1:], 1):
        table.add_row(*(row[i] for i in kept), style="bold" if index == own else "")
    console.print(table)
    if names := [str(rows[0][i]) for i in left_out if str(rows[0][i]).strip()]:
        print_line(console, f"no room in {console.width} columns for: {', '.join(names)}", style="dim")


def _fitting(rows: Sequence[Sequence[Cell]], wanted: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Return the columns that fit and those that do not, both in order; the most wanted one is always kept."""
    words = (word for row in rows for word in str(row[0]).split())
    used = min(_LONGEST_WORD, max(map(cell_len, words), default=0))
    kept = [0]
    for i in wanted:
        more = _GAP + max(cell_len(str(row[i])) for row in rows)
        if len(kept) > 1 and used + more > width:
            break
        kept.append(i)
        used += more
    return sorted(kept), sorted(set(wanted) - set(kept))


def print_line(console: Console, text: Cell, style: str = "") -> None:
    """Print a line, wrapped between words."""
    console.print(text, style=style, markup=False, highlight=False, overflow="fold")


def print_record(console: Console, text: str) -> None:
    """Print a line, which a terminal wraps between words; a file gets it whole, for programs that look for it."""
    if console.is_terminal:
        print_line(console, text)
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def packed(phrases: Iterable[str], separator: str, width: int) -> list[str]:
    """Return phrases on as few lines as hold them whole.

    >>> packed(["64 images", "2 shards", "complete"], ", ", 20)
    ['64 images, 2 shards', 'complete']
    """
    lines: list[str] = []
    for phrase in phrases:
        if lines and cell_len(lines[-1]) + cell_len(separator) + cell_len(phrase) <= width:
            lines[-1] += separator + phrase
        else:
            lines.append(phrase)
    return lines
