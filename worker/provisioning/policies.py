"""The texts of our Vault policies: grants, people, worker, console. Pure. Tests check on a real server what each policy refuses.

The policies rely on three properties of Vault (observed on OpenBao 2.7):
- Values in `allowed_parameters` are globs, and list fields split on commas; a nested list is compared as a whole.
- Body fields override the path in `sys/leases/revoke/<lease>`: without `allowed_parameters`, a capability by path limits nothing.
- A parameter that is not in `allowed_parameters` is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from justenough.domain.catalog.control_groups import ControlGroupRule
from justenough.domain.catalog.loader import alias_of, issue_paths, searched_role_paths, target_paths
from justenough.domain.catalog.models import ActionDef, Catalog
from justenough.domain.core.ids import INSTALLATION
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER
from justenough.domain.core.vault_names import (
    HARD_ENDS,
    IDENTITY_KEY,
    IDENTITY_ROLE,
    JOB_ROLE_PREFIX,
    LEDGER_KEY,
    PAGE_SESSION_KEY,
    PAYLOAD_KEY,
    signing_key,
)
from justenough.domain.jobs.states import Revocable

SELF_RIGHTS = ("auth/token/lookup-self", "read"), ("auth/token/renew-self", "update"), ("auth/token/revoke-self", "update")
OWN_SIGNING_KEY = signing_key("{{identity.entity.id}}")
"""Of whoever has the policy: Vault fills in the entity id."""
PEOPLE_RIGHTS = ("identity/entity/id/+", "read"), ("identity/group/id/+", "read"), (f"transit/keys/{signing_key('*')}", "read")
INSTALLATION_IN_POLICY = rf'"auth/token/roles/{JOB_ROLE_PREFIX}j-({INSTALLATION})-\*"'
LEASES_IN_POLICY = r'"sys/leases/revoke/((?!auth/token/)[^"]+)/\*"'
"""Matches, in a worker's policy, each path whose leases it may revoke."""


def grant_policy(definition: ActionDef, lock: ControlGroupRule | None = None) -> str:
    """Return the policy of one action: only its issue path, in the data scope of the token's identity. A lock requires authorization first."""
    issue = definition.issue
    path = SCOPE_PLACEHOLDER.sub(lambda match: f"{{{{identity.entity.metadata.{match[1]}}}}}", issue.path)
    if issue.method == "read":
        return _rule(path, "read", lock=lock)
    # Vault fills no templates in values, so the policy cannot fix a value with a placeholder. It fixes every other value.
    fixed = {key: [] if isinstance(value, str) and SCOPE_PLACEHOLDER.search(value) else [value] for key, value in issue.data.items()}
    return _rule(path, "create", "update", allowed=fixed, required=tuple(fixed), bare=not fixed, lock=lock)


def person_policy() -> str:
    """Return the policy of people: create and use their own signing key, and get identity tokens for the console."""
    return "".join(
        (
            _rule(f"transit/keys/{OWN_SIGNING_KEY}", "create", "update", allowed={"type": ["ed25519"]}, required=("type",)),
            _rule(f"transit/sign/{OWN_SIGNING_KEY}", "update"),
            _rule(f"identity/oidc/token/{IDENTITY_ROLE}", "read"),
            # The lock names the groups whose authorization counts. Anyone else's authorization has no effect (observed).
            _rule("sys/control-group/authorize", "update", allowed={"accessor": []}, required=("accessor",)),
            *(_rule(path, right) for path, right in SELF_RIGHTS),
        )
    )


