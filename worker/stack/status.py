"""How a stack is now: each child's pid, address and health, asked at this moment. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from justenough.adapters.runtime.private_files import read_json
from worker.stack import readyz
from worker.stack.environment import UNUSED_PORT
from worker.stack.lock import supervisor_of
from worker.stack.paths import StackPaths
from worker.stack.pidfile import birth_time
from worker.stack.probes import is_http_ok, is_postgres_ok, was_touched_recently
from worker.stack.scripted_model import MODEL_HEALTH_PATH
from worker.stack.stack_file import CHILDREN, Stack, read_stack
from worker.stack.vault import VAULT_HEALTH_PATH

Health = Literal["healthy", "unhealthy", "down"]


@dataclass(frozen=True, slots=True)
class ChildStatus:
    name: str
    pid: int
    address: str
    health: Health
    """down: no such process; unhealthy: it runs and does not answer."""


@dataclass(frozen=True, slots=True)
class StackStatus:
    places: StackPaths
    supervisor: int | None
    """None: nobody keeps this stack; its children, if any, are what a killed supervisor left."""
    children: tuple[ChildStatus, ...]
    console_report: dict[str, Any] | None = None
    """What the console says of the installation; None where it says nothing."""

    @property
    def alarms(self) -> tuple[str, ...]:
        """What the console has to complain of."""
        return readyz.alarms(self.console_report) if self.console_report else ()

    @property
    def is_well(self) -> bool:
        """Whether a supervisor keeps the stack and each child answers."""
        return self.supervisor is not None and bool(self.children) and all(child.health == "healthy" for child in self.children)

    def as_json(self) -> dict[str, Any]:
        """For `-o json`; grown only by further keys."""
        children = [{"name": c.name, "pid": c.pid, "address": c.address, "health": c.health} for c in self.children]
        return {
            "home": str(self.places.home),
            "running": self.supervisor is not None,
            "supervisor": self.supervisor,
            "children": children,
            "alarms": list(self.alarms),
        }


def check_status(places: StackPaths) -> StackStatus:
    """Ask every child. Raises StackUnreadable."""
    supervisor, stack = supervisor_of(places), read_stack(places)
    children = tuple(_child_status(name, stack, places) for name in CHILDREN if name in stack.pids) if stack else ()
    console = any(child.name == "console" and child.health == "healthy" for child in children)
    said = _fetch_console_report(f"http://127.0.0.1:{read_json(places.ports)['console']}") if console else None
    return StackStatus(places=places, supervisor=supervisor.pid if supervisor else None, children=children, console_report=said)


def _fetch_console_report(console: str) -> dict[str, Any] | None:
    try:
        return readyz.fetch_readyz(console)
    except readyz.NoConsole:
        return None  # Whether it answers at all is another question.


def _child_status(name: str, stack: Stack, places: StackPaths) -> ChildStatus:
    pid = stack.pids[name]
    ports = read_json(places.ports)
    health: Health = "down" if birth_time(pid) is None else "healthy" if _probes(stack, places, ports)[name]() else "unhealthy"
    return ChildStatus(name=name, pid=pid, address=_addresses(stack, ports)[name] or "", health=health)


def _probes(stack: Stack, places: StackPaths, ports: Mapping[str, int]) -> Mapping[str, Callable[[], bool]]:
    return {
        "temporal": lambda: is_http_ok(ports["temporal_http"], "/api/v1/system-info"),
        "vault": lambda: is_http_ok(ports["vault"], VAULT_HEALTH_PATH),
        "postgres": lambda: is_postgres_ok(stack.shop_dsn or ""),
        "model": lambda: is_http_ok(ports.get("model", UNUSED_PORT), MODEL_HEALTH_PATH),
        "worker": lambda: was_touched_recently(places.worker_alive),
        "console": lambda: is_http_ok(ports["console"], "/livez"),
    }


def _addresses(stack: Stack, ports: Mapping[str, int]) -> Mapping[str, str | None]:
    # Everything of the DSN but its password.
    shop = stack.shop_dsn.rpartition("@")[2] if stack.shop_dsn else None
    known = {"temporal": stack.temporal, "vault": stack.vault, "postgres": shop, "console": stack.console}
    return known | {"model": f"127.0.0.1:{ports.get('model', UNUSED_PORT)}", "worker": None}
