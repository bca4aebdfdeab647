"""The checks of `justenough doctor --production`: everything that a worker or console on separate servers needs, run with the environment
of its process.

Issues one credential for each target and revokes it, because nothing else proves that access can be revoked there. Changes nothing else.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import chain

from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import InvalidInput
from worker.provisioning.admin_client import admin_token
from worker.stack.binaries import Programs
from worker.stack.doctor import home, machine
from worker.stack.doctor.overdue import overdue_findings
from worker.stack.doctor.people import people_findings
from worker.stack.doctor.servers import clock_findings, console_findings, login_findings, poller_findings, temporal_findings
from worker.stack.doctor.targets import filled_catalog, has_locked_actions, target_findings, trial_findings
from worker.stack.doctor.vault import drift_findings, vault_findings
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths


def production_findings(settings: Settings, *, console_url: str | None) -> tuple[DoctorFinding, ...]:
    """Return the findings of every check; a failed check does not stop the others. Uses VAULT_TOKEN, an administrator's, if it is set."""
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
