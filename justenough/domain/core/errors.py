"""Errors, named by what the caller must do about them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass


class JustEnoughError(Exception):
    """Root of every error that this project raises on purpose."""


class RetryLater(JustEnoughError):
    """Nothing is wrong with what was asked; a system it needs is not available now. Asking again may succeed."""


class GiveUp(JustEnoughError):
    """Asking again will not help; what was asked cannot be done."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in one place of an input. `path` is a YAML path (`access[0].ttl`), `""` for the whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidInput(GiveUp):
    """An input was refused whole. Carries every problem at once, ordered as found."""

    def __init__(self, what: str, problems: tuple[Problem, ...]) -> None:
        self.what = what
        self.problems = problems
        super().__init__(f"{what}: " + "; ".join(map(str, problems)))


class Forbidden(GiveUp):
    """The person is known and may not do this; the message names the right that is missing."""


class NotFound(GiveUp):
    """There is no such thing, or it is not this person's to see."""


class Conflict(GiveUp):
    """It was done, answered or taken already."""


class Stale(GiveUp):
    """What was answered has changed meanwhile; look again and answer what is there now."""


class Unauthenticated(GiveUp):
    """The caller's token does not hold. The message says why, never what the token was."""


class TooLarge(GiveUp):
    """The body is larger than the route accepts."""


class PreconditionRequired(GiveUp):
    """The caller must say which version they answer (If-Match)."""


class UnsupportedMedia(GiveUp):
    """The body is not of the type that the route accepts."""
