"""The catalog's tools: what each does, and which action its calls need. Frozen values; no I/O.

Fields: docs/reference/catalog.md. call.py validates and fills in a call's arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from jsonschema_rs import Validator
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from justenough.domain.core.base_model import Model
from justenough.domain.core.canonical_json import Digest
from justenough.domain.core.errors import Problem, reject_if
from justenough.domain.core.json_schema import DRAFT_2020_12, build_validator, check_schema
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, SETTING_PLACEHOLDER, did_you_mean, iter_texts
from justenough.domain.core.schema_cost import expensive_part
from justenough.domain.core.units import Duration
from justenough.domain.core.untrusted_yaml import to_yaml_path
from justenough.domain.core.url_policy import url_problem
from justenough.domain.jobs.spec import Name, Sentence
from justenough.domain.jobs.states import Action

SQL_PARAMETER = re.compile(r"%\((?P<name>[A-Za-z_][A-Za-z0-9_]*)\)s")
"""Matches a parameter. PostgreSQL gets its value separately from the statement."""
INPUT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""Matches a name that a placeholder can contain."""
EMPTY_INPUT_SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {}}
MAX_CALL_TIMEOUT_S, DEFAULT_CALL_TIMEOUT_S = 60, 10
MAX_ROWS, DEFAULT_ROWS = 1_000, 100
MAX_ANSWER_BYTES, DEFAULT_ANSWER_BYTES = 1024 * 1024, 64 * 1024
HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
LOGIN_IN_DSN = re.compile(r"(?:^|\s)(user|password|passfile|passcommand|service|sslpassword)\s*=|://")
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*-]{1,128}$")]
"""A pattern of tool names: `*` matches any text."""


@dataclass(frozen=True, slots=True)
class ActionOffer:
    """The parts of a catalog action that tool validation needs."""

    locked: bool
    scope: tuple[str, ...]
    """Keys of the job's data scope. A tool may use their values like inputs, but calls cannot set them."""


ActionOffers = Mapping[str, Mapping[Action, ActionOffer]]
"""The actions of each resource."""


class ToolUses(Model):
    """The access that each call of a tool needs."""

    resource: Name
    action: Action | Annotated[Mapping[Pattern, Action], Field(min_length=1)]
    """For an upstream MCP server: actions by pattern of tool names; the first matching pattern counts."""

    @property
    def actions(self) -> frozenset[Action]:
        """Every action that some call may need."""
        return frozenset({self.action} if isinstance(self.action, Action) else self.action.values())


class CallLimits(Model):
    """The limits of a call's duration and of its response's size."""

    timeout: Annotated[Duration, Field(le=MAX_CALL_TIMEOUT_S)] = DEFAULT_CALL_TIMEOUT_S
    """Seconds."""
    answer: Annotated[int, Field(ge=256, le=MAX_ANSWER_BYTES)] = DEFAULT_ANSWER_BYTES
    """Bytes."""


class Sql(CallLimits):
    """One statement on PostgreSQL. Its parameters are bound, never inserted into the text."""

    dsn: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A libpq conninfo without user and password, which come from the credential."""
    statement: Annotated[str, StringConstraints(min_length=1, max_length=8192)]
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] = DEFAULT_ROWS
    """The maximum number of rows in the response."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The inputs that the statement uses, each once."""
        return tuple(dict.fromkeys(match["name"] for match in SQL_PARAMETER.finditer(self.statement)))

    @model_validator(mode="after")
    def _has_no_login_and_only_named_parameters(self) -> Self:
        if match := LOGIN_IN_DSN.search(self.dsn):
            message = (
                f"dsn: must not contain {match[0].strip()}; write `host=… port=… dbname=…`: user and password come from the credential"
            )
            raise ValueError(message)
        rest = SQL_PARAMETER.sub("", self.statement).replace("%%", "")
        if "%" in rest:
            message = f"statement: {rest[rest.index('%') :][:12]!r} is not a parameter; write %(name)s, or %% for a percent sign"
            raise ValueError(message)
        if re.search(r"""['"]\s*%\(""", self.statement):
            message = "statement: a parameter in quotes would be literal text; write %(name)s without quotes"
            raise ValueError(message)
        return self


