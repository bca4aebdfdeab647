"""The steps of `justenough vault setup`, in order. What each writes comes from the catalog, the settings and the policies' texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from justenough.domain.approvals.tiers import APPROVALS, Tiers, read_tiers
from justenough.domain.catalog.control_groups import lock_of, lock_problems
from justenough.domain.catalog.loader import CATALOG, SETTING, Catalog, provision_writes, read_catalog, with_settings
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAGES, PAYLOADS
from justenough.domain.integrations.job_identity import KEY as IDENTITY_KEY
from justenough.domain.integrations.triggers import TRIGGERS, Triggers, read_triggers
from worker.provisioning.admin_client import AdminVault, Applied, Outcome, SetupFailed
from worker.provisioning.approles import console_access, identity_tokens, worker_access
from worker.provisioning.control_groups import refuse_way_around, require_control_groups
from worker.provisioning.identities import page_logins, people_logins, scope_identities
from worker.provisioning.mounts import auth_method, catalog_writes, engine, token_life
from worker.provisioning.policies import INSTALLATION_IN_POLICY, grant_policy, person_policy

KEYS = {IDENTITY_KEY: "ed25519", "je-ledger": "ed25519", PAYLOADS: "aes256-gcm96"}
"""Transit keys: workload identity and ledger are signed with, payloads encrypted."""
DERIVED_KEYS = {PAGES: "aes256-gcm96"}
"""Transit keys that encrypt only with a context, from which the key that is used is derived."""


@dataclass(frozen=True, slots=True)
class PersonSeed:
    """A user of the embedded stack. A production Vault has its people already."""

    password: Secret
    groups: tuple[str, ...]


def setup(
    settings: Settings,
    *,
    vault_addr: str,
    admin_token: Secret,
    people: Mapping[str, PersonSeed] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Applied, ...]:
    """Bring the Vault at this address to what `settings.config` needs, and return what became of each path, in order.

    `people` (login name → seed) makes userpass users, their entities and groups on the first of `settings.people_mounts`;
    leave it out wherever people exist already. `environment` fills `${X}` in the catalog, its secrets included; default: os.environ.
    Writes `settings.worker_approle_file` and `settings.console_approle_file` where they are missing or no longer valid.
    Raises InvalidInput (catalog, tiers or environment), SetupFailed (one step, with its path and remedy), VaultNotReady.
    """
    env = os.environ if environment is None else environment
    raw = _catalog(settings.config)
    catalog = with_settings(raw, env)
    tiers, triggers = _tiers(settings.config, catalog), _triggers(settings.config)
    hide = [env[name] for name in SETTING.findall(str(raw.provision)) if name in env]
    hide += [person.password.reveal() for person in (people or {}).values()]
    with AdminVault(vault_addr, admin_token, namespace=settings.vault_namespace, cacert=settings.vault_cacert, hide=hide) as vault:
        return tuple(_steps(vault, settings, catalog, tiers, triggers, people, env))


def _steps(
    vault: AdminVault,
    settings: Settings,
    catalog: Catalog,
    tiers: Tiers,
    triggers: Triggers,
    people: Mapping[str, PersonSeed] | None,
    env: Mapping[str, str],
) -> Iterator[Applied]:
    writes = provision_writes(catalog, env)
    _refuse_foreign(vault, settings.installation)
    if catalog.has_locks:
        require_control_groups(vault)
    yield engine(vault, "transit", {"type": "transit"})
    yield auth_method(vault, "approle", {"type": "approle"})
    yield token_life(vault)
    for key, kind in KEYS.items():
        yield vault.ensure(f"transit/keys/{key}", {"type": kind})
    for key, kind in DERIVED_KEYS.items():
        yield vault.ensure(f"transit/keys/{key}", {"type": kind, "derived": True})
    yield from catalog_writes(vault, writes)
    yield from _grants(vault, catalog, tiers, given={write.path for write in writes})
    yield vault.ensure("sys/policies/acl/je-person", {"policy": person_policy()})
    yield from scope_identities(vault, catalog)
    seeds = {name: (seed.password, seed.groups) for name, seed in (people or {}).items()}
    yield from people_logins(vault, settings.people_mounts, seeds)
    yield from page_logins(vault, settings, {name: password for name, (password, _) in seeds.items()})
    yield from identity_tokens(vault, settings, embedded=people is not None)
    yield from worker_access(vault, settings, catalog)
    yield from console_access(vault, settings, triggers)


def _catalog(folder: Path) -> Catalog:
    try:
        return read_catalog((folder / CATALOG).read_bytes())
    except OSError as error:
        problem = Problem("", f"{folder / CATALOG} cannot be read: {error.strerror}; JUSTENOUGH_CONFIG names the configuration's folder")
        raise InvalidInput(CATALOG, (problem,)) from error


def _tiers(folder: Path, catalog: Catalog) -> Tiers:
    """Return who opens the catalog's locks; where it has none, nobody needs to be known."""
    if not catalog.has_locks:
        return Tiers(tiers={})
    try:
        tiers = read_tiers((folder / APPROVALS).read_bytes())
    except OSError as error:
        problem = Problem("", f"{folder / APPROVALS} cannot be read: {error.strerror}; it says who opens the catalog's locks")
        raise InvalidInput(APPROVALS, (problem,)) from error
    if problems := tuple(lock_problems(catalog, tiers)):
        raise InvalidInput(CATALOG, problems)
    return tiers


def _triggers(folder: Path) -> Triggers:
    """Return what the console is to read secrets for; a folder without triggers has none."""
    try:
        return read_triggers((folder / TRIGGERS).read_bytes())
    except FileNotFoundError:
        return Triggers()
    except OSError as error:
        raise InvalidInput(TRIGGERS, (Problem("", f"{folder / TRIGGERS} cannot be read: {error.strerror}"),)) from error


def _refuse_foreign(vault: AdminVault, installation: str) -> None:
    """Two installations in one place would take each other's policy `je-worker` away."""
    path = "sys/policies/acl/je-worker"
    found = re.search(INSTALLATION_IN_POLICY, str((vault.read(path) or {}).get("policy", "")))
    if found and found[1] != installation:
        remedy = f"Set JUSTENOUGH_INSTALLATION={found[1]}, or give this installation a namespace of its own (VAULT_NAMESPACE)."
        raise SetupFailed(path, why=f"this Vault is set up for installation {found[1]!r}, not {installation!r}", remedy=remedy)


def _grants(vault: AdminVault, catalog: Catalog, tiers: Tiers, *, given: set[str]) -> Iterator[Applied]:
    """Write a policy for each action, but for those that the catalog's own `provision` writes; name those that nothing needs any more."""
    definitions = [action for resource in catalog.resources.values() for action in resource.actions.values()]
    for definition in definitions:
        path = f"sys/policies/acl/{definition.policy}"
        if path not in given:
            yield vault.ensure(path, {"policy": grant_policy(definition, lock_of(definition, tiers))})
    known = {definition.policy for definition in definitions}
    for name in vault.list("sys/policies/acl"):
        if name.startswith("je-grant-") and name not in known:
            refuse_way_around(vault, name, catalog)
            yield Applied(
                f"sys/policies/acl/{name}", Outcome.KEPT, "no action of the catalog uses it; delete it if no other configuration does"
            )