def console_policy(secrets: Iterable[str] = (), *, store_credentials: str | None = None) -> str:
    """Return the policy of the console: read people (also by login name), groups and their members, people's public keys and the keys that verify jobs.

    It reads the secrets that triggers.yaml names (signing secrets, notification URLs), at exactly these paths. With its own key it signs
    the orders of triggers and schedules, with the ledger's key the ledger's checkpoints and attestations. It wraps the data keys of
    Temporal payloads. It stores the tokens of page logins encrypted, and needs the browser's secret to decrypt them. It issues nothing,
    except its own credentials for the store.
    """
    keys = (f"transit/keys/{IDENTITY_KEY}", "read"), (f"transit/keys/{LEDGER_KEY}", "read"), ("transit/keys", "list")
    # A group's members: pages name who else can decide a request.
    lookups = ("identity/lookup/entity", "update"), ("identity/group/name/+", "read"), *keys
    rules = [_rule(path, capability) for path, capability in (*PEOPLE_RIGHTS, *lookups, *SELF_RIGHTS)]
    rules.append(_rule(f"transit/sign/{OWN_SIGNING_KEY}", "update", allowed={"input": []}, required=("input",)))
    rules.append(_rule(f"transit/sign/{LEDGER_KEY}", "update", allowed={"input": []}, required=("input",)))
    # For locks, the console reads who authorized. It can never authorize by itself.
    rules.append(_rule("sys/control-group/request", "update", allowed={"accessor": []}, required=("accessor",)))
    for operation, text in (("encrypt", "plaintext"), ("decrypt", "ciphertext")):
        # Data keys of Temporal payloads. Without `associated_data` the same key decrypts no lock's wrapping token, which only workers may have.
        rules.append(_rule(f"transit/{operation}/{PAYLOAD_KEY}", "update", allowed={text: []}, required=(text,)))
        # Do not allow `type` and similar parameters: a request must not create a missing key, least of all one without derivation.
        path = f"transit/{operation}/{PAGE_SESSION_KEY}"
        rules.append(_rule(path, "update", allowed={text: [], "context": []}, required=(text, "context")))
    own = (store_credentials,) if store_credentials else ()
    return "".join((*rules, *(_rule(path, "read") for path in (*secrets, *own))))


def admin_policy(capabilities: Mapping[str, Iterable[str]]) -> str:
    """Return the policy of an administrator who sets Vault up and does nothing else, from the capabilities by path."""
    return "".join(_rule(path, *capabilities[path]) for path in sorted(capabilities))


def worker_policy(
    catalog: Catalog,
    installation: str,
    *,
    cidrs: tuple[str, ...] = (),
    store_credentials: str | None = None,
    former_paths: Iterable[str] = (),
) -> str:
    """Return the policy of the worker: open and close its own installation's jobs, issue within grants, sign job identities, read people.

    With `cidrs`, no token that it creates works from any other address. `former_paths`: where leases may be left that it must revoke, although
    the catalog no longer names these paths.
    """
    paths = sorted({*lease_paths(catalog), *former_paths})
    leases = [f"{path}/*" for path in paths]
    rules = [*_job_rules(catalog, installation, cidrs)]
    rules += [_rule(f"sys/leases/revoke/{path}/*", "update", allowed={"sync": []}) for path in paths]
    rules.append(_rule("sys/leases/lookup", "update", allowed={"lease_id": leases}, required=("lease_id",)))
    rules.append(_rule("sys/leases/renew", "update", allowed={"lease_id": leases, "increment": []}, required=("lease_id",)))
    rules += [_rule(path, "read") for path in target_paths(catalog)]
    if store_credentials:
        rules.append(_rule(store_credentials, "read"))
    # What decides how users are named. Vault shows no password here.
    rules += [_rule(path, "read") for path in searched_role_paths(catalog)]
    # For locks: read who authorized. The worker can never authorize.
    rules.append(_rule("sys/control-group/request", "update", allowed={"accessor": []}, required=("accessor",)))
    # For the wrapping tokens of locks, and the data keys of Temporal payloads.
    rules += [_rule(f"transit/{operation}/{PAYLOAD_KEY}", "update") for operation in ("encrypt", "decrypt")]
    # The worker can revoke a token that it has, but not one of which it only knows the accessor.
    rules.append(_rule("auth/token/revoke", "update", allowed={"token": []}, required=("token",)))
    rules.append(_rule(f"transit/sign/{IDENTITY_KEY}", "update", allowed={"input": []}, required=("input",)))
    return "".join((*rules, *(_rule(path, capability) for path, capability in (*PEOPLE_RIGHTS, *SELF_RIGHTS))))


