"""The templates of HTML pages: each page is one self-contained file, and all text from outside is escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from segment.report import wording
from segment.report.percents import span
from segment.store.foreign_text import in_html


def render_template(name: str, *, styles: tuple[str, ...] = ("report.css",), **values: Any) -> str:
    """Return a page as HTML.

    Args:
        name: file in `templates/`.
        styles: style sheets in `templates/`.
        values: what the template shows, beside `style`, `script` and `script_hash`.
    """
    script = Markup(_file("report.js"))
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


def _file(name: str) -> str:
    return (files("segment") / "report" / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True, finalize=in_html, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(_file),
    )  # fmt: skip
    environment.filters |= {name: getattr(wording, name) for name in wording.FILTERS} | {"span": span}
    return environment
