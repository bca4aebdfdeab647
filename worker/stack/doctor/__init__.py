"""`justenough doctor`: its checks of this machine, its stack and the servers in the settings, in one list. Changes nothing.

`doctor --production` checks an installation on separate servers. It issues one credential for each target and revokes it, because nothing else
proves that access can be revoked there. It changes nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Literal

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import GiveUp, InvalidInput
from justenough.domain.core.secret import Secret
from worker.provisioning.admin_client import admin_token
from worker.stack.binaries import Programs
from worker.stack.control import find_running_stack
from worker.stack.doctor import home, machine, people, servers, store, targets, vault
from worker.stack.environment import shop_settings
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.plan import FOREIGN_VAULT_SETTINGS
from worker.stack.seed import vault_to_set_up
from worker.stack.stack_file import Stack, StackUnreadable


@dataclass(frozen=True)
class Examination:
    """What the checks need to know about this process, its machine, and the stack that runs here."""

    settings: Settings
    is_production: bool = False
    """Whether the settings are those of a worker or console on separate servers. If so, a stack that runs here is ignored."""
    console_url: str | None = None
    """The console of another installation to check."""
    programs: Programs = field(default_factory=Programs)
    token: Secret | None = field(default_factory=admin_token)

    @cached_property
    def paths(self) -> StackPaths:
        return StackPaths(self.settings.home)

    @cached_property
    def stack(self) -> Stack | None:
        if not self.is_production:
            with suppress(StackUnreadable):  # home.stack_findings reports it.
                return find_running_stack(self.paths)
        return None

    @cached_property
    def in_force(self) -> Settings:
        """The settings, with the folder, store and Vault of the stack if one runs."""
        if self.stack is None:
            return self.settings
        stack: dict[str, object] = {"config": self.stack.config, "database_url": self.stack.database_url}
        if self.stack.vault is not None:
            stack |= {"vault_addr": self.stack.vault, **dict.fromkeys(FOREIGN_VAULT_SETTINGS)}
        return self.settings.model_copy(update=stack)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of this process, with the addresses of the stack's shop."""
        return {**os.environ, **shop_settings(read_json(self.paths.ports) if self.stack else {})}

    @property
    def catalog(self) -> Catalog | None:
        """The catalog with the settings of this process filled in; None if it cannot be filled in, which unfilled_findings reports."""
        with suppress(InvalidInput, OSError):
            return targets.filled_catalog(self.in_force.config, os.environ)
        return None

    @property
    def has_own_vault(self) -> bool:
        """Whether the Vault to check is that of the settings. If the settings name none, it is that of the stack."""
        named = self.settings.named_vault_addr
        return self.is_production or (bool(named) and (self.stack is None or named != self.stack.vault))


def check_vault(run: Examination) -> Iterator[DoctorFinding]:
    settings = run.settings
    if run.has_own_vault:
        yield from vault.vault_findings(
            settings.vault_addr,
            token=run.token,
            namespace=settings.vault_namespace,
            cacert=settings.vault_cacert,
            locks=targets.has_locked_actions(run.in_force.config),
            catalog=run.catalog,
            pages_mount=settings.pages_password_mount if settings.pages == "on" or not run.is_production else None,
        )
    elif run.stack is not None and run.stack.vault is not None:
        # The embedded Vault's own files show its configuration.
        yield from islice(vault.vault_findings(run.stack.vault, pages_mount=settings.pages_mount), 2)
        yield from vault.embedded_vault_findings(run.paths.vault / "openbao.hcl", run.paths.audit_log)


def check_people(run: Examination) -> Iterator[DoctorFinding]:
    if run.has_own_vault:
        yield from people.people_findings(run.settings, token=run.token, folder=run.in_force.config)
    elif run.stack is not None and run.stack.vault is not None:
        try:
            target = vault_to_set_up(run.settings)
        except (GiveUp, OSError) as error:
            found = f"approvers and the lifetimes of logins were not checked: {error}"
            remedy = f"Put {run.paths.admin_token} back, and run doctor again while the stack runs."
            yield DoctorFinding("people", "warning", found, remedy)
        else:
            yield from people.people_findings(target.settings, token=target.admin_token, folder=run.in_force.config)


