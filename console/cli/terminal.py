"""stdout and stderr: data on one, progress on the other; whether someone is watching, and colours only for them."""

from __future__ import annotations

import os
import shutil
import sys

from console.presentation.terminal_text import colour_text, plain

DEFAULT_COLUMNS = 80


def write(text: str) -> None:
    """Write data, as it is, to stdout."""
    sys.stdout.write(text)


def write_line(text: str) -> None:
    """Write a line of data to stdout."""
    write(f"{text}\n")


def write_message(text: str) -> None:
    """Write one line to stderr. Whatever in it could move a cursor is written out."""
    _write_stderr(plain(text))


def write_error(text: str) -> None:
    """Write an error's line to stderr."""
    label = colour_text("error:", "red") if shows_colours(sys.stderr) else "error:"
    _write_stderr(f"{label} {plain(text)}")


def shows_colours(stream: object = None) -> bool:
    """Whether a stream (stdout unless given) shows colours: a terminal, and nobody asked for none (NO_COLOR)."""
    return is_terminal(stream or sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: object) -> bool:
    """Whether a person is at the other end."""
    return bool(getattr(stream, "isatty", lambda: False)())


def can_redraw(stream: object) -> bool:
    """Whether what a stream shows can be drawn anew in its place."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_interactive() -> bool:
    """Whether a person can be asked."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def columns() -> int | None:
    """Return how wide stdout's terminal is, None where it is none and nothing needs to be cut."""
    return shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns if is_terminal(sys.stdout) else None


def _write_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def flush() -> None:
    """Let readers see what was written so far."""
    sys.stdout.flush()
