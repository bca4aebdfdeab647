"""Tools and their bounds as people write them, one a line: `refund-order:amount<=100`. Read and written alike. No I/O, no clock.

refund-order                      the tool, as it was asked for
refund-order:calls=3              at most three calls
refund-order:amount<=100          a number of at most 100; `>=` for at least
refund-order:order_id=4711,4712   one of these; text with a comma in it is written in double quotes
refund-order:path^=/in/2026/      text that begins so
refund-order:arguments.calls<=3   an argument that is itself called calls
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.jobs.tool_bounds import Bound, BoundedTools, Bounds, intersect_all

LINE_PATTERN = re.compile(r"(?P<tool>[A-Za-z0-9_.-]{1,128})(?::(?P<name>[^<>=^\s]{1,128}?)(?P<how><=|>=|\^=|=)(?P<value>.+))?", re.DOTALL)
SYNTAX_HINT = "write TOOL, TOOL:calls=3, TOOL:ARGUMENT<=100, TOOL:ARGUMENT>=1, TOOL:ARGUMENT=this,or-that or TOOL:ARGUMENT^=prefix"
ARGUMENT_PREFIX = "arguments."
OPERATORS = {"minimum": ">=", "maximum": "<=", "prefix": "^="}


def parse_tool_bounds(lines: Iterable[str], requested: BoundedTools | None) -> dict[str, Bounds]:
    """Return what lines allow of the tools that were asked for: those that they name, and no more than was asked.

    Raises InvalidInput with what is wrong with each line.
    """
    said: dict[str, list[Bounds]] = {}
    problems: list[Problem] = []
    for line in lines:
        try:
            tool, bounds = _parse_line(line)
        except ValueError as error:
            problems.append(Problem(line[:100], str(error)))
            continue
        said.setdefault(tool, []).append(bounds)
    problems += _unrequested_problems(said, requested)
    if problems:
        raise InvalidInput("tools", tuple(problems))
    found: dict[str, Bounds] = {}
    for tool, several in said.items():
        left = intersect_all({tool: (requested or {})[tool]}, *({tool: one} for one in several))
        if not left:
            raise InvalidInput("tools", (Problem(tool, "no call would be left within what was asked for"),))
        found[tool] = left[tool]
    return found


def format_recorded_tools(tools: Mapping[str, Any]) -> str:
    """Return tools as they are recorded, on one line."""
    return ", ".join(format_tool_lines({name: Bounds.model_validate(bounds) for name, bounds in tools.items()}))


def format_tool_lines(tools: BoundedTools) -> list[str]:
    """Return tools as lines that `allowed` reads."""
    return [line for tool, bounds in tools.items() for line in (list(_format_bounds(tool, bounds)) or [tool])]


def _unrequested_problems(tools: Iterable[str], requested: BoundedTools | None) -> Iterator[Problem]:
    if requested is None:
        yield Problem(
            "", "it is not for access through tools, so there is nothing to bind: one call is approved with exactly its arguments"
        )
        return
    for tool in tools:
        if tool not in requested:
            yield Problem(tool, f"was not asked for; it is for {', '.join(sorted(requested))}")


def _parse_line(line: str) -> tuple[str, Bounds]:
    matched = LINE_PATTERN.fullmatch(line.strip())
    if matched is None:
        raise ValueError(SYNTAX_HINT)
    tool, name, how, value = matched.group("tool", "name", "how", "value")
    if name is None:
        return tool, Bounds()
    if name == "calls":
        return tool, _parse_calls(how, value)
    try:
        return tool, Bounds(arguments={name.removeprefix(ARGUMENT_PREFIX): _parse_bound(how, value)})
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error


def _parse_calls(how: str, value: str) -> Bounds:
    if how not in {"=", "<="} or not value.strip().isdecimal() or not 1 <= int(value) <= 10_000:
        message = "calls=N takes a number from 1 to 10,000"
        raise ValueError(message)
    return Bounds(calls=int(value))


def _parse_bound(how: str, value: str) -> Bound:
    if how == "^=":
        return Bound(prefix=value)
    if how == "=":
        return Bound(one_of=tuple(_parse_values(value)))
    try:
        number = float(value)
    except ValueError as error:
        message = f"{how} takes a number"
        raise ValueError(message) from error
    if not -1e300 < number < 1e300:
        message = f"{how} takes a number"
        raise ValueError(message)
    return Bound(minimum=number) if how == ">=" else Bound(maximum=number)


def _parse_values(text: str) -> list[Any]:
    """Return the values of a list with commas: JSON where all of it is, else each number as one, and each word as text."""
    try:
        found = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        found = [_parse_scalar(part.strip()) for part in text.split(",")]
    if not found or not all(isinstance(one, bool | int | float | str) for one in found):
        message = "= takes one or more plain values, with commas between them"
        raise ValueError(message)
    return list(found)


def _parse_scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _format_bounds(tool: str, bounds: Bounds) -> Iterator[str]:
    if bounds.calls is not None:
        yield f"{tool}:calls={bounds.calls}"
    for name, bound in bounds.arguments.items():
        path = f"{tool}:{ARGUMENT_PREFIX if name == 'calls' else ''}{name}"
        for field, sign in OPERATORS.items():
            value = getattr(bound, field)
            if value is not None:
                yield f"{path}{sign}{value if isinstance(value, str) else _format_number(value)}"
        if bound.one_of is not None:
            yield f"{path}={','.join(json.dumps(one, ensure_ascii=False) for one in bound.one_of)}"


def _format_number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
