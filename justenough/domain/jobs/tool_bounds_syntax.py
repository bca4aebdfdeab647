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
from justenough.domain.jobs.tool_bounds import Bound, Bounds, Tools, all_of

LINE = re.compile(r"(?P<tool>[A-Za-z0-9_.-]{1,128})(?::(?P<name>[^<>=^\s]{1,128}?)(?P<how><=|>=|\^=|=)(?P<value>.+))?", re.DOTALL)
WRITTEN = "write TOOL, TOOL:calls=3, TOOL:ARGUMENT<=100, TOOL:ARGUMENT>=1, TOOL:ARGUMENT=this,or-that or TOOL:ARGUMENT^=prefix"
ARGUMENT = "arguments."
SIGNS = {"minimum": ">=", "maximum": "<=", "prefix": "^="}


def allowed(lines: Iterable[str], asked: Tools | None) -> dict[str, Bounds]:
    """Return what lines allow of the tools that were asked for: those that they name, and no more than was asked.

    Raises InvalidInput with what is wrong with each line.
    """
    said: dict[str, list[Bounds]] = {}
    problems: list[Problem] = []
    for line in lines:
        try:
            tool, bounds = _read(line)
        except ValueError as error:
            problems.append(Problem(line[:100], str(error)))
            continue
        said.setdefault(tool, []).append(bounds)
    problems += _unasked(said, asked)
    if problems:
        raise InvalidInput("tools", tuple(problems))
    found: dict[str, Bounds] = {}
    for tool, several in said.items():
        left = all_of({tool: (asked or {})[tool]}, *({tool: one} for one in several))
        if not left:
            raise InvalidInput("tools", (Problem(tool, "no call would be left within what was asked for"),))
        found[tool] = left[tool]
    return found


def told(tools: Mapping[str, Any]) -> str:
    """Return tools as they are recorded, on one line."""
    return ", ".join(lines_of({name: Bounds.model_validate(bounds) for name, bounds in tools.items()}))


def lines_of(tools: Tools) -> list[str]:
    """Return tools as lines that `allowed` reads."""
    return [line for tool, bounds in tools.items() for line in (list(_lines(tool, bounds)) or [tool])]


def _unasked(said: Iterable[str], asked: Tools | None) -> Iterator[Problem]:
    if asked is None:
        yield Problem(
            "", "it is not for access through tools, so there is nothing to bind: one call is approved with exactly its arguments"
        )
        return
    for tool in said:
        if tool not in asked:
            yield Problem(tool, f"was not asked for; it is for {', '.join(sorted(asked))}")


def _read(line: str) -> tuple[str, Bounds]:
    matched = LINE.fullmatch(line.strip())
    if matched is None:
        raise ValueError(WRITTEN)
    tool, name, how, value = matched.group("tool", "name", "how", "value")
    if name is None:
        return tool, Bounds()
    if name == "calls":
        return tool, _calls(how, value)
    try:
        return tool, Bounds(arguments={name.removeprefix(ARGUMENT): _bound(how, value)})
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error


def _calls(how: str, value: str) -> Bounds:
    if how not in {"=", "<="} or not value.strip().isdecimal() or not 1 <= int(value) <= 10_000:
        message = "calls=N takes a number from 1 to 10,000"
        raise ValueError(message)
    return Bounds(calls=int(value))


def _bound(how: str, value: str) -> Bound:
    if how == "^=":
        return Bound(prefix=value)
    if how == "=":
        return Bound(one_of=tuple(_values(value)))
    try:
        number = float(value)
    except ValueError as error:
        message = f"{how} takes a number"
        raise ValueError(message) from error
    if not -1e300 < number < 1e300:
        message = f"{how} takes a number"
        raise ValueError(message)
    return Bound(minimum=number) if how == ">=" else Bound(maximum=number)


def _values(text: str) -> list[Any]:
    """Return the values of a list with commas: JSON where all of it is, else each number as one, and each word as text."""
    try:
        found = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        found = [_scalar(part.strip()) for part in text.split(",")]
    if not found or not all(isinstance(one, bool | int | float | str) for one in found):
        message = "= takes one or more plain values, with commas between them"
        raise ValueError(message)
    return list(found)


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _lines(tool: str, bounds: Bounds) -> Iterator[str]:
    if bounds.calls is not None:
        yield f"{tool}:calls={bounds.calls}"
    for name, bound in bounds.arguments.items():
        path = f"{tool}:{ARGUMENT if name == 'calls' else ''}{name}"
        for field, sign in SIGNS.items():
            value = getattr(bound, field)
            if value is not None:
                yield f"{path}{sign}{value if isinstance(value, str) else _number(value)}"
        if bound.one_of is not None:
            yield f"{path}={','.join(json.dumps(one, ensure_ascii=False) for one in bound.one_of)}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
