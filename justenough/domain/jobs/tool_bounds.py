"""Bounds of tools: how many calls a job may make, and with which arguments. No I/O, no clock.

Orders set bounds, approvers may narrow them, and a child job's bounds must be within its parent's. `intersect` combines two bounds;
`excess_over` finds where one allows more than the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Annotated, Any, Self
from urllib.parse import unquote

from pydantic import Field, StringConstraints, model_validator

from justenough.domain.core.base_model import Model, OmittedIfNone
from justenough.domain.core.errors import reject_if

ArgumentValue = bool | int | float | Annotated[str, StringConstraints(max_length=1000)]
MAX_VALUES = 1_000
MAX_DECODINGS = 5
"""Times that a text is percent-decoded; honest callers do not encode twice."""
ORDER, APPROVAL = "the order", "the approval"
"""The source of bounds, for messages."""
NOT_BOUNDABLE = (
    "the request is not for access through tools, so it has no bounds to set; a single call is approved with exactly its arguments"
)


class Bound(Model):
    """The allowed values of one argument. All set fields must be satisfied."""

    minimum: OmittedIfNone[float] = None
    maximum: OmittedIfNone[float] = None
    one_of: OmittedIfNone[Annotated[tuple[ArgumentValue, ...], Field(min_length=1, max_length=MAX_VALUES)]] = None
    prefix: OmittedIfNone[Annotated[str, StringConstraints(min_length=1, max_length=1000)]] = None
    """The text that it must begin with. No part of it may be `..`, in any encoding (`has_path_traversal`)."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        reject_if(self == Bound.model_construct(), "the bound is empty; set minimum, maximum, one_of or prefix")
        return self

    def problem(self, value: Any, *, by: str = ORDER) -> str | None:
        """Return why a value is out of bounds; None if it is within. `by`: the source of the bound."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.minimum is not None and not (number and value >= self.minimum):
            return f"must be a number of at least {self.minimum:g}"
        if self.maximum is not None and not (number and value <= self.maximum):
            return f"must be a number of at most {self.maximum:g}"
        # In JSON, true is not 1.
        if self.one_of is not None and not any(
            value == allowed and isinstance(value, bool) == isinstance(allowed, bool) for allowed in self.one_of
        ):
            return f"must be one of the {len(self.one_of)} values that {by} lists"
        if self.prefix is not None and not (isinstance(value, str) and value.startswith(self.prefix) and not has_path_traversal(value)):
            return f"must begin with {self.prefix!r} and must not contain a path part `..`"
        return None

    def intersect(self, other: Bound) -> Bound | None:
        """Return the intersection of two bounds; None if it is empty."""
        prefixes = [prefix for prefix in (self.prefix, other.prefix) if prefix is not None]
        longest = max(prefixes, key=len, default=None)
        if longest is not None and not all(longest.startswith(prefix) for prefix in prefixes):
            return None
        values = self.one_of if self.one_of is not None else other.one_of
        common = (
            None if values is None else tuple(value for value in values if self.problem(value) is None and other.problem(value) is None)
        )
        if common == ():
            return None
        bound = Bound(
            minimum=max((limit for limit in (self.minimum, other.minimum) if limit is not None), default=None),
            maximum=min((limit for limit in (self.maximum, other.maximum) if limit is not None), default=None),
            prefix=longest,
            one_of=common,
        )
        return None if bound.is_empty else bound

    def is_within(self, other: Bound) -> bool:
        """Whether every value within this bound is also within the other."""
        if self.is_empty:
            return True
        if self._values is not None:
            return all(other.problem(value) is None for value in self._values if self.problem(value) is None)
        return (
            other.one_of is None
            and (other.minimum is None or (self.minimum is not None and self.minimum >= other.minimum))
            and (other.maximum is None or (self.maximum is not None and self.maximum <= other.maximum))
            and (other.prefix is None or (self.prefix is not None and self.prefix.startswith(other.prefix)))
        )

    @property
    def is_empty(self) -> bool:
        """Whether no value is within it."""
        if self._values is not None:
            return all(self.problem(value) for value in self._values)
        numeric = self.minimum is not None or self.maximum is not None
        crossed = self.minimum is not None and self.maximum is not None and self.minimum > self.maximum
        # The prefix's last part may be incomplete: `..` may become `..b`.
        return crossed or (self.prefix is not None and (numeric or has_path_traversal(re.sub(r"[^/\\]*$", "", self.prefix))))

    @property
    def _values(self) -> tuple[ArgumentValue, ...] | None:
        """All values that can be within it; None if they cannot be listed."""
        if self.one_of is not None:
            return self.one_of
        return (self.minimum,) if self.minimum is not None and self.minimum == self.maximum else None


class Bounds(Model):
    """The bounds of one tool: how many calls, and which arguments."""

    calls: OmittedIfNone[Annotated[int, Field(ge=1, le=10_000)]] = None
    """The maximum number of calls."""
    arguments: Annotated[Mapping[str, Bound], Field(max_length=32)] = Field(default_factory=dict)
    """By name. A call must pass each bound argument, or the tool would choose its value."""

    def problems(self, arguments: Mapping[str, Any], *, made: int, by: str = ORDER) -> Iterator[str]:
        """Yield why a call is out of bounds. `made`: calls already made or in progress; `by`: the source of the bounds."""
        if self.calls is not None and made >= self.calls:
            yield f"{by} allows {self.calls} call{'s' if self.calls != 1 else ''} of it, and this limit is reached"
        for name, bound in self.arguments.items():
            if name not in arguments:
                yield f"{name}: required, because {by} bounds it"
            elif why := bound.problem(arguments[name], by=by):
                yield f"{name}: {why}"
        # A server that ignores case in JSON keys would treat this key as the bound argument, and use the last of both values.
        bound_names = {name.casefold() for name in self.arguments}
        for name in arguments:
            if name not in self.arguments and name.casefold() in bound_names:
                yield f"{name}: differs only in case from an argument that {by} bounds"

    def intersect(self, other: Bounds) -> Bounds | None:
        """Return the intersection of two bounds; None if it allows no call."""
        calls = min((limit for limit in (self.calls, other.calls) if limit is not None), default=None)
        arguments: dict[str, Bound] = {}
        for name in sorted(self.arguments.keys() | other.arguments.keys()):
            bounds = [each.arguments[name] for each in (self, other) if name in each.arguments]
            common = bounds[0].intersect(bounds[-1])
            if common is None:
                return None
            arguments[name] = common
        return Bounds(calls=calls, arguments=arguments)

    def excess_over(self, other: Bounds) -> Iterator[tuple[str, str]]:
        """Yield each way in which these bounds allow more than the others, as the path within them and the reason."""
        if other.calls is not None and (self.calls is None or self.calls > other.calls):
            yield "calls", f"at most {other.calls}"
        for name, bound in other.arguments.items():
            if name not in self.arguments:
                yield f"arguments.{name}", "must have a bound"
            elif not self.arguments[name].is_within(bound):
                yield f"arguments.{name}", "allows more"


BoundedTools = Mapping[str, Bounds]
"""The only tools that an access is for, each with its bounds."""


def intersect_tools(first: BoundedTools, other: BoundedTools) -> dict[str, Bounds]:
    """Return the tools of both, each with the intersection of its bounds; without tools that allow no call."""
    common = {name: first[name].intersect(other[name]) for name in sorted(first.keys() & other.keys())}
    return {name: bounds for name, bounds in common.items() if bounds is not None}


def intersect_all(first: BoundedTools, *others: BoundedTools) -> dict[str, Bounds]:
    """Return the intersection of one or more bounded tools."""
    return reduce(intersect_tools, others, dict(first))


def tools_to_json(tools: BoundedTools | None) -> dict[str, Any] | None:
    """Return tools as JSON, in the form that is signed and recorded."""
    return None if tools is None else {name: bounds.model_dump(mode="json") for name, bounds in tools.items()}


def has_path_traversal(text: str) -> bool:
    """Whether a server could read a path part of a text as `..`: after a slash or backslash, before `;`, percent-encoded any number of times."""
    for _ in range(MAX_DECODINGS):
        if any(part.partition(";")[0].strip() == ".." for part in re.split(r"[/\\]", text)):
            return True
        text, before = unquote(text), text
        if text == before:
            return False
    return True
