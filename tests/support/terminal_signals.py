"""Programs that react to Ctrl-C as in a terminal: a test run in the background ignores SIGINT, and its children would inherit that."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_RESTORE_SIGINT = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def interruptible_command(program: Sequence[str]) -> list[str]:
    """Return the command that starts a program, given by its full path, with the default reaction to SIGINT."""
    return [sys.executable, "-c", _RESTORE_SIGINT, *program]
