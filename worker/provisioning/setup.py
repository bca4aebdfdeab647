"""The steps of `justenough vault apply` (or `setup`), in order. Their content comes from the catalog, the settings and the policy texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from justenough.adapters.configuration.regular_file import MAX_FILE_BYTES, read_regular_file
from justenough.adapters.configuration.settings import Settings
from justenough.domain.approvals.tiers import APPROVALS_FILE, Tiers, read_tiers
from justenough.domain.catalog.control_groups import control_group_of, control_group_problems
from justenough.domain.catalog.loader import CATALOG_FILE, issue_paths, provision_writes, read_catalog, with_settings
from justenough.domain.catalog.models import Catalog, VaultWrite
from justenough.domain.catalog.provisioned_sql import reject_unqualified_calls
from justenough.domain.catalog.target_searches import search_problems
from justenough.domain.core.errors import GiveUp, InvalidInput, Problem, raise_problems
from justenough.domain.core.placeholders import SETTING_PLACEHOLDER, fill_scope
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import IDENTITY_KEY, LEDGER_KEY, PAGE_SESSION_KEY, PAYLOAD_KEY
from justenough.domain.integrations.triggers import CONSOLE_ENTITY, TRIGGERS_FILE, Triggers, read_triggers
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.export import ExportFormat, ExportingClient, export_files
from worker.provisioning.identities import (
    provision_approle_mount,
    provision_console,
    provision_groups,
    provision_identity_tokens,
    provision_page_logins,
    provision_people_logins,
    provision_scope_identities,
    provision_worker,
)
from worker.provisioning.mounts import SHARED_PATHS, apply_catalog_writes, ensure_mounted, ensure_token_lifetime, require_namespace
from worker.provisioning.plan import HIDDEN, PlannedWrite, PlanningClient
from worker.provisioning.policies import INSTALLATION_IN_POLICY, grant_policy, person_policy

TRANSIT_KEYS: Mapping[str, Mapping[str, object]] = {
    IDENTITY_KEY: {"type": "ed25519"},
    LEDGER_KEY: {"type": "ed25519"},
    PAYLOAD_KEY: {"type": "aes256-gcm96"},
    # It encrypts only with a context, from which Vault derives the actual key.
    PAGE_SESSION_KEY: {"type": "aes256-gcm96", "derived": True},
}
PASSWORD_KEYS = ("password", "service_account_jwt")
"""Fields that Vault shows nobody, and keeps if a write leaves them out: what Vault itself logs in with."""

CONTROL_GROUP_PATH = "sys/control-group/request"
CONTROL_GROUP_REMEDY = "Use OpenBao 2.7 or later, or Vault Enterprise; or remove `lock: control_group` from the catalog."


@dataclass(frozen=True, slots=True)
class PersonSeed:
    """A user of the embedded stack. A production Vault already has its people."""

    password: Secret
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VaultTarget:
    """The Vault to set up for `settings.config`, and an administrator's token of it."""

    settings: Settings
    admin_token: Secret
    people: Mapping[str, PersonSeed] | None = None
    """By login name, the users of an embedded Vault, which nobody else shares. They are created with their entities and groups on the first of
    `settings.people_mounts`. None for a Vault that already has people.
    """
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Fills `${X}` in the catalog, secrets included; None for os.environ."""


def provision_vault(target: VaultTarget, *, change_shared: bool = True) -> tuple[AppliedWrite, ...]:
    """Set up a Vault, and return the outcome for each path, in order.

    If the environment lacks a password, the one that Vault has stays. Writes `settings.worker_approle_file` and
    `settings.console_approle_file` if they are missing or no longer valid. Without `change_shared` it writes nothing if it would have to
    change anything that everybody in the Vault shares. Raises InvalidInput (catalog, tiers or environment), SetupFailed (one step, with its
    path and remedy), GiveUp (it would change what is shared), VaultNotReady.
    """
    if not change_shared:
        _refuse_shared_changes(plan_vault(target))
    settings, inputs = target.settings, _read_inputs(target.settings, target.environment, target.people)
    with AdminClient.of(settings, target.admin_token, hide=inputs.secrets) as vault:
        return tuple(_apply_steps(vault, settings, replace(inputs, catalog=_without_kept_passwords(vault, inputs))))


def plan_vault(target: VaultTarget) -> tuple[PlannedWrite, ...]:
    """Return what `provision_vault` would do for each path, with the values that it would write. Writes nothing. Raises as it does.

    It needs none of the catalog's passwords, because Vault never shows its own for comparison.
    """
    settings, inputs = target.settings, _read_inputs(target.settings, target.environment, target.people)
    passwords = {name: HIDDEN for write in inputs.catalog.provision for name in _password_variables(write).values()}
    inputs = replace(inputs, env={**passwords, **inputs.env})
    names = {value: f"${{{name}}}" for name, value in inputs.filled_in.items()}
    with PlanningClient.of(settings, target.admin_token, hide=inputs.secrets, names=names) as vault:
        return tuple(vault.describe(step) for step in _apply_steps(vault, settings, inputs))


def export_vault(settings: Settings, form: ExportFormat, *, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the files with which a team sets up Vault itself, by their path in a folder. Contacts no Vault. Raises InvalidInput,
    SetupFailed.
    """
    env = os.environ if environment is None else environment
    folder = settings.config
    text = _read_file(folder / CATALOG_FILE, "set JUSTENOUGH_CONFIG to the configuration's folder").decode(errors="replace")
    unfilled = {name: f"${{{name}}}" for name in SETTING_PLACEHOLDER.findall(text)}
    inputs = _read_inputs(settings, {**unfilled, **env}, None)
    # The person who applies the files creates the login files, so that the secret ids exist nowhere else.
    absent = {"worker_approle": folder / "none" / "worker", "console_approle": folder / "none" / "console"}
    settings = settings.model_copy(update=absent)
    with ExportingClient(people_mounts=(*settings.people_mounts, settings.pages_mount)) as client:
        for _ in _apply_steps(client, settings, replace(inputs, env=unfilled)):
            pass
    return export_files(client, form, roles=("je-worker", CONSOLE_ENTITY))


