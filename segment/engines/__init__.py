"""Engines: where the stages run. Each is an adapter; what a part becomes is decided in `segment.pipeline.stages`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:  # the actor of `ray_heartbeats` starts in half the time without them
    from segment.models.sessions import Runtime
    from segment.models.weights import Weights
    from segment.output.plan import Plan
    from segment.output.results import PartResult
    from segment.pipeline.stages import Task
    from segment.progress import Tally

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

# `none`: many parts at once, as fast as can be. `part`: a part that kills its worker takes no other part along.
# `image`: every part image by image in worker processes; an image that kills them becomes an error row.
Isolation = Literal["none", "part", "image"]


class Node(NamedTuple):
    """A machine that may run the model.

    Attributes:
        name: for people.
        can: see `segment.models.sessions.capabilities`.
        key: for the engine that named it.
    """

    name: str
    can: frozenset[str]
    key: str = ""


class StoppableSpread(Protocol):
    """Calls a function for many items, at once where that is possible."""

    def __call__(self, function: Callable[[A], T], items: Sequence[A], /, *, stopped: Callable[[], bool]) -> list[T]:
        """Return `[function(item) for item in items]`; begin no further call once it is `stopped`."""
        ...


class Engine(Protocol):
    """Runs parts and says what became of them; best effort, the ledger is the truth.

    Calls are made in this process unless an engine knows a better place.

    Attributes:
        name: `local` or `ray`.
    """

    name: str

    @abstractmethod
    def nodes(self) -> list[Node]:
        """The machines that may run the model today."""

    @abstractmethod
    def workers(self, task_device: str) -> int:
        """How many sessions will run at once on `cpu`, `cuda` or `tensorrt`."""

    @abstractmethod
    def processes(self, task: Task, weights: Weights, plan: Plan) -> int:
        """How many processes will hold the model for a plan."""

    @abstractmethod
    def process_memory(self, task: Task, weights: Weights, plan: Plan) -> int | None:
        """Expected peak bytes of a process with the model; None if unknown (on GPUs)."""

    @abstractmethod
    def threads(self, workers: int) -> int:
        """CPU threads of each of so many workers."""

    @abstractmethod
    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        """Run every part of `plan`, yielding results as parts end, in any order.

        Args:
            isolation: how far apart to keep parts that may kill their worker.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the engine holds."""

    def call(self, task_device: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function where a model for that device would be run: on a node with a GPU for `cuda`."""
        return function(*args, **kwargs)

    def call_on(self, node: Node, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on one of `nodes()`."""
        return function(*args, **kwargs)

    def spread(self, function: Callable[[A], T], items: Sequence[A], /, *, stopped: Callable[[], bool]) -> list[T]:
        """Return `[function(item) for item in items]`, many at once, on the machines that segment; for short waits.

        Raises CancelledError: it was `stopped`, which is called from time to time.
        """
        from segment.inputs.lookup import in_threads  # here, for the same reason as above

        return in_threads(function, items, stopped=stopped)

    @abstractmethod
    def warm_up(self, runtime: Runtime, plan: Plan) -> None:
        """Begin what `run` will wait for, while the run is prepared; never fails."""

    @abstractmethod
    def publish(self, tally: Tally, *, ended: bool = False) -> None:
        """Show how the run stands where the engine's own users look; called once a second, from any thread."""
