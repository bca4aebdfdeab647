"""Validates a tool call's arguments, and builds the SQL parameters or the HTTP request from them. No I/O, no clock.

Arguments come from a model, which may follow instructions in untrusted text, so they stay data in SQL statements, URLs and headers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from justenough.domain.core.base_model import Model, OmittedIfNone
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.errors import GiveUp, InvalidInput, Problem, raise_problems
from justenough.domain.core.json_schema import DEFINITIONS, SchemaUnusable, failing_keywords, fits
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, did_you_mean, fill_scope, fits_wildcards
from justenough.domain.core.untrusted_yaml import check_json, to_yaml_path
from justenough.domain.jobs.spec import Access, JobSpec, ToolName
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import ORDER, Bounds, has_path_traversal
from justenough.domain.tools.definitions import Http, Sql, Tool, ToolUses

MAX_ARGUMENT_BYTES = 32 * 1024
"""Maximum bytes of a call's arguments as canonical JSON, because approvers must be able to read them."""
MAX_PROBLEMS = 20
DEFAULT_TTL_S = 300
"""Seconds of access for a call whose action the job's order does not list."""
DOTS = re.compile(r"\.+")


class OutOfBounds(GiveUp):
    """A call is out of bounds. The message names the bounds and their source, but no argument's value."""


class ToolCall(Model):
    """A call of a tool with its arguments."""

    tool: ToolName
    arguments: Mapping[str, Any]
    within: OmittedIfNone[Bounds] = None
    """The bounds that apply, set by the job's order, its approvers and its ancestors."""

    @property
    def digest(self) -> str:
        """`sha256:…` of the arguments' canonical form."""
        return digest_of(dict(self.arguments))

    @property
    def numbers(self) -> frozenset[str]:
        """The arguments that are numbers, in the form that policies see: `amount=12.5`."""
        return frozenset(
            f"{name}={_argument_text(value)}"
            for name, value in self.arguments.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        )

    @property
    def pairs(self) -> frozenset[str]:
        """The arguments that are plain values, in the form that policies see: `order_id=7`."""
        return frozenset(
            f"{name}={_argument_text(value)}" for name, value in self.arguments.items() if isinstance(value, str | int | float)
        )


class CallAccess(Access):
    """The access for a single call. Its approval covers only this call."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The HTTP request to send. Its repr is hidden because it contains the credential."""

    url: str
    headers: Mapping[str, str]
    body: Any

    def __repr__(self) -> str:
        return "HttpRequest(…)"


def call_of(access: Access) -> ToolCall | None:
    """Return the single call that an access is for, or None."""
    return access.call if isinstance(access, CallAccess) else None


def access_for_call(access: Access, call: ToolCall | None) -> Access:
    """Return a copy of the access for this single call, or without a call if `call` is None."""
    same = {name: getattr(access, name) for name in Access.model_fields}
    return CallAccess(**same, call=call) if call else Access(**same)


def checked_call(name: str, tool: Tool, arguments: Any) -> ToolCall:
    """Validate a call's arguments and return the call. Raises InvalidInput with every problem, by path."""
    what = f"arguments of {name}"
    if not isinstance(arguments, dict):
        raise InvalidInput(what, (Problem("", "must be an object"),))
    check_json(what, arguments)
    if len(to_canonical_json(arguments)) > MAX_ARGUMENT_BYTES:
        raise InvalidInput(what, (Problem("", f"at most {MAX_ARGUMENT_BYTES:,} bytes are accepted"),))
    try:
        is_valid = tool.validator.is_valid(arguments)
    except (SchemaUnusable, ValueError) as error:
        # An upstream's schema can have dangling references. The reviewed file has the details.
        raise InvalidInput("tool", (Problem("", f"the tool's input schema is unusable ({type(error).__name__})"),)) from error
    if not is_valid:
        problems = sorted(_argument_problems(tool, arguments), key=lambda problem: problem.path)[:MAX_PROBLEMS]
        raise InvalidInput(what, tuple(problems) or (Problem("", "do not match the tool's input schema"),))
    # Send exactly what is signed and recorded: 7.0 becomes 7 in both.
    call = ToolCall(tool=name, arguments=json.loads(to_canonical_json(arguments)))
    if tool.http is not None:
        # Nobody is asked to approve a call that cannot be made.
        _check_sendable(tool.http, call, _argument_texts(call, tool.inputs), tool.inputs)
    return call


