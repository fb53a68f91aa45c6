"""`segment schema`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from segment.cli.app import app
from segment.cli.streams import say


class SchemaKind(StrEnum):
    """Of what `segment schema` prints the schema."""

    job = "job"
    card = "card"


@app.command()
def schema(kind: Annotated[SchemaKind, typer.Argument(help="job or card.")]) -> None:
    """Print the JSON schema of job files or model cards, for editors.

    segment schema job > job.schema.json   # then, as the first line of a job file: #:schema ./job.schema.json
    """
    import json

    from segment.schema import json_schema

    say(json.dumps(json_schema(kind.value), indent=2, ensure_ascii=False))
