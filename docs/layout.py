"""Draw the layout of `segment/` from its imports: `python docs/layout.py` rewrites the picture in docs/architecture.md.

`--check` changes nothing and exits 1 if the picture is out of date.
"""

import sys
from collections import defaultdict
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- layout: begin -->\n", "<!-- layout: end -->\n"
Graph = dict[str, set[str]]


def packages() -> Graph:
    """Map each child of `segment` to the children that it imports, within functions too, but not for type checkers."""
    modules = grimp.build_graph("segment", exclude_type_checking_imports=True, cache_dir=None)
    graph: Graph = {name.split(".")[1]: set() for name in modules.modules if "." in name and "__" not in name}
    for name in modules.modules:
        for imported in modules.find_modules_directly_imported_by(name):
            source, target = (module.split(".")[1] if "." in module else "" for module in (name, imported))
            if source in graph and target in graph and source != target:
                graph[source].add(target)
    return graph


def reach(graph: Graph, start: str) -> set[str]:
    """Every package that `start` imports, directly or not."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph[waiting.pop()] - found:
            found.add(target)
            waiting.append(target)
    return found


def reduced(graph: Graph) -> Graph:
    """Leave out the arrows that follow from others (the transitive reduction)."""
    return {
        source: {target for target in targets if not any(target in reach(graph, other) for other in targets - {target})}
        for source, targets in graph.items()
    }


def levels(graph: Graph) -> dict[int, list[str]]:
    """Packages by the longest chain of imports below them."""
    depth: dict[str, int] = {}
    for name in sorted(graph, key=lambda name: len(reach(graph, name))):
        depth[name] = 1 + max((depth[target] for target in graph[name]), default=-1)
    found: dict[int, list[str]] = defaultdict(list)
    for name, level in depth.items():
        found[level].append(name)
    return {level: sorted(found[level]) for level in sorted(found)}


def modules(name: str) -> int:
    """Count the files of a package that hold code."""
    folder = ROOT / "segment" / name
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    return sum(file.stat().st_size > 0 for file in files)


def picture() -> str:
    """The graph as Mermaid, which GitHub draws."""
    graph = packages()
    arrows = reduced(graph)
    lines = ["```mermaid", "flowchart TD"]
    for _, names in sorted(levels(graph).items(), reverse=True):
        counts = {name: modules(name) for name in names}
        lines += [f'    {name}["{name}{f" ({n} modules)" if n > 1 else ""}"]' for name, n in counts.items()]
    lines += [f"    {source} --> {target}" for source in sorted(arrows) for target in sorted(arrows[source])]
    total, top = (
        sum(modules(name) for name in graph),
        sum(path.suffix == ".py" for path in (ROOT / "segment").iterdir()),
    )
    words = f"{total} modules on {len(levels(graph))} levels; {top} files at the top of `segment/`."
    return "\n".join([*lines, "```", "", words, ""])


def main(arguments: list[str]) -> int:
    """Write the picture, or with `--check` compare it."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    new = before + BEGIN + picture() + END + after
    if "--check" in arguments:
        if new != text:
            print("docs/architecture.md shows another layout: run `python docs/layout.py`", file=sys.stderr)
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
