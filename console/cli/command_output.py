"""Prints for the commands of other packages, so that their output looks like every other command's (docs/decisions/0005)."""

from __future__ import annotations

from console.cli.errors import to_failure
from console.cli.options import current_options, print_failure
from console.cli.render.output import emit, note, print_fields, print_table
from console.cli.terminal import write_line, write_message
from justenough.domain.core.errors import JustEnoughError

__all__ = ["console_url", "emit", "note", "print_error", "print_fields", "print_table", "write_line", "write_message"]


def print_error(error: JustEnoughError) -> None:
    """Print an error on stderr, each of its problems on a line of its own."""
    print_failure(to_failure(error))


def console_url() -> str | None:
    """Return the value of --console-url; None without the option."""
    return current_options().console_url
