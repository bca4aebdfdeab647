"""Stacks that outlive the process that started them, but must not outlive the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.stack.control import stop_stack
from worker.stack.paths import StackPaths

ROOT = Path(__file__).resolve().parents[2]
_STOP = """
import pathlib, sys
if sys.stdin.read() == "stopped":
    sys.exit()
from worker.stack.control import stop_stack
from worker.stack.paths import StackPaths
stop_stack(StackPaths(pathlib.Path(sys.argv[1])))
"""


@contextmanager
def stop_at_exit(home: Path) -> Iterator[None]:
    """Stop the stack in a home at the end of a block, even if this process is killed: another process waits until our end of a pipe is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", _STOP, str(home)], cwd=ROOT, stdin=subprocess.PIPE, text=True, start_new_session=True
    ) as waiting:
        try:
            yield
        finally:
            # Here, because the other process would first have to load all that a stack needs.
            stop_stack(StackPaths(home))
            waiting.communicate("stopped")
    assert waiting.returncode == 0