@dataclass(frozen=True, slots=True)
class _Inputs:
    catalog: Catalog
    tiers: Tiers
    triggers: Triggers
    people: Mapping[str, PersonSeed]
    is_embedded: bool
    env: Mapping[str, str] = field(repr=False)
    filled_in: Mapping[str, str] = field(repr=False)
    """By name, the values of `${X}` in the catalog's writes. Some are secrets."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that no error message may contain."""
        return (*self.filled_in.values(), *(person.password.reveal() for person in self.people.values()))


def _read_inputs(settings: Settings, environment: Mapping[str, str] | None, people: Mapping[str, PersonSeed] | None) -> _Inputs:
    env = os.environ if environment is None else environment
    folder, tiers, triggers = settings.config, Tiers(tiers={}), Triggers()
    raw = read_catalog(_read_file(folder / CATALOG_FILE, "set JUSTENOUGH_CONFIG to the configuration's folder"))
    reject_unqualified_calls(raw)
    catalog = with_settings(raw, env)
    if catalog.has_locks:
        tiers = read_tiers(_read_file(folder / APPROVALS_FILE, "it defines who can authorize the catalog's control groups"))
        if problems := tuple(control_group_problems(catalog, tiers)):
            raise InvalidInput(CATALOG_FILE, problems)
    if (folder / TRIGGERS_FILE).exists():
        triggers = read_triggers(_read_file(folder / TRIGGERS_FILE, "it lists the secrets that the console may read"))
    filled_in = {name: env[name] for name in SETTING_PLACEHOLDER.findall(str([*raw.iter_writes()])) if name in env}
    return _Inputs(catalog, tiers, triggers, people or {}, people is not None, env, filled_in)


def _password_variables(write: VaultWrite) -> dict[str, str]:
    """Return the environment variables that are whole passwords of a write, by its fields."""
    found = {key: SETTING_PLACEHOLDER.fullmatch(str(write.data.get(key, ""))) for key in PASSWORD_KEYS}
    return {key: match[1] for key, match in found.items() if match}


def _without_kept_passwords(vault: AdminClient, inputs: _Inputs) -> Catalog:
    """Return the catalog without the passwords that the environment lacks and Vault has: a write without its password keeps Vault's."""

    def has_passwords(write: VaultWrite, keys: set[str]) -> bool:
        if write.unless:
            return bool(vault.list(write.unless))
        current = [vault.read(fill_scope(write.path, scope)) for scope in inputs.catalog.scopes_with(write.per_scope)]
        # What shows its password, such as kv, would lose it.
        return all(data is not None and keys.isdisjoint(data) for data in current)

    kept = [
        write.model_copy(update={"data": {key: value for key, value in write.data.items() if key not in absent}})
        if (absent := {key for key, name in _password_variables(write).items() if name not in inputs.env}) and has_passwords(write, absent)
        else write
        for write in inputs.catalog.provision
    ]
    return inputs.catalog.model_copy(update={"provision": tuple(kept)})


