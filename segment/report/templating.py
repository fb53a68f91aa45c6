"""The templates of HTML pages: each page is one self-contained file, and all text from outside is escaped."""

import base64
import functools
import hashlib
import json
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from segment.report import charts, wording
from segment.report.percents import span
from segment.store.foreign_text import in_html
from segment.store.names import shown


def render_template(
    name: str,
    *,
    styles: tuple[str, ...] = ("report.css", "viewer.css"),
    scripts: tuple[str, ...] = ("report.js", "viewer.js"),
    **values: Any,
) -> str:
    """Return a page as HTML.

    Args:
        name: file in `templates/`.
        values: what the template shows, beside `style`, `script` and `script_hash`.
    """
    script = Markup("\n".join(map(_file, scripts)))
    page = (
        _environment()
        .get_template(name)
        .render(
            style=Markup("".join(map(_file, styles))),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **values,
        )
    )
    return str(page)


def _compact_json(value: Any) -> Markup:
    """Return JSON without spaces for an attribute in single quotes, of texts that a script may show."""
    text = json.dumps(_shown(value), ensure_ascii=False, separators=(",", ":"))
    for character in "&<>'":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else in_html(value)


def _code(words: str) -> Markup:
    """Return text in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(in_html(words)))))


def _file(name: str) -> str:
    return (files("segment") / "report" / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True, finalize=in_html, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(_file),
    )  # fmt: skip
    environment.filters |= {name: getattr(wording, name) for name in wording.FILTERS}
    environment.filters |= {"span": span, "ticks": charts.ticks, "clean": shown}
    environment.filters |= {"code": _code, "compact_json": _compact_json}
    return environment
