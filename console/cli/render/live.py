"""A part of a terminal that is drawn again every second, below lines that stay. All that speaks to rich about it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Protocol

from console.cli import terminal

DrawLines = Callable[[int, int], Iterable[str]]
"""Returns what to draw in so many columns and rows."""


class PrintAbove(Protocol):
    """Writes a line that stays above what is drawn."""

    def __call__(self, text: str, *, bell: bool = False) -> None:
        """Write it; `bell`: and call whoever looks elsewhere."""


@contextlib.contextmanager
def live_display(lines: DrawLines, *, stream: IO[str]) -> Iterator[PrintAbove]:
    """Draw lines again every second for the length of a block; nothing of them is left afterwards."""
    from rich.console import Console  # noqa: PLC0415 - loads slowly, and only a terminal needs it
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, force_terminal=True, no_color=not terminal.shows_colours(stream) or None, highlight=False)

    def render_lines() -> Text:
        return Text("\n", no_wrap=True, overflow="ellipsis", end="").join(map(Text.from_ansi, lines(*console.size)))

    # What others write to stderr must not cross it either, where it is the same terminal; where it is none it stays where it was sent.
    with Live(
        get_renderable=render_lines,
        console=console,
        refresh_per_second=2,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=terminal.is_terminal(sys.stderr),
    ) as shown:

        def above(text: str, *, bell: bool = False) -> None:
            console.out(text, highlight=False)
            if bell:
                console.bell()
            shown.refresh()

        yield above
