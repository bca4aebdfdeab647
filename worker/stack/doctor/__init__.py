"""`justenough doctor`: checks this machine, this home and its Vault, and gives the remedy for each problem. Changes nothing.

`doctor --production` checks an installation on separate servers.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.errors import GiveUp, InvalidInput
from worker.provisioning.admin_client import admin_token
from worker.stack.binaries import Programs
from worker.stack.control import find_running_stack
from worker.stack.doctor import home, machine
from worker.stack.doctor.people import people_findings
from worker.stack.doctor.servers import clock_findings, console_findings, login_findings, poller_findings, temporal_findings
from worker.stack.doctor.store import overdue_findings
from worker.stack.doctor.targets import filled_catalog, has_locked_actions, target_findings, trial_findings
from worker.stack.doctor.vault import drift_findings, embedded_vault_findings, vault_findings
from worker.stack.environment import UNUSED_PORT, shop_settings
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.seed import vault_to_set_up
from worker.stack.stack_file import Stack, StackUnreadable

__all__ = ["DoctorFinding", "examine", "production_findings"]

MAX_PROBLEMS_SHOWN = 5


def examine(
    settings: Settings,
    *,
    programs: Programs | None = None,
    version: tuple[int, ...] = sys.version_info[:3],
    console_url: str | None = None,
) -> tuple[DoctorFinding, ...]:
    """Return the findings of every check; a failed check does not stop the others.

    `console_url`: the console of another installation to check.
    """
    programs, places = programs or Programs(), StackPaths.of(settings.home)
    try:
        stack = find_running_stack(places)
    except StackUnreadable:
        stack = None  # home.stack_findings reports it.
    folder = stack.config if stack else settings.config
    ports = read_json(places.ports)
    console = console_url or settings.console_url
    shop = shop_settings(ports.get("postgres"), ports.get("model", UNUSED_PORT)) if stack else {}
    return tuple(
        chain(
            machine.python_findings(version),
            machine.program_findings(programs),
            machine.sandbox_findings(programs, root=os.geteuid() == 0),
            (
                machine.firewall_finding(
                    settings if stack is None or stack.vault is None else settings.model_copy(update={"vault_addr": stack.vault})
                ),
            ),
            machine.postgres_findings(programs, places),
            machine.browser_findings(programs),
            machine.disk_findings(places),
            home.mode_findings(places),
            # An installation on its own servers has no stack, and starting one is no remedy.
            home.stack_findings(places) if places.seal_key.exists() or not settings.named_vault_addr else (),
            overdue_findings(settings.model_copy(update={"database_url": stack.database_url}) if stack else settings),
            home.configuration_findings(folder),
            target_findings(folder, {**os.environ, **shop}),
            _vault_findings(settings, places, stack),
            () if stack else chain(temporal_findings(settings), login_findings(settings)),
            console_findings(console) if console and not (stack and console.rstrip("/") == stack.console) else (),
        )
    )


def _vault_findings(settings: Settings, places: StackPaths, stack: Stack | None) -> Iterator[DoctorFinding]:
    """Check the Vault that the settings name; if they name none, the running stack's."""
    if settings.named_vault_addr and (stack is None or settings.named_vault_addr != stack.vault):
        token, folder, catalog = admin_token(), stack.config if stack else settings.config, None
        try:
            catalog = filled_catalog(folder, os.environ)
        except (InvalidInput, OSError) as error:
            remedy = "Run doctor with the worker's environment variables, or on the worker's machine."
            messages = [problem.message for problem in error.problems] if isinstance(error, InvalidInput) else [str(error)]
            more = f"; and {len(messages) - MAX_PROBLEMS_SHOWN} more" if len(messages) > MAX_PROBLEMS_SHOWN else ""
            problems = "; ".join(messages[:MAX_PROBLEMS_SHOWN]) + more
            yield DoctorFinding("targets", "warning", f"neither they nor their roles in Vault were checked: {problems}", remedy)
        yield from vault_findings(
            settings.vault_addr,
            token=token,
            namespace=settings.vault_namespace,
            cacert=settings.vault_cacert,
            locks=has_locked_actions(folder),
            catalog=catalog,
            pages_mount=settings.pages_password_mount,
        )
        yield from people_findings(settings, token=token, folder=folder)
    elif stack is not None and stack.vault is not None:
        # The embedded Vault's own files show its configuration and have an administrator's token.
        yield from islice(vault_findings(stack.vault, pages_mount=settings.pages_mount), 2)
        yield from embedded_vault_findings(places.vault / "openbao.hcl", places.audit_log)
        try:
            target = vault_to_set_up(settings)
        except (GiveUp, OSError) as error:
            found = f"approvers and the lifetimes of logins were not checked: {error}"
            yield DoctorFinding("people", "warning", found, f"Put {places.admin_token} back, and run doctor again while the stack runs.")
        else:
            yield from people_findings(target.settings, token=target.admin_token, folder=stack.config)


def production_findings(settings: Settings, *, console_url: str | None) -> tuple[DoctorFinding, ...]:
    """Return what a worker or console on separate servers lacks: the findings of every check, run with the environment of its process.

    Uses VAULT_TOKEN, an administrator's, if it is set. Issues one credential for each target and revokes it, because nothing else proves that
    access can be revoked there. Changes nothing else.
    """
    token, catalog = admin_token(), None
    with suppress(InvalidInput, OSError):  # configuration_findings reports it.
        catalog = filled_catalog(settings.config, os.environ)
    return tuple(
        chain(
            machine.sandbox_findings(Programs(), root=os.geteuid() == 0),
            (machine.firewall_finding(settings),),
            machine.disk_findings(StackPaths.of(settings.home)),
            home.configuration_findings(settings.config),
            home.settings_findings(settings),
            temporal_findings(settings, is_required=True),
            poller_findings(settings),
            vault_findings(
                settings.vault_addr,
                token=token,
                namespace=settings.vault_namespace,
                cacert=settings.vault_cacert,
                locks=has_locked_actions(settings.config),
                catalog=catalog,
                pages_mount=settings.pages_password_mount if settings.pages == "on" else None,
            ),
            clock_findings(settings, now=time.time),
            drift_findings(settings, token),
            people_findings(settings, token=token, folder=settings.config),
            login_findings(settings),
            overdue_findings(settings, is_required=True),
            target_findings(settings.config, os.environ),
            trial_findings(settings, catalog) if catalog else (),
            console_findings(console_url or settings.console_url),
        )
    )
