"""Bounds of tools: how many calls a job may make, and with which arguments. No I/O, no clock.

Orders set bounds, approvers may narrow them, and a child job's bounds must be within its parent's. `intersect` combines two bounds;
`excess_over` finds where one allows more than the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from justenough.domain.core.base_model import Model, OmittedIfNone
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import reject_if
from justenough.domain.core.untrusted_yaml import MAX_SAFE_INTEGER


def _check_exact(value: float) -> float:
    # Text such as `inf` becomes a number, too, which JSON could not record. NaN is not less than anything.
    reject_if(not abs(value) <= MAX_SAFE_INTEGER, f"must be a number from -{MAX_SAFE_INTEGER:,} to {MAX_SAFE_INTEGER:,}")
    return value


ExactNumber = Annotated[float, AfterValidator(_check_exact)]
ArgumentValue = bool | int | float | Annotated[str, StringConstraints(max_length=1000)]
MAX_VALUES = 1_000
MAX_DECODINGS = 5
"""Maximum number of times that a text is percent-decoded; honest callers do not encode twice."""
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
ORDER, APPROVAL = "the order", "the approval"
"""The source of bounds, for messages."""
NOT_BOUNDABLE = (
    "the request is not for access through tools, so it has no bounds to set; a single call is approved with exactly its arguments"
)


class ItemBound(Model):
    """The allowed values of one item of a list, or of an argument. A value must satisfy every field that is set."""

    minimum: OmittedIfNone[ExactNumber] = None
    maximum: OmittedIfNone[ExactNumber] = None
    one_of: OmittedIfNone[Annotated[tuple[ArgumentValue, ...], Field(min_length=1, max_length=MAX_VALUES)]] = None
    prefix: OmittedIfNone[Annotated[str, StringConstraints(min_length=1, max_length=1000)]] = None
    """The text that it must begin with. No part of it may be `..`, in any encoding (`has_path_traversal`)."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        reject_if(self == type(self).model_construct(), f"the bound is empty; set one of: {', '.join(type(self).model_fields)}")
        return self

    def problem(self, value: Any, *, by: str = ORDER) -> str | None:
        """Return why a value is out of bounds; None if it is within. `by`: the source of the bound."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.minimum is not None and not (number and value >= self.minimum):
            return f"must be a number of at least {to_canonical_json(self.minimum).decode()}"
        if self.maximum is not None and not (number and value <= self.maximum):
            return f"must be a number of at most {to_canonical_json(self.maximum).decode()}"
        # In JSON, true is not 1.
        if self.one_of is not None and not any(
            value == allowed and isinstance(value, bool) == isinstance(allowed, bool) for allowed in self.one_of
        ):
            return f"must be one of the {len(self.one_of)} values that {by} lists"
        if self.prefix is not None and not (isinstance(value, str) and value.startswith(self.prefix) and not has_path_traversal(value)):
            return f"must begin with {self.prefix!r} and must not contain a path part `..`"
        return None

    def intersect(self, other: Self) -> Self | None:
        """Return the intersection of two bounds; None if it is empty."""
        fields = self._common_fields(other)
        bound = None if fields is None else type(self)(**fields)
        return None if bound is None or bound.is_empty else bound

    def _common_fields(self, other: Self) -> dict[str, Any] | None:
        """Return the fields of the intersection of two bounds; None if it is certain to be empty."""
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
        return {
            "minimum": max((limit for limit in (self.minimum, other.minimum) if limit is not None), default=None),
            "maximum": min((limit for limit in (self.maximum, other.maximum) if limit is not None), default=None),
            "prefix": longest,
            "one_of": common,
        }

    def is_within(self, other: Self) -> bool:
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


class Bound(ItemBound):
    """The allowed values of one argument. A value must satisfy every field that is set."""

    each: OmittedIfNone[ItemBound] = None
    """The bound of each item of a list."""
    max_items: OmittedIfNone[Annotated[int, Field(ge=0, le=10_000)]] = None
    """The maximum number of items of a list."""
    calls_per_value: OmittedIfNone[Annotated[int, Field(ge=1, le=10_000)]] = None
    """The maximum number of calls with the same value of this argument, which must be a plain value."""

    @property
    def is_for_lists(self) -> bool:
        """Whether only lists are within it."""
        return self.each is not None or self.max_items is not None

    def problem(self, value: Any, *, by: str = ORDER) -> str | None:
        if self.is_for_lists:
            if not isinstance(value, list):
                return "must be a list"
            if self.max_items is not None and len(value) > self.max_items:
                return f"must have at most {self.max_items} item{'s' if self.max_items != 1 else ''}"
            problems = (self.each.problem(item, by=by) for item in value) if self.each else iter(())
            if why := next(filter(None, problems), None):
                return f"each item {why}"
        if self.calls_per_value is not None and isinstance(value, list | dict):
            return f"must be a plain value, because {by} counts calls by it"
        return super().problem(value, by=by)

    def _common_fields(self, other: Self) -> dict[str, Any] | None:
        fields = super()._common_fields(other)
        if fields is None:
            return None
        items = [bound.each for bound in (self, other) if bound.each is not None]
        each = items[0].intersect(items[-1]) if items else None
        # If no item is within both, only the empty list is.
        limits = [bound.max_items for bound in (self, other) if bound.max_items is not None] + ([0] if items and each is None else [])
        counts = [bound.calls_per_value for bound in (self, other) if bound.calls_per_value is not None]
        return {**fields, "each": each, "max_items": min(limits, default=None), "calls_per_value": min(counts, default=None)}

    def is_within(self, other: Self) -> bool:
        """Whether every value within this bound is also within the other, and each value is allowed in no more calls."""
        if self.is_empty:
            return True
        if other.calls_per_value is not None and (self.calls_per_value is None or self.calls_per_value > other.calls_per_value):
            return False
        if not self.is_for_lists and not other.is_for_lists:
            return super().is_within(other)
        most = 0 if self.each is not None and self.each.is_empty else self.max_items
        return (
            self.is_for_lists
            and other.is_for_lists
            and not other.is_empty
            and (other.max_items is None or (most is not None and most <= other.max_items))
            and (other.each is None or most == 0 or (self.each is not None and self.each.is_within(other.each)))
        )

    @property
    def is_empty(self) -> bool:
        if not self.is_for_lists:
            return super().is_empty
        # The empty list is within it, unless it is for plain values too.
        return any(getattr(self, name) is not None for name in (*ItemBound.model_fields, "calls_per_value"))


class Bounds(Model):
    """The bounds of one tool: how many calls, and which arguments."""

    calls: OmittedIfNone[Annotated[int, Field(ge=0, le=10_000)]] = None
    """The maximum number of calls; 0 refuses the tool."""
    arguments: Annotated[Mapping[str, Bound], Field(max_length=32)] = Field(default_factory=dict)
    """Bounds by argument name. A call must pass each bound argument, because otherwise the tool would choose its value."""
    other_arguments: OmittedIfNone[Literal["none", "any"]] = None
    """Whether a call may pass arguments that are not bound. In a spec, None means `none` if any argument is bound; elsewhere it means `any`."""

    @property
    def counted_arguments(self) -> tuple[str, ...]:
        """The arguments for which calls are counted by value."""
        return tuple(name for name, bound in self.arguments.items() if bound.calls_per_value is not None)

    def with_default(self) -> Self:
        """Return a spec's bounds in the form that is recorded: no arguments other than the bound ones, unless the spec allows others."""
        is_closed = self.other_arguments == "none" or (self.other_arguments is None and self.arguments)
        return self.model_copy(update={"other_arguments": "none" if is_closed else None})

    def problems(
        self, arguments: Mapping[str, Any], *, calls_made: int, same_value_calls: Mapping[str, int] | None = None, by: str = ORDER
    ) -> Iterator[str]:
        """Yield why a call is out of bounds.

        `calls_made`: calls already made or in progress; `same_value_calls`: by argument, the calls among these with the same value; `by`: the bounds'
        source.
        """
        if self.calls is not None and calls_made >= self.calls:
            yield f"{by} allows {self.calls} call{'s' if self.calls != 1 else ''} of it, and this limit is reached"
        for name, bound in self.arguments.items():
            if name not in arguments:
                yield f"{name}: required, because {by} bounds it"
            elif why := bound.problem(arguments[name], by=by):
                yield f"{name}: {why}"
            elif bound.calls_per_value is not None and (same_value_calls or {}).get(name, 0) >= bound.calls_per_value:
                calls = f"{bound.calls_per_value} call{'s' if bound.calls_per_value != 1 else ''}"
                yield f"{name}: {by} allows {calls} with each value, and this value has had that many"
        # A server that ignores case in JSON keys would treat this key as the bound argument, and use the last of both values.
        bound_names = {name.casefold() for name in self.arguments}
        for name in arguments:
            if name not in self.arguments and name.casefold() in bound_names:
                yield f"{name}: differs only in case from an argument that {by} bounds"
            elif name not in self.arguments and self.other_arguments == "none":
                allowed = f"no argument except {', '.join(self.arguments)}" if self.arguments else "no arguments"
                yield f"{name[:64]}: {by} allows {allowed}"

    def intersect(self, other: Bounds) -> Bounds | None:
        """Return the intersection of two bounds; None if no arguments satisfy both."""
        calls = min((limit for limit in (self.calls, other.calls) if limit is not None), default=None)
        arguments: dict[str, Bound] = {}
        for name in sorted(self.arguments.keys() | other.arguments.keys()):
            bounds = [each.arguments[name] for each in (self, other) if name in each.arguments]
            common = bounds[0].intersect(bounds[-1])
            if common is None:
                return None
            arguments[name] = common
        closed = [each for each in (self, other) if each.other_arguments == "none"]
        if any(arguments.keys() - each.arguments.keys() for each in closed):
            return None
        return Bounds(calls=calls, arguments=arguments, other_arguments="none" if closed else None)

    def excess_over(self, other: Bounds) -> Iterator[tuple[str, str]]:
        """Yield each way in which these bounds allow more than the others, as the path within them and the reason."""
        if other.calls is not None and (self.calls is None or self.calls > other.calls):
            yield "calls", f"at most {other.calls}"
        for name, bound in other.arguments.items():
            if name not in self.arguments:
                yield f"arguments.{name}", "must have a bound"
            elif not self.arguments[name].is_within(bound):
                yield f"arguments.{name}", "allows more"
        if other.other_arguments == "none":
            if self.other_arguments != "none":
                yield "other_arguments", "must be none"
            for name in sorted(self.arguments.keys() - other.arguments.keys()):
                yield f"arguments.{name}", "must not be allowed"


