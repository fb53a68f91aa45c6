"""`segment demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segment.cli.app import app
from segment.cli.streams import streams


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put scenes and results.")] = Path("demo-output"),
    engine: Annotated[str, typer.Option("--engine", help="local or ray.")] = "ray",
    scenes: Annotated[int, typer.Option("--scenes", min=4, help="Scenes to make.")] = 160,
) -> None:
    """Make labelled street scenes, segment them on a local Ray cluster, show the scores and a picture."""
    from segment.demo.show import run_demo

    run_demo(folder, engine=engine, scenes=scenes)
    streams.work_is_done()
