"""An engine that starts on first use, so that a run without work starts none."""

from segment.engines import Engine
from segment.job import Job
from segment.models.sessions import Runtime
from segment.output.plan import Plan
from segment.runs.resolve import make_engine


class LazyEngine:
    """Starts the engine on first use."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self._job = job
        self._plan = plan
        self._engine: Engine | None = None

    def get(self) -> Engine:
        """Return the engine; start it on the first call."""
        if self._engine is None:
            self._engine = make_engine(self._job, self._plan.expected_images)
        return self._engine

    def warm_up(self, runtime: Runtime) -> None:
        """Let an engine that was started go on with its start while the run is written down."""
        if self._engine is not None:
            self._engine.warm_up(runtime, self._plan)

    def close(self) -> None:
        """Close the engine if it was started."""
        if self._engine is not None:
            self._engine.close()