BoundedTools = Mapping[str, Bounds]
"""The only tools that an access is for, each with its bounds."""


def intersect_tools(first: BoundedTools, other: BoundedTools) -> dict[str, Bounds]:
    """Return the tools that are in both, each with the intersection of its bounds; tools for which no arguments satisfy both are left out."""
    common = {name: first[name].intersect(other[name]) for name in sorted(first.keys() & other.keys())}
    return {name: bounds for name, bounds in common.items() if bounds is not None}


def intersect_all(first: BoundedTools, *others: BoundedTools) -> dict[str, Bounds]:
    """Return the intersection of one or more bounded tools."""
    return reduce(intersect_tools, others, dict(first))


def tools_to_json(tools: BoundedTools | None) -> dict[str, Any] | None:
    """Return tools as JSON, in the form that is signed and recorded; None for None."""
    return None if tools is None else {name: bounds.model_dump(mode="json") for name, bounds in tools.items()}


def has_path_traversal(text: str) -> bool:
    """Whether a server could read a path part of a text as `..`.

    That is after a slash or backslash, before `;`, `?` or `#`, with control characters in it (parsers of URLs remove tabs and line breaks),
    percent-encoded any number of times.
    """
    for _ in range(MAX_DECODINGS):
        if any(part.strip() == ".." for part in re.split(r"[/\\;?#]", CONTROL_CHARACTERS.sub("", text))):
            return True
        text, before = unquote(text), text
        if text == before:
            return False
    return True