class Http(CallLimits):
    """One HTTP request. A placeholder such as `{title}` is an input if the tool declares it, else a field of the credential."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False)

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    headers: Mapping[str, Annotated[str, StringConstraints(max_length=4096)]] = Field(default_factory=dict)
    body: Any = Field(default=None, alias="json")
    """A JSON value. A text that is exactly one placeholder keeps the input's type."""
    allow_private: bool = False
    """Whether private addresses are allowed; metadata and link-local addresses never are."""
    slashes: tuple[str, ...] = ()
    """Inputs in the URL's path whose values may contain slashes. They are encoded, but many servers decode them before they resolve the path."""

    @model_validator(mode="after")
    def _has_a_fixed_host_and_valid_headers(self) -> Self:
        start, _, rest = self.url.partition("://")
        authority = rest.partition("/")[0].partition("?")[0]
        if SCOPE_PLACEHOLDER.search(start + authority):
            message = "url: the host must not contain a placeholder, or a call could choose where the credential is sent"
            raise ValueError(message)
        _check_endpoint(SCOPE_PLACEHOLDER.sub("x", self.url), self.headers, private=self.allow_private)
        reject_if(self.body is not None and self.method == "GET", "json: a GET request must not have a body")
        return self

    @property
    def in_url(self) -> frozenset[str]:
        """The placeholders of its URL."""
        return frozenset(SCOPE_PLACEHOLDER.findall(self.url))

    @property
    def in_path(self) -> frozenset[str]:
        """The placeholders of its URL before the query."""
        return frozenset(SCOPE_PLACEHOLDER.findall(self.url.partition("?")[0]))

    def placeholders(self) -> Iterator[tuple[str, str]]:
        """Yield each placeholder as (place, name)."""
        yield from (("url", name) for name in SCOPE_PLACEHOLDER.findall(self.url))
        for key, value in self.headers.items():
            yield from ((f"headers.{key}", name) for name in SCOPE_PLACEHOLDER.findall(value))
        yield from (("json", name) for _, text in iter_texts(self.body) for name in SCOPE_PLACEHOLDER.findall(text))


class McpServerDef(CallLimits):
    """An MCP server whose tools jobs can call (mcp_upstreams.py)."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    headers: Mapping[str, Annotated[str, StringConstraints(max_length=4096)]] = Field(default_factory=dict)
    tools: Digest | None = None
    """Digest of its reviewed tools (mcp_tool_list.py). Without it, or while the server shows different tools, jobs cannot call any of them."""
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")] | None = None
    """Put before each tool's own name, to avoid duplicates."""
    allow_private: bool = False

    @model_validator(mode="after")
    def _has_a_fixed_url_and_valid_headers(self) -> Self:
        reject_if(SCOPE_PLACEHOLDER.search(self.url), "url: must not contain placeholders")
        _check_endpoint(self.url, self.headers, private=self.allow_private)
        return self


