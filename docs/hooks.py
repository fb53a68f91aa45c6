"""Hooks of MkDocs: borrow pages of the repository, lead links to them, and fill in what comes from the code."""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import generated
import pygraphviz
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("mkdocs.hooks.segment")

# Files outside docs/ that are on the site, by their place there; a page of docs/ links to them as GitHub wants it.
_WANTED = {
    "index.md": "README.md",
    "repository/jobs.md": "jobs/README.md",
    "repository/benchmarks.md": "jobs/BENCHMARKS.md",
    "repository/faults.md": "tests/reliability/README.md",
    "repository/changelog.md": "CHANGELOG.md",
    "repository/contributing.md": "CONTRIBUTING.md",
    "repository/security.md": "SECURITY.md",
}
BORROWED = {place: path for place, path in _WANTED.items() if (ROOT / path).exists()}
_PLACES = {path: place for place, path in BORROWED.items()}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_PART = re.compile(r"<!-- generated: ([a-z ]+) -->")
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NODE = re.compile(r'^ *(\w+)\["(.*)"\]$', re.MULTILINE)
_ARROW = re.compile(r"^ *(\w+) --> (\w+)$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the borrowed pages."""
    for place, path in BORROWED.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what comes from the code, draw the layout, and lead links to where their targets are on the site."""
    place = page.file.src_uri
    if place == "troubleshooting.md":  # the page for a message that is looked up comes first
        page.meta["search"] = {"boost": 20}
    markdown = _PART.sub(lambda match: generated.PARTS[match[1]](), markdown)
    markdown = _MERMAID.sub(lambda match: drawing(match[1]), markdown)
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(lambda match: _relinked(match, place), part) for part in parts[::2]]
    return "".join(parts)


def _relinked(match: re.Match[str], place: str) -> str:
    """A link as the site wants it; the text alone where the target is not on the site."""
    mark, words, target = match.groups()
    path, hash_, anchor = target.partition("#")
    if not path or ":" in path:
        return match[0]
    home = posixpath.dirname(BORROWED.get(place, f"docs/{place}"))
    found = posixpath.normpath(posixpath.join(home, path))
    if not (ROOT / found).exists():
        log.warning("%s links to %s, which is not there", place, target)
        return match[0]
    there = _PLACES.get(found, found.removeprefix("docs/") if found.startswith("docs/") else "")
    if not there:
        return words
    return f"{mark}[{words}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{hash_}{anchor})"


def drawing(mermaid: str) -> str:
    """Draw a flowchart as SVG when the site is built: Mermaid itself would come from another host."""
    graph = pygraphviz.AGraph(directed=True, bgcolor="transparent", nodesep="0.25", ranksep="0.35")
    graph.node_attr.update(shape="box", style="rounded,filled", fontname="Helvetica", fontsize="12")
    for name, label in _NODE.findall(mermaid):
        graph.add_node(name, label=label)
    for source, target in _ARROW.findall(mermaid):
        graph.add_edge(source, target)
    svg = graph.draw(format="svg", prog="dot").decode()
    return f'<div class="layout">{svg[svg.index("<svg") :]}</div>'
