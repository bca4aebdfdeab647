"""Checks of the servers that an installation names in its settings: Temporal, and the logins of worker and console at Vault. Changes nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.own_login import TokenLogin, read_login
from justenough.domain.core.errors import JustEnoughError
from worker.stack.finding import DoctorFinding


def temporal_findings(settings: Settings) -> Iterator[DoctorFinding]:
    """Check the Temporal that our settings or Temporal's profile name: whether it answers, and whether its namespace has what workflows need."""
    # Importing it takes a tenth of a second, and most commands do not need it.
    from justenough.adapters import temporal  # noqa: PLC0415

    async def check(named: Settings) -> tuple[str, ...]:
        return await temporal.missing_search_attributes(await temporal.connect_temporal(named, identity="justenough-doctor"))

    what = "temporal server"
    try:
        named = temporal.with_temporal_profile(settings)
        if named == settings and "temporal_address" not in settings.model_fields_set:
            return
        missing = asyncio.run(check(named))
    except JustEnoughError as error:
        yield DoctorFinding(what, "missing", str(error), "Correct what it names, with the worker's environment variables.")
        return
    found = f"{named.temporal_address}, namespace {named.temporal_namespace}"
    if missing:
        text = f"{found}, lacks the search attributes {', '.join(missing)}"
        yield DoctorFinding(what, "warning", text, "A worker creates them when it starts, if Temporal lets it.")
    else:
        yield DoctorFinding(what, "ok", found)


def login_findings(settings: Settings) -> Iterator[DoctorFinding]:
    """Check that Vault accepts the login files of worker and console that exist here. Each login that we make is ended at once."""
    if "VAULT_ADDR" not in os.environ:
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
            except JustEnoughError as error:
                yield DoctorFinding(
                    what, "missing", f"{file}: {error}", "Run `justenough vault setup`, and copy the new file; or correct what it names."
                )
            else:
                yield DoctorFinding(what, "ok", f"Vault accepts {file}")
