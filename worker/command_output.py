"""The output interface of the worker's commands. The program passes it in, so that worker imports nothing from the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

Json = dict[str, Any]


class CommandOutput(Protocol):
    """Prints for these commands. The program also gives every command the options --output and --quiet."""

    def emit(self, value: Json, *, table: Callable[[Json], None], names: Callable[[Json], Iterable[object]]) -> None:
        """Print a value on stdout in the requested format."""

    def print_table(self, header: Sequence[object], lines: Sequence[Sequence[object]]) -> None:
        """Print a table on stdout."""

    def print_fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Print names and values on stdout."""

    def write_line(self, text: str) -> None:
        """Print one line on stdout."""

    def write_message(self, text: str) -> None:
        """Print one line on stderr."""

    def note(self, text: str) -> None:
        """Print one line on stderr, nothing with --quiet."""

    def print_error(self, error: Any) -> None:
        """Print an error and its problems on stderr."""

    def console_url(self) -> str | None:
        """Return the value of --console-url; None without the option."""

    def installation_url(self) -> str | None:
        """Return the address of the console of an installation elsewhere; None for a stack of this machine."""