class Tool(Model):
    """One tool: a SQL statement, an HTTP request, or the tools of an MCP server."""

    description: Sentence = "-"
    uses: ToolUses
    input: Mapping[str, Any] = Field(default_factory=lambda: dict(EMPTY_INPUT_SCHEMA))
    """JSON Schema (2020-12) of an object; unlisted properties are rejected unless it allows them."""
    sql: Sql | None = None
    http: Http | None = None
    mcp: McpServerDef | None = None

    @property
    def inputs(self) -> frozenset[str]:
        """The names of its arguments."""
        return frozenset(self.input.get("properties", {}))

    @property
    def schema_of_input(self) -> dict[str, Any]:
        """The JSON Schema that models see and that calls are validated against."""
        return {"additionalProperties": False, **self.input}

    @property
    def validator(self) -> Validator:
        """The validator of its input. It never follows a reference to another document."""
        return build_validator(self.schema_of_input)

    @property
    def kind(self) -> str:
        """Its implementation: sql | http | mcp."""
        return next(name for name in ("sql", "http", "mcp") if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _has_one_implementation(self) -> Self:
        kinds = [name for name in ("sql", "http", "mcp") if getattr(self, name) is not None]
        reject_if(len(kinds) != 1, f"has {' and '.join(kinds) or 'none'}; a tool needs exactly one of sql, http, mcp")
        if (self.mcp is None) and not isinstance(self.uses.action, Action):
            message = "uses.action: patterns are only for upstream MCP servers; set read, write or admin"
            raise ValueError(message)
        reject_if(self.mcp is None and self.description == "-", "needs a description, so that models know what the tool does")
        return self


TOOL_MODELS: tuple[type[Model], ...] = (Tool, ToolUses, Sql, Http, McpServerDef)


def tool_problems(tools: Mapping[str, Tool], offers: ActionOffers) -> Iterator[Problem]:
    """Yield the problems of tools that involve the catalog's actions, their input schemas and their placeholders, by YAML path."""
    for name, tool in tools.items():
        where = f"tools.{name}"
        yield from _use_problems(tool.uses, offers, where)
        yield from _schema_problems(tool.input, f"{where}.input")
        scope = scope_of(tool.uses, offers)
        for key in sorted(scope & tool.inputs):
            yield Problem(f"{where}.input.properties.{key}", "this key comes from the job's data scope; calls cannot set it")
        for parameter in tool.sql.parameters if tool.sql else ():
            if parameter not in tool.inputs | scope:
                hint = did_you_mean(parameter, tool.inputs | scope)
                yield Problem(f"{where}.sql.statement", f"%({parameter})s is not a property of `input`{hint}")
        if tool.http:
            yield from _http_problems(tool, tool.http, scope, f"{where}.http")


def expensive_schema_problems(tools: Mapping[str, Tool]) -> Iterator[Problem]:
    """Yield the parts of the tools' input schemas whose validation can take very long, by YAML path.

    Reading a catalog does not include this check: a worker whose catalog was valid before the check existed must be able to keep it,
    because it has credentials to revoke.
    """
    for name, tool in tools.items():
        if expensive := expensive_part(tool.input):
            location, message = expensive
            yield Problem(to_yaml_path(("tools", name, "input", *location)), message)


def scope_of(uses: ToolUses, offers: ActionOffers) -> frozenset[str]:
    """Return the data scope keys that all actions of a tool have."""
    scopes = [frozenset(offers[uses.resource][action].scope) for action in uses.actions if action in offers.get(uses.resource, {})]
    return frozenset.intersection(*scopes) if scopes else frozenset()


def _use_problems(uses: ToolUses, offers: ActionOffers, where: str) -> Iterator[Problem]:
    actions = offers.get(uses.resource)
    if actions is None:
        yield Problem(f"{where}.uses.resource", f"unknown resource {uses.resource!r}{did_you_mean(uses.resource, offers)}")
        return
    for action in sorted(uses.actions - actions.keys()):
        yield Problem(f"{where}.uses.action", f"{uses.resource} does not offer {action}; it offers {', '.join(sorted(actions))}")
    for action in sorted(uses.actions & actions.keys()):
        if actions[action].locked:
            message = (
                f"{action} on {uses.resource} is behind a Vault control group, so jobs can get it only at their start, not through tools"
            )
            yield Problem(f"{where}.uses.action", message)


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


def _check_endpoint(url: str, headers: Mapping[str, str], *, private: bool) -> None:
    """Raise ValueError if a URL without setting placeholders is forbidden, or if a header is invalid."""
    if not SETTING_PLACEHOLDER.search(url) and (why := url_problem(url, private=private)):
        message = f"url: {why}"
        raise ValueError(message)
    for name, value in headers.items():
        reject_if(not HEADER_NAME.fullmatch(name), f"headers.{name}: the name of a header may contain only letters, digits and -")
        reject_if(not value.isprintable() or not value.isascii(), f"headers.{name}: must be printable ASCII")
