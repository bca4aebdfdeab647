"""The catalog: which resources there are, what may be asked of them, and how Vault issues it. Pure: no I/O, no Vault.

Fields: docs/reference/catalog.md. Two kinds of placeholders, filled at different times: `${SHOP_HOST}` once, from the settings
(`with_settings`, `provision_writes`), and `{tenant}` per request, from the job's data scope, with `{job}` and `{ttl}` in issue.data at each issue (`resolve_issue`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from justenough.domain.catalog.llm_validation import model_access, model_problems, model_use_problems, why_for_gateways_only
from justenough.domain.catalog.models import ActionDef, Catalog, Issue, ResolvedIssue, Resource, Review, Target, VaultWrite
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.placeholders import (
    ISSUE_TIME_PLACEHOLDERS,
    SCOPE_PLACEHOLDER,
    SETTING_PLACEHOLDER,
    did_you_mean,
    fill_scope,
    fill_settings,
    map_texts,
)
from justenough.domain.core.units import duration_text
from justenough.domain.core.untrusted_yaml import read_yaml, validate_model
from justenough.domain.jobs.spec import Access, JobSpec
from justenough.domain.llm.definition import GatewayUses, ModelDef
from justenough.domain.tools.definitions import TOOL_MODELS, ActionOffer, ActionOffers, tool_problems

__all__ = [
    "CATALOG_FILE",
    "SCOPE_PLACEHOLDER",
    "SETTING_PLACEHOLDER",
    "ActionDef",
    "Catalog",
    "ResolvedIssue",
    "Resource",
    "Target",
    "VaultWrite",
    "alias_of",
    "issue_paths",
    "problems_in_draft",
    "problems_in_spec",
    "provision_writes",
    "read_catalog",
    "resolve_issue",
    "scope_alias",
    "target_paths",
    "with_settings",
]  # fmt: skip

CATALOG_FILE = "catalog.yaml"
PLACEHOLDER_SPEC: dict[str, Any] = {"name": "draft", "task": "-", "environment": "-", "run": {"command": ["true"]}}
PLACEHOLDER_ACCESS: dict[str, Any] = {"resource": "-", "action": "read", "ttl": 1, "reason": "-"}
"""What stands in for the parts of a draft that cannot be read; nothing is said of these."""


def read_catalog(text: str | bytes) -> Catalog:
    """Return catalog.yaml checked, its settings not filled in yet; raise InvalidInput with every problem by YAML path."""
    raw = read_yaml(CATALOG_FILE, text)
    if not isinstance(raw, dict):
        raise InvalidInput(CATALOG_FILE, (Problem("", "must be a mapping with `resources`"),))
    catalog = _validate_catalog(_with_default_policies(raw))
    problems = (
        *_scope_problems(catalog),
        *_action_problems(catalog),
        *_write_problems(catalog),
        *model_problems(catalog),
        *tool_problems(catalog.tools, _build_offers(catalog)),
    )
    if problems:
        raise InvalidInput(CATALOG_FILE, problems)
    return catalog


def with_settings(catalog: Catalog, env: Mapping[str, str]) -> Catalog:
    """Return the catalog with each `${X}` of its resources filled in; raise InvalidInput naming each X that is missing.

    Its provisioning writes stay as they are: only `vault setup` has their secrets.
    """
    raw = catalog.model_dump(mode="json", exclude={"provision", "texts"}, by_alias=True)
    return _validate_catalog(fill_settings(raw, env, what=CATALOG_FILE)).model_copy(
        update={"provision": catalog.provision, "texts": catalog.texts}
    )


def provision_writes(catalog: Catalog, env: Mapping[str, str]) -> tuple[VaultWrite, ...]:
    """Return the provisioning writes, one per scope where they say so, settings filled in; raise InvalidInput for missing ones."""
    given = {**env, **catalog.texts, "random": "${random}"}
    writes = fill_settings([write.model_dump(mode="json") for write in catalog.provision], given, what=CATALOG_FILE, path="provision")
    return tuple(one for raw in writes for one in _expand_scopes(validate_model(CATALOG_FILE, VaultWrite, raw), catalog))


def resolve_issue(action_def: ActionDef, data_scope: Mapping[str, str], *, issue_values: Mapping[str, str] | None = None) -> ResolvedIssue:
    """Return what Vault is asked for a job with this data scope; raise InvalidInput where a key is missing.

    `issue_values`: what only its session knows (GIVEN); without, those placeholders stay, as in what approvers sign.
    """
    _require_scope(action_def, data_scope)
    # A job may name keys of its data scope as it likes; none of them stands in for these.
    issue, values = (
        action_def.issue,
        {key: value for key, value in data_scope.items() if key not in ISSUE_TIME_PLACEHOLDERS} | dict(issue_values or {}),
    )
    data = {key: fill_scope(value, values) if isinstance(value, str) else value for key, value in issue.data.items()}
    return ResolvedIssue(path=fill_scope(issue.path, data_scope), method=issue.method, data=data)


def scope_alias(action_def: ActionDef, data_scope: Mapping[str, str]) -> str | None:
    """Return the identity that an action's token is tied to, None for an action without data scope."""
    _require_scope(action_def, data_scope)
    return alias_of({key: data_scope[key] for key in action_def.data_scope}) if action_def.data_scope else None


