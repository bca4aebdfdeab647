"""The model that ships with the shop's agent, where the stack's catalog says that there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.stack import Places, Stack

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "shop" / "jobs" / "programs" / "scripted_model.py"


@contextmanager
def scripted_model(stack: Stack) -> Iterator[str]:
    """Serve it for the length of a block; return where."""
    port = json.loads(Places.of(stack.home).ports.read_text())["model"]
    command = [sys.executable, "-I", str(PROGRAM), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PATH": os.defpath}) as serving:
        assert serving.stdout is not None
        try:
            said = serving.stdout.readline()
            assert said == f"A scripted model listens at http://127.0.0.1:{port}/v1\n"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            serving.terminate()
