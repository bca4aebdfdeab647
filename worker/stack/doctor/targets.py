"""Whether the targets in which the catalog's credentials are looked for, and ended, answer. Asks without a login."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from psycopg import Error
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.configuration.folder import CATALOG
from justenough.domain.catalog.loader import read_catalog, with_settings
from justenough.domain.core.errors import InvalidInput
from worker.stack.finding import DoctorFinding
from worker.stack.probes import PROBE_TIMEOUT_S, postgres_answers
from worker.stack.readyz import RUNBOOK


def target_findings(folder: Path, env: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Yield a finding for each target; nothing where the catalog is broken or says where they are by settings that are not here."""
    try:
        catalog = with_settings(read_catalog((folder / CATALOG).read_bytes()), env)
    except (InvalidInput, OSError):
        return  # The configuration's own finding says it; or this machine runs no worker.
    actions = (action for resource in catalog.resources.values() for action in resource.actions.values())
    places = sorted({action.target.postgres for action in actions if action.target})
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(_target_finding, places)


def has_locked_actions(folder: Path) -> bool:
    """Whether a folder's catalog has Vault itself ask people; not where it cannot be read, which the configuration's own finding says."""
    try:
        return read_catalog((folder / CATALOG).read_bytes()).has_locks
    except (InvalidInput, OSError):
        return False


def _target_finding(conninfo: str) -> DoctorFinding:
    try:
        where = conninfo_to_dict(conninfo)
        host, port = str(where.get("hostaddr") or where.get("host") or "localhost"), int(where.get("port") or 5432)
    except (Error, ValueError) as error:
        return DoctorFinding("target", "missing", f"a target's address is none: {error}", "Mend the catalog.")
    name = f"target {host}:{port}/{where.get('dbname') or ''}"
    if postgres_answers(host, port):
        return DoctorFinding(name, "ok", "answers")
    remedy = f"Start it or open its network. Until then its credentials cannot be revoked and are shown as overdue: {RUNBOOK}#overdue"
    return DoctorFinding(name, "missing", f"does not answer within {PROBE_TIMEOUT_S} s", remedy)
