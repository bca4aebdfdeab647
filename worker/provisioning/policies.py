"""The texts of our Vault policies: grants, people, worker, console. Pure. What each refuses is tested by trying, on a real server.

Three properties of Vault that these lean on (seen, on OpenBao 2.7):
- Values in `allowed_parameters` are globs and list fields split on commas; a nested list is compared whole.
- Body fields win over the path's in `sys/leases/revoke/<lease>`: without `allowed_parameters`, a right by path is no limit.
- A parameter that is not listed in `allowed_parameters` is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from justenough.domain.catalog.control_groups import ControlGroupRule
from justenough.domain.catalog.loader import alias_of, issue_paths, target_paths
from justenough.domain.catalog.models import ActionDef, Catalog
from justenough.domain.core.ids import INSTALLATION
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER
from justenough.domain.core.vault_names import HARD_ENDS, JOB_ROLE_PREFIX, PAGE_SESSION_KEY, PAYLOAD_KEY
from justenough.domain.integrations.job_identity import JOBS_KEY as IDENTITY_KEY
from justenough.domain.jobs.states import Revocable

SELF_RIGHTS = ("auth/token/lookup-self", "read"), ("auth/token/renew-self", "update"), ("auth/token/revoke-self", "update")
PEOPLE_RIGHTS = ("identity/entity/id/+", "read"), ("identity/group/id/+", "read"), ("transit/keys/je-sign-*", "read")
INSTALLATION_IN_POLICY = rf'"auth/token/roles/{JOB_ROLE_PREFIX}j-({INSTALLATION})-\*"'


def grant_policy(definition: ActionDef, lock: ControlGroupRule | None = None) -> str:
    """What a token for one action may do: exactly its issue, in the data scope of the identity that it is tied to; a lock asks people first."""
    issue = definition.issue
    path = SCOPE_PLACEHOLDER.sub(lambda found: f"{{{{identity.entity.metadata.{found[1]}}}}}", issue.path)
    if issue.method == "read":
        return _rule(path, "read", lock=lock)
    # Vault does not fill templates in values, so a value with a placeholder cannot be held here; everything else can.
    fixed = {key: [] if isinstance(value, str) and SCOPE_PLACEHOLDER.search(value) else [value] for key, value in issue.data.items()}
    return _rule(path, "create", "update", allowed=fixed, required=tuple(fixed), bare=not fixed, lock=lock)


def person_policy() -> str:
    """What people may do: make and use the one signing key that is theirs, and draw identity tokens for the console."""
    own = "je-sign-{{identity.entity.id}}"
    return "".join(
        (
            _rule(f"transit/keys/{own}", "create", "update", allowed={"type": ["ed25519"]}, required=("type",)),
            _rule(f"transit/sign/{own}", "update"),
            _rule("identity/oidc/token/je-console", "read"),
            # Whose authorization counts is said by the lock: its groups. Anybody else's changes nothing (seen).
            _rule("sys/control-group/authorize", "update", allowed={"accessor": []}, required=("accessor",)),
            *(_rule(path, right) for path, right in SELF_RIGHTS),
        )
    )


def console_policy(secrets: Iterable[str] = ()) -> str:
    """What the console may do: read people, by their login too, groups, their public keys, and those that verify jobs. It issues nothing.

        It reads the secrets that triggers.yaml names (signing secrets, notifications' URLs), at exactly these paths, and signs with the one key that is its own:
    the orders of triggers and schedules. What it keeps of people's logins to its pages, it keeps as ciphertext that it opens only with what their browsers bring.
    """
    own = ("identity/lookup/entity", "update"), (f"transit/keys/{IDENTITY_KEY}", "read")
    signed = _rule("transit/sign/je-sign-{{identity.entity.id}}", "update", allowed={"input": []}, required=("input",))
    kept = (_page_token_rule("encrypt", "plaintext"), _page_token_rule("decrypt", "ciphertext"))
    plain = (_rule(path, right) for path, right in (*PEOPLE_RIGHTS, *own, *SELF_RIGHTS))
    return "".join((*plain, signed, *kept, *(_rule(path, "read") for path in secrets)))


def worker_policy(catalog: Catalog, installation: str, *, cidrs: tuple[str, ...] = ()) -> str:
    """What the worker may do: open and close prefixes of its own installation's jobs, issue what the grants allow, vouch for jobs, see people.

    Where `cidrs` are given, no token that it makes works from anywhere else.
    """
    return "".join(
        (
            *_job_rules(catalog, installation, cidrs),
            *_lease_rules(catalog),
            *_lock_rules(),
            _rule(f"transit/sign/{IDENTITY_KEY}", "update", allowed={"input": []}, required=("input",)),
            *(_rule(path, right) for path, right in (*PEOPLE_RIGHTS, *SELF_RIGHTS)),
        )
    )


def lease_paths(catalog: Catalog) -> tuple[str, ...]:
    """Return every path of the catalog from which leases can come, written out for each provisioned scope."""
    definitions = [action for resource in catalog.resources.values() for action in resource.actions.values()]
    leased = [definition for definition in definitions if definition.revocable is not Revocable.NEVER]
    return tuple(sorted({*target_paths(catalog), *(path for definition in leased for path in issue_paths(catalog, definition))}))


def _page_token_rule(way: str, what: str) -> str:
    # Without `type` and its like: a key that is missing must not be made by the way, and not without derivation.
    return _rule(f"transit/{way}/{PAGE_SESSION_KEY}", "update", allowed={what: [], "context": []}, required=(what, "context"))


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
        # One by one: an alias that does not exist would be made, and stay.
        token["entity_alias"] = [alias_of(scope) for scope in catalog.scopes]
    required = tuple(name for name in role if name != "allowed_entity_aliases")
    yield _rule(f"auth/token/roles/{jobs}", "create", "update", "delete", allowed=role, required=required)
    yield _rule("auth/token/roles", "list")
    yield _rule(f"auth/token/create/{jobs}", "create", "update", allowed=token, required=("policies", "ttl", "display_name"))
    yield _rule("auth/token/lookup-accessor", "update")
    yield _rule("sys/leases/lookup/auth/token/create/", "list", "sudo")
    yield _rule(f"sys/leases/lookup/auth/token/create/{jobs}", "list", "sudo")
    for call in ("revoke", "revoke-prefix"):
        rights = ("update", "sudo") if call == "revoke-prefix" else ("update",)
        yield _rule(f"sys/leases/{call}/auth/token/create/{jobs}", *rights, allowed={"sync": []})


def _lease_rules(catalog: Catalog) -> Iterable[str]:
    paths = lease_paths(catalog)
    for path in paths:
        yield _rule(f"sys/leases/revoke/{path}/*", "update", allowed={"sync": []})
    leases = [f"{path}/*" for path in paths]
    yield _rule("sys/leases/lookup", "update", allowed={"lease_id": leases}, required=("lease_id",))
    yield _rule("sys/leases/renew", "update", allowed={"lease_id": leases, "increment": []}, required=("lease_id",))
    for path in target_paths(catalog):
        yield _rule(path, "read")


def _lock_rules() -> Iterable[str]:
    """What locks need: to see who authorized, to keep what opens one as ciphertext, to end it. Authorizing is nothing that a worker may."""
    yield _rule("sys/control-group/request", "update", allowed={"accessor": []}, required=("accessor",))
    for way in ("encrypt", "decrypt"):
        yield _rule(f"transit/{way}/{PAYLOAD_KEY}", "update")
    # Ends what a worker has in its hands, and nothing that it only knows of.
    yield _rule("auth/token/revoke", "update", allowed={"token": []}, required=("token",))


def _rule(
    path: str,
    *capabilities: str,
    allowed: Mapping[str, list[Any]] | None = None,
    required: tuple[str, ...] = (),
    bare: bool = False,
    lock: ControlGroupRule | None = None,
) -> str:
    """Write one rule; `bare` refuses every parameter, a `lock` has people asked whatever is done there."""
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
        lines += _control_group_lines(lock, capabilities)
    return "\n".join((f"path {json.dumps(path)} {{", *lines, "}\n"))


def _control_group_lines(lock: ControlGroupRule, capabilities: tuple[str, ...]) -> Iterable[str]:
    yield "  control_group = {"
    yield f'    ttl = "{lock.ttl}s"'
    yield '    factor "approvers" {'
    yield f"      controlled_capabilities = {json.dumps(list(capabilities))}"
    yield "      identity {"
    yield f"        group_names = {json.dumps(list(lock.groups))}"
    yield f"        approvals = {lock.approvals}"
    yield "      }"
    yield "    }"
    yield "  }"
