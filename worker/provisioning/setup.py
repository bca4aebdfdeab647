"""The steps of `justenough vault setup`, in order. What each writes comes from the catalog, the settings and the policies' texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from justenough.domain.approvals.tiers import APPROVALS_FILE, Tiers, read_tiers
from justenough.domain.catalog.control_groups import control_group_of, control_group_problems
from justenough.domain.catalog.loader import CATALOG_FILE, provision_writes, read_catalog, with_settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.placeholders import SETTING_PLACEHOLDER
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAGE_SESSION_KEY, PAYLOAD_KEY
from justenough.domain.integrations.job_identity import JOBS_KEY as IDENTITY_KEY
from justenough.domain.integrations.triggers import TRIGGERS_FILE, Triggers, read_triggers
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.approles import provision_console, provision_identity_tokens, provision_worker
from worker.provisioning.control_groups import refuse_leftover_policy, require_control_groups
from worker.provisioning.identities import provision_page_logins, provision_people_logins, provision_scope_identities
from worker.provisioning.mounts import apply_catalog_writes, enable_auth_method, ensure_token_lifetime, mount_engine
from worker.provisioning.policies import INSTALLATION_IN_POLICY, grant_policy, person_policy

TRANSIT_KEYS = {IDENTITY_KEY: "ed25519", "je-ledger": "ed25519", PAYLOAD_KEY: "aes256-gcm96"}
"""Transit keys: workload identity and ledger are signed with, payloads encrypted."""
DERIVED_TRANSIT_KEYS = {PAGE_SESSION_KEY: "aes256-gcm96"}
"""Transit keys that encrypt only with a context, from which the key that is used is derived."""


@dataclass(frozen=True, slots=True)
class PersonSeed:
    """A user of the embedded stack. A production Vault has its people already."""

    password: Secret
    groups: tuple[str, ...]


def provision_vault(
    settings: Settings,
    *,
    vault_addr: str,
    admin_token: Secret,
    people: Mapping[str, PersonSeed] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[AppliedWrite, ...]:
    """Bring the Vault at this address to what `settings.config` needs, and return what became of each path, in order.

    `people` (login name → seed) makes userpass users, their entities and groups on the first of `settings.people_mounts`;
    leave it out wherever people exist already. `environment` fills `${X}` in the catalog, its secrets included; default: os.environ.
    Writes `settings.worker_approle_file` and `settings.console_approle_file` where they are missing or no longer valid.
    Raises InvalidInput (catalog, tiers or environment), SetupFailed (one step, with its path and remedy), VaultNotReady.
    """
    env = os.environ if environment is None else environment
    raw = _read_catalog(settings.config)
    catalog = with_settings(raw, env)
    tiers, triggers = _read_tiers(settings.config, catalog), _read_triggers(settings.config)
    hide = [env[name] for name in SETTING_PLACEHOLDER.findall(str(raw.provision)) if name in env]
    hide += [person.password.reveal() for person in (people or {}).values()]
    with AdminClient(vault_addr, admin_token, namespace=settings.vault_namespace, cacert=settings.vault_cacert, hide=hide) as vault:
        return tuple(_apply_steps(vault, settings, catalog, tiers, triggers, people, env))


def _apply_steps(
    vault: AdminClient,
    settings: Settings,
    catalog: Catalog,
    tiers: Tiers,
    triggers: Triggers,
    people: Mapping[str, PersonSeed] | None,
    env: Mapping[str, str],
) -> Iterator[AppliedWrite]:
    writes = provision_writes(catalog, env)
    _refuse_other_installation(vault, settings.installation)
    if catalog.has_locks:
        require_control_groups(vault)
    yield mount_engine(vault, "transit", {"type": "transit"})
    yield enable_auth_method(vault, "approle", {"type": "approle"})
    yield ensure_token_lifetime(vault)
    for key, kind in TRANSIT_KEYS.items():
        yield vault.ensure(f"transit/keys/{key}", {"type": kind})
    for key, kind in DERIVED_TRANSIT_KEYS.items():
        yield vault.ensure(f"transit/keys/{key}", {"type": kind, "derived": True})
    yield from apply_catalog_writes(vault, writes)
    yield from _write_grant_policies(vault, catalog, tiers, provisioned={write.path for write in writes})
    yield vault.ensure("sys/policies/acl/je-person", {"policy": person_policy()})
    yield from provision_scope_identities(vault, catalog)
    seeds = {name: (seed.password, seed.groups) for name, seed in (people or {}).items()}
    yield from provision_people_logins(vault, settings.people_mounts, seeds)
    yield from provision_page_logins(vault, settings, {name: password for name, (password, _) in seeds.items()})
    yield from provision_identity_tokens(vault, settings, embedded=people is not None)
    yield from provision_worker(vault, settings, catalog)
    yield from provision_console(vault, settings, triggers)


def _read_catalog(folder: Path) -> Catalog:
    try:
        return read_catalog((folder / CATALOG_FILE).read_bytes())
    except OSError as error:
        problem = Problem(
            "", f"{folder / CATALOG_FILE} cannot be read: {error.strerror}; JUSTENOUGH_CONFIG names the configuration's folder"
        )
        raise InvalidInput(CATALOG_FILE, (problem,)) from error


def _read_tiers(folder: Path, catalog: Catalog) -> Tiers:
    """Return who opens the catalog's locks; where it has none, nobody needs to be known."""
    if not catalog.has_locks:
        return Tiers(tiers={})
    try:
        tiers = read_tiers((folder / APPROVALS_FILE).read_bytes())
    except OSError as error:
        problem = Problem("", f"{folder / APPROVALS_FILE} cannot be read: {error.strerror}; it says who opens the catalog's locks")
        raise InvalidInput(APPROVALS_FILE, (problem,)) from error
    if problems := tuple(control_group_problems(catalog, tiers)):
        raise InvalidInput(CATALOG_FILE, problems)
    return tiers


