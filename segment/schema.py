"""JSON schemas of job files and model cards, for editors that check and complete TOML."""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal

from pydantic import BaseModel

from segment.job import Job
from segment.models.card import ModelCard

Kind = Literal["job", "card"]
_MODELS: dict[Kind, type[BaseModel]] = {"job": Job, "card": ModelCard}


def json_schema(kind: Kind) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a job file or a model card; what a key means is its description."""
    schema = _MODELS[kind].model_json_schema()
    for model in _models(_MODELS[kind]):
        part = schema if model is _MODELS[kind] else schema["$defs"][model.__name__]
        part["description"] = (inspect.getdoc(model) or "").splitlines()[0]
        for name, text in _attributes(model).items():
            if name in part["properties"]:
                part["properties"][name]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and those of its fields, each once."""
    found = [model]
    for candidate in found:
        for field in candidate.model_fields.values():
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel) and inner not in found:
                    found.append(inner)
    return found


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What docstrings say of the fields: `name, other: text` under `Attributes:`."""
    described: dict[str, str] = {}
    for base in reversed(model.__mro__):
        _, _, section = (inspect.cleandoc(base.__doc__ or "")).partition("\nAttributes:\n")
        for names, text in re.findall(r"(?ms)^ {4}(\w[\w, ]*): (.*?)(?=^ {4}\w|\Z)", section):
            described |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return described
