"""What an order says that a tool's calls must stay within: so many calls, and what their arguments may be. Can only narrow. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from justenough.model import Model

Value = bool | int | float | Annotated[str, StringConstraints(max_length=1000)]
MOST_VALUES = 1_000


class Bound(Model):
    """What one argument may be. Each thing that is said must hold."""

    minimum: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None
    maximum: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None
    one_of: Annotated[tuple[Value, ...] | None, Field(min_length=1, max_length=MOST_VALUES, exclude_if=lambda value: value is None)] = None
    prefix: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None, Field(exclude_if=lambda value: value is None)
    ] = None
    """Text that it begins with; no part of what follows may be `..`."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self == Bound.model_construct():
            message = "says nothing: give minimum, maximum, one_of or prefix"
            raise ValueError(message)
        return self

    def problem(self, value: Any) -> str | None:
        """Return why a value is not within it; None where it is."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.minimum is not None and not (number and value >= self.minimum):
            return f"must be a number of at least {self.minimum:g}"
        if self.maximum is not None and not (number and value <= self.maximum):
            return f"must be a number of at most {self.maximum:g}"
        if self.one_of is not None and not any(_same(value, one) for one in self.one_of):
            return f"must be one of the {len(self.one_of)} values that the order lists"
        if self.prefix is not None and not (isinstance(value, str) and value.startswith(self.prefix) and ".." not in value.split("/")):
            return f"must begin with {self.prefix!r}, and have no part `..`"
        return None


class Bounds(Model):
    """What the calls of one tool must stay within."""

    calls: Annotated[int | None, Field(ge=1, le=10_000, exclude_if=lambda value: value is None)] = None
    """How many are made at most."""
    arguments: Annotated[Mapping[str, Bound], Field(max_length=32)] = Field(default_factory=dict)
    """By name. What is bound must be given: what is left out would be the tool's own choice."""

    def problems(self, arguments: Mapping[str, Any], *, made: int) -> Iterator[str]:
        """Yield why a call is not within them. `made`: calls that were made already, or are being made."""
        if self.calls is not None and made >= self.calls:
            yield f"the order allows {self.calls} call{'s' if self.calls != 1 else ''} of it, which {'were' if self.calls != 1 else 'was'} made"
        for name, bound in self.arguments.items():
            if name not in arguments:
                yield f"{name}: must be given, for the order binds it"
            elif why := bound.problem(arguments[name]):
                yield f"{name}: {why}"


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