def _apply_steps(vault: AdminClient, settings: Settings, inputs: _Inputs) -> Iterator[AppliedWrite]:
    catalog, tiers, people = inputs.catalog, inputs.tiers, inputs.people
    writes = provision_writes(catalog, inputs.env)
    require_namespace(vault)
    _refuse_other_installation(vault, settings.installation)
    if catalog.has_locks:
        require_control_groups(vault)
    yield ensure_mounted(vault, "sys/mounts/transit", {"type": "transit"})
    yield from provision_approle_mount(vault)
    yield ensure_token_lifetime(vault)
    for key, kind in TRANSIT_KEYS.items():
        yield vault.ensure(f"transit/keys/{key}", kind)
    yield from apply_catalog_writes(vault, writes)
    for problem in search_problems(catalog, vault.read):
        yield AppliedWrite(
            problem.path, WriteOutcome.MISSING if problem.is_missing else WriteOutcome.KEPT, f"{problem.why}. {problem.remedy}"
        )
    yield from _write_grant_policies(vault, catalog, tiers, provisioned={write.path for write in writes})
    yield vault.ensure("sys/policies/acl/je-person", {"policy": person_policy()})
    yield from provision_scope_identities(vault, catalog)
    passwords = {name: seed.password for name, seed in people.items()}
    yield from provision_people_logins(vault, settings.people_mounts, passwords)
    yield from provision_groups(vault, {name: seed.groups for name, seed in people.items()})
    yield from provision_page_logins(vault, settings, passwords)
    yield from provision_identity_tokens(vault, settings, embedded=inputs.is_embedded)
    yield from provision_worker(vault, settings, catalog)
    yield from provision_console(vault, settings, inputs.triggers)


def _read_file(path: Path, purpose: str) -> bytes:
    try:
        content = read_regular_file(path, max_bytes=MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidInput(path.name, (Problem("", f"{path} cannot be read: {error.strerror}; {purpose}"),)) from error
    raise_problems(path.name, (Problem("", f"{path} has more than {MAX_FILE_BYTES:,} bytes"),) if len(content) > MAX_FILE_BYTES else ())
    return content


def require_control_groups(vault: AdminClient) -> None:
    """Raise SetupFailed if this Vault has no control groups: it would issue locked credentials without an approver's authorization."""
    if not vault.has_path(CONTROL_GROUP_PATH, {"accessor": "none"}):
        raise SetupFailed(
            CONTROL_GROUP_PATH, why="the catalog requires control groups, and this Vault has no control groups", remedy=CONTROL_GROUP_REMEDY
        )


def refuse_leftover_policy(vault: AdminClient, policy: str, catalog: Catalog) -> None:
    """Raise SetupFailed if a grant policy that no action uses any more allows a locked path: a worker may use every grant policy."""
    path = f"sys/policies/acl/{policy}"
    text = str((vault.read(path) or {}).get("policy", ""))
    for definition in (action for _, action in catalog.iter_actions() if action.locked):
        stem = definition.issue.path.partition("{")[0]
        if stem in text or any(issue_path in text for issue_path in issue_paths(catalog, definition)):
            why = f"no action of the catalog uses this policy, but it allows {definition.issue.path}, which requires a control group"
            raise SetupFailed(path, why=why, remedy=f"Delete it: bao policy delete {policy}")


def _refuse_shared_changes(planned: tuple[PlannedWrite, ...]) -> None:
    """Raise GiveUp if any of these writes changes something that everybody in the Vault shares."""
    shared = [step for step in planned if step.path in SHARED_PATHS and step.outcome in {WriteOutcome.CREATED, WriteOutcome.CHANGED}]
    if shared:
        changes = "; ".join(f"{step.path} ({SHARED_PATHS[step.path]}: {', '.join(step.lines)})" for step in shared)
        message = (
            f"this would change what everybody in this Vault shares: {changes}. Nothing was written; if you agree, add --change-shared"
        )
        raise GiveUp(message)


def _refuse_other_installation(vault: AdminClient, installation: str) -> None:
    """Raise SetupFailed if this Vault belongs to another installation: each would overwrite the other's policy `je-worker`."""
    path = "sys/policies/acl/je-worker"
    match = re.search(INSTALLATION_IN_POLICY, str((vault.read(path) or {}).get("policy", "")))
    if match and match[1] != installation:
        remedy = f"Set JUSTENOUGH_INSTALLATION={match[1]}, or use a separate namespace for this installation (VAULT_NAMESPACE)."
        raise SetupFailed(path, why=f"this Vault is set up for installation {match[1]!r}, not {installation!r}", remedy=remedy)


def _write_grant_policies(vault: AdminClient, catalog: Catalog, tiers: Tiers, *, provisioned: set[str]) -> Iterator[AppliedWrite]:
    """Write the policy of each action that the catalog's `provision` does not write itself; report grant policies that no action uses."""
    definitions = [action for _, action in catalog.iter_actions()]
    for definition in definitions:
        path = f"sys/policies/acl/{definition.policy}"
        if path not in provisioned:
            yield vault.ensure(path, {"policy": grant_policy(definition, control_group_of(definition, tiers))})
    known = {definition.policy for definition in definitions}
    for name in vault.list("sys/policies/acl"):
        if name.startswith("je-grant-") and name not in known:
            refuse_leftover_policy(vault, name, catalog)
            note = "no action of the catalog uses it; delete it if no other configuration does"
            yield AppliedWrite(f"sys/policies/acl/{name}", WriteOutcome.KEPT, note)
