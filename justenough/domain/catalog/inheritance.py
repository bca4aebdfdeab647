"""Fills in inherited values of a catalog: `defaults` for resources and writes, a resource's terms for its actions, its target for tools.
Pure; works on raw values.

It runs before validation. Malformed parts stay as they are, for validation to report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from justenough.domain.catalog.models import ActionDefaults, role_path
from justenough.domain.core.errors import Problem

RESOURCE_KEYS = ("environment", "sensitivity", "owner", "connect")
ACTION_KEYS = tuple(ActionDefaults.model_fields)


def fill_in_defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a raw catalog in which each resource, action, role and write has its inherited values. An action's policy is named after it."""
    resources, provision, defaults = raw.get("resources"), raw.get("provision"), _dict_or_empty(raw.get("defaults"))
    filled = dict(raw)
    if isinstance(resources, dict):
        filled["resources"] = {name: _fill_resource(name, resource, defaults) for name, resource in resources.items()}
    if isinstance(provision, list):
        filled["provision"] = [_fill_write(write, defaults) for write in provision]
    if isinstance(tools := raw.get("tools"), dict):
        filled["tools"] = {name: _fill_tool(tool, _dict_or_empty(filled.get("resources"))) for name, tool in tools.items()}
    return filled


def _fill_resource(name: str, resource: Any, defaults: Mapping[str, Any]) -> Any:
    if not isinstance(resource, dict):
        return resource
    filled = _pick(defaults, RESOURCE_KEYS) | resource
    if not isinstance(resource.get("actions"), dict):
        return filled
    inherited = _pick(defaults, ACTION_KEYS) | _pick(resource, ACTION_KEYS)
    actions = {
        action: _fill_role({"policy": f"je-grant-{name}-{action}", **inherited, **definition}, defaults)
        if isinstance(definition, dict)
        else definition
        for action, definition in resource["actions"].items()
    }
    return {**filled, "actions": actions}


def _fill_role(action: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    issue_path = _dict_or_empty(action.get("issue")).get("path")
    path = role_path(issue_path) if isinstance(issue_path, str) else None
    if path is None or not isinstance(action.get("role"), dict):
        return action
    return {**action, "role": _data_below(path, defaults) | action["role"]}


def _fill_tool(tool: Any, resources: Mapping[str, Any]) -> Any:
    """Make a SQL tool without a `dsn` connect to the target of the action that it uses."""
    sql, uses = (_dict_or_empty(_dict_or_empty(tool).get(key)) for key in ("sql", "uses"))
    if not sql or "dsn" in sql:
        return tool
    value: Any = resources
    for key in (uses.get("resource"), "actions", uses.get("action"), "target", "postgres"):
        value = _dict_or_empty(value).get(key) if isinstance(key, str) else None
    return tool if value is None else {**tool, "sql": {"dsn": value, **sql}}


def _fill_write(write: Any, defaults: Mapping[str, Any]) -> Any:
    if not isinstance(write, dict) or not isinstance(write.get("data", {}), dict) or not isinstance(write.get("path"), str):
        return write
    data = _data_below(write["path"], defaults) | write.get("data", {})
    return {**write, "data": data} if data else write


def _data_below(path: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for writes to a path. The longest path wins, key by key."""
    writes = _dict_or_empty(defaults.get("provision"))
    above = sorted((other for other in writes if path.startswith(other)), key=len)
    return {key: value for other in above for key, value in _dict_or_empty(writes[other]).items()}


def drop_inherited_problems(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield the problems without those that an action or resource inherited: they are reported where they were written."""
    # Without hints: only the first unknown keys get one.
    found = [(problem, problem.message.partition("; did you mean")[0]) for problem in problems]
    written = {(problem.path, message) for problem, message in found}
    for problem, message in found:
        if not any((source, message) in written for source in _sources(problem.path)):
            yield problem


def _sources(path: str) -> Iterator[str]:
    """Yield the paths from which the value at a path may have been inherited."""
    match path.split("."):
        case ["resources", resource, "actions", _, key, *rest] if key in ACTION_KEYS:
            yield ".".join(("resources", resource, key, *rest))
            yield ".".join(("defaults", key, *rest))
        case ["resources", _, key, *rest] if key in RESOURCE_KEYS:
            yield ".".join(("defaults", key, *rest))


def _dict_or_empty(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _pick(source: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: source[key] for key in keys if key in source}