def _read_triggers(folder: Path) -> Triggers:
    """Return what the console is to read secrets for; a folder without triggers has none."""
    try:
        return read_triggers((folder / TRIGGERS_FILE).read_bytes())
    except FileNotFoundError:
        return Triggers()
    except OSError as error:
        raise InvalidInput(TRIGGERS_FILE, (Problem("", f"{folder / TRIGGERS_FILE} cannot be read: {error.strerror}"),)) from error


def _refuse_other_installation(vault: AdminClient, installation: str) -> None:
    """Two installations in one place would take each other's policy `je-worker` away."""
    path = "sys/policies/acl/je-worker"
    found = re.search(INSTALLATION_IN_POLICY, str((vault.read(path) or {}).get("policy", "")))
    if found and found[1] != installation:
        remedy = f"Set JUSTENOUGH_INSTALLATION={found[1]}, or give this installation a namespace of its own (VAULT_NAMESPACE)."
        raise SetupFailed(path, why=f"this Vault is set up for installation {found[1]!r}, not {installation!r}", remedy=remedy)


def _write_grant_policies(vault: AdminClient, catalog: Catalog, tiers: Tiers, *, provisioned: set[str]) -> Iterator[AppliedWrite]:
    """Write a policy for each action, but for those that the catalog's own `provision` writes; name those that nothing needs any more."""
    definitions = [action for resource in catalog.resources.values() for action in resource.actions.values()]
    for definition in definitions:
        path = f"sys/policies/acl/{definition.policy}"
        if path not in provisioned:
            yield vault.ensure(path, {"policy": grant_policy(definition, control_group_of(definition, tiers))})
    known = {definition.policy for definition in definitions}
    for name in vault.list("sys/policies/acl"):
        if name.startswith("je-grant-") and name not in known:
            refuse_leftover_policy(vault, name, catalog)
            yield AppliedWrite(
                f"sys/policies/acl/{name}", WriteOutcome.KEPT, "no action of the catalog uses it; delete it if no other configuration does"
            )
