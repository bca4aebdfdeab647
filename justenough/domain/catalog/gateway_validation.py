"""Validates what the broker's gateways use: a catalog's models and tools, and a spec's use of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import Problem
from justenough.domain.core.json_schema import DRAFT_2020_12, check_schema
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.schema_cost import expensive_part
from justenough.domain.core.untrusted_yaml import to_yaml_path
from justenough.domain.jobs.spec import Access, JobSpec, ModelUse
from justenough.domain.tools.definitions import Http, Tool

INPUT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""Matches a name that a placeholder can contain."""


def model_problems(catalog: Catalog) -> Iterator[Problem]:
    """Yield the problems of a catalog's models that involve its resources, by YAML path."""
    for name, model in catalog.models.items():
        where, uses = f"models.{name}.uses", model.uses
        yield from catalog.offer_problems(uses.resource, (uses.action,), where=where)
        resource, action = catalog.resources.get(uses.resource), catalog.action(uses.resource, uses.action)
        if action is not None and action.locked:
            yield Problem(
                f"{where}.action", f"{uses.resource} {uses.action} is behind a Vault control group, which a running job cannot wait for"
            )
        if resource is not None and resource.used_by != "gateway":
            yield Problem(f"{where}.resource", f"{uses.resource} needs `used_by: gateway`, or a job could request the model's key itself")


def model_access(use: ModelUse, catalog: Catalog) -> Access | None:
    """Return the access that the gateway requests for a model, at the catalog's max_ttl; None if the catalog does not offer it."""
    model = catalog.models.get(use.name)
    action = catalog.action(model.uses.resource, model.uses.action) if model else None
    if model is None or action is None:
        return None
    reason = f"Calls of model {use.name}: at most {use.requests:,} requests and {use.tokens:,} tokens"
    return Access(resource=model.uses.resource, action=model.uses.action, ttl=action.max_ttl, reason=reason, at="request")


def model_use_problems(spec: JobSpec, catalog: Catalog) -> Iterator[Problem]:
    """Yield the problems of a spec's `model` by YAML path. The access behind the model is checked like any other access."""
    use = spec.model
    if use is None:
        return
    model = catalog.models.get(use.name)
    if model is None:
        yield Problem("model.name", f"unknown model {use.name!r}{did_you_mean(use.name, catalog.models)}")
        return
    for field, count, limit in (("requests", use.requests, model.max_requests), ("tokens", use.tokens, model.max_tokens)):
        if count > limit:
            yield Problem(f"model.{field}", f"{count:,} is more than {limit:,}, the maximum of model {use.name} for one job")


def why_for_gateways_only(item: Access, catalog: Catalog) -> Rejection | None:
    """Return why no job can get a credential for an access, or None if only policy decides."""
    resource = catalog.resources.get(item.resource)
    if resource is None or resource.used_by == "job":
        return None
    return Rejection("gateways_only", f"only the broker's gateways use {item.resource}; jobs cannot get its credential")


def tool_problems(catalog: Catalog) -> Iterator[Problem]:
    """Yield the problems of a catalog's tools that involve its actions, their input schemas and their placeholders, by YAML path."""
    for name, tool in catalog.tools.items():
        where, uses = f"tools.{name}", tool.uses
        yield from catalog.offer_problems(uses.resource, uses.actions, where=f"{where}.uses")
        offered = {action: definition for action in sorted(uses.actions) if (definition := catalog.action(uses.resource, action))}
        for action, definition in offered.items():
            if definition.locked:
                message = f"{action} on {uses.resource} is behind a Vault control group, so jobs can get it only at their start, not through tools"
                yield Problem(f"{where}.uses.action", message)
        yield from _schema_problems(tool.input, f"{where}.input")
        # A tool may use the data scope that all its actions require like inputs, but calls cannot set it.
        scopes = [frozenset(definition.data_scope) for definition in offered.values()]
        yield from _input_problems(tool, frozenset.intersection(*scopes) if scopes else frozenset(), where)


def expensive_schema_problems(catalog: Catalog) -> Iterator[Problem]:
    """Yield the parts of the tools' input schemas whose validation can take very long, by YAML path.

    Reading a catalog does not include this check: a worker whose catalog was valid before the check existed must be able to keep it,
    because it has credentials to revoke.
    """
    for name, tool in catalog.tools.items():
        if expensive := expensive_part(tool.input):
            location, message = expensive
            yield Problem(to_yaml_path(("tools", name, "input", *location)), message)


def _schema_problems(schema: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if schema.get("type") != "object":
        yield Problem(f"{where}.type", "must be `object`, because arguments have names")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        yield Problem(f"{where}.properties", "must be a mapping")
        return
    for name in properties:
        if not INPUT_NAME.fullmatch(name):
            message = "a name must begin with a lower-case letter and contain only lower-case letters, digits and _ (at most 32 characters)"
            yield Problem(f"{where}.properties.{name}", message)
    for path in foreign_references(schema, where):
        yield Problem(path, "refers to another document; only references within this schema (#/…) are allowed")
    if invalid := check_schema({**schema, "$schema": DRAFT_2020_12}):
        location, message = invalid
        yield Problem(".".join((where, to_yaml_path(location))).rstrip("."), f"is not a valid JSON Schema: {message}")


def foreign_references(value: Any, path: str) -> Iterator[str]:
    """Yield the path of each reference of a JSON Schema to another document."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in {"$ref", "$dynamicRef"} and isinstance(inner, str) and not inner.startswith("#"):
                yield f"{path}.{key}"
            yield from foreign_references(inner, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from foreign_references(inner, f"{path}[{index}]")


def _input_problems(tool: Tool, scope: frozenset[str], where: str) -> Iterator[Problem]:
    """Yield the problems of a tool's inputs and placeholders. `scope`: the keys of the job's data scope that it may use."""
    for key in sorted(scope & tool.inputs):
        yield Problem(f"{where}.input.properties.{key}", "this key comes from the job's data scope; calls cannot set it")
    for parameter in tool.sql.parameters if tool.sql else ():
        if parameter not in tool.inputs | scope:
            hint = did_you_mean(parameter, tool.inputs | scope)
            yield Problem(f"{where}.sql.statement", f"%({parameter})s is not a property of `input` or a `data_scope` of the action{hint}")
    if tool.http:
        yield from _http_problems(tool, tool.http, scope, f"{where}.http")


def _http_problems(tool: Tool, http: Http, scope: frozenset[str], where: str) -> Iterator[Problem]:
    required = frozenset(tool.input.get("required", ()))
    for place, name in http.placeholders():
        if name not in tool.inputs | scope and (hint := did_you_mean(name, tool.inputs)):
            message = (
                f"{{{name}}} is not a property of `input`{hint} (a field of the credential needs a name that is not similar to an input)"
            )
            yield Problem(f"{where}.{place}", message)
    for name in sorted(set(http.slashes) - (http.in_path & tool.inputs)):
        yield Problem(f"{where}.slashes", f"{name} is not an input in the url's path")
    for name in sorted(http.in_url & tool.inputs - required):
        yield Problem(f"{where}.url", f"{{{name}}} must be in `input.required`, because the url needs it")
