"""What a loaded model guards against: forks, and errors that do not say which image they are of."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from segment.errors import SampleError, UsageError


@contextmanager
def position_in_errors(position: int) -> Iterator[None]:
    """Say in errors which image of a batch they are of."""
    name = f"images[{position}]"
    try:
        yield
    except SampleError as error:
        raise SampleError(error.code, f"{error.detail}, {name}" if error.detail else name) from None
    except (TypeError, ValueError) as error:
        error.add_note(f"It is {name}.")
        raise


def refuse_fork(process: int) -> None:
    """Refuse to run in a fork of the process that loaded a model: the threads of its runtime are missing there."""
    if process != os.getpid():
        raise UsageError(
            "this process was forked from one that had loaded a model, and runtimes hang after a fork. Start processes "
            "by spawn; for num_proc of Hugging Face datasets: multiprocess.set_start_method('spawn')"
        )
