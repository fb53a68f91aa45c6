"""The command line that makes a run, from the job that it recorded."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from segment.job import Job
from segment.store.names import shown

_ARGUMENTS = ("input", "output")


def command_of(job: Mapping[str, Any]) -> str:
    """Return the command line of a job, as `run.json` records it: `segment run in/ out/ --model unet`.

    Options with their defaults are left out. Storage options are no part of it: they are never recorded.
    """
    words = ["segment", "run", *(shown(str(job[name])) for name in _ARGUMENTS)]
    for name, field in Job.model_fields.items():
        default = field.get_default()
        given = job.get(name, default)
        if name not in _ARGUMENTS and given != (list(default) if isinstance(default, tuple) else default):
            words += _option("--" + name.replace("_", "-"), given)
    return shlex.join(words)


def _option(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield name if value else f"--no-{name.removeprefix('--')}"
        return
    values = [f"{key}={item}" for key, item in value.items()] if isinstance(value, Mapping) else value
    for item in values if isinstance(values, list) else [values]:
        yield from (name, shown(str(item)))
