"""What a tool's calls must stay within: so many calls, and what their arguments may be. Can only narrow. No I/O, no clock.

An order says it, whoever approves may say it, and what a job's own jobs may have is measured by it. `both` is what is within two of them,
`beyond` where one lets more through than the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Annotated, Any, Self
from urllib.parse import unquote

from pydantic import Field, StringConstraints, model_validator

from justenough.domain.core.base_model import Model

ArgumentValue = bool | int | float | Annotated[str, StringConstraints(max_length=1000)]
MAX_VALUES = 1_000
MAX_DECODINGS = 5
"""Times that a text may be percent-encoded; nobody who means well does it twice."""
ORDER, APPROVAL = "the order", "the approval"
"""Whose bounds they are, in words."""


class Bound(Model):
    """What one argument may be. Each thing that is said must hold."""

    minimum: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None
    maximum: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None
    one_of: Annotated[
        tuple[ArgumentValue, ...] | None, Field(min_length=1, max_length=MAX_VALUES, exclude_if=lambda value: value is None)
    ] = None
    prefix: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None, Field(exclude_if=lambda value: value is None)
    ] = None
    """Text that it begins with; no part of what follows may be `..`, in any writing of it (`has_path_traversal`)."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self == Bound.model_construct():
            message = "says nothing: give minimum, maximum, one_of or prefix"
            raise ValueError(message)
        return self

    def problem(self, value: Any, *, by: str = ORDER) -> str | None:
        """Return why a value is not within it; None where it is. `by`: who says so."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.minimum is not None and not (number and value >= self.minimum):
            return f"must be a number of at least {self.minimum:g}"
        if self.maximum is not None and not (number and value <= self.maximum):
            return f"must be a number of at most {self.maximum:g}"
        if self.one_of is not None and not any(_is_same_json(value, one) for one in self.one_of):
            return f"must be one of the {len(self.one_of)} values that {by} lists"
        if self.prefix is not None and not (isinstance(value, str) and value.startswith(self.prefix) and not has_path_traversal(value)):
            return f"must begin with {self.prefix!r}, and have no part `..`"
        return None

    def intersect(self, other: Bound) -> Bound | None:
        """Return what is within this one and the other; None where nothing is."""
        prefixes = [one for one in (self.prefix, other.prefix) if one is not None]
        longest = max(prefixes, key=len, default=None)
        if longest is not None and not all(longest.startswith(one) for one in prefixes):
            return None
        said = {
            "minimum": max((one for one in (self.minimum, other.minimum) if one is not None), default=None),
            "maximum": min((one for one in (self.maximum, other.maximum) if one is not None), default=None),
            "prefix": longest,
            "one_of": _common_values(self, other),
        }
        if said["one_of"] == ():
            return None
        found = Bound.model_validate(said)
        return None if found.is_empty else found

    def is_within(self, other: Bound) -> bool:
        """Whether every value that is within this one is within the other."""
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
        # Of its last part more may follow, as of `..` in `..b`.
        return crossed or (self.prefix is not None and (numeric or has_path_traversal(re.sub(r"[^/\\]*$", "", self.prefix))))

    @property
    def _values(self) -> tuple[ArgumentValue, ...] | None:
        """The only values that can be within it; None where there is no end of them."""
        if self.one_of is not None:
            return self.one_of
        return (self.minimum,) if self.minimum is not None and self.minimum == self.maximum else None


class Bounds(Model):
    """What the calls of one tool must stay within."""

    calls: Annotated[int | None, Field(ge=1, le=10_000, exclude_if=lambda value: value is None)] = None
    """How many are made at most."""
    arguments: Annotated[Mapping[str, Bound], Field(max_length=32)] = Field(default_factory=dict)
    """By name. What is bound must be given: what is left out would be the tool's own choice."""

    def problems(self, arguments: Mapping[str, Any], *, made: int, by: str = ORDER) -> Iterator[str]:
        """Yield why a call is not within them. `made`: calls that were made already, or are being made; `by`: who says so."""
        if self.calls is not None and made >= self.calls:
            yield f"{by} allows {self.calls} call{'s' if self.calls != 1 else ''} of it, which {'were' if self.calls != 1 else 'was'} made"
        for name, bound in self.arguments.items():
            if name not in arguments:
                yield f"{name}: must be given, for {by} binds it"
            elif why := bound.problem(arguments[name], by=by):
                yield f"{name}: {why}"
        # Servers that read JSON without regard to case would take it for the one that is bound, and take the last of the two.
        bound_names = {name.casefold() for name in self.arguments}
        yield from (
            f"{name}: differs by case alone from what {by} binds"
            for name in self._unbound_names(arguments)
            if name.casefold() in bound_names
        )

    def _unbound_names(self, arguments: Mapping[str, Any]) -> Iterator[str]:
        return (name for name in arguments if name not in self.arguments)

    def intersect(self, other: Bounds) -> Bounds | None:
        """Return what is within these and the others; None where no call is."""
        calls = min((one for one in (self.calls, other.calls) if one is not None), default=None)
        arguments: dict[str, Bound] = {}
        for name in sorted(self.arguments.keys() | other.arguments.keys()):
            said = [bounds.arguments[name] for bounds in (self, other) if name in bounds.arguments]
            found = said[0].intersect(said[-1])
            if found is None:
                return None
            arguments[name] = found
        return Bounds(calls=calls, arguments=arguments)

    def excess_over(self, other: Bounds) -> Iterator[tuple[str, str]]:
        """Yield where these let more through than the others: the path within them, and why."""
        if other.calls is not None and (self.calls is None or self.calls > other.calls):
            yield "calls", f"at most {other.calls}"
        for name, bound in other.arguments.items():
            if name not in self.arguments:
                yield f"arguments.{name}", "must be bound"
            elif not self.arguments[name].is_within(bound):
                yield f"arguments.{name}", "lets more through"


BoundedTools = Mapping[str, Bounds]
"""What some access is for: these tools alone, each within its bounds."""


def intersect_tools(one: BoundedTools, other: BoundedTools) -> dict[str, Bounds]:
    """Return the tools of both, each within the bounds of both; without those of which no call is left."""
    found = {name: one[name].intersect(other[name]) for name in sorted(one.keys() & other.keys())}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def intersect_all(first: BoundedTools, *others: BoundedTools) -> dict[str, Bounds]:
    """Return what is within all of some."""
    return reduce(intersect_tools, others, dict(first))


def tools_to_json(tools: BoundedTools | None) -> dict[str, Any] | None:
    """Return tools as JSON, as they are signed and recorded."""
    return None if tools is None else {name: bounds.model_dump(mode="json") for name, bounds in tools.items()}


def has_path_traversal(text: str) -> bool:
    """Whether some server could take a part of a text for `..`: behind a slash of either kind, before `;`, percent-encoded, however often."""
    for _ in range(MAX_DECODINGS):
        if any(part.partition(";")[0].strip() == ".." for part in re.split(r"[/\\]", text)):
            return True
        text, before = unquote(text), text
        if text == before:
            return False
    return True


def _common_values(one: Bound, other: Bound) -> tuple[ArgumentValue, ...] | None:
    """Return the listed values that both let through; None where neither lists any."""
    if one.one_of is None and other.one_of is None:
        return None
    listed = one.one_of if one.one_of is not None else other.one_of or ()
    return tuple(value for value in listed if one.problem(value) is None and other.problem(value) is None)


def _is_same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
