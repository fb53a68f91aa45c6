"""Text from outside (ids, paths, class names, others' messages) made safe for where it goes: a function a destination.

What leaves this program passes one of them: what the command line prints, lines of progress and rich's consoles end in
`on_terminal`, templates in `in_html`. Signatures of URLs are masked on the way.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence

from segment.store.urls import mask_signatures, redact_url

# Fillers, joiners and selectors without a glyph that Python takes for printable (Default_Ignorable_Code_Point).
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
_BLANK = re.compile(f"[{_BLANKS}]")
_MARKUP = re.compile(r"[\\`*\[\]<>|~&$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # an underscore in a word is none
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001


def is_visible(text: str) -> bool:
    """Whether each character of a text is seen as itself: no control, bidirectional or zero-width character."""
    return text.isprintable() and (text.isascii() or not _BLANK.search(text))


def visible(text: str) -> str:
    r"""Return a text on one line, with each character that is not seen as itself as Python writes it.

    >>> visible("a\x1b[2Jb\nc\u202egpj")
    'a\\x1b[2Jb\\nc\\u202egpj'
    """
    if is_visible(text):
        return text
    return "".join(c if is_visible(c) else c.encode("unicode_escape").decode() for c in text)


def on_terminal(text: str) -> str:
    r"""Return lines for a terminal or a log: what is not seen as itself becomes an escape of JSON, line ends stay.

    An escape of JSON keeps JSON and TOML valid, which are printed as well.

    >>> on_terminal('{"id": "a\x9b2J"}\n')
    '{"id": "a\\u009b2J"}\n'
    """
    return "\n".join(map(_line_on_terminal, mask_signatures(text).split("\n")))


def _line_on_terminal(line: str) -> str:
    if is_visible(line):
        return line
    end = "\r" if line.endswith("\r") else ""  # lines of CSV end in CRLF
    return "".join(c if c == "\t" or is_visible(c) else _escape(c) for c in line.removesuffix(end)) + end


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"  # which JSON takes as it is


def in_toml(value: object) -> str:
    """Return a text, number or list as a value of TOML, whose escapes are JSON's for all that JSON escapes itself."""
    text = json.dumps(value, ensure_ascii=False)
    return text if is_visible(text) else "".join(c if is_visible(c) else _escape_of_toml(c) for c in text)


def _escape_of_toml(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def in_html(value: object) -> object:
    """Return a value for a template that escapes markup itself: text is as on a terminal, markup of ours stays."""
    return on_terminal(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def in_markdown(text: str) -> str:
    r"""Return a text without markup of Markdown or HTML, on one line.

    >>> in_markdown("[a](http://h) | <b>")
    '\\[a\\](http://h) \\| \\<b\\>'
    """
    return _MARKUP.sub(r"\\\g<0>", visible(mask_signatures(redact_url(text))))


def in_cell(value: object) -> object:
    """Return a value for a CSV file: a text that a spreadsheet would read as a formula gets a leading apostrophe.

    >>> in_cell("=1+1"), in_cell(-1), in_cell(True)
    ("'=1+1", -1, 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    text = visible(mask_signatures(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def in_label_map(names: Sequence[str]) -> list[str]:
    """Return class names for a text file with fields between colons, a class a line, and comments after `#`.

    A colon becomes `_`, and so does a leading `#`; what is not seen becomes one blank. An empty name becomes `class`. A
    changed name that another class has gets a number.

    >>> in_label_map(["Sky", "a:b", "a_b", "two\\nlines"])
    ['Sky', 'a_b-2', 'a_b', 'two lines']
    """
    taken = {name for name in names if _on_a_line(name) == name}
    written = []
    for name in names:
        clean = _on_a_line(name)
        if clean != name:
            numbered = (f"{clean}-{number}" for number in itertools.count(2))
            clean = next(one for one in itertools.chain([clean], numbered) if one not in taken)
            taken.add(clean)
        written.append(clean)
    return written


def _on_a_line(name: str) -> str:
    clean = " ".join("".join(c if is_visible(c) else " " for c in name).split()).replace(":", "_")
    return f"_{clean[1:]}" if clean.startswith("#") else clean or "class"
