"""rich's console, made safe for text from outside."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from segment.store.foreign_text import on_terminal


class SafeConsole(Console):
    """A console that shows control, bidirectional and zero-width characters of what it prints as escapes.

    Brackets and `:names:` are text, not rich's markup and emoji: styles are given beside a text. Strings are made safe
    before they are laid out, which keeps columns straight and signatures whole, so that they are found and masked.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(on_terminal(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(on_terminal(segment.text), segment.style)
