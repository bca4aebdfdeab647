"""The program `justenough`. Loads only what a command line needs: `--version`, `--help` and completion must answer at once."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from console.cli.version import version_text

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run the program with this process's arguments."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # text streams have it, replaced ones may not
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"{version_text()}\n")
    else:
        program()(prog_name="justenough")


def program() -> typer.Typer:
    """Build the program. It loads its commands when they are needed."""
    from console.cli.root_group import build_program  # noqa: PLC0415 - loads typer, which `--version` does without

    return build_program()
