"""The catalog: which resources there are, what may be asked of them, and how Vault issues it. Pure: no I/O, no Vault.

Fields: CONTRACT.md, "Catalog". Two kinds of placeholders, filled at different times: `${SHOP_HOST}` once, from the settings
(`with_settings`, `provision_writes`), and `{tenant}` per request, from the job's data scope (`resolved_issue`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints, model_validator

from justenough.access import Action, Revocable, Sensitivity
from justenough.documents import read_yaml, validated
from justenough.errors import InvalidInput, Problem
from justenough.model import Duration, Model, duration_text
from justenough.spec import MAX_TTL, Access, JobSpec, Label, LabelKey, Name, ScopeKey, Sentence

CATALOG = "catalog.yaml"
SETTING = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# A single brace on each side, so that Vault's own `{{name}}` is left alone.
SCOPE_PLACEHOLDER = re.compile(r"(?<![{$])\{([a-z][a-z0-9_]{0,31})\}(?!\})")
# No globs, no empty or dotted segments, no commas, no query: what is written here ends up in Vault policies.
PATH = re.compile(r"[A-Za-z0-9_${}-][A-Za-z0-9_.${}-]*(?:/[A-Za-z0-9_${}-][A-Za-z0-9_.${}-]*)+")
NO_SOURCE = ("sys", "auth", "cubbyhole")
"""Vault's own controls issue nothing that a job could use."""


def _vault_path(path: str) -> str:
    if not PATH.fullmatch(path):
        message = "must be a path in Vault like database/creds/orders-read (letters, digits, _ - . and placeholders)"
        raise ValueError(message)
    if path.partition("/")[0] in NO_SOURCE:
        message = f"{path.partition('/')[0]}/ is Vault's own and issues nothing to jobs"
        raise ValueError(message)
    return path


VaultPath = Annotated[str, StringConstraints(max_length=256), AfterValidator(_vault_path)]
GrantPolicy = Annotated[str, StringConstraints(pattern=r"^je-grant-[a-z0-9-]{1,128}$")]
Scope = Annotated[Mapping[ScopeKey, Label], Field(min_length=1, max_length=4)]
ScopeKeys = Annotated[tuple[ScopeKey, ...], Field(max_length=4)]


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where something known is close, else nothing."""
    close = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _sensitivity(value: Any) -> Any:
    if isinstance(value, Sensitivity):
        return value
    names = [level.name.lower() for level in Sensitivity]
    if not isinstance(value, str) or value not in names:
        message = f"must be one of {', '.join(names)}{did_you_mean(str(value), names)}"
        raise ValueError(message)
    return Sensitivity[value.upper()]


SensitivityName = Annotated[Sensitivity, BeforeValidator(_sensitivity), PlainSerializer(lambda level: level.name.lower(), return_type=str)]


class Issue(Model):
    """Where in Vault a credential comes from."""

    path: VaultPath
    method: Literal["read", "update"] = "read"
    data: Mapping[str, str | int | bool] = Field(default_factory=dict)
    """Sent along with `update`."""

    @model_validator(mode="after")
    def _data_is_sent(self) -> Self:
        if self.data and self.method == "read":
            message = "data is sent with `method: update` only"
            raise ValueError(message)
        return self


class ResolvedIssue(Model):
    """An issue with the job's data scope filled in: exactly what Vault is asked."""

    path: str
    method: Literal["read", "update"]
    data: Mapping[str, str | int | bool]


class Target(Model):
    """How to see, and end, a job's users in the target itself."""

    postgres: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A libpq conninfo, without user and password."""
    observe: VaultPath
    """Vault path of short-lived users that may read pg_roles and pg_stat_activity."""
    end: VaultPath
    """Vault path of short-lived users that may only execute the function that ends a job's users."""


