"""Checks of the servers that an installation names in its settings: Temporal, and the logins of worker and console at Vault. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.own_login import TokenLogin, read_login
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.ledger.overdue import find_unpolled_queues
from worker.stack import readyz
from worker.stack.finding import DoctorFinding

MAX_SKEW_S = 5.0
"""Maximum difference between the clocks. Vault's dates have whole seconds, and requests take time."""
TIMEOUT_S = 5.0


def temporal_findings(settings: Settings, *, is_required: bool = False) -> Iterator[DoctorFinding]:
    """Check the Temporal that our settings or Temporal's profile name: whether it answers, and whether its namespace has what workflows need.

    If they name none, nothing is checked, unless one is required.
    """
    # Importing it takes a tenth of a second, and most commands do not need it.
    from justenough.adapters import temporal  # noqa: PLC0415

    async def check(named: Settings) -> tuple[str, ...]:
        return await temporal.missing_search_attributes(await temporal.connect_temporal(named, identity="justenough-doctor"))

    what = "temporal server"
    try:
        named = temporal.with_temporal_profile(settings)
        if not is_required and named == settings and "temporal_address" not in settings.model_fields_set:
            return
        missing = asyncio.run(check(named))
    except JustEnoughError as error:
        yield DoctorFinding(
            what, "missing", str(error), "Correct the setting that it names. Run doctor with the worker's environment variables."
        )
        return
    found = f"{named.temporal_address}, namespace {named.temporal_namespace}"
    if missing:
        text = f"{found}, lacks the search attributes {', '.join(missing)}"
        yield DoctorFinding(what, "warning", text, "A worker creates them when it starts, if Temporal lets it.")
    else:
        yield DoctorFinding(what, "ok", found)


def login_findings(settings: Settings) -> Iterator[DoctorFinding]:
    """Check that Vault accepts the login files of worker and console that exist here. Each test login is revoked at once."""
    if settings.named_vault_addr is None:
        return
    files = {"worker login": settings.worker_approle_file, "console login": settings.console_approle_file}
    present = {what: file for what, file in files.items() if file.is_file()}
    if not present:
        paths = " or ".join(map(str, files.values()))
        remedy = "Run `justenough vault setup`, and copy the file to this machine; or set JUSTENOUGH_WORKER_APPROLE or JUSTENOUGH_CONSOLE_APPROLE."
        yield DoctorFinding("worker login", "warning", f"neither a worker nor a console can log in to Vault here: no {paths}", remedy)
    for what, file in present.items():
        with closing(VaultConnection(settings.vault_addr, namespace=settings.vault_namespace, cacert=settings.vault_cacert)) as vault:
            try:
                vault.login_from_file(file)
                is_ours = not isinstance(read_login(file), TokenLogin)
                vault.call_own(*(("post", "auth/token/revoke-self") if is_ours else ("get", "auth/token/lookup-self")))
            except RetryLater as error:
                yield DoctorFinding(
                    what, "missing", f"{file} could not be tried: {error}", "The file may be fine: make Vault answer first."
                )
            except JustEnoughError as error:
                yield DoctorFinding(
                    what, "missing", f"{file}: {error}", "Run `justenough vault setup`, and copy the new file; or correct what it names."
                )
            else:
                yield DoctorFinding(what, "ok", f"Vault accepts {file}")


def poller_findings(settings: Settings) -> Iterator[DoctorFinding]:
    """Check that workers poll Temporal's queues. Failures of Temporal itself are reported by temporal_findings."""
    from temporalio.service import RPCError  # noqa: PLC0415 - importing it takes a tenth of a second

    from justenough.adapters import temporal  # noqa: PLC0415 - the same

    async def ask() -> Mapping[str, datetime | None]:
        client = await temporal.connect_temporal(temporal.with_temporal_profile(settings), identity="justenough-doctor")
        return await temporal.last_polls(client, settings.task_queue)

    with suppress(JustEnoughError, RPCError):
        polls = asyncio.run(ask())
        unpolled = find_unpolled_queues(polls, now=datetime.now(UTC))
        for queue in polls:
            if queue in unpolled:
                remedy = "Start a worker: justenough worker. If one runs, see in its log why it takes no tasks."
                yield DoctorFinding("workers", "missing", f"no worker polls {queue}: jobs wait", remedy)
            else:
                yield DoctorFinding("workers", "ok", f"{queue} is polled")


def clock_findings(settings: Settings, *, now: Callable[[], float]) -> Iterator[DoctorFinding]:
    """Compare this machine's clock with Vault's. If Vault does not answer, vault_findings reports it."""
    verify = str(settings.vault_cacert) if settings.vault_cacert else True
    # KeyError: a Vault that speaks TLS answers plain HTTP without a date.
    with suppress(httpx.HTTPError, OSError, TypeError, ValueError, KeyError):
        answer = httpx.get(f"{settings.vault_addr.rstrip('/')}/v1/sys/health", verify=verify, timeout=TIMEOUT_S, trust_env=False)
        skew = now() - parsedate_to_datetime(answer.headers["date"]).timestamp()
        if abs(skew) <= MAX_SKEW_S:
            yield DoctorFinding("clock", "ok", f"within {MAX_SKEW_S:.0f} s of Vault's")
        else:
            text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} Vault's"
            yield DoctorFinding(
                "clock", "missing", text, "Synchronize the clocks of both machines with NTP: signatures and expiries depend on them."
            )


def console_findings(console: str | None) -> Iterator[DoctorFinding]:
    if console is None:
        yield DoctorFinding(
            "console", "warning", "not checked: the console's address is unknown", "Set JUSTENOUGH_CONSOLE_URL or --console-url."
        )
        return
    try:
        report = readyz.fetch_readyz(console)
    except readyz.NoConsole as error:
        yield DoctorFinding("console", "missing", str(error), "Start it, or correct --console-url or JUSTENOUGH_CONSOLE_URL.")
        return
    yield DoctorFinding("console", "ok", console)
    yield from readyz.findings(report)