def lease_paths(catalog: Catalog) -> tuple[str, ...]:
    """Return every path of the catalog that can issue leases, expanded for each provisioned scope."""
    leased = [definition for _, definition in catalog.iter_actions() if definition.revocable is not Revocable.NEVER]
    return tuple(sorted({*target_paths(catalog), *(path for definition in leased for path in issue_paths(catalog, definition))}))


def _job_rules(catalog: Catalog, installation: str, cidrs: tuple[str, ...]) -> Iterable[str]:
    jobs = f"{JOB_ROLE_PREFIX}j-{installation}-*"
    role: dict[str, list[Any]] = {
        "allowed_policies_glob": [["je-grant-*"]],
        "allowed_entity_aliases": [["je-scope-*"]],
        "orphan": [True],
        "token_no_default_policy": [True],
        "token_type": ["service"],
        "token_explicit_max_ttl": list(HARD_ENDS),
    }
    if cidrs:
        role["token_bound_cidrs"] = [list(cidrs)]
    token: dict[str, list[Any]] = {"policies": [], "ttl": [], "display_name": [f"j-{installation}-*"], "renewable": [False]}
    if catalog.scopes:
        # No glob here: Vault would create an alias that does not exist, and keep it.
        token["entity_alias"] = [alias_of(scope) for scope in catalog.scopes]
    required = tuple(name for name in role if name != "allowed_entity_aliases")
    yield _rule(f"auth/token/roles/{jobs}", "create", "update", "delete", allowed=role, required=required)
    yield _rule("auth/token/roles", "list")
    yield _rule(f"auth/token/create/{jobs}", "create", "update", allowed=token, required=("policies", "ttl", "display_name"))
    yield _rule("auth/token/lookup-accessor", "update")
    yield _rule("sys/leases/lookup/auth/token/create/", "list", "sudo")
    yield _rule(f"sys/leases/lookup/auth/token/create/{jobs}", "list", "sudo")
    for call in ("revoke", "revoke-prefix"):
        capabilities = ("update", "sudo") if call == "revoke-prefix" else ("update",)
        yield _rule(f"sys/leases/{call}/auth/token/create/{jobs}", *capabilities, allowed={"sync": []})


def _rule(
    path: str,
    *capabilities: str,
    allowed: Mapping[str, list[Any]] | None = None,
    required: tuple[str, ...] = (),
    bare: bool = False,
    lock: ControlGroupRule | None = None,
) -> str:
    """Return the text of one rule. `bare` refuses every parameter; with a `lock`, every request needs the approvers' authorization."""
    lines = [f"  capabilities = {json.dumps(list(capabilities))}"]
    if allowed:
        lines += [
            "  allowed_parameters = {",
            *(f"    {json.dumps(name)} = {json.dumps(values)}" for name, values in allowed.items()),
            "  }",
        ]
    if bare:
        lines.append('  denied_parameters = { "*" = [] }')
    if required:
        lines.append(f"  required_parameters = {json.dumps(list(required))}")
    if lock:
        lines += [
            "  control_group = {",
            f'    ttl = "{lock.ttl}s"',
            '    factor "approvers" {',
            f"      controlled_capabilities = {json.dumps(list(capabilities))}",
            "      identity {",
            f"        group_names = {json.dumps(list(lock.groups))}",
            f"        approvals = {lock.approvals}",
            "      }",
            "    }",
            "  }",
        ]
    return "\n".join((f"path {json.dumps(path)} {{", *lines, "}\n"))
