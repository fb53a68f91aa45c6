"""rich's console, made safe for text from outside."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from segment.store.foreign_text import on_terminal


class SafeConsole(Console):
    """A console that shows control, bidirectional and zero-width characters of what it prints as escapes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(on_terminal(segment.text), segment.style)
