"""Checks of a Vault: its seal, its audit devices, its maximum request duration. Reads only.

An administrator's VAULT_TOKEN shows the configuration. The embedded stack's admin token is never read here; only `vault setup` may.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault.connection import forwarding_headers, parse_answer
from justenough.adapters.vault.errors import is_plain_http_refused
from justenough.domain.catalog.models import Catalog
from justenough.domain.catalog.target_searches import search_problems
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.secret import Secret
from worker.provisioning.admin_client import is_inactive
from worker.provisioning.setup import CONTROL_GROUP_REMEDY, VaultTarget, plan_vault
from worker.stack.children import MAX_REQUEST_DURATION_S
from worker.stack.finding import DoctorFinding, Level

REQUEST_TIMEOUT_S = 5.0
REQUEST_BOUND_REMEDY = f'Put default_max_request_duration = "{MAX_REQUEST_DURATION_S}s" into its configuration: it limits how late Vault can still issue a credential.'
AUDIT_REMEDY = "Declare an audit device; without one there is no record of the requests to Vault."
SEAL_STATES = {501: ("is not initialised", "bao operator init"), 503: ("is sealed", "bao operator unseal")}
"""By the status of sys/health: the state and its remedy."""
ROOT_NAMESPACE = {"X-Vault-Namespace": ""}
"""Only the root namespace has `sys/health`, the audit devices and the server's configuration."""
READ_AUDIT_REMEDY = (
    "Set VAULT_TOKEN to a token that may read sys/audit and sys/config/state/sanitized in the root namespace, and run doctor again."
)


class RoleUnreadable(Exception):
    """The token may not read this path."""


def vault_findings(
    address: str,
    *,
    token: Secret | None = None,
    namespace: str | None = None,
    cacert: Path | None = None,
    locks: bool = False,
    catalog: Catalog | None = None,
    pages_mount: str | None = None,
) -> Iterator[DoctorFinding]:
    """Check the Vault at this address.

    `locks`: whether the catalog uses control groups; `catalog`: the catalog whose roles to check, with its settings filled in;
    `pages_mount`: the auth mount of the pages' login.
    """
    headers = {"X-Vault-Namespace": namespace} if namespace else {}
    try:
        verify = ssl.create_default_context(cafile=cacert) if cacert else True
        with httpx.Client(
            base_url=f"{address.rstrip('/')}/v1/", headers=headers, verify=verify, timeout=REQUEST_TIMEOUT_S, trust_env=False
        ) as vault:
            health = vault.get("sys/health", params={"standbyok": "true"}, headers=ROOT_NAMESPACE)
            if is_plain_http_refused(health.status_code, health.content):
                yield DoctorFinding("vault", "missing", f"{address} speaks TLS", "Write VAULT_ADDR with https://.")
                return
            facts = parse_answer(health.status_code, health.content)
            if facts is None or "sealed" not in facts:
                text = f"{address} does not answer as Vault does (status {health.status_code})"
                yield DoctorFinding("vault", "missing", text, "Correct VAULT_ADDR, or check the server or proxy that answers there.")
                return
            state, remedy = SEAL_STATES.get(health.status_code, ("is unsealed", ""))
            yield DoctorFinding("vault seal", "missing" if remedy else "ok", f"{address} {state}", remedy)
            if health.status_code == 200 and facts.get("standby"):
                # A standby answers sys/health by itself, but needs the active node for almost everything else.
                probe = vault.get("auth/token/lookup-self", headers=forwarding_headers(facts))
                if is_inactive(probe.status_code, probe.text):
                    text = f"{address} is a standby that reaches no active node"
                    yield DoctorFinding(
                        "vault", "missing", text, "Wait until a node is active, and make sure that the standbys reach its cluster_addr."
                    )
                    return
            if pages_mount and health.status_code == 200:
                yield pages_login_finding(vault, pages_mount.strip("/"))
            if locks:
                yield lock_finding(str(facts.get("version", "")))
            yield from _configuration_findings(vault, token)
            if catalog is not None and token is not None:
                yield from _search_findings(vault, token, catalog)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        remedy = "Start it (embedded: justenough up --detach), or set VAULT_ADDR."
        yield DoctorFinding("vault", "missing", f"{address} did not answer: {error}", remedy)


def pages_login_finding(vault: httpx.Client, mount: str) -> DoctorFinding:
    """Check whether people can log in to the pages by password at this mount."""
    # The request has no password, so that it does not count as a failed login. Without a token Vault answers 403 for a path that does not
    # exist; a login that exists rejects the empty body instead.
    status = vault.post(f"auth/{mount}/login/justenough-doctor", json={}).status_code
    if status not in {403, 404}:
        return DoctorFinding("pages login", "ok", f"at {mount}/")
    remedy = f"Enable userpass or ldap at {mount}/ (docs/how-to/pages.md), or set JUSTENOUGH_PAGES_MOUNT to another mount."
    return DoctorFinding("pages login", "warning", f"nobody can log in to the pages: Vault has no login at {mount}/", remedy)


