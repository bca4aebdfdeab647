"""One call of a tool: whether its arguments are what the tool takes, and what exactly they become. Pure: no I/O, no clock.

Arguments come from a model, and a model may be told anything by what it reads: they stay data, in a statement, in an address and in a header.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

from justenough.domain.core.base_model import Model
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.errors import GiveUp, InvalidInput, Problem
from justenough.domain.core.json_schema import DEFINITIONS, SchemaUnusable, failing_keywords, fits
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, did_you_mean
from justenough.domain.core.untrusted_yaml import check_json, to_yaml_path
from justenough.domain.jobs.spec import Access, JobSpec, ToolName
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import ORDER, Bounds, has_path_traversal
from justenough.domain.tools.definitions import Http, Sql, Tool, ToolUses

MAX_ARGUMENT_BYTES = 32 * 1024
"""Bytes of a call's arguments as canonical JSON: people read them before they approve."""
MAX_PROBLEMS = 20
DOTS = re.compile(r"\.+")


class OutOfBounds(GiveUp):
    """A call that bounds do not let through; the message says which and whose, and no argument."""


class ToolCall(Model):
    """A tool, and exactly these arguments."""

    tool: ToolName
    arguments: Mapping[str, Any]
    within: Annotated[Bounds | None, Field(exclude_if=lambda value: value is None)] = None
    """What it must stay within, as its order, its approvers and the jobs that it came of say."""

    @property
    def digest(self) -> str:
        """`sha256:…` of the arguments' canonical form."""
        return digest_of(dict(self.arguments))

    @property
    def numbers(self) -> frozenset[str]:
        """The arguments that are numbers, each as policies see it: `amount=12.5`."""
        numbers = (
            (name, value) for name, value in self.arguments.items() if isinstance(value, int | float) and not isinstance(value, bool)
        )
        return frozenset(f"{name}={_argument_text(value)}" for name, value in numbers)

    @property
    def pairs(self) -> frozenset[str]:
        """The arguments that are plain values, each as policies see it: `order_id=7`."""
        return frozenset(
            f"{name}={_argument_text(value)}" for name, value in self.arguments.items() if isinstance(value, str | int | float)
        )


class CallAccess(Access):
    """The access that one call needs: what people approve of it is this call, and no other."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request as it is sent. Holds the credential, and so never prints."""

    url: str
    headers: Mapping[str, str]
    body: Any

    def __repr__(self) -> str:
        return "Sent(…)"


def call_of(access: Access) -> ToolCall | None:
    """Return the call that some access is for, None where it is for none."""
    return access.call if isinstance(access, CallAccess) else None


def access_for_call(access: Access, call: ToolCall | None) -> Access:
    """Return the same access, for this call alone, or for none."""
    same = {name: getattr(access, name) for name in Access.model_fields}
    return CallAccess(**same, call=call) if call else Access(**same)


def checked_call(name: str, tool: Tool, arguments: Any) -> ToolCall:
    """Return the call of a tool with these arguments. Raises InvalidInput with everything that is wrong with them, by path."""
    what = f"arguments of {name}"
    if not isinstance(arguments, dict):
        raise InvalidInput(what, (Problem("", "must be an object"),))
    check_json(what, arguments)
    if len(to_canonical_json(arguments)) > MAX_ARGUMENT_BYTES:
        raise InvalidInput(what, (Problem("", f"at most {MAX_ARGUMENT_BYTES:,} bytes are accepted"),))
    if not _is_valid(tool, arguments):
        problems = sorted(_argument_problems(tool, arguments), key=lambda problem: problem.path)[:MAX_PROBLEMS]
        raise InvalidInput(what, tuple(problems) or (Problem("", "do not fit the schema of the tool's input"),))
    # What is signed and recorded is what is sent: 7.0 is 7 in both.
    return ToolCall(tool=name, arguments=json.loads(to_canonical_json(arguments)))


def tool_only_items(spec: JobSpec, resource: str, action: Action) -> tuple[Access, ...]:
    """Return what an order says of an action that is had through tools alone; nothing where it may be had in any way."""
    items = tuple(item for item in spec.access if (item.resource, item.action) == (resource, action))
    return items if items and all(item.tools is not None for item in items) else ()


def with_bounds(call: ToolCall, items: tuple[Access, ...], *, calls_made: int, by: str = ORDER) -> ToolCall:
    """Return a call with the bounds that it stays within, as one of these items says them. Raises OutOfBounds where none lets it through.

    `by`: whose items they are.
    """
    if not items:
        return call
    found = [item.tools[call.tool] for item in items if item.tools and call.tool in item.tools]
    why = [tuple(bounds.problems(call.arguments, made=calls_made, by=by)) for bounds in found]
    fitting = next((bounds for bounds, problems in zip(found, why, strict=True) if not problems), None)
    if fitting is None:
        raise OutOfBounds(f"{call.tool}: {'; '.join(why[0])}" if why else f"{by} does not name {call.tool}")
    return call.model_copy(update={"within": fitting})


def action_of(uses: ToolUses, name: str) -> Action | None:
    """Return the action that a call of a tool needs; None where no pattern fits its name."""
    if isinstance(uses.action, Action):
        return uses.action
    return next((action for pattern, action in uses.action.items() if matches_pattern(pattern, name)), None)


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether a name is one that a pattern stands for; `*` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def sql_parameters(sql: Sql, call: ToolCall, scope: Mapping[str, str]) -> dict[str, Any]:
    """Return what is bound to a statement's parameters; an input that was not given is null. `scope`: the job's data scope."""
    given = {**call.arguments, **scope}
    return {name: given.get(name) for name in sql.parameters}


