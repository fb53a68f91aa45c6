"""What is changed in botocore's S3 client: the parser of listings, and the checksums of ranges."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

# botocore sets the mode at the same event; handlers of a narrower one come before.
_CHECKSUM_EVENT = "before-parameter-build"
# The asterisk makes it come before the handler of botocore (`before-parse.s3.*`) that parses the whole body to look for
# an error in it.
_EVENT = "before-parse.*.ListObjectsV2"
_CONTENTS = re.compile(rb"<Contents>.*</Contents>", re.DOTALL)


def parse_pages_of(client: Any) -> None:
    """Let an S3 client read its listings by `take_contents`; a second call changes nothing.

    botocore's own parser takes most of the time of a long listing.
    """
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


def ask_no_checksum_of_ranges(client: Any) -> None:
    """Let an S3 client ask for checksums of whole objects only; a second call changes nothing.

    botocore asks for one with every read. AWS answers a range without one, rclone with that of the whole object, which
    fails. A range has its length and its ETag checked.
    """
    client.meta.events.register_last(_CHECKSUM_EVENT, _drop_mode, unique_id="segment-range-checksum")


def _drop_mode(params: dict[str, Any], **_: Any) -> None:
    if "Range" in params:
        params.pop("ChecksumMode", None)
