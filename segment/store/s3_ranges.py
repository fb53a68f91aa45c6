"""Lets ranges be read from stores that answer them with the checksum of the whole object, as rclone does.

botocore asks for a checksum with every read, and compares it with the bytes that come. AWS answers a range without one.
A range has its length checked, and its ETag; a whole object its checksum, too.
"""

from __future__ import annotations

from typing import Any

_EVENT = "before-parameter-build"  # botocore sets the mode at the same event; handlers of a narrower one come before


def ask_no_checksum_of_ranges(client: Any) -> None:
    """Let an S3 client ask for checksums of whole objects only; a second call changes nothing."""
    client.meta.events.register_last(_EVENT, _drop_mode, unique_id="segment-range-checksum")


def _drop_mode(params: dict[str, Any], **_: Any) -> None:
    if "Range" in params:
        params.pop("ChecksumMode", None)
