"""The configuration's scripted model as a child of the stack: what agents think with where nobody says that they have a model of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from worker.stack.environment import MODEL_URL, server_environment
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.probes import is_http_ok

PROGRAM_FILE = "scripted_model.py"
"""In the configuration's folder. Takes `--port`, and serves OpenAI's chat completions below /v1 on loopback."""
MODEL_HEALTH_PATH = "/v1/models"


def model_child(places: StackPaths, config: Path, ports: Mapping[str, int]) -> ChildSpec | None:
    """Describe it; None where the configuration ships none, or MODEL_URL says that there is another."""
    program, port = config / PROGRAM_FILE, ports["model"]
    if os.environ.get(MODEL_URL) or not program.is_file():
        return None
    return ChildSpec(
        name="model",
        # -I: it needs the standard library alone, and nothing of ours.
        argv=(sys.executable, "-I", str(program), "--port", str(port)),
        env=server_environment(places),
        healthy=lambda: is_http_ok(port, MODEL_HEALTH_PATH),
    )
