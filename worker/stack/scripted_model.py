"""The configuration's scripted model as a child of the stack: what agents think with where nobody says that they have a model of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from worker.stack.environment import MODEL_URL, server_environment
from worker.stack.managed_process import Child
from worker.stack.paths import Places
from worker.stack.probes import http_ok

PROGRAM = "scripted_model.py"
"""In the configuration's folder. Takes `--port`, and serves OpenAI's chat completions below /v1 on loopback."""
ASKED = "/v1/models"


def model_child(places: Places, config: Path, ports: Mapping[str, int]) -> Child | None:
    """Describe it; None where the configuration ships none, or MODEL_URL says that there is another."""
    program, port = config / PROGRAM, ports["model"]
    if os.environ.get(MODEL_URL) or not program.is_file():
        return None
    return Child(
        name="model",
        # -I: it needs the standard library alone, and nothing of ours.
        argv=(sys.executable, "-I", str(program), "--port", str(port)),
        env=server_environment(places),
        healthy=lambda: http_ok(port, ASKED),
    )