def alias_of(scope: Mapping[str, str]) -> str:
    """Return the name of a scope's identity: `je-scope-tenant-acme`, keys sorted."""
    return "je-scope-" + "-".join(f"{key}-{scope[key]}" for key in sorted(scope))


def problems_in_spec(spec: JobSpec, catalog: Catalog) -> tuple[Problem, ...]:
    """Return everything that the catalog has against a spec, by YAML path."""
    problems = [problem for index, item in enumerate(spec.access) for problem in _access_problems(spec, catalog, index, item)]
    problems += _model_problems(spec, catalog)
    return tuple(dict.fromkeys(problems))


def problems_in_draft(raw: object, catalog: Catalog) -> tuple[Problem, ...]:
    """Return what the catalog has against those parts of a spec that can be read, where others cannot: so that everything is told at once."""
    if not isinstance(raw, dict):
        return ()
    parts = ("environment", "data_scope", "model")
    read = {name: raw[name] for name in parts if name in raw and _is_readable(JobSpec, {**PLACEHOLDER_SPEC, name: raw[name]})}
    about = set(read) | ({"data_scope"} - set(raw))
    spec = JobSpec.model_validate({**PLACEHOLDER_SPEC, **read})
    listed = raw.get("access")
    found = [
        problem
        for index, item in enumerate(listed if isinstance(listed, list) else ())
        for problem in _draft_problems(spec, catalog, index, item, about)
    ]
    found += [problem for problem in _model_problems(spec, catalog) if problem.path.partition(".")[0] in about]
    return tuple(dict.fromkeys(found))


def _draft_problems(spec: JobSpec, catalog: Catalog, index: int, item: object, about: set[str]) -> Iterator[Problem]:
    given = item if isinstance(item, dict) else {}
    read = {
        name: given[name]
        for name in ("resource", "action", "ttl")
        if name in given and _is_readable(Access, {**PLACEHOLDER_ACCESS, name: given[name]})
    }
    if "resource" not in read:
        return
    # An action that cannot be read leaves open how long it may last and which data scope it needs.
    known = set(read) if "action" in read else {"resource"}
    readable = {f"access[{index}].{name}" for name in known} | (about if "action" in read else about - {"data_scope"})
    for problem in _access_problems(spec, catalog, index, Access.model_validate({**PLACEHOLDER_ACCESS, **read})):
        if problem.path in readable or problem.path.partition(".")[0] in readable:
            yield problem


def _is_readable(model: type[JobSpec | Access], raw: dict[str, Any]) -> bool:
    try:
        model.model_validate(raw)
    except ValidationError:
        return False
    return True


def _access_problems(spec: JobSpec, catalog: Catalog, index: int, item: Access) -> Iterator[Problem]:
    where = f"access[{index}]"
    resource = catalog.resources.get(item.resource)
    if resource is None:
        yield Problem(f"{where}.resource", f"unknown resource {item.resource!r}{did_you_mean(item.resource, catalog.resources)}")
        return
    if spec.environment != resource.environment:
        yield Problem("environment", f"{item.resource} is in environment {resource.environment!r}, not in {spec.environment!r}")
    action_def = resource.actions.get(item.action)
    if action_def is None:
        yield Problem(f"{where}.action", f"{item.resource} does not offer {item.action}; it offers {', '.join(sorted(resource.actions))}")
        return
    if item.at == "start" and item.tools is None and (why := why_for_gateways_only(item, catalog)):
        yield Problem(f"{where}.resource", f"{why}; say `model:` for a model, or `at: request` for what a tool is to use")
    if item.ttl > action_def.max_ttl:
        longest = duration_text(action_def.max_ttl)
        yield Problem(
            f"{where}.ttl", f"{duration_text(item.ttl)} is longer than {longest}, the most that {item.resource} {item.action} allows"
        )
    yield from _tool_problems(catalog, item, where)
    yield from _data_scope_problems(spec, catalog, action_def, f"{item.resource} {item.action}")


