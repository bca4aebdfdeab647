"""Runs `justenough demo` as a program, and reads what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "console.cli", "demo"]


def run_demo(home: Path, *, command: Sequence[str] = DEMO, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo in a home; return what it printed."""
    said = {**os.environ, "JUSTENOUGH_HOME": str(home), **environment}
    return subprocess.run(command, cwd=ROOT, env=said, capture_output=True, text=True, check=False)


def find_command(done: subprocess.CompletedProcess[str], what: str) -> str:
    """Return a command that the demo printed behind a word."""
    found = re.search(rf"{what}: +(.+)$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return found[1]
