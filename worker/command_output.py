"""What the worker's commands share: the interface that prints for them, their settings and their exit codes.

The program passes the interface in, so that worker imports nothing from the command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import typer

from justenough.domain.core.errors import InvalidInput, JustEnoughError

if TYPE_CHECKING:
    from justenough.adapters.configuration.settings import Settings

EXIT_FAILED, EXIT_USAGE, EXIT_DRIFT = 1, 2, 2
Json = dict[str, Any]


class CommandOutput(Protocol):
    """Prints for these commands. The program also gives every command the options --output and --quiet."""

    def emit(self, value: Json, *, table: Callable[[Json], None], names: Callable[[Json], Iterable[object]]) -> None:
        """Print a value on stdout in the requested format."""

    def print_table(self, header: Sequence[object], lines: Sequence[Sequence[object]]) -> None:
        """Print a table on stdout."""

    def print_fields(self, *pairs: tuple[str, object]) -> None:
        """Print names and values on stdout."""

    def write_line(self, text: str) -> None:
        """Print one line on stdout."""

    def write_message(self, text: str) -> None:
        """Print one line on stderr."""

    def note(self, text: str) -> None:
        """Print one line on stderr, nothing with --quiet."""

    def print_error(self, error: JustEnoughError) -> object:
        """Print an error and its problems on stderr."""

    def console_url(self) -> str | None:
        """Return the value of --console-url; None without the option."""

    def installation_url(self) -> str | None:
        """Return the address of the console of an installation elsewhere; None for a stack of this machine."""


def read_settings(output: CommandOutput, *, exit_code: int = EXIT_USAGE) -> Settings:
    """Return the settings; print each problem and exit if there are any."""
    from justenough.adapters.configuration.settings import load_settings  # noqa: PLC0415 - loads pydantic

    try:
        return load_settings()
    except InvalidInput as error:
        for problem in error.problems:
            output.write_message(str(problem))
        raise typer.Exit(exit_code) from error


@contextlib.contextmanager
def exit_on_error(output: CommandOutput, *, invalid_input: int = EXIT_FAILED) -> Iterator[None]:
    """Print the block's error and exit: with the code `invalid_input` for an InvalidInput, else with 1."""
    try:
        yield
    except JustEnoughError as error:
        output.print_error(error)
        raise typer.Exit(invalid_input if isinstance(error, InvalidInput) else EXIT_FAILED) from error
