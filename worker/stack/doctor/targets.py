"""Checks of the catalog's targets, the databases in which credentials are observed and ended: whether they answer, and whether access works."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from psycopg import Error
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.configuration.folder import CATALOG
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.targets.postgres_hazards import ALWAYS
from justenough.domain.catalog.loader import read_catalog, with_settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput, JustEnoughError
from justenough.domain.jobs.states import Revocable
from justenough.services.action_trial import try_action
from justenough.services.dependencies import open_worker_vault
from worker.stack.finding import DoctorFinding
from worker.stack.probes import PROBE_TIMEOUT_S, postgres_answers
from worker.stack.readyz import RUNBOOK

MAX_PROBLEMS_SHOWN = 5


def target_findings(folder: Path, env: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Yield a finding for each target; none if the catalog cannot be read or needs settings that are not set here."""
    try:
        catalog = filled_catalog(folder, env)
    except (InvalidInput, OSError):
        return  # configuration_findings reports it, or this machine runs no worker.
    targets = sorted({action.target.postgres for _, action in catalog.iter_actions() if action.target})
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(_target_finding, targets)


def unfilled_findings(folder: Path) -> Iterator[DoctorFinding]:
    """Report why this process cannot fill in the catalog. Then neither its targets nor their roles in Vault are checked."""
    try:
        filled_catalog(folder, os.environ)
    except (InvalidInput, OSError) as error:
        messages = [problem.message for problem in error.problems] if isinstance(error, InvalidInput) else [str(error)]
        more = f"; and {len(messages) - MAX_PROBLEMS_SHOWN} more" if len(messages) > MAX_PROBLEMS_SHOWN else ""
        text = f"the targets and their roles in Vault were not checked: {'; '.join(messages[:MAX_PROBLEMS_SHOWN])}{more}"
        remedy = "Run doctor with the worker's environment variables, or on the worker's machine."
        yield DoctorFinding("targets", "warning", text, remedy)


def filled_catalog(folder: Path, env: Mapping[str, str]) -> Catalog:
    """Return the catalog with its settings filled in. Raises InvalidInput, OSError."""
    return with_settings(read_catalog((folder / CATALOG).read_bytes()), env)


def has_locked_actions(folder: Path) -> bool:
    """Whether the catalog uses control groups. False if it cannot be read; configuration_findings reports that."""
    try:
        return read_catalog((folder / CATALOG).read_bytes()).has_locks
    except (InvalidInput, OSError):
        return False


def _target_finding(conninfo: str) -> DoctorFinding:
    try:
        parts = conninfo_to_dict(conninfo)
        host, port = str(parts.get("hostaddr") or parts.get("host") or "localhost"), int(parts.get("port") or 5432)
    except (Error, ValueError) as error:
        return DoctorFinding("target", "missing", f"a target's address is invalid: {error}", "Correct it in the catalog.")
    name = f"target {host}:{port}/{parts.get('dbname') or ''}"
    if postgres_answers(host, port):
        return DoctorFinding(name, "ok", "answers")
    remedy = f"Start it or open its network. Until then its credentials cannot be revoked and are shown as overdue: {RUNBOOK}#overdue"
    return DoctorFinding(name, "missing", f"did not answer within {PROBE_TIMEOUT_S} s", remedy)


def trial_findings(settings: Settings, catalog: Catalog | None) -> Iterator[DoctorFinding]:
    """Try one action of each target: issue, find, log in, revoke, verify."""
    if catalog is None:
        return  # unfilled_findings reports it.
    if not settings.worker_approle_file.is_file():
        text = f"not tried: there is no worker's login here ({settings.worker_approle_file})"
        yield DoctorFinding("access", "warning", text, "Run doctor on a worker's machine, too.")
        return
    tried = set()
    for name, resource in catalog.resources.items():
        for action, definition in resource.actions.items():
            target = definition.target
            if target is None or target.postgres in tried or definition.locked or definition.revocable is not Revocable.NOW:
                continue
            tried.add(target.postgres)
            what, command = f"access {name}:{action.value}", f"justenough vault try {name} {action.value}"
            scopes = catalog.scopes_with(definition.data_scope)
            if not scopes:
                yield DoctorFinding(what, "warning", "not tried: no scope has its keys", "Add one to `scopes` in the catalog.")
                continue
            try:
                steps = list(try_action(settings, os.environ, name, action, scopes[0]))
            except JustEnoughError as error:
                yield DoctorFinding(what, "missing", str(error), f"Run `{command}` on a worker's machine.")
                continue
            failed = next((step for step in steps if step.outcome == "failed"), None)
            if failed is not None:
                yield DoctorFinding(what, "missing", f"{failed.step}: {failed.found}", f"docs/how-to/add-resource.md, then `{command}`.")
            else:
                found = f"was issued, found in its target, and gone after its revocation ({len(steps)} steps)"
                yield DoctorFinding(what, "ok", found)


def hazard_findings(settings: Settings, catalog: Catalog | None) -> Iterator[DoctorFinding]:
    """Yield a finding for each target: whether its SQL is this version's, and what a job could do there beside its task."""
    if catalog is None or not settings.worker_approle_file.is_file():
        return  # unfilled_findings or trial_findings reports it.
    try:
        with (
            open_worker_vault(settings) as vault,
            closing(TargetInspector(vault, lambda: catalog, installation=settings.installation)) as targets,
        ):
            seen = targets.find_hazards()
    except JustEnoughError as error:
        yield DoctorFinding("hazards", "warning", f"not looked for: {error}", "Run doctor again when the worker can log in to Vault.")
        return
    for target, looked_at in zip(seen.inspected, seen.hazards, strict=True):
        what, hazards = f"hazards {target}", list(looked_at.hazards())
        if not hazards:
            yield DoctorFinding(what, "ok", f"none but one: {ALWAYS}")
            continue
        found = "; ".join((*(hazard.found for hazard in hazards), ALWAYS))
        remedy = " ".join(f"{hazard.remedy}." for hazard in hazards)
        yield DoctorFinding(what, "missing" if looked_at.is_sql_old else "warning", found, remedy)
    for failure in seen.failures:
        yield DoctorFinding(
            "hazards", "warning", f"not looked for: {failure}", "Start the target, or correct its `observe`; then run doctor again."
        )
