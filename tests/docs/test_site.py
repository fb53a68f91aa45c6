"""The parts of the site that come from the code name all that the code has; `make docs` builds the rest, strictly."""

import re
import sys

import pytest

from segment.job import Job
from segment.models.card import ModelCard
from tests.calls import ROOT, Call
from tests.pages import PAGES

sys.path.append(str(ROOT / "docs"))
import generated

MARKERS = {name for item in PAGES for name in re.findall(r"<!-- generated: ([a-z ]+) -->", item.text)}


def test_every_part_is_on_a_page_and_every_page_has_its_parts() -> None:
    assert set(generated.PARTS) == MARKERS


def test_a_job_file_has_every_key() -> None:
    text = generated.PARTS["job file"]()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(Job.model_fields)
    assert "| `input` | text | required |" in text
    assert "| `max_error_rate` | number | `0.05` |" in text


def test_a_card_has_every_key_of_every_table() -> None:
    text = generated.PARTS["card"]()
    schema = ModelCard.model_json_schema()
    tables = [schema, *(found for found in schema["$defs"].values() if "properties" in found)]
    keys = {name for found in tables for name in found["properties"]}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == keys
    for path in ("[input]", "[input.resize]", "[input.tiles]", "[[ensemble.weights]]", "[metric.published]"):
        assert f"## Table `{path}`" in text, path


def test_commands_have_every_option_of_their_help(segment: Call) -> None:
    text = generated.PARTS["commands"]()
    for name in re.findall(r"^## segment (.*)$", text, re.MULTILINE):
        section = text.partition(f"\n## segment {name}\n")[2] or text.partition(f"## segment {name}\n")[2]
        section = section.partition("\n## segment ")[0]
        flags = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", segment(*name.split(), "--help").out, re.MULTILINE))
        assert {flag for flag in flags - {"--help"} if f"`{flag}`" not in section} == set(), name


@pytest.mark.parametrize("part", sorted(generated.PARTS))
def test_tables_have_the_cells_that_their_heads_have(part: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", generated.PARTS[part](), re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1
