"""Reads the objects of a page of S3's listing. botocore's own parser takes most of the time of a long listing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

# The asterisk makes it come before the handler of botocore (`before-parse.s3.*`) that parses the whole body to look for
# an error in it.
_EVENT = "before-parse.*.ListObjectsV2"
_CONTENTS = re.compile(rb"<Contents>.*</Contents>", re.DOTALL)


def parse_pages_of(client: Any) -> None:
    """Let an S3 client read its listings by `take_contents`; a second call changes nothing."""
    client.meta.events.register_first(_EVENT, take_contents, unique_id="segment-contents")


def take_contents(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Move the objects of a page from the body to the parsed response; botocore parses what is left.

    What looks different from S3's answers, or is an error, is left to botocore as a whole.
    """
    body = response_dict["body"]
    found = _CONTENTS.search(body) if response_dict["status_code"] < 300 else None
    if not found:
        return
    try:
        rows = ElementTree.fromstring(b"<rows>" + found[0] + b"</rows>")
        objects = [_object({item.tag: item.text or "" for item in row}) for row in rows if row.tag == "Contents"]
    except (ElementTree.ParseError, KeyError, ValueError):
        return
    if len(objects) == len(rows):  # nothing else, such as prefixes, is between them
        customized_response_dict["Contents"] = objects
        response_dict["body"] = body[: found.start()] + body[found.end() :]


def _object(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return what s3fs and we need, in botocore's types."""
    found: dict[str, Any] = {"Key": texts["Key"], "Size": int(texts["Size"])}
    if "ETag" in texts:
        found["ETag"] = texts["ETag"]
    if "LastModified" in texts:
        found["LastModified"] = datetime.fromisoformat(texts["LastModified"])
    return found