class ActionDef(Model):
    """One action on a resource: how it is issued, under which Vault policy, for how long, and what revoking achieves."""

    issue: Issue
    policy: GrantPolicy
    """Written out by `read_catalog` where the catalog leaves it to the pattern `je-grant-<resource>-<action>`."""
    max_ttl: Annotated[Duration, Field(le=MAX_TTL)]
    """Seconds."""
    revocable: Revocable = Revocable.NOW
    data_scope: ScopeKeys = ()
    """Keys that a request must bind."""
    target: Target | None = None
    lock: Literal["none", "control_group"] = "none"

    @model_validator(mode="after")
    def _placeholders_are_bound(self) -> Self:
        texts = {"issue.path": self.issue.path, **{f"issue.data.{key}": value for key, value in self.issue.data.items()}}
        for where, text in texts.items():
            unbound = sorted(set(SCOPE_PLACEHOLDER.findall(str(text))) - set(self.data_scope))
            if unbound:
                message = f"{where}: {{{unbound[0]}}} is not in data_scope{did_you_mean(unbound[0], self.data_scope)}"
                raise ValueError(message)
            if re.search(r"[{}]", SCOPE_PLACEHOLDER.sub("", SETTING.sub("", str(text)))):
                message = f"{where}: a brace that is no placeholder like {{tenant}} or ${{SETTING}}"
                raise ValueError(message)
        return self


class Resource(Model):
    """Something that jobs use under a credential."""

    title: Sentence
    environment: Name
    sensitivity: SensitivityName
    external: bool = False
    """Whether data written here leaves the organisation."""
    owner: Name
    """A group."""
    connect: Mapping[LabelKey, Annotated[str, StringConstraints(max_length=1024)]] = Field(default_factory=dict)
    """No secrets; deliverable beside the credential's own fields."""
    actions: Annotated[Mapping[Action, ActionDef], Field(min_length=1)]


class VaultWrite(Model):
    """One write that `justenough vault setup` applies, idempotent."""

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_{}-][A-Za-z0-9_./{}-]*[A-Za-z0-9_}-]$", max_length=512)]
    data: Mapping[str, Any] = Field(default_factory=dict)
    per_scope: ScopeKeys = ()
    """Repeated for each scope with exactly these keys, `{key}` filled in."""
    once: bool = False
    """Written only where nothing is; `${random}` in it is a new random value."""


class Catalog(Model):
    """What can be asked for."""

    resources: Annotated[Mapping[Name, Resource], Field(min_length=1)]
    scopes: tuple[Scope, ...] = ()
    """The data scopes that have an identity in Vault."""
    texts: Mapping[LabelKey, Annotated[str, StringConstraints(max_length=16384)]] = Field(default_factory=dict)
    """Longer texts that the provisioning writes use as `${NAME}`."""
    provision: tuple[VaultWrite, ...] = ()

    def action(self, resource: str, action: Action) -> ActionDef | None:
        """Return the definition of an action, None where it is not offered."""
        found = self.resources.get(resource)
        return found.actions.get(action) if found else None

    def scopes_with(self, keys: Iterable[str]) -> tuple[Mapping[str, str], ...]:
        """Return the scopes that bind exactly these keys."""
        return tuple(scope for scope in self.scopes if set(scope) == set(keys))


def read_catalog(text: str | bytes) -> Catalog:
    """Return catalog.yaml checked, its settings not filled in yet; raise InvalidInput with every problem by YAML path."""
    raw = read_yaml(CATALOG, text)
    if not isinstance(raw, dict):
        raise InvalidInput(CATALOG, (Problem("", "must be a mapping with `resources`"),))
    catalog = _checked(_with_default_policies(raw))
    problems = (*_scope_problems(catalog), *_action_problems(catalog), *_write_problems(catalog))
    if problems:
        raise InvalidInput(CATALOG, problems)
    return catalog


def with_settings(catalog: Catalog, env: Mapping[str, str]) -> Catalog:
    """Return the catalog with each `${X}` of its resources filled in; raise InvalidInput naming each X that is missing.

    Its provisioning writes stay as they are: only `vault setup` has their secrets.
    """
    raw = catalog.model_dump(mode="json", exclude={"provision", "texts"})
    filled = _filled(raw, env, what=CATALOG)
    return _checked(filled).model_copy(update={"provision": catalog.provision, "texts": catalog.texts})


