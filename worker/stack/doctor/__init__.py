"""`justenough doctor`: what this machine, this home and this Vault lack, each with its remedy. Changes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import islice

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.secret import Secret
from worker.stack import readyz
from worker.stack.binaries import Programs
from worker.stack.control import find_running_stack
from worker.stack.doctor import home, machine
from worker.stack.doctor.overdue import overdue_findings
from worker.stack.doctor.targets import has_locked_actions, target_findings
from worker.stack.doctor.vault import embedded_vault_findings, vault_findings
from worker.stack.environment import UNUSED_PORT, shop_settings
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack, StackUnreadable

__all__ = ["DoctorFinding", "examine"]


def examine(
    settings: Settings,
    *,
    programs: Programs | None = None,
    version: tuple[int, ...] = sys.version_info[:3],
    console_url: str | None = None,
) -> tuple[DoctorFinding, ...]:
    """Look at everything; nothing is left out because something else is missing. `console_url`: another installation's, to ask it."""
    here = tuple(_local_findings(settings, programs or Programs(), StackPaths.of(settings.home), version))
    return (*here, *_console_findings(settings, console_url or settings.console_url))


def _local_findings(settings: Settings, programs: Programs, places: StackPaths, version: tuple[int, ...]) -> Iterator[DoctorFinding]:
    yield from machine.python_findings(version)
    yield from machine.program_findings(programs)
    yield from machine.sandbox_findings(programs, root=os.geteuid() == 0)
    yield from machine.postgres_findings(programs, places)
    yield from machine.browser_findings(programs)
    yield from machine.disk_findings(places)
    yield from home.mode_findings(places)
    yield from home.stack_findings(places)
    stack = _find_running_stack(places)
    yield from overdue_findings(stack.database_url if stack else settings.store_url)
    folder = stack.config if stack else settings.config
    yield from home.configuration_findings(folder)
    yield from target_findings(folder, {**os.environ, **_shop_environment(places)} if stack else os.environ)
    yield from _vault_findings(settings, places)


def _shop_environment(places: StackPaths) -> dict[str, str]:
    """Where the running stack's shop is; as it is told to worker and Vault."""
    ports = read_json(places.ports)
    return shop_settings(ports.get("postgres"), ports.get("model", UNUSED_PORT))


def _console_findings(settings: Settings, console: str | None) -> Iterator[DoctorFinding]:
    """What a console says that is not the running stack's."""
    stack = _find_running_stack(StackPaths.of(settings.home))
    if console is None or (stack is not None and console.rstrip("/") == stack.console):
        return
    try:
        said = readyz.fetch_readyz(console)
    except readyz.NoConsole as error:
        yield DoctorFinding("console", "missing", str(error), "Start it, or mend --console-url, JUSTENOUGH_CONSOLE_URL.")
        return
    yield DoctorFinding("console", "ok", console)
    yield from readyz.findings(said)


def _vault_findings(settings: Settings, places: StackPaths) -> Iterator[DoctorFinding]:
    """The Vault that VAULT_ADDR names; without it, the running stack's."""
    stack = _find_running_stack(places)
    if "VAULT_ADDR" in os.environ and (stack is None or os.environ["VAULT_ADDR"] != stack.vault):
        token = os.environ.get("VAULT_TOKEN")
        yield from vault_findings(
            settings.vault_addr,
            token=Secret(token) if token else None,
            namespace=settings.vault_namespace,
            cacert=settings.vault_cacert,
            locks=has_locked_actions(stack.config if stack else settings.config),
            pages_mount=settings.pages_mount,
        )
    elif stack is not None and stack.vault is not None:
        # Its configuration is seen in its own files; nobody's token is needed.
        yield from islice(vault_findings(stack.vault, pages_mount=settings.pages_mount), 2)
        yield from embedded_vault_findings(places.vault / "openbao.hcl", places.vault / "audit.log")


def _find_running_stack(places: StackPaths) -> Stack | None:
    try:
        return find_running_stack(places)
    except StackUnreadable:
        return None  # home.stack_findings says it.
