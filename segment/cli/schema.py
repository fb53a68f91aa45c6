"""`segment schema`."""

import json
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel

from segment.cli.app import app
from segment.cli.streams import put
from segment.job import Job


@app.command()
def schema(kind: Annotated[Literal["job", "card"], typer.Argument(metavar="KIND", help="Kind of the file.")]) -> None:
    """Print the JSON schema of job files or model cards, for editors.

    segment schema job > job.schema.json   # then, as the first line of a job file: #:schema ./job.schema.json
    """
    put(json.dumps(json_schema(kind), indent=2, ensure_ascii=False))


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a `job` file or a model `card`.

    No key of a job file is required: the command line can give each.
    """
    from segment.models.card import ModelCard

    model: type[BaseModel] = Job if kind == "job" else ModelCard
    found = model.model_json_schema()
    if kind == "job":
        del found["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
