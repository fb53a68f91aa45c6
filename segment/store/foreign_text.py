"""Text from outside (ids, paths, class names, others' messages) made safe for where it goes: a function a destination.

What leaves this program passes one of them: what the command line prints, lines of progress and rich's consoles end in
`on_terminal`, templates in `in_html`. Signatures of URLs are masked on the way.
"""

import itertools
import json
import re
from collections.abc import Callable, Sequence

from segment.store.urls import mask_signatures, redact_url

# Fillers, joiners and selectors without a glyph that Python takes for printable (Default_Ignorable_Code_Point).
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
_BLANK = re.compile(f"[{_BLANKS}]")
# What has no glyph of its own and yet is seen, as it shapes its neighbours, as words and emoji need it (RFC 5892, A.1
# and A.2; UTS 51): joiners within words of Arabic, Indic and other such scripts, or behind a virama; the parts of an
# emoji; selectors behind the letter that they select a form of. Spaces of all widths are seen as spaces.
_JOINING = (
    "\u0620-\u06ff\u0710-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u17b3\u17b6-\u17ff\u1820-\u18aa\ua840-\ua8ff\ufb50-\ufdff"
    "\ufe70-\ufefc"
)
_VIRAMA = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d"
    "\u3297\u3299\U0001f000-\U0001faff"
)
_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_SHAPING = (  # compiled when it is first used, which takes 7 ms
    f"(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])|(?<=[{_VIRAMA}])\u200d"
    f"|(?:(?<=[{_EMOJI}])|(?<=[{_EMOJI}]\ufe0f))\u200d(?=[{_EMOJI}])|(?<=[{_EMOJI}])[\ufe0e\ufe0f]"
    f"|(?<=[#*0-9])\ufe0f(?=\u20e3)|(?<=\U0001f3f4)[\U000e0061-\U000e007a]{{4,6}}\U000e007f"
    f"|(?<=[{_HAN}])[\ufe00-\ufe02\U000e0100-\U000e01ef]|(?<=[\u1820-\u18aa])[\u180b-\u180f]"
    "|[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
)
_MARKUP = re.compile(r"[\\`*\[\]<>{}|~&$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # an underscore in a word is none
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001


def is_visible(text: str) -> bool:
    """Whether each character of a text is seen as itself: no control, bidirectional or stray zero-width character.

    >>> is_visible("क्\u200dष"), is_visible("a\u200db")
    (True, False)
    """
    return _has_glyphs(text) or (not text.isascii() and _has_glyphs(re.sub(_SHAPING, "", text)))


def _has_glyphs(text: str) -> bool:
    return text.isprintable() and (text.isascii() or not _BLANK.search(text))


def replace_unseen(text: str, by: Callable[[str], str]) -> str:
    """Return a text with each character that is not seen as itself replaced by what a function makes of it."""
    if is_visible(text):
        return text
    kept = {place for found in re.finditer(_SHAPING, text) for place in range(*found.span())}
    return "".join(c if _has_glyphs(c) or place in kept else by(c) for place, c in enumerate(text))


def visible(text: str) -> str:
    r"""Return a text on one line, with each character that is not seen as itself as Python writes it.

    >>> visible("a\x1b[2Jb\nc\u202egpj")
    'a\\x1b[2Jb\\nc\\u202egpj'
    """
    return replace_unseen(text, lambda character: character.encode("unicode_escape").decode())


def on_terminal(text: str) -> str:
    r"""Return lines for a terminal or a log: what is not seen as itself becomes an escape of JSON, line ends stay.

    An escape of JSON keeps JSON and TOML valid, which are printed as well.

    >>> on_terminal('{"id": "a\x9b2J"}\n')
    '{"id": "a\\u009b2J"}\n'
    """
    return "\n".join(map(_line_on_terminal, mask_signatures(text).split("\n")))


def _line_on_terminal(line: str) -> str:
    end = "\r" if line.endswith("\r") else ""  # lines of CSV end in CRLF
    return replace_unseen(line.removesuffix(end), _escape) + end


def _escape(character: str) -> str:
    if character == "\t":
        return character
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"  # which JSON takes as it is


def in_toml(value: object) -> str:
    """Return a text, number or list as a value of TOML, whose escapes are JSON's for all that JSON escapes itself."""
    return replace_unseen(json.dumps(value, ensure_ascii=False), _escape_of_toml)


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
    clean = " ".join(replace_unseen(name, lambda _: " ").split()).replace(":", "_")
    return f"_{clean[1:]}" if clean.startswith("#") else clean or "class"
