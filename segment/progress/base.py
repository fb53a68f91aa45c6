"""What every display can be told."""

from __future__ import annotations

from segment.progress.tally import Tally


class Progress:
    """Shows nothing. The base of those that do; `tick` comes from a thread of its own."""

    def note(self, message: str) -> None:
        """Something the user should know: a fact, or `warning: ...`."""

    def phase(self, words: str) -> None:
        """What goes on from now on, until the next phase."""

    def download(self, name: str, done: int, total: int) -> None:
        """Bytes of a file of weights came; `total` is -1 where the size is not known."""

    def begin(self, tally: Tally) -> None:
        """The first round begins."""

    def update(self, tally: Tally) -> None:
        """A result was counted."""

    def tick(self) -> None:
        """A second has passed, whatever happened in it."""

    def stopping(self) -> None:
        """The user wants the run to stop: what is at hand is finished or abandoned."""

    def end(self, tally: Tally) -> None:
        """The last round ended, well or not."""

    def failed(self, message: str, exit_code: int) -> None:
        """The run ends with this error."""

    def close(self) -> None:
        """Nothing more comes: give the terminal back."""