def provision_writes(catalog: Catalog, env: Mapping[str, str]) -> tuple[VaultWrite, ...]:
    """Return the provisioning writes, one per scope where they say so, settings filled in; raise InvalidInput for missing ones."""
    given = {**env, **catalog.texts, "random": "${random}"}
    writes = _filled([write.model_dump(mode="json") for write in catalog.provision], given, what=CATALOG, path="provision")
    return tuple(one for raw in writes for one in _per_scope(validated(CATALOG, VaultWrite, raw), catalog))


def resolved_issue(action_def: ActionDef, data_scope: Mapping[str, str]) -> ResolvedIssue:
    """Return what Vault is asked for a job with this data scope; raise InvalidInput where a key is missing."""
    _require_scope(action_def, data_scope)
    issue = action_def.issue
    data = {key: scoped(value, data_scope) if isinstance(value, str) else value for key, value in issue.data.items()}
    return ResolvedIssue(path=scoped(issue.path, data_scope), method=issue.method, data=data)


def scope_alias(action_def: ActionDef, data_scope: Mapping[str, str]) -> str | None:
    """Return the identity that an action's token is tied to, None for an action without data scope."""
    _require_scope(action_def, data_scope)
    return alias_of({key: data_scope[key] for key in action_def.data_scope}) if action_def.data_scope else None


def alias_of(scope: Mapping[str, str]) -> str:
    """Return the name of a scope's identity: `je-scope-tenant-acme`, keys sorted."""
    return "je-scope-" + "-".join(f"{key}-{scope[key]}" for key in sorted(scope))


def scoped(text: str, scope: Mapping[str, str]) -> str:
    """Return the text with `{key}` replaced by the scope's values; other keys are left alone."""
    return SCOPE_PLACEHOLDER.sub(lambda found: scope.get(found[1], found[0]), text)


def problems_of(spec: JobSpec, catalog: Catalog) -> tuple[Problem, ...]:
    """Return everything that the catalog has against a spec, by YAML path."""
    problems = [problem for index, item in enumerate(spec.access) for problem in _access_problems(spec, catalog, index, item)]
    return tuple(dict.fromkeys(problems))


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
    if item.ttl > action_def.max_ttl:
        longest = duration_text(action_def.max_ttl)
        yield Problem(
            f"{where}.ttl", f"{duration_text(item.ttl)} is longer than {longest}, the most that {item.resource} {item.action} allows"
        )
    if action_def.lock == "control_group":
        yield Problem(f"{where}.action", f"{item.resource} {item.action} needs `lock: control_group`, which comes with the double lock")
    yield from _data_scope_problems(spec, catalog, action_def, f"{item.resource} {item.action}")


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


def _checked(raw: dict[str, Any]) -> Catalog:
    problems = []
    if "tools" in raw:
        problems.append(Problem("tools", "tools come with the tool gateway, which this version does not have"))
        raw = {key: value for key, value in raw.items() if key != "tools"}
    try:
        catalog = validated(CATALOG, Catalog, raw)
    except InvalidInput as error:
        problems += [_hinted(problem) for problem in error.problems]
        raise InvalidInput(CATALOG, tuple(problems)) from error
    if problems:
        raise InvalidInput(CATALOG, tuple(problems))
    return catalog


def _hinted(problem: Problem) -> Problem:
    if problem.message != "unknown key":
        return problem
    known = {name for model in (Catalog, Resource, ActionDef, Issue, Target, VaultWrite) for name in model.model_fields}
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


def _per_scope(write: VaultWrite, catalog: Catalog) -> Iterator[VaultWrite]:
    for scope in catalog.scopes_with(write.per_scope) if write.per_scope else ({},):
        data = _mapped(write.data, lambda text, scope=scope: scoped(text, scope))
        yield write.model_copy(update={"path": scoped(write.path, scope), "data": data, "per_scope": ()})


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value


def _filled(value: Any, env: Mapping[str, str], *, what: str, path: str = "") -> Any:
    problems = tuple(
        Problem(where, f"setting {name} is missing: set the environment variable {name}")
        for where, text in _texts(value, path)
        for name in SETTING.findall(text)
        if name not in env
    )
    if problems:
        raise InvalidInput(what, problems)
    return _mapped(value, lambda text: SETTING.sub(lambda found: env[found[1]], text))


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{index}]")
