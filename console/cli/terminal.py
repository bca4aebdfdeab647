"""Writes data to stdout and messages to stderr. Reports whether they are terminals; only terminals get colours."""

from __future__ import annotations

import os
import shutil
import sys

from console.presentation.terminal_text import colour_text, plain

DEFAULT_COLUMNS = 80


def write(text: str) -> None:
    """Write data to stdout unchanged."""
    sys.stdout.write(text)


def write_line(text: str) -> None:
    write(f"{text}\n")


def write_message(text: str) -> None:
    """Write one line to stderr, with control characters escaped."""
    _write_stderr(plain(text))


def write_error(text: str) -> None:
    label = colour_text("error:", "red") if shows_colours(sys.stderr) else "error:"
    _write_stderr(f"{label} {plain(text)}")


def shows_colours(stream: object = None) -> bool:
    """Whether a stream (default: stdout) shows colours: it is a terminal, and NO_COLOR is not set."""
    return is_terminal(stream or sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: object) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())


def can_redraw(stream: object) -> bool:
    """Whether a stream is a terminal on which text can be redrawn in place."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_interactive() -> bool:
    """Whether the program can prompt a person."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def columns() -> int | None:
    """Return the width of stdout's terminal, None if it is not a terminal."""
    return shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns if is_terminal(sys.stdout) else None


def _write_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def flush() -> None:
    sys.stdout.flush()
