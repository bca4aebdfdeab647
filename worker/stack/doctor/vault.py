"""What a Vault lacks for us: sealed or not, an audit device, a bound on how long a request may live. Reads only.

The embedded stack's admin token is not read here (`vault setup` alone may); what an administrator's VAULT_TOKEN lets us see, we look at.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from justenough.domain.core.secret import Secret
from worker.provisioning.control_groups import CONTROL_GROUP_REMEDY
from worker.stack.finding import DoctorFinding, Level
from worker.stack.vault import MAX_REQUEST_DURATION_S

REQUEST_TIMEOUT_S = 5.0
REQUEST_BOUND_REMEDY = (
    f'Put default_max_request_duration = "{MAX_REQUEST_DURATION_S}s" into its configuration: an issue in flight lands no later than that.'
)
AUDIT_REMEDY = "Declare an audit device; without one nobody sees what was done with Vault."
READ_AUDIT_REMEDY = "Set VAULT_TOKEN to a token that may read sys/audit and sys/config/state/sanitized, and run doctor again."


def vault_findings(
    address: str,
    *,
    token: Secret | None = None,
    namespace: str | None = None,
    cacert: Path | None = None,
    locks: bool = False,
    pages_mount: str | None = None,
) -> Iterator[DoctorFinding]:
    """Look at the Vault at this address; `locks`: whether the catalog locks actions there; `pages_mount`: where the pages log people in."""
    headers = {"X-Vault-Namespace": namespace} if namespace else {}
    try:
        verify = ssl.create_default_context(cafile=cacert) if cacert else True
        with httpx.Client(
            base_url=f"{address.rstrip('/')}/v1/", headers=headers, verify=verify, timeout=REQUEST_TIMEOUT_S, trust_env=False
        ) as vault:
            health = vault.get("sys/health", params={"standbyok": "true"})
            yield _seal_finding(address, health)
            if pages_mount and health.status_code == 200:
                yield _pages_login_finding(vault, pages_mount)
            if locks:
                yield lock_finding(str(health.json().get("version", "")))
            yield from _configuration_findings(vault, token)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        yield DoctorFinding(
            "vault", "missing", f"{address} did not answer: {error}", "Start it (embedded: justenough up --detach), or set VAULT_ADDR."
        )


def _seal_finding(address: str, answer: httpx.Response) -> DoctorFinding:
    if answer.status_code == 501:
        return DoctorFinding("vault seal", "missing", f"{address} is not initialised", "bao operator init")
    if answer.status_code == 503:
        return DoctorFinding("vault seal", "missing", f"{address} is sealed", "bao operator unseal")
    return DoctorFinding("vault seal", "ok", f"{address} is unsealed")


def _pages_login_finding(vault: httpx.Client, mount: str) -> DoctorFinding:
    """Whether there is a login for the pages. Asked without a password, so that it is nobody's failed try."""
    answer = vault.post(f"auth/{mount.strip('/')}/login/justenough-doctor", json={})
    # To strangers Vault denies what it does not have; a login that is there finds fault with the question instead.
    if answer.status_code in {403, 404}:
        remedy = f"Enable userpass or ldap at {mount}/ (docs/how-to/pages.md), or name another mount: JUSTENOUGH_PAGES_MOUNT."
        return DoctorFinding("pages login", "warning", f"nobody can log in to the pages: Vault has no login at {mount}/", remedy)
    return DoctorFinding("pages login", "ok", f"at {mount}/")


def lock_finding(version: str) -> DoctorFinding:
    """Whether a Vault of this version has control groups: OpenBao's versions begin anew below Vault's, which has them in Enterprise only."""
    found = re.match(r"(\d+)\.(\d+)", version)
    openbao = found is not None and (int(found[1]), int(found[2])) >= (2, 7)
    if openbao or "+ent" in version:
        return DoctorFinding("vault control groups", "ok", f"version {version}")
    return DoctorFinding(
        "vault control groups", "missing", f"version {version or 'unknown'} has none, and the catalog locks actions", CONTROL_GROUP_REMEDY
    )


def _configuration_findings(vault: httpx.Client, token: Secret | None) -> Iterator[DoctorFinding]:
    found = _read_configuration(vault, token)
    if found is None:
        yield DoctorFinding("vault configuration", "warning", "its audit device and longest request could not be seen", READ_AUDIT_REMEDY)
        return
    audits = found.get("audits") or list(_get(vault, "sys/audit", token) or {})
    yield (
        DoctorFinding("vault audit", "ok", f"{len(audits)} audit device(s)")
        if audits
        else DoctorFinding("vault audit", "missing", "no audit device", AUDIT_REMEDY)
    )
    # Nanoseconds; 0 is Vault's own default, 90 s.
    longest = int(found.get("default_max_request_duration") or 90e9) / 1e9
    level: Level = "ok" if longest <= MAX_REQUEST_DURATION_S else "warning"
    yield DoctorFinding("vault longest request", level, f"{longest:.0f} s", "" if level == "ok" else REQUEST_BOUND_REMEDY)


def _read_configuration(vault: httpx.Client, token: Secret | None) -> dict[str, Any] | None:
    return _get(vault, "sys/config/state/sanitized", token)


def _get(vault: httpx.Client, path: str, token: Secret | None) -> dict[str, Any] | None:
    if token is None:
        return None
    answer = vault.get(path, headers={"X-Vault-Token": token.reveal()})
    if answer.status_code != 200:
        return None
    data = answer.json().get("data")
    return data if isinstance(data, dict) else None


def embedded_vault_findings(configuration: Path, audit_log: Path) -> Iterator[DoctorFinding]:
    """What the embedded Vault's own files tell, without a token."""
    text = configuration.read_text(encoding="utf-8") if configuration.is_file() else ""
    if 'audit "file"' in text and audit_log.is_file() and audit_log.stat().st_size:
        yield DoctorFinding("vault audit", "ok", f"writes {audit_log}")
    else:
        yield DoctorFinding("vault audit", "missing", f"nothing is written to {audit_log}", AUDIT_REMEDY)
    bounded = f'default_max_request_duration = "{MAX_REQUEST_DURATION_S}s"' in text
    found = f"{MAX_REQUEST_DURATION_S} s" if bounded else f"not bounded in {configuration}"
    yield DoctorFinding("vault longest request", "ok" if bounded else "missing", found, "" if bounded else REQUEST_BOUND_REMEDY)
