"""Checks the store in the settings, with the login of this machine's worker or console. Changes nothing.

The findings about overdue revocations have names because their reader can read the store anyway; /readyz, which needs no login, has only
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import PostgresReport, Store
from justenough.adapters.vault import Vault
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.jobs.states import RevocationState
from justenough.domain.ledger.overdue import end_session_advice
from justenough.domain.readmodel.views import TargetCheck
from justenough.services.open_store import open_store
from worker.stack.finding import DoctorFinding, first_of
from worker.stack.readyz import RUNBOOK

HOW_TO = "docs/how-to/store.md"
MAX_NAMES_SHOWN = 5
MAX_JOBS_SHOWN = 20
SQLITE_PREFIX = "sqlite:///"


@contextmanager
def open_own_store(settings: Settings) -> Iterator[Store]:
    """Open the store as the worker of this machine does, or as its console if there is no worker."""
    with closing(Vault(settings.vault_addr, namespace=settings.vault_namespace, cacert=settings.vault_cacert)) as vault:
        if settings.database_credentials:
            files = settings.worker_approle_file, settings.console_approle_file
            vault.login_from_file(next((file for file in files if file.exists()), files[0]))
        with closing(open_store(settings, vault)) as store:
            yield store


def missing_file(settings: Settings) -> Path | None:
    """Return the store's SQLite file if it does not exist, because opening it would create it; else None."""
    file = Path(settings.store_url.removeprefix(SQLITE_PREFIX))
    return file if settings.store_url.startswith(SQLITE_PREFIX) and not file.is_file() else None


def store_findings(settings: Settings) -> Iterator[DoctorFinding]:
    """Yield a finding for each requirement that workers and consoles have of the store. Creates no store."""
    if file := missing_file(settings):
        yield DoctorFinding(
            "store", "missing", f"{file} does not exist", "Start a worker or console, which creates it; or correct the setting."
        )
        return
    try:
        with open_own_store(settings) as store:
            report = store.inspect()
    except JustEnoughError as error:
        yield DoctorFinding("store", "missing", str(error), f"See {HOW_TO}.")
        return
    yield DoctorFinding("store", "ok", report.place)
    if report.postgres:
        yield from _server_findings(report.postgres)
    found, newest = report.revisions.found, report.revisions.newest
    if report.postgres and report.postgres.missing_parts:
        what = f"the database lacks {first_of(report.postgres.missing_parts, MAX_NAMES_SHOWN)}: a restore failed or was interrupted, or somebody dropped them"
        remedy = "Stop workers and consoles, and restore the backup again, into an empty database: docs/how-to/backup.md#restore"
        yield DoctorFinding("schema", "missing", what, remedy)
    elif found == newest:
        yield DoctorFinding("schema", "ok", f"revision {found}")
    else:
        what = f"revision {found}, this version needs {newest}" if found else "the database is empty"
        yield DoctorFinding("schema", "missing", what, "Run `justenough store migrate` with the URL of the role that owns the tables.")
    if report.postgres:
        if report.revisions.found:
            yield _rights_finding(report.postgres)
        yield from _pooler_findings(report.postgres)


def _server_findings(postgres: PostgresReport) -> Iterator[DoctorFinding]:
    yield DoctorFinding("server", "ok", f"PostgreSQL {'.'.join(map(str, postgres.server_version))}")
    if postgres.is_read_only:
        yield DoctorFinding(
            "writes",
            "missing",
            "the server refuses writes: it is a standby, or set to read only",
            "Set JUSTENOUGH_DATABASE_URL to the primary server.",
        )
    if postgres.is_encrypted:
        extent = "and the server verified" if postgres.is_verified else "but only sslmode=verify-full also verifies the server"
        yield DoctorFinding("TLS", "ok", f"the connection is encrypted, {extent}")
    elif postgres.is_local:
        yield DoctorFinding("TLS", "ok", "not needed: the server is on this machine")
    else:
        remedy = "Add sslmode=verify-full and sslrootcert to JUSTENOUGH_DATABASE_URL."
        yield DoctorFinding("TLS", "warning", "the connection is not encrypted", remedy)