def tool_only_items(spec: JobSpec, resource: str, action: Action) -> tuple[Access, ...]:
    """Return a spec's items for an action that only tools may use; none if the spec allows the action in any other way."""
    items = tuple(item for item in spec.access if (item.resource, item.action) == (resource, action))
    return items if items and all(item.tools is not None for item in items) else ()


def let_tool_through(items: tuple[Access, ...], tool: str) -> bool:
    """Whether the items of `tool_only_items` allow any call of a tool."""
    return not items or any(item.tools and tool in item.tools and item.tools[tool].calls != 0 for item in items)


def with_bounds(
    call: ToolCall, items: tuple[Access, ...], *, calls_made: int, same_value_calls: Mapping[str, int] | None = None, by: str = ORDER
) -> ToolCall:
    """Return a call with the bounds of the first item that allows it. Raises OutOfBounds if none does. `by`: the items' source.

    `calls_made`, `same_value_calls`: as in Bounds.problems.
    """
    if not items:
        return call
    candidates = [item.tools[call.tool] for item in items if item.tools and call.tool in item.tools]
    problems = [
        tuple(bounds.problems(call.arguments, calls_made=calls_made, same_value_calls=same_value_calls, by=by)) for bounds in candidates
    ]
    allowing = next((bounds for bounds, faults in zip(candidates, problems, strict=True) if not faults), None)
    if allowing is None:
        raise OutOfBounds(f"{call.tool}: {'; '.join(problems[0])}" if problems else f"{by} does not name {call.tool}")
    return call.model_copy(update={"within": allowing})


def action_of(uses: ToolUses, name: str) -> Action | None:
    """Return the action that a call of a tool needs; None if no pattern matches its name."""
    if isinstance(uses.action, Action):
        return uses.action
    return next((action for pattern, action in uses.action.items() if matches_pattern(pattern, name)), None)


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern; `*` matches any text."""
    return fits_wildcards(name, pattern.split("*"))


def sql_parameters(sql: Sql, call: ToolCall, scope: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a statement's parameters; a missing input is null. `scope`: the job's data scope."""
    values = {**call.arguments, **scope}
    return {name: values.get(name) for name in sql.parameters}


def build_http_request(http: Http, call: ToolCall, fields: Mapping[str, str], *, inputs: frozenset[str]) -> HttpRequest:
    """Build the request of a call. `fields`: the credential's fields and the job's data scope. Raises InvalidInput for unusable values.

    Values in the URL are percent-encoded. Values that could change the path (only dots, a slash, `..`) are rejected.
    """
    texts = _argument_texts(call, inputs) | {name: value for name, value in fields.items() if name not in inputs}
    _check_known((name for _, name in http.placeholders()), texts)
    _check_sendable(http, call, texts, inputs)
    url = SCOPE_PLACEHOLDER.sub(lambda found: quote(texts[found[1]], safe=""), http.url)
    return HttpRequest(url, fill_headers(http.headers, texts), _fill_body(http.body, call, texts, inputs))


