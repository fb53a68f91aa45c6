"""`segment demo`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from segment.cli.app import app
from segment.cli.streams import streams


class DemoEngine(StrEnum):
    """Engines of the demo's first run."""

    local = "local"
    ray = "ray"


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for scenes and results.")] = Path(
        "demo-output"
    ),
    engine: Annotated[DemoEngine, typer.Option("--engine", help="Engine of the first run.")] = DemoEngine.ray,
    scenes: Annotated[int, typer.Option("--scenes", min=4, max=64, help="Number of scenes to segment.")] = 64,
) -> None:
    """Segment the shipped, labelled street scenes on a local Ray cluster; show the scores and a picture."""
    from segment.demo.show import run_demo

    run_demo(folder, engine=engine.value, scenes=scenes)
    streams.work_is_done()
