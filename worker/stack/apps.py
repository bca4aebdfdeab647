"""Our own two processes as children of the stack: the worker and the console."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from justenough.adapters.configuration.settings import Settings
from worker.stack.environment import own_environment
from worker.stack.managed_process import Child
from worker.stack.paths import Places
from worker.stack.probes import http_ok, touched_lately

# -P: a folder named like one of our packages in the working directory is not ours.
PYTHON = (sys.executable, "-P", "-m")
MARGIN = 30
"""Seconds beyond the worker's drain in which it ends its sessions' processes (10 s of grace, 2 s of output) and revokes."""


def worker_child(places: Places, settings: Settings, ports: Mapping[str, int]) -> Child:
    """Describe the worker; it says that it is alive by touching a file every second."""
    return Child(
        name="worker",
        argv=(*PYTHON, "worker"),
        env=own_environment(settings, shop_port=ports["postgres"], model_port=ports["model"]),
        cwd=None,
        # A sign of life of the process before this one says nothing about this one.
        prepare=lambda: places.worker_alive.unlink(missing_ok=True),
        healthy=lambda: touched_lately(places.worker_alive),
        stop_within=settings.drain + MARGIN,
    )


def console_child(settings: Settings, ports: Mapping[str, int]) -> Child:
    """Describe the console."""
    return Child(
        name="console",
        argv=(*PYTHON, "console"),
        env=own_environment(settings, shop_port=ports["postgres"], model_port=ports["model"]),
        cwd=None,
        healthy=lambda: http_ok(ports["console"], "/livez"),
    )