def check_stack(run: Examination) -> Iterable[DoctorFinding]:
    # An installation on its own servers has no stack, and starting one is not a remedy.
    return home.stack_findings(run.paths) if run.paths.seal_key.exists() or not run.settings.named_vault_addr else ()


def check_console(run: Examination) -> Iterable[DoctorFinding]:
    console = run.console_url or run.settings.console_url
    is_the_stacks = console is not None and run.stack is not None and console.rstrip("/") == run.stack.console
    return servers.console_findings(console) if run.is_production or (console and not is_the_stacks) else ()


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    what: str
    """What the check is about, for docs/reference/commands.md."""
    mode: Literal["here", "production", "both"]
    """Whether `doctor` makes the check, `doctor --production`, or both."""
    findings: Callable[[Examination], Iterable[DoctorFinding]]


CHECKS = (
    DoctorCheck("Python", "here", lambda _: (DoctorFinding("python", "ok", ".".join(map(str, sys.version_info[:3]))),)),
    DoctorCheck("programs of the embedded servers", "here", lambda run: machine.program_findings(run.programs)),
    DoctorCheck("sandbox and limits of jobs", "both", lambda run: machine.sandbox_findings(run.programs, root=os.geteuid() == 0)),
    DoctorCheck("firewall that keeps jobs from Temporal and Vault", "both", lambda run: (machine.firewall_finding(run.in_force),)),
    DoctorCheck("user of the embedded PostgreSQL", "here", lambda run: machine.postgres_findings(run.programs, run.paths)),
    DoctorCheck("browser, for tests of the pages", "here", lambda run: machine.browser_findings(run.programs)),
    DoctorCheck("free space for the home", "both", lambda run: machine.disk_findings(run.paths)),
    DoctorCheck("files of the home that others can read", "here", lambda run: home.mode_findings(run.paths)),
    DoctorCheck("embedded stack: each server, and what its console reports", "here", check_stack),
    DoctorCheck("store and overdue revocations", "here", lambda run: store.overdue_findings(run.in_force)),
    DoctorCheck("configuration folder", "both", lambda run: home.configuration_findings(run.in_force.config)),
    DoctorCheck("whether targets answer", "here", lambda run: targets.target_findings(run.in_force.config, run.environment)),
    DoctorCheck("settings that every installation needs", "production", lambda run: home.settings_findings(run.settings)),
    DoctorCheck("Temporal and its namespace", "production", lambda run: servers.temporal_findings(run.settings, is_required=True)),
    DoctorCheck("whether workers poll Temporal", "production", lambda run: servers.poller_findings(run.settings)),
    DoctorCheck(
        "variables of the catalog", "both", lambda run: targets.unfilled_findings(run.in_force.config) if run.has_own_vault else ()
    ),
    DoctorCheck("Vault: seal, audit devices, longest request, control groups, roles of targets, login for the pages", "both", check_vault),
    DoctorCheck("clock, compared with Vault's", "production", lambda run: servers.clock_findings(run.settings, now=time.time)),
    DoctorCheck("Vault: the objects and policies of this version", "production", lambda run: vault.drift_findings(run.settings, run.token)),
    DoctorCheck("people: approvers of each tier, lifetimes of logins", "both", check_people),
    DoctorCheck("Temporal and its namespace", "here", lambda run: () if run.stack else servers.temporal_findings(run.settings)),
    DoctorCheck("logins of worker and console", "both", lambda run: () if run.stack else servers.login_findings(run.settings)),
    DoctorCheck("store and overdue revocations", "production", lambda run: store.overdue_findings(run.settings, is_required=True)),
    DoctorCheck("whether targets answer", "production", lambda run: targets.target_findings(run.settings.config, os.environ)),
    DoctorCheck("a trial of access to each target", "production", lambda run: targets.trial_findings(run.settings, run.catalog)),
    DoctorCheck(
        "SQL of each target, and what a job could do there beside its task",
        "production",
        lambda run: targets.hazard_findings(run.settings, run.catalog),
    ),
    DoctorCheck("console: its `/readyz`", "both", check_console),
)
"""Every check, in the order of the findings. A failed check does not stop the others."""


def examine(run: Examination) -> tuple[DoctorFinding, ...]:
    """Return the findings of every check that belongs to this examination."""
    modes = {"both", "production" if run.is_production else "here"}
    return tuple(finding for check in CHECKS if check.mode in modes for finding in check.findings(run))
