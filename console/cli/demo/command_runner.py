"""Runs this program's commands in this process: starting a process for each of the demo's steps would take longer than the steps themselves."""

from __future__ import annotations

import contextlib
import contextvars
import io
import sys
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

from console.cli.errors import ExitCode
from console.cli.root_group import build_program


def run_command(*arguments: str, stdin: str = "", program: Callable[[], Callable[..., object]] = build_program) -> CompletedProcess[str]:
    """Run a command; return how it ended, and what it printed. Raises KeyboardInterrupt if the command was interrupted."""
    code, stdout, stderr = 0, io.StringIO(), io.StringIO()
    with _replaced_stdin(stdin), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            # The command's options apply to nothing else.
            contextvars.copy_context().run(program(), arguments, prog_name="justenough")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def _replaced_stdin(text: str) -> Iterator[None]:
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(text.encode()))
    try:
        yield
    finally:
        sys.stdin = before
