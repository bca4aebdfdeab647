"""Parses and validates catalog.yaml, validates specs against it, and fills in its placeholders. No I/O, no Vault.

Fields: docs/reference/catalog.md. Placeholders are filled in at two times: `${SHOP_HOST}` once, from the settings (`with_settings`,
`provision_writes`), and `{tenant}` per request, from the job's data scope; `{job}` and `{ttl}` in issue.data at each issue (`resolve_issue`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from pydantic import ValidationError

from justenough.domain.catalog.gateway_validation import (
    model_access,
    model_problems,
    model_use_problems,
    tool_problems,
    why_for_gateways_only,
)
from justenough.domain.catalog.inheritance import drop_inherited_problems, fill_in_defaults
from justenough.domain.catalog.models import ActionDef, Catalog, ResolvedIssue, VaultWrite, why_reserved
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.placeholders import (
    ISSUE_TIME_PLACEHOLDERS,
    SCOPE_PLACEHOLDER,
    did_you_mean,
    fill_scope,
    fill_settings,
    map_texts,
)
from justenough.domain.core.units import duration_text
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.core.vault_names import DATABASE_CREDS_PATH
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.jobs.states import Revocable

CATALOG_FILE = "catalog.yaml"
STORING_ENGINES = frozenset({"kv", "generic", "cubbyhole"})
"""Types of secrets engines that return what somebody stored. It stays valid until they change it."""
LEASELESS_ENGINES = STORING_ENGINES | {"transit", "totp"}
"""Types of secrets engines that never give a lease. Other engines may give none at some paths; the issue is then refused."""
STATIC_CREDS_PATH = re.compile(r"/static-creds?/")
"""Paths at which the database and LDAP engines return a password that they rotate, without a lease."""
PLACEHOLDER_SPEC: dict[str, Any] = {"name": "draft", "task": "-", "environment": "-", "run": {"command": ["true"]}}
PLACEHOLDER_ACCESS: dict[str, Any] = {"resource": "-", "action": "read", "ttl": 1, "reason": "-"}
"""Replacements for the parts of a draft that cannot be parsed; problems of these parts are not reported."""


def read_catalog(text: str | bytes) -> Catalog:
    """Parse and check catalog.yaml; its settings are not filled in yet. Raises InvalidInput with every problem by YAML path."""
    raw = read_yaml(CATALOG_FILE, text)
    if not isinstance(raw, dict):
        raise InvalidInput(CATALOG_FILE, (Problem("", "must be a mapping with `resources`"),))
    catalog = _validate_catalog(fill_in_defaults(raw))
    problems = (
        *_scope_problems(catalog),
        *_action_problems(catalog),
        *_write_problems(catalog),
        *_issue_path_problems(catalog),
        *model_problems(catalog),
        *tool_problems(catalog),
    )
    raise_problems(CATALOG_FILE, problems)
    return catalog


def with_settings(catalog: Catalog, env: Mapping[str, str]) -> Catalog:
    """Return the catalog with each `${X}` of its resources filled in; raise InvalidInput naming each missing X.

    What is written into Vault stays unfilled: only `vault setup` has its secrets.
    """
    kept = {"defaults": catalog.defaults, "provision": catalog.provision, "texts": catalog.texts}
    raw = catalog.model_dump(mode="json", exclude={*kept}, by_alias=True)
    roles = [action.pop("role") for action in _raw_actions(raw)]
    filled = fill_settings(raw, env, what=CATALOG_FILE)
    for action, role in zip(_raw_actions(filled), roles, strict=True):
        action["role"] = role
    complete = _validate_catalog(filled).model_copy(update=kept)
    # Check paths last: two may be the same, or one be reserved, only once the values are filled in.
    raise_problems(CATALOG_FILE, _issue_path_problems(complete))
    return complete


def _raw_actions(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [action for resource in raw["resources"].values() for action in resource["actions"].values()]


def provision_writes(catalog: Catalog, env: Mapping[str, str]) -> tuple[VaultWrite, ...]:
    """Return the provisioning writes, expanded by `per_scope`, with settings filled in; raise InvalidInput for missing settings."""
    values = {**env, **catalog.texts, "random": "${random}"}
    writes = dict(catalog.iter_writes())
    filled = fill_settings({where: write.model_dump(mode="json")["data"] for where, write in writes.items()}, values, what=CATALOG_FILE)
    return tuple(
        write.model_copy(
            update={
                "path": fill_scope(write.path, scope),
                "data": map_texts(filled[where], partial(fill_scope, scope=scope)),
                "per_scope": (),
            }
        )
        for where, write in writes.items()
        for scope in catalog.scopes_with(write.per_scope)
    )


def resolve_issue(action_def: ActionDef, data_scope: Mapping[str, str], *, issue_values: Mapping[str, str] | None = None) -> ResolvedIssue:
    """Return the call to Vault for a job with this data scope; raise InvalidInput if a key is missing.

    `issue_values`: the ISSUE_TIME_PLACEHOLDERS' values, which only the session knows. Without these values the placeholders stay, in the
    form that approvers sign.
    """
    _require_scope(action_def, data_scope)
    issue = action_def.issue
    # A job's data scope may have keys of the same names; they must not replace the session's values.
    values = {key: value for key, value in data_scope.items() if key not in ISSUE_TIME_PLACEHOLDERS} | dict(issue_values or {})
    data = {key: fill_scope(value, values) if isinstance(value, str) else value for key, value in issue.data.items()}
    return ResolvedIssue(path=fill_scope(issue.path, data_scope), method=issue.method, data=data)


def scope_alias(action_def: ActionDef, data_scope: Mapping[str, str]) -> str | None:
    """Return the Vault identity alias that an action's token is tied to; None for an action without data scope."""
    _require_scope(action_def, data_scope)
    return alias_of({key: data_scope[key] for key in action_def.data_scope}) if action_def.data_scope else None


