"""The pages for readers, README.md and docs/: their examples, commands and links."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.calls import ROOT

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page in Markdown.

    Attributes:
        name: its path in the repository.
    """

    name: str

    @cached_property
    def text(self) -> str:
        return (ROOT / self.name).read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without its examples."""
        return _FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """The examples in a language; `""` for those of none."""
        return [text for name, text in _FENCE.findall(self.text) if name == language]

    def commands(self, language: str) -> list[str]:
        """Every line of the shell examples, continued lines joined, without comments."""
        joined = "\n".join(self.blocks(language)).replace("\\\n", " ")
        lines = [" ".join(re.sub(r"(^| )#.*", "", line).removeprefix("$ ").split()) for line in joined.splitlines()]
        return [line for line in lines if line]

    def anchors(self) -> set[str]:
        """The names under which GitHub has the headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings)
        return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}

    def links(self) -> list[str]:
        """Targets of links and pictures, but for those of other hosts."""
        found = re.findall(r"\]\(([^)\s]+)\)", self.prose)
        return [target for target in found if not re.match(r"https?://|mailto:", target)]


README = Page("README.md")
PAGES = [README, *(Page(file.relative_to(ROOT).as_posix()) for file in sorted((ROOT / "docs").rglob("*.md")))]


def page(name: str) -> Page:
    """A page of docs/ by its name, such as `inputs`."""
    return next(item for item in PAGES if item.name == f"docs/{name}.md")


def has_file(path: str) -> bool:
    return (ROOT / path).exists()


def folder_of(name: str) -> Path:
    return (ROOT / name).parent
