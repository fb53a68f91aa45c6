"""Messages for validation errors of job files and model cards: the key, the expected value, the value found."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from segment.errors import UsageError, did_you_mean
from segment.store.foreign_text import in_toml
from segment.store.scope import check_prefix

_SECRET = "storage_options"  # messages omit its values
_LONGEST = 60  # characters; messages omit longer values
_TYPES = {"string": "text", "boolean": "true or false", "array": "a list", "object": "a table", "null": ""}
_Schema = dict[str, Any]
_BEYOND = 1 << 63  # whole numbers of TOML are below it, and not below its negative
_MOST_DOTS = 200  # in a line of TOML: the time for a key of many parts grows with their square

Prefix = Annotated[str, BeforeValidator(check_prefix)]  # of URLs, or a local folder


def parse_toml(data: str | bytes, where: str) -> dict[str, Any]:
    """Parse TOML. Raises UsageError: `where` is none, is nested too deeply, or has a line of too many dots or a
    whole number beyond 64 bits.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
            raise UsageError(f"{where} has a line with more than {_MOST_DOTS} dots: break the line")
        found = tomllib.loads(text)
        if _holds_large_number(found):
            raise UsageError(f"{where} has a whole number beyond 64 bits, which TOML does not know")
        return found
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise UsageError(f"{where} is not TOML: {error}{_advice(text, str(error))}") from None


def _advice(text: str, error: str) -> str:
    """Return how to mend a value that is none."""
    if not (place := re.match(r"Invalid value \(at line (\d+), column (\d+)\)", error)):
        return ""
    line, column = map(int, place.groups())
    word = re.split(r"\W", text.split("\n")[line - 1][column - 1 :], maxsplit=1)[0].lower()
    if not word[:1].isalpha() or word in ("nan", "inf", "none", "null"):
        return ""
    return ". It has small letters: true, false" if word in ("true", "false") else ". Text stands in quotes"


def _holds_large_number(value: object) -> bool:
    """Whether there is a whole number beyond 64 bits: hexadecimal ones have any length, and none can be printed."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(map(_holds_large_number, value))
    return isinstance(value, int) and not -_BEYOND <= value < _BEYOND


def validation_message(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe a pydantic error, one line per key: `  input.hieght: unknown key. Did you mean 'height'?`."""
    return as_lines(validation_errors(error, model))


def as_lines(wrong: Mapping[str, str]) -> str:
    """Return what is wrong with each key, one line per key."""
    return "\n".join(f"  {key}: {text}" if key else f"  {text}" for key, text in wrong.items())


def validation_errors(error: ValidationError, model: type[BaseModel]) -> dict[str, str]:
    """Return what is wrong with each key; `""` stands for keys that exclude each other."""
    root = model.model_json_schema()
    wrong: dict[str, str] = {}
    listed: set[tuple[str, ...]] = set()  # known keys, once
    for item in error.errors(include_url=False, include_context=False):
        place, here = _walk(root, item["loc"])
        if item["type"] == "extra_forbidden":
            place = ".".join(str(part) for part in item["loc"])
            known = tuple(sorted(key for option in _options(root, here) for key in option.get("properties", {})))
            hint = did_you_mean(str(item["loc"][-1]), known)
            text = f"unknown key.{hint}" + ("" if hint or known in listed else f" Known: {', '.join(known)}")
            listed |= {known} if not hint else set()
        elif item["type"] == "missing":
            text = "this key is missing" + (f": {here['description']}" if "description" in here else "")
        elif item["type"] in ("value_error", "assertion_error"):
            text = item["msg"].removeprefix("Value error, ")
        else:
            text = _mismatch(root, here, item["input"] if _SECRET not in item["loc"] else None)
        wrong.setdefault(place, text)
    return wrong


def _walk(root: _Schema, location: tuple[int | str, ...]) -> tuple[str, _Schema]:
    """Return the key at pydantic's location, without the names of union branches, and the key's schema."""
    here, names = root, []
    for part in location:
        inner = next((found for option in _options(root, here) if (found := _inner(option, part)) is not None), None)
        if inner is None:
            break
        names.append(str(part))
        here = inner
    return ".".join(names), here


def _inner(schema: _Schema, part: int | str) -> _Schema | None:
    found = None
    if isinstance(part, str):
        found = schema.get("properties", {}).get(part, schema.get("additionalProperties"))
    elif schema.get("type") == "array":
        found = (schema.get("prefixItems") or [schema.get("items", {})])[0]
    return found if isinstance(found, dict) else None


def _options(root: _Schema, here: _Schema) -> Iterator[_Schema]:
    """Yield the branches of a schema; follow references."""
    if "$ref" in here:
        yield from _options(root, root["$defs"][here["$ref"].rsplit("/", 1)[1]])
        return
    branches = here.get("anyOf") or here.get("oneOf") or here.get("allOf")
    if not branches:
        yield here
    for branch in branches or ():
        yield from _options(root, branch)


def _mismatch(root: _Schema, here: _Schema, value: object) -> str:
    here = {name: value for name, value in here.items() if name != "description"}  # that of the key, not of its type
    options = list(_options(root, here))
    choices = [c for option in options for c in option.get("enum", [option["const"]] if "const" in option else [])]
    words = [choice for choice in choices if isinstance(choice, str)]
    kinds = [kind for option in options if (kind := _kind(option))]
    text = f"expected {_one_of([*kinds, *(repr(choice) for choice in choices)])}"
    if isinstance(value, str | int | float) and len(repr(value)) <= _LONGEST:
        text += f", not {in_toml(value) if isinstance(value, bool) else repr(value)}."
        text += did_you_mean(value, words) if isinstance(value, str) else ""
    return text.removesuffix(".")


def _one_of(choices: list[str]) -> str:
    return ", ".join(choices[:-1]) + (" or " if choices[:-1] else "") + choices[-1] if choices else "something else"


def _kind(schema: _Schema) -> str:
    if "enum" in schema or "const" in schema:
        return ""
    kind = str(schema.get("type", ""))
    if "description" in schema and kind != "object":  # the description of a table is its class's docstring
        return str(schema["description"])
    if kind not in ("integer", "number"):
        limits = {"minLength": " that is not empty", "pattern": " like {}"}
        texts = [text.format(schema[key]) for key, text in limits.items() if key in schema]
        return "".join([_TYPES.get(kind, ""), *texts, _number_of_items(schema)])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    noun = "a whole number" if kind == "integer" else "a number"
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}"
    if low is not None:
        return f"{noun} {'above' if 'exclusiveMinimum' in schema else 'from'} {low:g}" + (
            "" if "exclusiveMinimum" in schema else " up"
        )
    return noun if high is None else f"{noun} up to {high:g}"


def _number_of_items(schema: _Schema) -> str:
    fewest, most = schema.get("minItems"), schema.get("maxItems")
    if most is None:
        return ""
    if fewest is None:
        return f" of at most {most}"
    return f" of {most}" if fewest == most else f" of {fewest} to {most}"
