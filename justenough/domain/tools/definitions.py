"""The catalog's tools: what an agent may have done for it, under which action, and what exactly is done. Frozen values; no I/O.

Fields: docs/reference/catalog.md. What a tool does with a call's arguments is calls.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from jsonschema_rs import Validator
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import Problem
from justenough.domain.core.json_schema import DRAFT_2020_12, build_validator, check_schema
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, SETTING_PLACEHOLDER, did_you_mean, map_texts
from justenough.domain.core.units import Duration
from justenough.domain.core.untrusted_yaml import to_yaml_path
from justenough.domain.core.url_policy import url_problem
from justenough.domain.jobs.spec import Name, Sentence
from justenough.domain.jobs.states import Action

SQL_PARAMETER = re.compile(r"%\((?P<name>[A-Za-z_][A-Za-z0-9_]*)\)s")
"""A value that PostgreSQL is given beside the statement."""
INPUT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""A name that placeholders can say."""
EMPTY_INPUT_SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {}}
MAX_CALL_TIMEOUT_S, DEFAULT_CALL_TIMEOUT_S = 60, 10
MAX_ROWS, DEFAULT_ROWS = 1_000, 100
MAX_ANSWER_BYTES, DEFAULT_ANSWER_BYTES = 1024 * 1024, 64 * 1024
HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
LOGIN_IN_DSN = re.compile(r"(?:^|\s)(user|password|passfile|passcommand|service|sslpassword)\s*=|://")
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*-]{1,128}$")]
"""Of names of tools: `*` stands for anything."""
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class ActionOffer:
    """What a tool must know of an action of the catalog."""

    locked: bool
    scope: tuple[str, ...]
    """Keys of the job's data scope, whose values a tool may use like inputs that nobody gives."""


ActionOffers = Mapping[str, Mapping[Action, ActionOffer]]
"""Of each resource."""


class ToolUses(Model):
    """What a tool is allowed by: the action that each of its calls needs."""

    resource: Name
    action: Action | Annotated[Mapping[Pattern, Action], Field(min_length=1)]
    """By name of tool, the first pattern that fits, for the tools of an upstream MCP server."""

    @property
    def actions(self) -> frozenset[Action]:
        """Every action that some call may need."""
        return frozenset({self.action} if isinstance(self.action, Action) else self.action.values())


class CallLimits(Model):
    """How long a call may take, and how much of the answer is passed on."""

    timeout: Annotated[Duration, Field(le=MAX_CALL_TIMEOUT_S)] = DEFAULT_CALL_TIMEOUT_S
    """Seconds."""
    answer: Annotated[int, Field(ge=256, le=MAX_ANSWER_BYTES)] = DEFAULT_ANSWER_BYTES
    """Bytes."""


