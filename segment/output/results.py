"""The result of a part: what an engine reports of it, for progress and timings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from segment.metrics import Confusion

Stage = Literal["read", "decode", "infer", "encode", "write"]
STAGES: tuple[Stage, ...] = ("read", "decode", "infer", "encode", "write")


@dataclass(frozen=True)
class PartResult:
    """What became of a part, for progress and timings; never the truth, which is in the store.

    Attributes:
        part, shard: ids.
        images: rows written.
        errors: error rows by code.
        error_texts: of each code the text of the first row.
        remarks: images by code of `segment.output.remarks.REMARKS`: what was noticed and fails nothing.
        labelled: images whose label could be used.
        confusion: the part's counts; None if it was not computed here.
        seconds: by stage.
        read_bytes, written_bytes: encoded input, output object.
        retries: requests to stores that were repeated since its worker's last result, by kind.
        host: where it ran.
        began, ended: when work on it began and when it was committed, in seconds since 1970.
        memory: most bytes that the process with the model has had resident so far.
        skipped: the part was committed already.
        failure: None, or why the part could not be committed (store or input trouble; a rerun resumes).
        input_changed: the failure is that the input is not the planned one; trying again does not help.
    """

    part: str
    shard: str
    images: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    error_texts: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    labelled: int = 0
    confusion: Confusion | None = None
    seconds: dict[Stage, float] = field(default_factory=dict)
    read_bytes: int = 0
    written_bytes: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    host: str = ""
    began: float = 0.0
    ended: float = 0.0
    memory: int = 0
    skipped: bool = False
    failure: str | None = None
    input_changed: bool = False