def fill_headers(headers: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Return headers with a credential's fields filled in. Raises InvalidInput for a field that is missing or not valid in a header."""
    names = sorted({name for value in headers.values() for name in SCOPE_PLACEHOLDER.findall(value)})
    _check_known(names, fields)
    # An encoding error would contain the credential.
    unfit = (name for name in names if not (fields[name].isascii() and fields[name].isprintable()))
    raise_problems("tool", (Problem("", f"the credential's field {name} has characters that a header cannot contain") for name in unfit))
    filled = {name: SCOPE_PLACEHOLDER.sub(lambda found: fields[found[1]], value) for name, value in headers.items()}
    spaced = (name for name, value in filled.items() if value != value.strip())
    raise_problems("tool", (Problem("", f"the header {name} would begin or end with a space") for name in spaced))
    return filled


def _argument_problems(tool: Tool, arguments: dict[str, Any]) -> Iterator[Problem]:
    """Yield the problems of invalid arguments, without their values: values may be long, and a model reads this."""
    schema = tool.schema_of_input
    for keyword, rule in failing_keywords(schema, arguments):
        if keyword == "properties":
            for name in sorted(rule.keys() & arguments.keys()):
                yield from _property_problems(schema, name, arguments[name])
        elif keyword == "additionalProperties":
            unknown = sorted(set(arguments) - tool.inputs) or ["an unlisted name"]
            yield Problem("", f"unknown: {', '.join(name[:64] for name in unknown)}{did_you_mean(unknown[0], tool.inputs)}")
        elif keyword == "required":
            yield Problem("", f"required: {', '.join(name for name in rule if name not in arguments)}")
        else:
            yield Problem("", _rule_text(keyword, rule))


def _property_problems(schema: Mapping[str, Any], name: str, value: Any) -> Iterator[Problem]:
    own, path = schema["properties"][name], to_yaml_path([name])
    shared = {key: schema[key] for key in ("$schema", *DEFINITIONS) if key in schema}
    if own is False:
        yield Problem(path, "is not allowed")
    if isinstance(own, bool) or fits({**shared, **own}, value):
        return
    yield from (Problem(path, _rule_text(keyword, rule)) for keyword, rule in failing_keywords({**shared, **own}, value))


def _rule_text(keyword: str, rule: Any) -> str:
    return f"must have {keyword} {str(rule)[:200]}"


def _check_known(names: Iterable[str], known: Mapping[str, str]) -> None:
    unknown = sorted(set(names) - known.keys())
    raise_problems("tool", (Problem("", f"neither an input nor a field of the credential: {name}") for name in unknown))


def _check_sendable(http: Http, call: ToolCall, texts: Mapping[str, str], inputs: frozenset[str]) -> None:
    """Raise InvalidInput for values in `texts` that the URL or the headers cannot contain. Many servers decode a path before they split it."""
    problems = [
        Problem(name, "cannot be used in a URL: it is empty or only dots")
        for name in sorted(http.in_url & texts.keys())
        if not texts[name] or DOTS.fullmatch(texts[name])
    ]
    for name in sorted(http.in_path & inputs):
        if has_path_traversal(texts[name]):
            problems.append(Problem(name, "cannot be used in a URL path: it contains a path part `..`"))
        elif name not in http.slashes and re.search(r"[/\\]", texts[name]):
            problems.append(
                Problem(name, "cannot be used in a URL path: it contains a slash, which the tool's http.slashes does not allow")
            )
    in_headers = {name for value in http.headers.values() for name in SCOPE_PLACEHOLDER.findall(value)}
    problems += [
        Problem(name, "must be printable ASCII: it is sent in a header")
        for name in sorted(in_headers & inputs)
        if not (texts[name].isprintable() and texts[name].isascii())
    ]
    arguments = {name: texts[name] for name in inputs}
    filled = {header: fill_scope(value, arguments) for header, value in http.headers.items()}
    problems += [
        Problem("", f"the header {header} would begin or end with a space") for header, value in filled.items() if value != value.strip()
    ]
    raise_problems(f"arguments of {call.tool}", problems)


def _fill_body(value: Any, call: ToolCall, texts: Mapping[str, str], inputs: frozenset[str]) -> Any:
    """Return a JSON value filled in. An object's field whose whole value is a missing input is left out."""
    if isinstance(value, str):
        name = _whole_input(value, inputs)
        return call.arguments.get(name) if name else SCOPE_PLACEHOLDER.sub(lambda match: texts[match[1]], value)
    if isinstance(value, Mapping):
        names = {key: _whole_input(inner, inputs) for key, inner in value.items()}
        present = [key for key, name in names.items() if name is None or name in call.arguments]
        return {key: _fill_body(value[key], call, texts, inputs) for key in present}
    if isinstance(value, list | tuple):
        return [_fill_body(inner, call, texts, inputs) for inner in value]
    return value


def _whole_input(value: Any, inputs: frozenset[str]) -> str | None:
    """Return the input that a text consists of, if it is exactly one placeholder of an input."""
    match = SCOPE_PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match and match[1] in inputs else None


def _argument_texts(call: ToolCall, inputs: frozenset[str]) -> dict[str, str]:
    return {name: _argument_text(call.arguments.get(name)) for name in inputs}


def _argument_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_canonical_json(value).decode()
