"""The status of a stack: each child's pid, address and health, checked now. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from justenough.adapters.runtime.private_files import read_json
from worker.stack import readyz
from worker.stack.children import MODEL_HEALTH_PATH, VAULT_HEALTH_PATH
from worker.stack.environment import UNUSED_PORT
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.pidfile import birth_time, supervisor_of
from worker.stack.probes import is_http_ok, is_postgres_ok, was_touched_recently
from worker.stack.stack_file import read_stack

Health = Literal["healthy", "unhealthy", "down"]


@dataclass(frozen=True, slots=True)
class ChildStatus:
    name: str
    pid: int
    address: str
    health: Health
    """down: no such process; unhealthy: it runs but does not answer."""


@dataclass(frozen=True, slots=True)
class StackStatus:
    paths: StackPaths
    supervisor: int | None
    """None: no supervisor runs; any children were left running by a killed supervisor."""
    children: tuple[ChildStatus, ...]
    console_report: dict[str, Any] | None = None
    """The console's /readyz; None if it could not be read."""
    failing_targets: tuple[DoctorFinding, ...] = ()
    """What the store says about the targets that /readyz only counts."""

    @property
    def alarms(self) -> tuple[str, ...]:
        named = tuple(f"{finding.what}: {finding.found} ({finding.remedy})" for finding in self.failing_targets)
        return (readyz.alarms(self.console_report) if self.console_report else ()) + named

    @property
    def has_failing_targets(self) -> bool:
        return bool((self.console_report or {}).get("targets", {}).get("failing"))

    @property
    def is_well(self) -> bool:
        return self.supervisor is not None and bool(self.children) and all(child.health == "healthy" for child in self.children)

    def as_json(self) -> dict[str, Any]:
        """Return the value for `-o json`. Keys may be added, never removed."""
        return {
            "home": str(self.paths.home),
            "running": self.supervisor is not None,
            "supervisor": self.supervisor,
            "children": [asdict(child) for child in self.children],
            "alarms": list(self.alarms),
        }


def check_status(paths: StackPaths) -> StackStatus:
    """Check every child. Raises StackUnreadable."""
    supervisor, stack, ports = supervisor_of(paths), read_stack(paths), read_json(paths.ports)
    pid, report = supervisor.pid if supervisor else None, None
    if stack is None:
        return StackStatus(paths=paths, supervisor=pid, children=())
    model = ports.get("model", UNUSED_PORT)
    # The shop's DSN without its password.
    shop = stack.shop_dsn.rpartition("@")[2] if stack.shop_dsn else None
    checks: Mapping[str, tuple[str | None, Callable[[], bool]]] = {
        "temporal": (stack.temporal, lambda: is_http_ok(ports["temporal_http"], "/api/v1/system-info")),
        "vault": (stack.vault, lambda: is_http_ok(ports["vault"], VAULT_HEALTH_PATH)),
        "postgres": (shop, lambda: is_postgres_ok(stack.shop_dsn or "")),
        "model": (f"127.0.0.1:{model}", lambda: is_http_ok(model, MODEL_HEALTH_PATH)),
        "worker": (None, lambda: was_touched_recently(paths.worker_alive)),
        "console": (stack.console, lambda: is_http_ok(ports["console"], "/livez")),
    }
    children = []
    for name, (address, is_healthy) in checks.items():
        if child := stack.pids.get(name):
            health: Health = "down" if birth_time(child) is None else "healthy" if is_healthy() else "unhealthy"
            children.append(ChildStatus(name=name, pid=child, address=address or "", health=health))
            if name == "console" and health == "healthy":
                with suppress(readyz.NoConsole):
                    report = readyz.fetch_readyz(f"http://127.0.0.1:{ports['console']}")
    return StackStatus(paths=paths, supervisor=pid, children=tuple(children), console_report=report)