def alias_of(scope: Mapping[str, str]) -> str:
    """Return the name of a data scope's identity in Vault, built from its sorted keys and their values: `je-scope-tenant-acme`."""
    return "je-scope-" + "-".join(f"{key}-{scope[key]}" for key in sorted(scope))


def problems_in_spec(spec: JobSpec, catalog: Catalog) -> tuple[Problem, ...]:
    """Return every problem of a spec that involves the catalog, by YAML path."""
    problems = [problem for index, item in enumerate(spec.access) for problem in _access_problems(spec, catalog, index, item)]
    problems += _model_problems(spec, catalog)
    return tuple(dict.fromkeys(problems))


def problems_in_draft(raw: object, catalog: Catalog) -> tuple[Problem, ...]:
    """Return the problems of an invalid spec's valid parts that involve the catalog, so that all problems are reported at once."""
    if not isinstance(raw, dict):
        return ()
    valid = _valid_parts(JobSpec, PLACEHOLDER_SPEC, raw, ("environment", "data_scope", "model"))
    checked = set(valid) | ({"data_scope"} - set(raw))
    spec = JobSpec.model_validate({**PLACEHOLDER_SPEC, **valid})
    items = raw.get("access")
    problems = [
        problem
        for index, item in enumerate(items if isinstance(items, list) else ())
        for problem in _draft_problems(spec, catalog, index, item, checked)
    ]
    problems += [problem for problem in _model_problems(spec, catalog) if problem.path.partition(".")[0] in checked]
    return tuple(dict.fromkeys(problems))


def _draft_problems(spec: JobSpec, catalog: Catalog, index: int, item: object, checked: set[str]) -> Iterator[Problem]:
    """Yield the problems of one access item, of which only some parts may be valid. `checked`: the valid parts of the spec."""
    valid = _valid_parts(Access, PLACEHOLDER_ACCESS, item if isinstance(item, dict) else {}, ("resource", "action", "ttl"))
    if "resource" not in valid:
        return
    # Without a valid action, the maximum ttl and the required data scope are unknown.
    known = set(valid) if "action" in valid else {"resource"}
    reported = {f"access[{index}].{name}" for name in known} | (checked if "action" in valid else checked - {"data_scope"})
    for problem in _access_problems(spec, catalog, index, Access.model_validate({**PLACEHOLDER_ACCESS, **valid})):
        if problem.path in reported or problem.path.partition(".")[0] in reported:
            yield problem


