"""`segment demo`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from segment.cli.app import app, option
from segment.cli.streams import streams


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for scenes and results.")] = Path(
        "demo-output"
    ),
    engine: Annotated[Literal["local", "ray"], option("Engine of the first run.")] = "ray",
    scenes: Annotated[int, option("Number of scenes to segment.", min=4, max=64)] = 64,
) -> None:
    """Segment the shipped, labelled street scenes on a local Ray cluster; show the scores and a picture."""
    from segment.demo.show import run_demo

    run_demo(folder, engine=engine, scenes=scenes)
    streams.work_is_done()