def lock_finding(version: str) -> DoctorFinding:
    """Check whether this version has control groups: OpenBao has them from 2.7 on, Vault (1.x) only in Enterprise."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if (match is not None and (int(match[1]), int(match[2])) >= (2, 7)) or "+ent" in version:
        return DoctorFinding("vault control groups", "ok", f"version {version}")
    text = f"version {version or 'unknown'} has no control groups, but the catalog uses them"
    return DoctorFinding("vault control groups", "missing", text, CONTROL_GROUP_REMEDY)


def _configuration_findings(vault: httpx.Client, token: Secret | None) -> Iterator[DoctorFinding]:
    configuration = _get(vault, "sys/config/state/sanitized", token)
    if configuration is None:
        text = "could not read its audit devices and its maximum request duration"
        yield DoctorFinding("vault configuration", "warning", text, READ_AUDIT_REMEDY)
        return
    if audits := configuration.get("audits") or list(_get(vault, "sys/audit", token) or {}):
        yield DoctorFinding("vault audit", "ok", f"{len(audits)} audit device(s)")
    else:
        yield DoctorFinding("vault audit", "missing", "no audit device", AUDIT_REMEDY)
    # The value is in nanoseconds; 0 means Vault's default, 90 s.
    longest = int(configuration.get("default_max_request_duration") or 90e9) / 1e9
    level: Level = "ok" if longest <= MAX_REQUEST_DURATION_S else "warning"
    yield DoctorFinding("vault longest request", level, f"{longest:.0f} s", "" if level == "ok" else REQUEST_BOUND_REMEDY)


def _search_findings(vault: httpx.Client, token: Secret, catalog: Catalog) -> Iterator[DoctorFinding]:
    """Check the database roles that determine whether targets can be searched."""
    seen = 0

    def read(path: str) -> dict[str, Any] | None:
        nonlocal seen
        seen += 1
        answer = vault.get(path, headers={"X-Vault-Token": token.reveal()})
        if answer.status_code not in {200, 404}:
            raise RoleUnreadable(path)
        return answer.json().get("data") if answer.status_code == 200 else None

    try:
        problems = list(search_problems(catalog, read))
    except RoleUnreadable as error:
        text, remedy = f"could not read {error}", "Set VAULT_TOKEN to a token that may read the catalog's database roles and connections."
        yield DoctorFinding("vault roles of targets", "warning", text, remedy)
        return
    if seen and not problems:
        text = f"{seen} roles and connections exist, and no template is known to hide the job's id"
        yield DoctorFinding("vault roles of targets", "ok", text)
    for problem in problems:
        level: Level = "missing" if problem.is_missing else "warning"
        yield DoctorFinding(f"vault {problem.path}", level, problem.why, problem.remedy)


def _get(vault: httpx.Client, path: str, token: Secret | None) -> dict[str, Any] | None:
    if token is None:
        return None
    answer = vault.get(path, headers={"X-Vault-Token": token.reveal(), **ROOT_NAMESPACE})
    if answer.status_code != 200:
        return None
    data = answer.json().get("data")
    return data if isinstance(data, dict) else None


def embedded_vault_findings(configuration: Path, audit_log: Path) -> Iterator[DoctorFinding]:
    """Check the embedded Vault's own files. Needs no token."""
    text = configuration.read_text(encoding="utf-8") if configuration.is_file() else ""
    if 'audit "file"' in text and audit_log.is_file() and audit_log.stat().st_size:
        yield DoctorFinding("vault audit", "ok", f"writes {audit_log}")
    else:
        yield DoctorFinding("vault audit", "missing", f"nothing is written to {audit_log}", AUDIT_REMEDY)
    if f'default_max_request_duration = "{MAX_REQUEST_DURATION_S}s"' in text:
        yield DoctorFinding("vault longest request", "ok", f"{MAX_REQUEST_DURATION_S} s")
    else:
        yield DoctorFinding("vault longest request", "missing", f"not bounded in {configuration}", REQUEST_BOUND_REMEDY)


def drift_findings(settings: Settings, token: Secret | None) -> Iterator[DoctorFinding]:
    """Check that Vault has what this version and this catalog need."""
    what = "vault objects"
    if token is None:
        yield DoctorFinding(what, "warning", "not compared with what this version needs", READ_AUDIT_REMEDY)
        return
    try:
        planned = plan_vault(VaultTarget(settings, token))
    except JustEnoughError as error:
        yield DoctorFinding(what, "missing", f"could not be compared: {error}", "Run `justenough vault plan`.")
        return
    for step in planned:
        if step.outcome == "kept" and step.note:
            yield DoctorFinding(f"vault {step.path}", "warning", step.note, "Follow the note, if it applies to you.")
    # A machine has only the login file that it needs: login_findings checks that one.
    login_files = {str(settings.worker_approle_file), str(settings.console_approle_file)}
    changes = [step.path for step in planned if step.outcome in {"created", "changed"} and step.path not in login_files]
    if changes:
        text = f"{len(changes)} of {len(planned)} differ from what this version needs, such as {changes[0]}"
        yield DoctorFinding(what, "missing", text, "Run `justenough vault plan`, then `justenough vault apply`.")
    else:
        yield DoctorFinding(what, "ok", f"all {len(planned)} are what this version needs")