class Sql(CallLimits):
    """One statement on PostgreSQL, whose parameters are bound, never spliced in."""

    dsn: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A libpq conninfo, without user and password: the credential has those."""
    statement: Annotated[str, StringConstraints(min_length=1, max_length=8192)]
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] = DEFAULT_ROWS
    """Rows that are passed on at most."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The inputs that the statement uses, each once."""
        return tuple(dict.fromkeys(found["name"] for found in SQL_PARAMETER.finditer(self.statement)))

    @model_validator(mode="after")
    def _says_no_person(self) -> Self:
        if found := LOGIN_IN_DSN.search(self.dsn):
            message = (
                f"dsn: {found[0].strip()} has no place here: a conninfo like `host=… port=… dbname=…`; the credential has user and password"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _binds_by_name(self) -> Self:
        left = SQL_PARAMETER.sub("", self.statement).replace("%%", "")
        if "%" in left:
            at = left[left.index("%") :][:12]
            message = f"statement: {at!r} is no parameter: write %(name)s, or %% for a percent sign"
            raise ValueError(message)
        if re.search(r"""['"]\s*%\(""", self.statement):
            message = "statement: a parameter in quotes is text, not a value: write %(name)s without them"
            raise ValueError(message)
        return self


class Http(CallLimits):
    """One HTTP request. `{title}` is an input where the tool declares it, else a field of the credential."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False)

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    headers: Mapping[str, Annotated[str, StringConstraints(max_length=4096)]] = Field(default_factory=dict)
    body: Any = Field(default=None, alias="json")
    """A JSON value. A text that is one placeholder and nothing else keeps the input's type."""
    allow_private: bool = False
    """Whether the address may be one of a private network; metadata and link-local addresses never are."""
    slashes: tuple[str, ...] = ()
    """Inputs in the URL's path whose values may have slashes. They are encoded, but many servers decode them before they look where a path leads."""

    @model_validator(mode="after")
    def _goes_where_the_catalog_says(self) -> Self:
        start, _, rest = self.url.partition("://")
        authority = rest.partition("/")[0].partition("?")[0]
        if SCOPE_PLACEHOLDER.search(start + authority):
            message = "url: its host cannot be a placeholder: who fills it in would say where the credential goes"
            raise ValueError(message)
        if not SETTING_PLACEHOLDER.search(self.url) and (
            why := url_problem(SCOPE_PLACEHOLDER.sub("x", self.url), private=self.allow_private)
        ):
            message = f"url: {why}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _headers_are_names(self) -> Self:
        _check_headers(self.headers)
        if self.body is not None and self.method == "GET":
            message = "json: a GET has no body"
            raise ValueError(message)
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
        """Yield each placeholder: where it stands, and its name."""
        yield from (("url", name) for name in SCOPE_PLACEHOLDER.findall(self.url))
        for key, value in self.headers.items():
            yield from ((f"headers.{key}", name) for name in SCOPE_PLACEHOLDER.findall(value))
        yield from (("json", name) for name in _placeholder_names(self.body))


class McpServerDef(CallLimits):
    """An MCP server whose tools are passed on (upstreams.py)."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    headers: Mapping[str, Annotated[str, StringConstraints(max_length=4096)]] = Field(default_factory=dict)
    tools: Digest | None = None
    """Of its tools as they were reviewed (listings.py): without it, and while the server shows others, none may be called."""
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")] | None = None
    """Put before each tool's own name, where others have the same."""
    allow_private: bool = False

    @model_validator(mode="after")
    def _goes_where_the_catalog_says(self) -> Self:
        _check_headers(self.headers)
        if SCOPE_PLACEHOLDER.search(self.url):
            message = "url: has no placeholders"
            raise ValueError(message)
        if not SETTING_PLACEHOLDER.search(self.url) and (why := url_problem(self.url, private=self.allow_private)):
            message = f"url: {why}"
            raise ValueError(message)
        return self


class Tool(Model):
    """One tool, done in one of three ways."""

    description: Sentence = "-"
    uses: ToolUses
    input: Mapping[str, Any] = Field(default_factory=lambda: dict(EMPTY_INPUT_SCHEMA))
    """JSON Schema (2020-12) of an object; unlisted properties are refused unless it says otherwise."""
    sql: Sql | None = None
    http: Http | None = None
    mcp: McpServerDef | None = None

    @property
    def inputs(self) -> frozenset[str]:
        """The names that its calls may give."""
        return frozenset(self.input.get("properties", {}))

    @property
    def schema_of_input(self) -> dict[str, Any]:
        """What its input must be, as a model is told and calls are checked."""
        return {"additionalProperties": False, **self.input}

    @property
    def validator(self) -> Validator:
        """What checks its input."""
        return build_validator(self.schema_of_input)

    @property
    def kind(self) -> str:
        """How it is done: sql | http | mcp."""
        return next(name for name in ("sql", "http", "mcp") if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _is_done_one_way(self) -> Self:
        said = [name for name in ("sql", "http", "mcp") if getattr(self, name) is not None]
        if len(said) != 1:
            message = f"says {' and '.join(said)}; a tool has one of sql, http, mcp" if said else "needs one of sql, http, mcp"
            raise ValueError(message)
        if (self.mcp is None) and not isinstance(self.uses.action, Action):
            message = "uses.action: patterns are for the tools of an upstream MCP server; this is one tool: read, write or admin"
            raise ValueError(message)
        if self.mcp is None and self.description == "-":
            message = "needs a description: it is all that a model knows of the tool"
            raise ValueError(message)
        return self


TOOL_MODELS: tuple[type[Model], ...] = (Tool, ToolUses, Sql, Http, McpServerDef)


def tool_problems(tools: Mapping[str, Tool], offers: ActionOffers) -> Iterator[Problem]:
    """Yield what is wrong with tools beyond each one's own form."""
    for name, tool in tools.items():
        where = f"tools.{name}"
        yield from _use_problems(tool.uses, offers, where)
        yield from _schema_problems(tool.input, f"{where}.input")
        scope = scope_of(tool.uses, offers)
        for key in sorted(scope & tool.inputs):
            yield Problem(f"{where}.input.properties.{key}", "is the job's data scope, which no call may say")
        if tool.sql:
            for parameter in tool.sql.parameters:
                if parameter not in tool.inputs | scope:
                    hint = did_you_mean(parameter, tool.inputs | scope)
                    yield Problem(f"{where}.sql.statement", f"%({parameter})s is no property of `input`{hint}")
        if tool.http:
            yield from _http_problems(tool, tool.http, scope, f"{where}.http")


def scope_of(uses: ToolUses, offers: ActionOffers) -> frozenset[str]:
    """Return the keys of the data scope that every action of a tool binds."""
    found = [frozenset(offers[uses.resource][action].scope) for action in uses.actions if action in offers.get(uses.resource, {})]
    return frozenset.intersection(*found) if found else frozenset()


def _use_problems(uses: ToolUses, offers: ActionOffers, where: str) -> Iterator[Problem]:
    actions = offers.get(uses.resource)
    if actions is None:
        yield Problem(f"{where}.uses.resource", f"unknown resource {uses.resource!r}{did_you_mean(uses.resource, offers)}")
        return
    for action in sorted(uses.actions - actions.keys()):
        yield Problem(f"{where}.uses.action", f"{uses.resource} does not offer {action}; it offers {', '.join(sorted(actions))}")
    for action in sorted(uses.actions & actions.keys()):
        if actions[action].locked:
            yield Problem(f"{where}.uses.action", f"Vault locks {action} on {uses.resource}, which is had at a job's start only")


def _schema_problems(schema: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if schema.get("type") != "object":
        yield Problem(f"{where}.type", "must be `object`: a call's arguments have names")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        yield Problem(f"{where}.properties", "must be a mapping")
        return
    for name in properties:
        if not INPUT_NAME.fullmatch(name):
            yield Problem(f"{where}.properties.{name}", "a name begins with a letter a to z and has letters, digits and _ (at most 32)")
    for path in foreign_references(schema, where):
        yield Problem(path, "refers to another document; only #/… within this schema is followed")
    if invalid := check_schema({**schema, "$schema": DRAFT_2020_12}):
        location, message = invalid
        yield Problem(".".join((where, to_yaml_path(location))).rstrip("."), f"is no JSON Schema: {message}")


def foreign_references(value: Any, path: str) -> Iterator[str]:
    """Yield where a JSON Schema refers to another document."""
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
            yield Problem(f"{where}.{place}", f"{{{name}}} is no property of `input`{hint} (a credential's field must be named unlike one)")
    for name in sorted(set(http.slashes) - (http.in_path & tool.inputs)):
        yield Problem(f"{where}.slashes", f"{name} is no input in the url's path")
    for name in sorted(http.in_url & tool.inputs - required):
        yield Problem(f"{where}.url", f"{{{name}}} must be in `input.required`: an address has no holes")


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            message = f"headers.{name}: a header's name has letters, digits and - only"
            raise ValueError(message)
        if not value.isprintable() or not value.isascii():
            message = f"headers.{name}: must be printable ASCII"
            raise ValueError(message)


def _placeholder_names(value: Any) -> list[str]:
    found: list[str] = []

    def collect(text: str) -> str:
        found.extend(SCOPE_PLACEHOLDER.findall(text))
        return text

    map_texts(value, collect)
    return found