def build_http_request(http: Http, call: ToolCall, fields: Mapping[str, str], *, inputs: frozenset[str]) -> HttpRequest:
    """Return the request of a call. `fields`: the credential's, and the job's data scope. Raises InvalidInput for what cannot stand where the tool puts it.

    Each value that goes into the address is encoded whole; one of dots only, or in the path with a slash, could be another place, and is refused.
    """
    texts = {name: _argument_text(call.arguments.get(name)) for name in inputs} | {
        name: value for name, value in fields.items() if name not in inputs
    }
    _check_known((name for _, name in http.placeholders()), texts)
    _check_sendable(http, call, texts, inputs)
    url = SCOPE_PLACEHOLDER.sub(lambda found: quote(texts[found[1]], safe=""), http.url)
    headers = {name: SCOPE_PLACEHOLDER.sub(lambda found: texts[found[1]], value) for name, value in http.headers.items()}
    return HttpRequest(url, headers, _fill_body(http.body, call, texts, inputs))


def fill_headers(headers: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Return headers with a credential's fields in them. Raises InvalidInput where it has no such field."""
    _check_known((name for value in headers.values() for name in SCOPE_PLACEHOLDER.findall(value)), fields)
    return {name: SCOPE_PLACEHOLDER.sub(lambda found: fields[found[1]], value) for name, value in headers.items()}


def _is_valid(tool: Tool, arguments: dict[str, Any]) -> bool:
    try:
        return tool.validator.is_valid(arguments)
    except (SchemaUnusable, ValueError) as error:
        # An upstream's schema can refer to what is not there. The reviewed file has the details.
        raise InvalidInput("tool", (Problem("", f"its input's schema cannot be followed ({type(error).__name__})"),)) from error


def _argument_problems(tool: Tool, arguments: dict[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with arguments that do not fit. Repeats none of their values: they may be long, and a model reads this."""
    schema = tool.schema_of_input
    for keyword, rule in failing_keywords(schema, arguments):
        if keyword == "properties":
            for name in sorted(rule.keys() & arguments.keys()):
                yield from _property_problems(schema, name, arguments[name])
        elif keyword == "additionalProperties":
            unknown = sorted(set(arguments) - tool.inputs) or ["a name that is not listed"]
            yield Problem("", f"unknown: {', '.join(name[:64] for name in unknown)}{did_you_mean(unknown[0], tool.inputs)}")
        elif keyword == "required":
            yield Problem("", f"required: {', '.join(name for name in rule if name not in arguments)}")
        else:
            yield Problem("", _rule_text(keyword, rule))


def _property_problems(schema: Mapping[str, Any], name: str, value: Any) -> Iterator[Problem]:
    own = schema["properties"][name]
    if not isinstance(own, Mapping):
        own = {} if own else {"not": {}}
    shared = {key: schema[key] for key in ("$schema", *DEFINITIONS) if key in schema}
    if fits({**shared, **own}, value):
        return
    path = to_yaml_path([name])
    yield from (Problem(path, _rule_text(keyword, rule)) for keyword, rule in failing_keywords({**shared, **own}, value))


def _rule_text(keyword: str, rule: Any) -> str:
    return f"must have {keyword} {str(rule)[:200]}"


def _check_known(names: Iterable[str], known: Mapping[str, str]) -> None:
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise InvalidInput("tool", tuple(Problem("", f"neither an input nor a field of the credential: {name}") for name in unknown))


def _check_sendable(http: Http, call: ToolCall, texts: Mapping[str, str], inputs: frozenset[str]) -> None:
    in_headers = {name for value in http.headers.values() for name in SCOPE_PLACEHOLDER.findall(value)}
    problems = [
        Problem(name, "cannot stand in an address: it is empty, or dots only")
        for name in sorted(http.in_url)
        if not texts[name] or DOTS.fullmatch(texts[name])
    ]
    problems += [
        Problem(name, f"cannot stand in an address: {why}")
        for name in sorted(http.in_path & inputs)
        if (why := _why_other_path(http, name, texts[name]))
    ]
    problems += [
        Problem(name, "must be printable ASCII: it is sent in a header")
        for name in sorted(in_headers & inputs)
        if not (texts[name].isprintable() and texts[name].isascii())
    ]
    if problems:
        raise InvalidInput(f"arguments of {call.tool}", tuple(problems))


def _why_other_path(http: Http, name: str, text: str) -> str | None:
    """Return why a value in a URL path could lead to another path, or None. Many servers decode a path before they split it."""
    if has_path_traversal(text):
        return "it has a part `..`"
    if name not in http.slashes and re.search(r"[/\\]", text):
        return "it has a slash, and the tool's http.slashes does not name it"
    return None


def _fill_body(value: Any, call: ToolCall, texts: Mapping[str, str], inputs: frozenset[str]) -> Any:
    """Return a JSON value filled in; what stands for an input that was not given is left out of an object."""
    if isinstance(value, str):
        whole = SCOPE_PLACEHOLDER.fullmatch(value)
        if whole and whole[1] in inputs:
            return call.arguments.get(whole[1])
        return SCOPE_PLACEHOLDER.sub(lambda found: texts[found[1]], value)
    if isinstance(value, Mapping):
        return {key: _fill_body(inner, call, texts, inputs) for key, inner in value.items() if not _is_missing(inner, call, inputs)}
    if isinstance(value, list | tuple):
        return [_fill_body(inner, call, texts, inputs) for inner in value]
    return value


def _is_missing(value: Any, call: ToolCall, inputs: frozenset[str]) -> bool:
    whole = SCOPE_PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    return whole is not None and whole[1] in inputs and whole[1] not in call.arguments


def _argument_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else to_canonical_json(value).decode()
