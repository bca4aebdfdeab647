"""Parses and formats tools with their bounds as people write them, one per line: `refund-order:amount<=100`. No I/O, no clock.

refund-order                      the tool, as requested
refund-order:calls=3              at most three calls
refund-order:amount<=100          a number of at most 100; `>=` for at least
refund-order:order_id=4711,4712   one of these values; put text that contains a comma in double quotes
refund-order:path^=/in/2026/      text that begins with this
refund-order:arguments.calls<=3   an argument whose own name is calls or other_arguments
refund-order:other_arguments=none no argument but the bound ones
send-mail:each to=ann,bob         a list whose items are each one of these; `<=`, `>=` and `^=` likewise
send-mail:items of to<=3          a list of at most three items
refund-order:calls per order_id=1 at most one call with each order_id
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.validation_messages import describe_error
from justenough.domain.jobs.tool_bounds import NOT_BOUNDABLE, Bound, BoundedTools, Bounds, ItemBound, intersect_all

LINE_PATTERN = re.compile(
    r"(?P<tool>[A-Za-z0-9_.-]{1,128})(?::(?P<of>each |items of |calls per )?(?P<name>[^<>=^\s]{1,128}?)(?P<how><=|>=|\^=|=)(?P<value>.+))?",
    re.DOTALL,
)
SYNTAX_HINT = "write TOOL, TOOL:calls=3, TOOL:ARGUMENT<=100, TOOL:ARGUMENT>=1, TOOL:ARGUMENT=this,or-that or TOOL:ARGUMENT^=prefix"
ARGUMENT_PREFIX = "arguments."
RESERVED_NAMES = frozenset({"calls", "other_arguments"})
"""Names that mean something other than an argument in a line."""
OPERATORS = {"minimum": ">=", "maximum": "<=", "prefix": "^="}


def parse_tool_bounds(lines: Iterable[str], requested: BoundedTools | None) -> dict[str, Bounds]:
    """Return the tools that the lines name, each with the intersection of its lines' bounds and the requested ones.

    Raises InvalidInput with the problem of each line.
    """
    parsed: dict[str, list[Bounds]] = {}
    problems: list[Problem] = []
    for line in lines:
        try:
            tool, bounds = _parse_line(line)
        except ValueError as error:
            problems.append(Problem(line[:100], str(error)))
            continue
        parsed.setdefault(tool, []).append(bounds)
    if requested is None:
        raise InvalidInput("tools", (*problems, Problem("", NOT_BOUNDABLE)))
    names = ", ".join(sorted(requested))
    problems += [Problem(tool, f"was not requested; requested: {names}") for tool in parsed if tool not in requested]
    raise_problems("tools", problems)
    allowed: dict[str, Bounds] = {}
    for tool, tool_bounds in parsed.items():
        closes = [bounds for bounds in tool_bounds if bounds.other_arguments == "none"]
        common = intersect_all({tool: requested[tool]}, *({tool: bounds} for bounds in tool_bounds if bounds not in closes))
        if not common:
            raise InvalidInput("tools", (Problem(tool, "no call satisfies both these bounds and the requested ones"),))
        # This line is about the arguments of all other lines.
        allowed[tool] = common[tool].model_copy(update={"other_arguments": "none"}) if closes else common[tool]
    return allowed


def format_recorded_tools(tools: Mapping[str, Any]) -> str:
    """Return tools in their recorded form (JSON) as one line of text."""
    return ", ".join(format_tool_lines({name: Bounds.model_validate(bounds) for name, bounds in tools.items()}))


def format_tool_lines(tools: BoundedTools) -> list[str]:
    """Return tools as lines that `parse_tool_bounds` accepts."""
    return [line for tool, bounds in tools.items() for line in (list(_format_bounds(tool, bounds)) or [tool])]


def _parse_line(line: str) -> tuple[str, Bounds]:
    matched = LINE_PATTERN.fullmatch(line.strip())
    if matched is None:
        raise ValueError(SYNTAX_HINT)
    tool, of, name, operator, value = matched.group("tool", "of", "name", "how", "value")
    if name is None:
        return tool, Bounds()
    if of is None and name == "other_arguments":
        if (operator, value.strip()) != ("=", "none"):
            raise ValueError("other_arguments= can only be none")
        return tool, Bounds(other_arguments="none")
    if of is None and name == "calls":
        return tool, Bounds(calls=_parse_count("calls", operator, value))
    argument = name.removeprefix(ARGUMENT_PREFIX)
    try:
        match of:
            case "items of ":
                bound = Bound(max_items=_parse_count(f"items of {name}", operator, value))
            case "calls per ":
                bound = Bound(calls_per_value=_parse_count(f"calls per {name}", operator, value, least=1))
            case "each ":
                bound = Bound(each=_parse_bound(operator, value))
            case _:
                bound = Bound(**dict(_parse_bound(operator, value)))
        return tool, Bounds(arguments={argument: bound})
    except ValidationError as error:
        # Pydantic reports an error for each type that the value does not have. Only a text can be too long.
        errors = error.errors()
        raise ValueError(describe_error(next((item for item in errors if item["type"] == "string_too_long"), errors[0]))) from error


def _parse_count(what: str, operator: str, value: str, *, least: int = 0) -> int:
    if operator not in {"=", "<="} or not value.strip().isdecimal() or not least <= int(value) <= 10_000:
        raise ValueError(f"{what}= needs a number from {least} to 10,000")
    return int(value)


def _parse_bound(operator: str, value: str) -> ItemBound:
    if operator == "^=":
        return ItemBound(prefix=value)
    if operator == "=":
        # Parse the list as JSON if possible; else parse each part as JSON, or take it as text.
        values = _parse_json(f"[{value}]")
        if not isinstance(values, list):
            values = [_parse_json(part.strip()) for part in value.split(",")]
        if not values or not all(isinstance(each, bool | int | float | str) for each in values):
            raise ValueError("= needs one or more plain values, separated by commas")
        return ItemBound(one_of=tuple(values))
    with suppress(ValueError):
        number = float(value)
        if -1e300 < number < 1e300:
            return ItemBound(minimum=number) if operator == ">=" else ItemBound(maximum=number)
    raise ValueError(f"{operator} needs a number")


def _parse_json(text: str) -> Any:
    """Return the JSON value of a text, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _format_bounds(tool: str, bounds: Bounds) -> Iterator[str]:
    if bounds.calls is not None:
        yield f"{tool}:calls={bounds.calls}"
    if bounds.other_arguments == "none":
        yield f"{tool}:other_arguments=none"
    for name, bound in bounds.arguments.items():
        path = f"{ARGUMENT_PREFIX if name in RESERVED_NAMES or name.startswith(ARGUMENT_PREFIX) else ''}{name}"
        yield from (f"{tool}:{line}" for line in _format_plain(path, bound))
        if bound.each is not None:
            yield from (f"{tool}:each {line}" for line in _format_plain(path, bound.each))
        if bound.max_items is not None:
            yield f"{tool}:items of {path}<={bound.max_items}"
        if bound.calls_per_value is not None:
            yield f"{tool}:calls per {path}={bound.calls_per_value}"


def _format_plain(path: str, bound: ItemBound) -> Iterator[str]:
    for field, operator in OPERATORS.items():
        value = getattr(bound, field)
        if value is not None:
            is_integral = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
            yield f"{path}{operator}{int(value) if is_integral else value}"
    if bound.one_of is not None:
        yield f"{path}={','.join(json.dumps(value, ensure_ascii=False) for value in bound.one_of)}"
