"""A process of a pool, as the pool knows it: its work, and how long it has done nothing."""

from dataclasses import dataclass, field

from segment.engines.suspect import Suspect
from segment.engines.worker_process import Heartbeat, WorkerProcess
from segment.inputs.parts import Part
from segment.store import inflight

_ALIVE_SECONDS = 3.0  # since the last message of a process that is not frozen; it sends a heartbeat each second


@dataclass(eq=False)
class Member:
    """State of a process of the pool.

    Attributes:
        tries: number of processes in a row, this one included, that may die without a result.
        is_loading: it has not asked for work yet.
        is_dismissed: it was told that there is no more work.
        requests: number of requests for work that are not answered yet.
        parts: the parts that it was given and has not finished.
        suspect: the part that it runs image by image.
        steps: number of steps done, as of its last heartbeat.
        idle_seconds: time since its last step, not counting time in which the pool itself stood still.
        decoding: the image that it decodes, as of its last heartbeat; see `Heartbeat`.
        decoding_seconds: for how long it has said so, not counting time in which it was silent, as a frozen one is.
        silent_seconds: time since its last message.
    """

    process: WorkerProcess
    tries: int
    is_loading: bool = True
    is_dismissed: bool = False
    requests: int = 0
    parts: list[Part] = field(default_factory=list)
    suspect: Suspect | None = None
    steps: int = -1
    idle_seconds: float = 0.0
    decoding: tuple[str, int] | None = None
    decoding_seconds: float = 0.0
    silent_seconds: float = 0.0

    def pass_time(self, seconds: float) -> None:
        """Take note that so much time has passed."""
        self.idle_seconds += seconds
        self.silent_seconds += seconds
        if self.silent_seconds < _ALIVE_SECONDS:
            self.decoding_seconds += seconds

    def stuck_at(self) -> tuple[str, int] | None:
        """Return the image that it has been decoding for most of the time without a step, if it is alive."""
        is_alive = self.silent_seconds < min(_ALIVE_SECONDS, self.idle_seconds / 2)  # the timeout may be short
        return self.decoding if is_alive and 2 * self.decoding_seconds > self.idle_seconds else None

    def note_progress(self, message: object) -> None:
        """Any message is progress, but for a heartbeat without a new step."""
        self.silent_seconds = 0.0
        if isinstance(message, Heartbeat):
            if message.decoding != self.decoding:
                self.decoding, self.decoding_seconds = message.decoding, 0.0
            inflight.record_worker(self, message.waits, message.begun)
            if message.steps == self.steps:
                return
            self.steps = message.steps
        self.idle_seconds = 0.0
