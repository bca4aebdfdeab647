"""The catalog's tools: what each does, and which action its calls need. Frozen values; no I/O.

Fields: docs/reference/catalog.md. call.py validates and fills in a call's arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from jsonschema_rs import Validator
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from justenough.domain.core.base_model import Model
from justenough.domain.core.canonical_json import Digest
from justenough.domain.core.errors import reject_if
from justenough.domain.core.json_schema import build_validator
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, SETTING_PLACEHOLDER, iter_texts
from justenough.domain.core.units import Duration
from justenough.domain.core.url_policy import url_problem
from justenough.domain.jobs.spec import Name, Sentence
from justenough.domain.jobs.states import Action

SQL_PARAMETER = re.compile(r"%\((?P<name>[A-Za-z_][A-Za-z0-9_]*)\)s")
"""Matches a parameter. PostgreSQL gets its value separately from the statement."""
EMPTY_INPUT_SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {}}
MAX_CALL_TIMEOUT_S, DEFAULT_CALL_TIMEOUT_S = 60, 10
MAX_ROWS, DEFAULT_ROWS = 1_000, 100
MAX_ANSWER_BYTES, DEFAULT_ANSWER_BYTES = 1024 * 1024, 64 * 1024
HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
LOGIN_IN_DSN = re.compile(r"(?:^|\s)(user|password|passfile|passcommand|service|sslpassword)\s*=|://")
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*-]{1,128}$")]
"""A pattern of tool names: `*` matches any text."""


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
        is_quoted = re.search(r"""['"]\s*%\(""", self.statement)
        reject_if(is_quoted, "statement: a parameter in quotes would be literal text; write %(name)s without quotes")
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
        is_variable = SCOPE_PLACEHOLDER.search(start + authority)
        reject_if(is_variable, "url: the host must not contain a placeholder, or a call could choose where the credential is sent")
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
        has_patterns = not isinstance(self.uses.action, Action)
        reject_if(self.mcp is None and has_patterns, "uses.action: patterns are only for upstream MCP servers; set read, write or admin")
        reject_if(self.mcp is None and self.description == "-", "needs a description, so that models know what the tool does")
        return self


def _check_endpoint(url: str, headers: Mapping[str, str], *, private: bool) -> None:
    """Raise ValueError if a URL without setting placeholders is forbidden, or if a header is invalid."""
    if not SETTING_PLACEHOLDER.search(url) and (why := url_problem(url, private=private)):
        message = f"url: {why}"
        raise ValueError(message)
    for name, value in headers.items():
        reject_if(not HEADER_NAME.fullmatch(name), f"headers.{name}: the name of a header may contain only letters, digits and -")
        reject_if(not value.isprintable() or not value.isascii(), f"headers.{name}: must be printable ASCII")