def _valid_parts(model: type[JobSpec | Access], placeholder: dict[str, Any], raw: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the parts of a mapping that are valid by themselves in a model."""
    valid = {}
    for name in names:
        with suppress(KeyError, ValidationError):
            model.model_validate({**placeholder, name: raw[name]})
            valid[name] = raw[name]
    return valid


def _access_problems(spec: JobSpec, catalog: Catalog, index: int, item: Access) -> Iterator[Problem]:
    where, resource, action_def = f"access[{index}]", catalog.resources.get(item.resource), catalog.action(item.resource, item.action)
    if resource is not None and spec.environment != resource.environment:
        yield Problem("environment", f"{item.resource} is in environment {resource.environment!r}, not in {spec.environment!r}")
    if action_def is None:
        yield from catalog.offer_problems(item.resource, (item.action,), where=where)
        return
    if item.at == "start" and item.tools is None and (why := why_for_gateways_only(item, catalog)):
        yield Problem(f"{where}.resource", f"{why}; use `model:` for a model, or `at: request` for a tool's access")
    if item.ttl > action_def.max_ttl:
        ttl, max_ttl = duration_text(item.ttl), duration_text(action_def.max_ttl)
        yield Problem(f"{where}.ttl", f"{ttl} is longer than {max_ttl}, the max_ttl of {item.resource} {item.action}")
    yield from _tool_problems(catalog, item, where)
    yield from _data_scope_problems(spec, catalog, action_def, f"{item.resource} {item.action}")


def _model_problems(spec: JobSpec, catalog: Catalog) -> Iterator[Problem]:
    yield from model_use_problems(spec, catalog)
    access = model_access(spec.model, catalog) if spec.model else None
    for problem in _access_problems(spec, catalog, 0, access) if access else ():
        # The catalog defines the access itself; a spec can only change its environment and its data scope.
        if not problem.path.startswith("access["):
            yield problem


def _tool_problems(catalog: Catalog, item: Access, where: str) -> Iterator[Problem]:
    fitting = {
        name: tool for name, tool in catalog.named_tools.items() if tool.uses.resource == item.resource and item.action in tool.uses.actions
    }
    blocked = "".join(f"; {why}" for name, why in catalog.upstreams.withheld.items() if catalog.tools[name].uses.resource == item.resource)
    for name, bounds in (item.tools or {}).items():
        if name not in fitting:
            why = f"no tool of this name uses {item.action} on {item.resource}{did_you_mean(name, fitting)}{blocked}"
            yield Problem(f"{where}.tools.{name}", why)
            continue
        for argument in sorted(bounds.arguments.keys() - fitting[name].inputs):
            hint = did_you_mean(argument, fitting[name].inputs)
            yield Problem(f"{where}.tools.{name}.arguments.{argument}", f"{name} has no such argument{hint}")
        required = fitting[name].schema_of_input.get("required", ())
        unbound = [argument for argument in required if argument not in bounds.arguments]
        if unbound and bounds.other_arguments == "none" and bounds.arguments.keys() <= fitting[name].inputs:
            why = f"{name} requires {', '.join(unbound)}, which the order does not bind; bind it, or write `other_arguments: any`"
            yield Problem(f"{where}.tools.{name}.other_arguments", why)


def _data_scope_problems(spec: JobSpec, catalog: Catalog, action_def: ActionDef, what: str) -> Iterator[Problem]:
    missing = [key for key in action_def.data_scope if key not in spec.data_scope]
    for key in missing:
        yield Problem(f"data_scope.{key}", f"required by {what}")
    if missing or not action_def.data_scope:
        return
    requested = {key: spec.data_scope[key] for key in action_def.data_scope}
    provisioned = catalog.scopes_with(requested)
    if requested not in [dict(scope) for scope in provisioned]:
        for key, value in requested.items():
            known = {scope[key] for scope in provisioned}
            if value not in known or len(requested) > 1:
                name, hint = alias_of(requested).removeprefix("je-scope-"), "" if value in known else did_you_mean(value, known)
                yield Problem(f"data_scope.{key}", f"no scope {name!r} is provisioned for {what}{hint}")


def _require_scope(action_def: ActionDef, data_scope: Mapping[str, str]) -> None:
    raise_problems("data scope", (Problem(f"data_scope.{key}", "required") for key in action_def.data_scope if key not in data_scope))


def _validate_catalog(raw: dict[str, Any]) -> Catalog:
    try:
        return validate_model(CATALOG_FILE, Catalog, raw, other_names={})
    except InvalidInput as error:
        raise InvalidInput(CATALOG_FILE, tuple(drop_inherited_problems(error.problems))) from error


def _scope_problems(catalog: Catalog) -> Iterator[Problem]:
    # Vault ignores case in identity names, and joined keys and values could coincide.
    seen: dict[str, int] = {}
    for index, scope in enumerate(catalog.scopes):
        alias = alias_of(scope).casefold()
        if alias in seen:
            yield Problem(f"scopes[{index}]", f"its identity {alias} is the same as that of scopes[{seen[alias]}]")
        seen.setdefault(alias, index)
        for key, value in scope.items():
            if not value.strip("."):
                yield Problem(f"scopes[{index}].{key}", f"{value!r} must not be only dots")


def _action_problems(catalog: Catalog) -> Iterator[Problem]:
    scoped = [(f"{where}.data_scope", definition.data_scope) for where, definition in catalog.iter_actions()]
    scoped += [(f"provision[{index}].per_scope", write.per_scope) for index, write in enumerate(catalog.provision)]
    for where, keys in scoped:
        if not catalog.scopes_with(keys):
            yield Problem(where, f"no entry of `scopes` has exactly the keys {', '.join(keys)}")
    policies: dict[str, str] = {}
    mounts = {write.path.removeprefix("sys/mounts/"): write.data.get("type") for write in catalog.provision}
    for where, definition in catalog.iter_actions():
        if (other := policies.setdefault(definition.policy, where)) != where:
            yield Problem(f"{where}.policy", f"{other} uses {definition.policy} too; each action needs its own policy")
        path = definition.issue.path
        engine = next((engine for mount, engine in mounts.items() if path.startswith(f"{mount}/")), None)
        if engine in STORING_ENGINES and definition.revocable is not Revocable.NEVER:
            yield Problem(f"{where}.revocable", f"what is stored at {path} stays valid until somebody changes it: use `never`")
        elif definition.revocable is Revocable.NOW and (STATIC_CREDS_PATH.search(path) or engine in LEASELESS_ENGINES):
            fix = "use `on_expiry` if it ends by itself, otherwise `never`"
            yield Problem(f"{where}.revocable", f"Vault gives no lease at {path}, so nothing can revoke what it issues there: {fix}")


def _write_problems(catalog: Catalog) -> Iterator[Problem]:
    paths: dict[str, str] = {}
    for where, write in catalog.iter_writes():
        if where.endswith(".role") and write.path in paths:
            yield Problem(where, f"{paths[write.path]} writes {write.path} too; keep one of them")
        paths.setdefault(write.path, where)
        if "${random}" in str(write.data) and not write.once:
            yield Problem(where, "${random} needs `once: true`, or each setup would change it")
    for index, write in enumerate(catalog.provision):
        unbound = sorted(set(SCOPE_PLACEHOLDER.findall(write.path)) - set(write.per_scope))
        if unbound:
            yield Problem(f"provision[{index}].path", f"{{{unbound[0]}}} is not in per_scope")


def _issue_path_problems(catalog: Catalog) -> Iterator[Problem]:
    """Yield each path, with its placeholders filled in, from which no action may issue. Also yield each way in which the catalog itself would
    bypass a lock: no other action may share a locked action's path and policy.
    """
    places: dict[str, set[str]] = {}
    for where, definition in catalog.iter_actions():
        for path in issue_paths(catalog, definition):
            places.setdefault(path, set()).add(where)
            if why := why_reserved(path):
                yield Problem(f"{where}.issue.path", f"{path}: {why}")
    written = {write.path for write in catalog.provision}
    for where, definition in catalog.iter_actions():
        if not definition.locked:
            continue
        others = {other for path in issue_paths(catalog, definition) for other in places[path]} - {where}
        if others:
            yield Problem(f"{where}.issue.path", f"{min(others)} issues from this path too; a locked action needs its own path")
        if set(issue_paths(catalog, definition)) & set(target_paths(catalog)):
            yield Problem(f"{where}.issue.path", "the worker uses this path to observe a target; a locked action needs its own path")
        if f"sys/policies/acl/{definition.policy}" in written:
            message = "a locked action needs the policy that `justenough vault setup` generates; remove this one from `provision`"
            yield Problem(f"{where}.policy", message)


def issue_paths(catalog: Catalog, definition: ActionDef) -> tuple[str, ...]:
    """Return the Vault paths that an action is issued from, one for each provisioned scope."""
    return tuple(fill_scope(definition.issue.path, scope) for scope in catalog.scopes_with(definition.data_scope))


def searched_role_paths(catalog: Catalog) -> tuple[str, ...]:
    """Return the paths of the database roles and connections that decide whether a search in a target can find a job's users."""
    paths = {path for _, definition in catalog.iter_actions() if definition.target for path in issue_paths(catalog, definition)}
    roles = {(match[1], match[2]) for path in paths if (match := DATABASE_CREDS_PATH.fullmatch(path))}
    return tuple(sorted({*(f"{mount}/roles/{role}" for mount, role in roles), *(f"{mount}/config/+" for mount, _ in roles)}))


def target_paths(catalog: Catalog) -> tuple[str, ...]:
    """Return the Vault paths that the worker itself reads, to observe targets and to end users there."""
    targets = [definition.target for _, definition in catalog.iter_actions() if definition.target]
    return tuple(sorted({path for target in targets for path in (target.observe, target.end)}))
