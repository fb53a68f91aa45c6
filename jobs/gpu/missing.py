"""Name the packages that the check needs and a GPU machine lacks, with what they need in turn.

    python -m jobs.gpu.missing INSTALLED > wheels.txt

INSTALLED is `pip list --format=freeze` of that machine. Runs where the project is installed, as `make` does it: the
versions are those of here. onnxruntime-gpu takes the place of onnxruntime.
"""

import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_NOT_NEEDED = {"ray", "openvino"}  # the check runs the local engine on onnxruntime
_TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")


def missing(installed: Mapping[str, str], requirements: list[str]) -> dict[str, str]:
    """Return name and version of every distribution that has to be brought.

    Args:
        installed: version by canonical name.
        requirements: as in pyproject.toml; each has to be installed here.
    """
    found: dict[str, str] = {}
    to_see = [Requirement(one) for one in requirements]
    while to_see:
        wanted = to_see.pop()
        name = canonicalize_name(wanted.name)
        is_extra = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        if is_extra or name in found or name in _NOT_NEEDED or _suffices(installed.get(name), wanted):
            continue
        here = importlib.metadata.distribution(name)
        found[name] = here.version
        to_see += [Requirement(one) for one in here.requires or []]
    return found


def _suffices(version: str | None, wanted: Requirement) -> bool:
    return version is not None and wanted.specifier.contains(version, prereleases=True)


def main() -> None:
    """Print a line for each, as pip takes it."""
    lines = (line.strip().partition("==") for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    installed = {canonicalize_name(name): version for name, _, version in lines}
    installed["onnxruntime"] = installed.pop("onnxruntime-gpu", "0")  # the CPU build will not do
    for name, version in sorted(
        missing(installed, [*(importlib.metadata.requires("segment-job") or []), *_TESTS]).items()
    ):
        print(f"{'onnxruntime-gpu' if name == 'onnxruntime' else name}=={version}")


if __name__ == "__main__":
    main()
