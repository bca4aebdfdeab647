"""A live display: lines that are redrawn at the bottom of the terminal, below output that stays. Wraps rich."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Protocol

from console.cli import terminal

DrawLines = Callable[[int, int], Iterable[str]]
"""Returns the lines to draw, given the columns and rows of the terminal."""


class PrintAbove(Protocol):
    """Prints a line that stays, above the display."""

    def __call__(self, text: str, *, bell: bool = False) -> None:
        """Print the text. `bell`: ring the terminal's bell."""


@contextlib.contextmanager
def live_display(lines: DrawLines, *, stream: IO[str]) -> Iterator[PrintAbove]:
    """Redraw lines twice a second during a block, and erase them afterwards."""
    from rich.console import Console  # noqa: PLC0415 - loads slowly, and only a terminal needs it
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, force_terminal=True, no_color=not terminal.shows_colours(stream) or None, highlight=False)

    def render_lines() -> Text:
        return Text("\n", no_wrap=True, overflow="ellipsis", end="").join(map(Text.from_ansi, lines(*console.size)))

    # Other messages on stderr must not cross the display on the same terminal. A redirected stderr stays redirected.
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