def _model_problems(spec: JobSpec, catalog: Catalog) -> Iterator[Problem]:
    yield from model_use_problems(spec, catalog)
    behind = model_access(spec.model, catalog) if spec.model else None
    for problem in _access_problems(spec, catalog, 0, behind) if behind else ():
        # The access itself is the catalog's: what a spec can put right is where the job runs and on whose data.
        if not problem.path.startswith("access["):
            yield problem


def _tool_problems(catalog: Catalog, item: Access, where: str) -> Iterator[Problem]:
    fitting = {
        name: tool
        for name, tool in {**catalog.callable, **catalog.listings}.items()
        if tool.uses.resource == item.resource and item.action in tool.uses.actions
    }
    for name, bounds in (item.tools or {}).items():
        if name not in fitting:
            yield Problem(
                f"{where}.tools.{name}", f"no tool of this name uses {item.action} on {item.resource}{did_you_mean(name, fitting)}"
            )
            continue
        for argument in sorted(bounds.arguments.keys() - fitting[name].inputs):
            hint = did_you_mean(argument, fitting[name].inputs)
            yield Problem(f"{where}.tools.{name}.arguments.{argument}", f"{name} takes no such argument{hint}")


def _data_scope_problems(spec: JobSpec, catalog: Catalog, action_def: ActionDef, what: str) -> Iterator[Problem]:
    missing = [key for key in action_def.data_scope if key not in spec.data_scope]
    for key in missing:
        yield Problem(f"data_scope.{key}", f"required by {what}")
    if missing or not action_def.data_scope:
        return
    asked = {key: spec.data_scope[key] for key in action_def.data_scope}
    provisioned = catalog.scopes_with(asked)
    if asked not in [dict(scope) for scope in provisioned]:
        for key, value in asked.items():
            known = {scope[key] for scope in provisioned}
            if value not in known or len(asked) > 1:
                yield Problem(
                    f"data_scope.{key}",
                    f"no scope {alias_of(asked).removeprefix('je-scope-')!r} is provisioned for {what}{did_you_mean(value, known)}",
                )


def _require_scope(action_def: ActionDef, data_scope: Mapping[str, str]) -> None:
    missing = tuple(Problem(f"data_scope.{key}", "required") for key in action_def.data_scope if key not in data_scope)
    if missing:
        raise InvalidInput("data scope", missing)


def _validate_catalog(raw: dict[str, Any]) -> Catalog:
    try:
        return validate_model(CATALOG_FILE, Catalog, raw)
    except InvalidInput as error:
        raise InvalidInput(CATALOG_FILE, tuple(_with_hint(problem) for problem in error.problems)) from error


def _build_offers(catalog: Catalog) -> ActionOffers:
    return {
        name: {action: ActionOffer(one.locked, one.data_scope) for action, one in resource.actions.items()}
        for name, resource in catalog.resources.items()
    }


def _with_hint(problem: Problem) -> Problem:
    if problem.message != "unknown key":
        return problem
    models = (
        TOOL_MODELS
        if problem.path.startswith("tools.")
        else (Catalog, Resource, ActionDef, Issue, Review, Target, VaultWrite, ModelDef, GatewayUses)
    )
    known = {field.alias or name for model in models for name, field in model.model_fields.items()}
    return Problem(problem.path, problem.message + did_you_mean(problem.path.rpartition(".")[2], known))


def _with_default_policies(raw: dict[str, Any]) -> dict[str, Any]:
    def actions_of(name: str, resource: Any) -> Any:
        if not isinstance(resource, dict) or not isinstance(resource.get("actions"), dict):
            return resource
        named = {
            action: {"policy": f"je-grant-{name}-{action}", **definition} if isinstance(definition, dict) else definition
            for action, definition in resource["actions"].items()
        }
        return {**resource, "actions": named}

    resources = raw.get("resources")
    if not isinstance(resources, dict):
        return raw
    return {**raw, "resources": {name: actions_of(name, resource) for name, resource in resources.items()}}


