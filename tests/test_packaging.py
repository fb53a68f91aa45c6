"""What is published: the wheel and its metadata, the versions it allows, the workflows and the release script."""

import email
import importlib.metadata
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import segment
from tests.calls import ROOT, process

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

# --- the wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    built = process(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_string(wheel.read(name).decode())


def test_the_wheel_holds_the_package_its_licence_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "segment").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    info = f"segment_job-{PROJECT['version']}.dist-info"
    named = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    assert set(wheel.namelist()) == package | {f"{info}/{name}" for name in named}
    assert {"segment/py.typed", "segment/models/cards/demo-streets.onnx"} <= package  # what is not Python is there, too
    assert sum(name.endswith(".tar") for name in package) == 4
    assert sum(entry.compress_size for entry in wheel.infolist()) < 6_000_000


def test_the_metadata_says_what_an_index_shows(metadata: Message) -> None:
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    classifiers = metadata.get_all("Classifier") or []
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert not [line for line in classifiers if line.startswith("License")]  # PEP 639: the expression says it
    assert "OWNER" not in str(metadata)  # no placeholder, and no address before there is a repository


def test_the_readme_of_an_index_has_no_relative_link(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    shown = str(metadata.get_payload())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert FENCED.findall(shown) == FENCED.findall(readme)  # links alone are changed
    prose, asked = FENCED.sub("", shown), FENCED.sub("", readme)
    assert asked.count("](") > 3
    targets = re.findall(r"\]\(([^)\s]+)", prose) + re.findall(r'<img[^>]* src="([^"]+)', prose)
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    words = re.findall(r"(?<!!)\[([^\]]+)\]\(", asked)
    assert [word for word in words if word not in prose] == []


def test_the_command_says_the_version_of_the_package() -> None:
    said = process(sys.executable, "-m", "segment", "--version").stdout
    assert said == f"segment {importlib.metadata.version('segment-job')}\n"


# --- make ------------------------------------------------------------------------------------------------------------

TOLD = "==> installing segment into .venv (a minute or two, 1.2 GB)\n"


def made(folder: Path, uv: int, pip: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Install by the Makefile, with installers that print a line for each of 40 packages and end with these codes."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (folder / ".venv" / "lib").mkdir()
    for name in ("pyproject.toml", "requirements.lock", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    lines = 'seq -f "$0 + package %g" 40'
    quiet_for_uv = '[ "$7" = --quiet ] && exit'
    for name, script in (("uv", f"{lines}; exit {uv}"), ("python", f"{quiet_for_uv}; {lines}; exit {pip}")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return process("make", "-C", str(folder), "--no-print-directory", ".venv/.installed-core", *options)


def test_make_says_what_it_installs_in_two_lines(tmp_path: Path) -> None:
    done = made(tmp_path, 0, 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{re.escape(TOLD)}==> \d+ packages are installed, in \d+ s\n", done.stdout)
    assert (tmp_path / ".venv" / "install.log").read_text().count("uv + package") == 40


def test_make_tells_that_pip_has_to_help(tmp_path: Path) -> None:
    done = made(tmp_path, 1, 0)
    assert (done.returncode, done.stderr) == (0, "==> uv could not; pip tries\n")
    assert (tmp_path / ".venv" / "install.log").read_text().count("python + package") == 40


def test_make_shows_the_end_of_what_a_failed_installation_printed(tmp_path: Path) -> None:
    failed = made(tmp_path, 1, 1)
    assert failed.returncode == 2
    assert failed.stdout == TOLD
    assert "package 21\n" in failed.stderr
    assert "package 20\n" not in failed.stderr
    assert "==> the installation failed; all that it said is in .venv/install.log\n" in failed.stderr
    assert not (tmp_path / ".venv" / ".installed-core").exists()


def test_make_shows_every_package_if_asked(tmp_path: Path) -> None:
    failed = made(tmp_path, 1, 1, "V=1")
    assert failed.returncode == 2
    assert failed.stdout.count("+ package") == 80
    assert not (tmp_path / ".venv" / "install.log").exists()


# --- versions --------------------------------------------------------------------------------------------------------


def test_the_core_has_tests_of_every_package() -> None:
    core = (ROOT / "tests" / "core.txt").read_text(encoding="utf-8").split()
    assert core == sorted(core)
    named = [line.partition("::") for line in core]
    assert [file for file, _, test in named if f"def {test}" not in (ROOT / file).read_text(encoding="utf-8")] == []
    by_other_names = {  # packages whose tests have no folder of the package's name
        "drafts": "tests/models/test_draft",
        "errors": "tests/test_bad_input",
        "job": "tests/test_job",
        "process": "tests/images/test_decoder_stderr",
        "runs": "tests/test_s3_runs",
    }
    packages = {module.name for module in pkgutil.iter_modules(segment.__path__)} - {"__main__"}
    starts = {package: by_other_names.get(package, f"tests/{package}/") for package in packages}
    assert {package for package, start in starts.items() if not any(line.startswith(start) for line in core)} == set()


def versions_table() -> dict[str, list[str]]:
    """The rows of docs/versions.md by package: lowest, requirements.lock, newest, all for Python 3.11."""
    text = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    return {name: [cell.strip() for cell in cells] for name, *cells in rows}


def test_the_bounds_are_the_versions_that_were_tested() -> None:
    table = versions_table()
    assert set(table) == {canonicalize_name(required.name) for required in REQUIRED}
    for required in REQUIRED:
        lowest, locked, newest = map(Version, table[canonicalize_name(required.name)])
        (bound,) = required.specifier  # one bound, the lowest: what is not known to fail is allowed
        assert bound.operator == ">="
        assert lowest.release[: len(Version(bound.version).release)] == Version(bound.version).release, required
        assert lowest <= locked <= newest


def test_the_table_names_the_versions_of_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)(?: ; (.*))?$", lock, re.MULTILINE)
    pinned = {name: version for name, version, only in pins if "python_full_version >= '3.1" not in only}
    assert {name: cells[1] for name, cells in versions_table().items()} == {
        canonicalize_name(required.name): pinned[canonicalize_name(required.name)] for required in REQUIRED
    }


# --- workflows and releases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_does_what_a_contributor_types(path: Path) -> None:
    """`make lint` checks syntax and rights; here: the targets are those of the Makefile, the scripts are there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    for job in jobs.values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for line in (step["run"] for step in job["steps"] if "run" in step):
            targets = re.findall(r'^make "?([a-z$A-Z-]+)"?', line)
            for target in targets:
                wanted = [target.replace("$VERSIONS", version) for version in matrix.get("versions", [""])]
                assert [name for name in wanted if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
            for script in re.findall(r"\.ci/[a-z-]+", line):
                assert os.access(ROOT / script, os.X_OK), script
        pythons = {f"Programming Language :: Python :: {version}" for version in matrix.get("python", [])}
        assert pythons <= set(PROJECT["classifiers"])


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A repository that could be released, with a wheel step that only says that it ran."""
    place = tmp_path / "repository"
    (place / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "release", place / ".ci" / "release")
    (place / ".ci" / "wheel").write_text("#!/bin/sh\necho wheel tried\n")
    (place / ".ci" / "wheel").chmod(0o755)
    (place / "pyproject.toml").write_text('[build-system]\n[project]\nname = "x"\nversion = "1.2.0"\n[project.urls]\n')
    (place / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 (2026-11-30)\n\nNew.\n")
    (place / "CITATION.cff").write_text("version: 1.2.0\ndate-released: 2026-11-30\n")
    git(place, "init", "--quiet")
    git(place, "add", ".")
    git(place, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "All")
    return place


def git(place: Path, *arguments: str) -> str:
    command = ["git", "-C", str(place), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def released(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    author = {f"GIT_COMMITTER_{key}": "a@example.org" for key in ("NAME", "EMAIL")}
    return process(str(place / ".ci" / "release"), *arguments, **author)


def test_a_release_is_tried_and_tagged_once(release: Path) -> None:
    tried = released(release, "--dry-run")
    assert (tried.returncode, git(release, "tag")) == (0, ""), tried.stderr
    assert "wheel tried" in tried.stdout
    done = released(release)
    assert (done.returncode, git(release, "tag")) == (0, "v1.2.0\n"), done.stderr
    again = released(release)
    assert again.returncode == 1
    assert again.stderr == "no release of 1.2.0: git: v1.2.0 is tagged already\n"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("CHANGELOG.md", "## 1.2.0 (unreleased)\n", "CHANGELOG.md: no heading '## 1.2.0 (YYYY-MM-DD)'"),
        ("CHANGELOG.md", "## 1x2.0 (2026-11-30)\n", "CHANGELOG.md: no heading"),
        ("CITATION.cff", "version: 1.1.0\ndate-released: 2026-11-30\n", "CITATION.cff: not 'version: 1.2.0'"),
        ("CITATION.cff", "version: 1.2.0\n", "CITATION.cff: not 'date-released: 2026-11-30'"),
        ("pyproject.toml", '[project]\nversion = "1.2.0"\n', "pyproject.toml: no [project.urls]"),
        ("left.txt", "", "there are changes that are not committed"),
    ],
)
def test_what_is_not_ready_is_not_released(release: Path, file: str, text: str, told: str) -> None:
    (release / file).write_text(text)
    if file != "left.txt":
        git(release, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-am", "Change")
    refused = released(release)
    assert (refused.returncode, git(release, "tag")) == (1, "")
    assert told in refused.stderr
    assert "wheel tried" not in refused.stdout
    tried = released(release, "--dry-run")  # goes on, so that all that is to be mended is known at once
    assert tried.returncode == 1
    assert told in tried.stderr
    assert "wheel tried" in tried.stdout