def _rights_finding(postgres: PostgresReport) -> DoctorFinding:
    role, lacking = postgres.role, postgres.missing_rights
    if lacking:
        remedy = "Run `justenough store migrate --grant ROLE` with the URL of the role that owns the tables."
        return DoctorFinding("rights", "missing", f"the role {role} lacks {first_of(lacking, MAX_NAMES_SHOWN)}", remedy)
    if postgres.may_change_ledger:
        remedy = f"Let workers and consoles use a role that does not own the tables: {HOW_TO}#rights"
        return DoctorFinding("rights", "warning", f"the role {role} could change or delete ledger entries", remedy)
    return DoctorFinding("rights", "ok", f"the role {role} has every right that it needs, and cannot change ledger entries")


def _pooler_findings(postgres: PostgresReport) -> Iterator[DoctorFinding]:
    if not postgres.is_direct:
        yield DoctorFinding("pooler", "ok", "in use; statements are not prepared on the server")
    if postgres.notices is None:
        yield DoctorFinding("notices", "ok", "new entries are announced at once")
    else:
        found = f"the ledger is polled for new entries five times a second: {postgres.notices}"
        yield DoctorFinding("notices", "warning", found, f"Set JUSTENOUGH_DATABASE_LISTEN_URL to the server itself: {HOW_TO}#poolers")


def read_failing_targets(settings: Settings) -> tuple[DoctorFinding, ...]:
    """Return a finding for each target that failed the last sweep's check; none if the store cannot be read."""
    if missing_file(settings):
        return ()
    try:
        with open_own_store(settings) as store:
            return tuple(_target_findings(store.targets.all()))
    except JustEnoughError:
        return ()


def _target_findings(targets: Iterable[TargetCheck]) -> Iterator[DoctorFinding]:
    for check in targets:
        if check.failure is not None:
            text = f"{check.failure}, since {_time(check.since)} (last checked {_time(check.checked_at)}): no job that needs it is launched"
            advice = end_session_advice(f"lock in {check.name}: {part}" for part in check.failure.split("; ") if " holds locks on " in part)
            remedy = f"{RUNBOOK}#a-target-fails" + (f": {advice}" if advice else "")
            yield DoctorFinding(f"target {check.name}, in the last sweep", "missing", text, remedy)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def overdue_findings(settings: Settings, *, is_required: bool = False) -> Iterator[DoctorFinding]:
    """Yield the findings about the store, and one for each failing target, each overdue revocation and each subscription with dead letters.

    Without a store there are no findings, unless a store is required.
    """
    if missing_file(settings) and not is_required:
        return
    found = tuple(store_findings(settings))
    yield from found
    if any(finding.level == "missing" for finding in found):
        return
    try:
        with open_own_store(settings) as store:
            page = store.jobs.list(revocation=RevocationState.OVERDUE, limit=MAX_JOBS_SHOWN)
            subscriptions, targets = store.outbox.subscription_progress(), store.targets.all()
    except JustEnoughError as error:
        yield DoctorFinding("store", "missing", f"could not be read: {error}", "Check JUSTENOUGH_DATABASE_URL and that database.")
        return
    yield from _target_findings(targets)
    for job in page.items:
        since = f" since {job.revocation.since:%Y-%m-%dT%H:%M:%SZ}" if job.revocation.since else ""
        text = f"{job.id} ({job.state}){since}: {'; '.join(job.revocation.failures) or 'no reason is recorded'}"
        advice = end_session_advice(job.revocation.failures)
        # Nothing follows a statement.
        remedy = f"{RUNBOOK}#overdue: {advice}" if advice else f"justenough job show {job.id}; {RUNBOOK}#overdue"
        yield DoctorFinding("overdue", "missing", text, remedy)
    if page.next:
        yield DoctorFinding("overdue", "missing", f"more than {MAX_JOBS_SHOWN} jobs", "justenough job list --revocation overdue")
    for subscription in subscriptions:
        if subscription.dead:
            why = f"; last: {subscription.why}" if subscription.why else ""
            text = f"{subscription.dead} event(s) were not delivered to {subscription.name}{why}"
            remedy = f"justenough webhook deliveries {subscription.name} --dead; {RUNBOOK}#dead-letters"
            yield DoctorFinding("dead letters", "warning", text, remedy)
