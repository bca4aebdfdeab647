"""The children of the stack other than its servers: the worker, the console and the configuration's scripted language model.

Agents use the scripted model unless MODEL_URL names another model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from worker.stack.environment import MODEL_URL, own_environment, server_environment
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.probes import is_http_ok, was_touched_recently

# -P: do not import from a folder in the working directory that has the name of one of our packages.
PYTHON_ARGV = (sys.executable, "-P", "-m")
STOP_MARGIN_S = 30
"""After draining, the worker needs this time to end its sessions' processes (10 s of grace, 2 s of output) and to revoke."""
PROGRAM_FILE = "scripted_model.py"
"""A file in the configuration's folder. It takes `--port` and serves OpenAI's chat completions below /v1 on loopback."""
MODEL_HEALTH_PATH = "/v1/models"


def worker_child(places: StackPaths, settings: Settings, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the worker, which touches a liveness file every second."""
    return ChildSpec(
        name="worker",
        argv=(*PYTHON_ARGV, "worker"),
        env=own_environment(settings, shop_port=ports["postgres"], model_port=ports["model"]),
        cwd=None,
        # The liveness file of an earlier process proves nothing about this one.
        prepare=lambda: places.worker_alive.unlink(missing_ok=True),
        healthy=lambda: was_touched_recently(places.worker_alive),
        stop_within=settings.drain + STOP_MARGIN_S,
    )


def console_child(settings: Settings, ports: Mapping[str, int]) -> ChildSpec:
    return ChildSpec(
        name="console",
        argv=(*PYTHON_ARGV, "console"),
        env=own_environment(settings, shop_port=ports["postgres"], model_port=ports["model"]),
        cwd=None,
        healthy=lambda: is_http_ok(ports["console"], "/livez"),
    )


def model_child(places: StackPaths, config: Path, ports: Mapping[str, int]) -> ChildSpec | None:
    """Describe the model; None if the configuration has none or MODEL_URL names another one."""
    program, port = config / PROGRAM_FILE, ports["model"]
    if os.environ.get(MODEL_URL) or not program.is_file():
        return None
    return ChildSpec(
        name="model",
        # -I: the model needs only the standard library, and none of our packages.
        argv=(sys.executable, "-I", str(program), "--port", str(port)),
        env=server_environment(places),
        healthy=lambda: is_http_ok(port, MODEL_HEALTH_PATH),
    )
