"""The interface of all progress displays."""

from __future__ import annotations

from segment.progress.tally import Tally


class Progress:
    """A display that shows nothing; the base class of the others. `tick` is called from a thread of its own."""

    def note(self, message: str) -> None:
        """Show a message: a fact, or `warning: ...`."""

    def phase(self, words: str) -> None:
        """Show the current phase of the run, until the next one begins."""

    def download(self, name: str, done: int, total: int) -> None:
        """Show the download of a weights file: `done` of `total` bytes; `total` is -1 if the size is unknown."""

    def begin(self, tally: Tally) -> None:
        """Begin to show a tally: the first round begins."""

    def update(self, tally: Tally) -> None:
        """Show the tally after a result was counted."""

    def tick(self) -> None:
        """Refresh the display; called once a second, with or without new results."""

    def stopping(self) -> None:
        """Show that the run stops: parts in progress are finished or abandoned."""

    def end(self, tally: Tally) -> None:
        """Show the final tally: the last round ended, successfully or not."""

    def failed(self, message: str, exit_code: int) -> None:
        """Show the error that ends the run."""

    def close(self) -> None:
        """Close the display and release the terminal."""
