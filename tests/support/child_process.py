"""A child process that ends with the block that started it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def run_child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a command, with `subprocess.Popen`'s options, and kill it when the block ends.

    Popen's own block only waits: a test that failed in it would hang for as long as the command runs.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
