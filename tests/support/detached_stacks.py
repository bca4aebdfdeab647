"""Stacks that are meant to outlive who started them, and must not outlive the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_STOP = """
import pathlib, sys
sys.stdin.read()
from worker.stack import StackPaths, stop_stack
stop_stack(StackPaths.of(pathlib.Path(sys.argv[1])))
"""


@contextmanager
def stopped_with_us(home: Path) -> Iterator[None]:
    """Stop whatever runs in a home at the end of a block, also if this process is killed in it: another one waits for our end of its pipe."""
    with subprocess.Popen([sys.executable, "-c", _STOP, str(home)], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as waiting:
        yield
    assert waiting.returncode == 0
