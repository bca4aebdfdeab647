"""Errors, named by what the caller must do about them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class JustEnoughError(Exception):
    """Base of every error that this project raises on purpose."""

    @property
    def for_callers(self) -> str:
        """The message for a caller of this process, who may not operate it."""
        return str(self)


class RetryLater(JustEnoughError):
    """A system that the operation needs is not available now. The same call may succeed later.

    `remedy`: what the operators of this process can do; its callers are not told.
    """

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        self._message = message
        super().__init__(f"{message}; {remedy}" if remedy else message)

    @property
    def for_callers(self) -> str:
        return self._message


class OverQuota(RetryLater):
    """The caller has used up their share; the message names it. `retry_after`: seconds after which there may be room."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP header that says when to retry."""
        return {"Retry-After": str(max(1, round(self.retry_after)))}


class NotNow(RetryLater):
    """A valid input cannot be carried out now. Contains what is in the way, by places of the input. `retry_after`: in seconds."""

    def __init__(self, what: str, problems: tuple[Problem, ...], *, retry_after: float) -> None:
        self.problems = problems
        self.retry_after = retry_after
        super().__init__(f"{what}: " + "; ".join(map(str, problems)))

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP header that says when to retry."""
        return {"Retry-After": str(max(1, round(self.retry_after)))}


class GiveUp(JustEnoughError):
    """The operation cannot be done, and repeating it will not help."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem in one place of an input. `path` is a YAML path (`access[0].ttl`), `""` for the whole input."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidInput(GiveUp):
    """An input is invalid. Contains all its problems, in the order in which they were found."""

    def __init__(self, what: str, problems: tuple[Problem, ...]) -> None:
        self.what = what
        self.problems = problems
        super().__init__(f"{what}: " + "; ".join(map(str, problems)))


def raise_problems(what: str, problems: Iterable[Problem]) -> None:
    """Raise InvalidInput with these problems, if there are any."""
    if found := tuple(problems):
        raise InvalidInput(what, found)


def reject_if(condition: object, message: str) -> None:
    """Raise ValueError with this message if the condition is true; for validators, because pydantic collects their ValueErrors."""
    if condition:
        raise ValueError(message)


class Forbidden(GiveUp):
    """The person is known and may not do this; the message names the right that is missing."""


class NotFound(GiveUp):
    """The thing does not exist, or this person may not see it."""


class Conflict(GiveUp):
    """Somebody has already done this, or has answered or claimed it."""


class Stale(GiveUp):
    """The request changed since the caller read it; read it again and decide on its current state."""


class Unauthenticated(GiveUp):
    """The caller's token is invalid. The message says why and never contains the token."""


class TooLarge(GiveUp):
    """The request body is larger than the route accepts."""


class PreconditionRequired(GiveUp):
    """The caller must name the version that they decide on (If-Match)."""


class UnsupportedMedia(GiveUp):
    """The request body's media type is not one that the route accepts."""
