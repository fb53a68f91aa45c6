"""The result of a part, as an engine reports it for progress and timings."""

from dataclasses import dataclass, field
from typing import Literal

from segment.metrics import Confusion
from segment.output.stored import Stored

Stage = Literal["read", "decode", "infer", "encode", "write"]
STAGES: tuple[Stage, ...] = ("read", "decode", "infer", "encode", "write")


@dataclass(frozen=True)
class PartResult:
    """The result of a part, for progress and timings. It is no proof of a commit; only the store is.

    Attributes:
        tiles: tiles segmented, by a card with `input.tiles`; else 0.
        tiles_left, seconds_left: tiles that a probe left out, and the seconds that they would have taken.
        error_texts: text of the first error row, by code.
        remarks: images by code of `segment.output.remarks.REMARKS`.
        labelled: images whose label was used.
        confusion: counts of the part; None if it was not computed in this attempt.
        read_bytes, written_bytes: bytes of encoded input and of the masks file.
        retries: repeated requests to stores since the last result of the worker, by kind.
        host: host of the worker.
        began, ended: begin of work and commit, in seconds since 1970.
        memory: peak resident bytes of the process with the model.
        precision: in which the model ran; `""` where it did not, or image by image.
        skipped: whether the part was committed already.
        failure: why the part could not be committed (trouble of a store or the input; a rerun resumes); None if it was.
        input_changed: whether the failure is a changed input, which a retry does not help.
        objects: what was written: the masks file, then masks in files of their own; empty if nothing was.
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
    precision: str = ""
    skipped: bool = False
    failure: str | None = None
    input_changed: bool = False
    tiles: int = 0
    tiles_left: int = 0
    seconds_left: float = 0.0
    objects: tuple[Stored, ...] = ()
