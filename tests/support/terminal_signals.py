"""Programs that heed Ctrl-C as a terminal's do: whoever runs these tests in the background has it ignored, and so would what they start."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_HEEDING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def heeding(program: Sequence[str]) -> list[str]:
    """Return the command that starts a program, named by its whole path, so that SIGINT reaches it."""
    return [sys.executable, "-c", _HEEDING, *program]
