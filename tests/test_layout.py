"""The layout: imports go one way, each outside library has one door, files stay short."""

from __future__ import annotations

import ast
import functools
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import segment

PACKAGE = Path(__file__).parents[1] / "segment"

# Each module and the modules it may import, in dependency order. A folder stands for all of its files.
MAY_IMPORT: dict[str, str] = {
    "errors": "",
    "background": "",
    "resources": "",
    "explain": "errors",
    "native": "",
    "magic": "",
    "headers": "magic",
    "label_pixels": "errors headers",
    "label_images": "errors headers label_pixels native",
    "classes": "",
    "labels": "classes errors label_images label_pixels",
    "urls": "errors",
    "vitals": "urls",
    "request_errors": "errors urls",
    "retries": "errors request_errors urls vitals",
    "names": "urls",
    "remarks": "names",
    "ranges": "",
    "filesystems": "errors urls",
    "local_files": "filesystems request_errors",
    "signatures": "urls",
    "store": "errors filesystems local_files names ranges request_errors retries signatures urls",
    "card": "classes errors explain store urls",
    "onnx_files": "errors",
    "download": "card errors store urls",
    "weights": "card download errors onnx_files store urls",
    "images": "card classes errors headers magic native",
    "metrics": "card classes",
    "sessions": "card download errors weights",
    "findings": "names urls",
    "parts": "findings",
    "formats": "errors findings magic names parts store urls",
    "shards": "errors findings formats names parts store urls",
    "tables": "classes metrics",
    "plan": "findings shards tables",
    "damage": "errors names",
    "ledger": "background card damage errors findings metrics names plan store tables urls",
    "contract": "card errors ledger names",
    "row_checks": "names shards tables",
    "audit": "background card damage errors findings ledger names plan row_checks shards tables",
    "rework": "errors ledger names parts plan shards",
    "stages": "card errors images labels metrics parts sessions shards store tables",
    "patience": "",
    "memory": "resources",
    "workers": "background errors ledger memory metrics names sessions shards stages tables urls weights",
    "operators": "memory shards stages workers",
    "timings": "errors ledger stages tables",
    "speed": "errors ledger stages timings",
    "child": "errors memory patience retries shards stages tables urls vitals weights workers",
    "isolation": "child errors names patience shards stages tables weights workers",
    "progress": "card metrics names stages vitals",
    "engines": "background child errors isolation memory names operators patience plan progress resources sessions "
    "shards stages store urls vitals weights workers",
    "forecast": "child engines names plan sessions stages weights",
    "hopeless": "errors findings names progress",
    "rounds": "engines errors forecast hopeless ledger names plan progress remarks request_errors stages timings "
    "weights",
    "report": "audit background card classes errors findings forecast hopeless images labels ledger metrics names plan "
    "remarks shards speed stages store tables timings urls",
    "job": "errors explain labels shards store urls",
    "frozen": "card contract engines job labels plan progress sessions stages store tables urls weights",
    "preflight": "errors names resources store urls",
    "driver": "audit card contract engines errors findings frozen hopeless job labels ledger names plan preflight "
    "progress report retries rework rounds sessions shards stages store urls weights",
    "planning": "card driver engines errors findings forecast frozen job names plan progress sessions shards speed "
    "stages store weights",
    "demo": "driver errors images job ledger progress report store urls",
    "export": "card errors images ledger names plan report store urls",
    "schema": "card job",
    "cli": "audit card demo driver errors export filesystems job ledger names planning progress report schema store "
    "urls",
    "__main__": "cli",
    "__init__": "card driver job report",  # lazily
}
# Outside libraries that have one door each.
DOORS = {
    "ray": {
        f"engines/ray{name}.py"
        for name in ("", "_cluster", "_metrics", "_operators", "_pipeline", "_pool", "_pulse", "_watch", "_worker")
    },
    "onnxruntime": {"sessions"},
    "openvino": {"sessions"},
    "onnx": {"sessions", "onnx_files.py"},
    "fsspec": {"filesystems.py"},
    "s3fs": set(),  # fsspec finds it
    "tenacity": {"retries.py"},
    "typer": {"cli"},
    "jinja2": {"report"},
    "pycocotools": {"export.py"},
    "rich": {"cli", "progress", "report"},
    "IPython": {"progress"},
    "torch": set(),
}
LONGEST = 320

FILES = sorted(file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py"))


@functools.cache
def imports(file: str) -> list[str]:
    """Every module a file imports, at its top or within a function, but for type checkers."""
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    hidden = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in hidden:
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and id(node) not in hidden:
            assert node.level == 0, f"{file}: a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def module_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def modules_used(file: str) -> set[str]:
    used = {name.split(".")[1] for name in imports(file) if name.startswith("segment.")}
    if file == "__init__.py":
        used |= {home.split(".")[1] for home in segment._HOMES.values()}
    return used - {module_of(file)}


def test_the_table_lists_every_module_after_what_it_imports() -> None:
    assert set(MAY_IMPORT) == {module_of(file) for file in FILES}
    order = list(MAY_IMPORT)
    for module, allowed in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(module) for other in allowed.split()), module


def test_contributing_names_every_module_and_no_other() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.partition("## Where things are")[2].partition("\n## ")[0], re.MULTILINE)
    named = {name.strip("/") for row in rows for name in re.findall(r"`([a-z_]+/?)`", row)}
    assert named == {module for module in MAY_IMPORT if not module.startswith("__")}


@pytest.mark.parametrize("file", FILES)
def test_imports_go_one_way(file: str) -> None:
    assert modules_used(file) - set(MAY_IMPORT[module_of(file)].split()) == set()


def test_the_table_allows_nothing_that_is_not_used() -> None:
    used: dict[str, set[str]] = {module: set() for module in MAY_IMPORT}
    for file in FILES:
        used[module_of(file)] |= modules_used(file)
    assert {module: set(allowed.split()) for module, allowed in MAY_IMPORT.items()} == used


@pytest.mark.parametrize("folder", sorted({module_of(file) for file in FILES if "/" in file}))
def test_no_cycles_within_a_folder(folder: str) -> None:
    names = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in FILES}
    graph = {
        name: {
            used
            for full in imports(file)
            for used in (full.removeprefix("segment."), full.removeprefix("segment.").rpartition(".")[0])
            if used in names and used != name and used != folder
        }
        for name, file in names.items()
        if module_of(file) == folder and name != folder
    }
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("library", DOORS)
def test_outside_libraries_have_one_door(library: str) -> None:
    users = {file for file in FILES if any(name.split(".")[0] == library for name in imports(file))}
    assert {file for file in users if not {file, file.partition("/")[0]} & DOORS[library]} == set()
    assert users or not DOORS[library]


def test_files_stay_short() -> None:
    lines = {file: (PACKAGE / file).read_text(encoding="utf-8").count("\n") for file in FILES}
    assert {file for file, number in lines.items() if number > LONGEST} == set()


def test_there_is_no_utils() -> None:
    assert not [file for file in FILES if Path(file).stem in ("utils", "helpers", "common", "misc")]
