"""The program `justenough`. Loads only what a command line needs: `--version`, `--help` and completion must answer at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from console.cli.version import version_text
from justenough.adapters.runtime.stop_signals import StoppedBySignal, raise_stop_signals


def main() -> None:
    """Run the program with this process's arguments."""
    raise_stop_signals()
    try:
        _run()
    except KeyboardInterrupt:
        # Typer handles Ctrl-C only while a command runs.
        sys.exit(128 + signal.SIGINT)
    except StoppedBySignal as stopped:
        stopped.end_process()


def _run() -> None:
    # Replace a stream that the caller closed, so that no file that is opened later gets its number.
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
                from console.cli.root_group import build_program  # noqa: PLC0415 - loads typer, which `--version` does without

                build_program()(prog_name="justenough")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(report_os_error(error))


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
