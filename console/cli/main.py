"""The program `justenough`. Loads only what a command line needs: `--version`, `--help` and completion must answer at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from console.cli.version import version_text

if TYPE_CHECKING:
    from types import FrameType

    import typer


class StoppedBySignal(SystemExit):
    """SIGTERM or SIGHUP: ends the program like Ctrl-C does, so that no terminal stays without echo or cursor, and no server half started."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def main() -> None:
    """Run the program with this process's arguments."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # A program that nohup started ignores SIGHUP.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)
    try:
        _run()
    except KeyboardInterrupt:
        # Typer handles only what comes while a command runs.
        sys.exit(128 + signal.SIGINT)
    except StoppedBySignal as stopped:
        os.kill(os.getpid(), stopped.number)


def _stop(number: int, _frame: FrameType | None) -> None:
    # A second signal ends the program at once; so does the one with which it then ends itself, as its starter expects.
    signal.signal(number, signal.SIG_DFL)
    raise StoppedBySignal(number)


def _run() -> None:
    # A stream that the caller closed gives and takes nothing. No file that is opened later may get its number.
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - it stays open like the stream itself
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - it stays open like the stream itself
        with contextlib.suppress(AttributeError):
            getattr(sys, name).reconfigure(errors="backslashreplace")  # text streams have it, replaced ones may not
    try:
        try:
            if sys.argv[1:] == ["--version"]:
                sys.stdout.write(f"{version_text()}\n")
            else:
                program()(prog_name="justenough")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(report_os_error(error))


def program() -> typer.Typer:
    """Build the program. It loads its commands when they are needed."""
    from console.cli.root_group import build_program  # noqa: PLC0415 - loads typer, which `--version` does without

    return build_program()


def report_os_error(error: OSError) -> int:
    """Print why a file could not be read or written, or nothing if the reader of the output is gone; return the exit code."""
    from console.cli import terminal  # noqa: PLC0415 - `--version` does without

    with contextlib.suppress(OSError):
        if isinstance(error, FileNotFoundError) and _is_folder_gone():
            terminal.write_error("the current folder no longer exists; change to another one")
        elif not isinstance(error, BrokenPipeError):
            terminal.write_error(f"{error.filename or 'reading or writing failed'}: {error.strerror or error}")
        # Python must not try to write the rest of the output when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _is_folder_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