def _scope_problems(catalog: Catalog) -> Iterator[Problem]:
    # Vault compares identity names without case, and joins of several keys could coincide.
    seen: dict[str, int] = {}
    for index, scope in enumerate(catalog.scopes):
        alias = alias_of(scope).casefold()
        if alias in seen:
            yield Problem(f"scopes[{index}]", f"its identity {alias} is that of scopes[{seen[alias]}] too")
        seen.setdefault(alias, index)
        for key, value in scope.items():
            if not value.strip("."):
                yield Problem(f"scopes[{index}].{key}", f"{value!r} is not a name")


def _action_problems(catalog: Catalog) -> Iterator[Problem]:
    policies: dict[str, str] = {}
    for name, resource in catalog.resources.items():
        for action, definition in resource.actions.items():
            where = f"resources.{name}.actions.{action}"
            if definition.data_scope and not catalog.scopes_with(definition.data_scope):
                yield Problem(f"{where}.data_scope", f"no entry of `scopes` binds exactly {', '.join(definition.data_scope)}")
            if definition.policy in policies:
                yield Problem(
                    f"{where}.policy", f"{definition.policy} is that of {policies[definition.policy]} too; each action has its own"
                )
            policies.setdefault(definition.policy, where)
    yield from _lock_problems(catalog)


def _lock_problems(catalog: Catalog) -> Iterator[Problem]:
    """Yield each way around a lock that the catalog itself would open: what is locked must come from nowhere else."""
    places: dict[str, set[str]] = {}
    for where, definition in _iter_actions(catalog):
        for path in issue_paths(catalog, definition):
            places.setdefault(path, set()).add(where)
    written = {write.path for write in catalog.provision}
    for where, definition in _iter_actions(catalog):
        if not definition.locked:
            continue
        others = {other for path in issue_paths(catalog, definition) for other in places[path]} - {where}
        if others:
            yield Problem(f"{where}.issue.path", f"{min(others)} issues from there too; what is locked has a path of its own")
        if set(issue_paths(catalog, definition)) & set(target_paths(catalog)):
            yield Problem(f"{where}.issue.path", "the worker itself uses it to look into a target; what is locked has a path of its own")
        if f"sys/policies/acl/{definition.policy}" in written:
            yield Problem(f"{where}.policy", "`provision` writes this policy itself; a lock needs the one that setup writes")


def _iter_actions(catalog: Catalog) -> Iterator[tuple[str, ActionDef]]:
    for name, resource in catalog.resources.items():
        for action, definition in resource.actions.items():
            yield f"resources.{name}.actions.{action}", definition


def issue_paths(catalog: Catalog, definition: ActionDef) -> tuple[str, ...]:
    """Return the paths that an action is issued from, written out for each provisioned scope."""
    scopes = catalog.scopes_with(definition.data_scope) if definition.data_scope else ({},)
    return tuple(fill_scope(definition.issue.path, scope) for scope in scopes)


def target_paths(catalog: Catalog) -> tuple[str, ...]:
    """Return the paths that the worker reads for itself, to look into targets and to end users there."""
    targets = [definition.target for _, definition in _iter_actions(catalog) if definition.target]
    return tuple(sorted({path for target in targets for path in (target.observe, target.end)}))


def _write_problems(catalog: Catalog) -> Iterator[Problem]:
    for index, write in enumerate(catalog.provision):
        where = f"provision[{index}]"
        if write.per_scope and not catalog.scopes_with(write.per_scope):
            yield Problem(f"{where}.per_scope", f"no entry of `scopes` binds exactly {', '.join(write.per_scope)}")
        unbound = sorted(set(SCOPE_PLACEHOLDER.findall(write.path)) - set(write.per_scope))
        if unbound:
            yield Problem(f"{where}.path", f"{{{unbound[0]}}} is not in per_scope")
        if "${random}" in str(write.data) and not write.once:
            yield Problem(f"{where}.data", "${random} needs `once: true`, or each setup would change it")


def _expand_scopes(write: VaultWrite, catalog: Catalog) -> Iterator[VaultWrite]:
    for scope in catalog.scopes_with(write.per_scope) if write.per_scope else ({},):
        data = map_texts(write.data, partial(fill_scope, scope=scope))
        yield write.model_copy(update={"path": fill_scope(write.path, scope), "data": data, "per_scope": ()})
