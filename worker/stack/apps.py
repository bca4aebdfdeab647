"""Our own two processes as children of the stack: the worker and the console."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from justenough.adapters.configuration.settings import Settings
from worker.stack.environment import own_environment
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.probes import is_http_ok, was_touched_recently

# -P: a folder named like one of our packages in the working directory is not ours.
PYTHON_ARGV = (sys.executable, "-P", "-m")
STOP_MARGIN_S = 30
"""Seconds beyond the worker's drain in which it ends its sessions' processes (10 s of grace, 2 s of output) and revokes."""


def worker_child(places: StackPaths, settings: Settings, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the worker; it says that it is alive by touching a file every second."""
    return ChildSpec(
        name="worker",
        argv=(*PYTHON_ARGV, "worker"),
        env=own_environment(settings, shop_port=ports["postgres"], model_port=ports["model"]),
        cwd=None,
        # A sign of life of the process before this one says nothing about this one.
        prepare=lambda: places.worker_alive.unlink(missing_ok=True),
        healthy=lambda: was_touched_recently(places.worker_alive),
        stop_within=settings.drain + STOP_MARGIN_S,
    )


def console_child(settings: Settings, ports: Mapping[str, int]) -> ChildSpec:
    """Describe the console."""
    return ChildSpec(
        name="console",
        argv=(*PYTHON_ARGV, "console"),
        env=own_environment(settings, shop_port=ports["postgres"], model_port=ports["model"]),
        cwd=None,
        healthy=lambda: is_http_ok(ports["console"], "/livez"),
    )
