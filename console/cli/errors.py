"""The failures of commands and their exit codes (docs/reference/exit-codes.md). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from justenough.domain.core.errors import Conflict, Forbidden, GiveUp, InvalidInput, JustEnoughError, NotFound, Problem, Stale


class ExitCode(IntEnum):
    OK = 0
    FAILURE = 1
    USAGE = 2
    JOB_FAILED = 3
    NOT_AUTHENTICATED = 4
    NOT_FOUND = 5
    DENIED = 6
    TIMED_OUT = 7
    CONFLICT = 8
    NOT_CONFIRMED = 9
    INTERRUPTED = 130


EXIT_CODE_BY_STATUS = {
    401: ExitCode.NOT_AUTHENTICATED,
    403: ExitCode.DENIED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    412: ExitCode.CONFLICT,
    413: ExitCode.USAGE,
    422: ExitCode.USAGE,
}
"""The exit codes for the API's HTTP statuses; any other status is FAILURE."""
EXIT_CODE_BY_ERROR: dict[type[JustEnoughError], ExitCode] = {
    InvalidInput: ExitCode.USAGE,
    Forbidden: ExitCode.DENIED,
    NotFound: ExitCode.NOT_FOUND,
    Conflict: ExitCode.CONFLICT,
    Stale: ExitCode.CONFLICT,
}


class Failure(GiveUp):
    """Ends a command: a message, problems by their paths, a hint about what to do, and an exit code."""

    def __init__(self, message: str, *, code: ExitCode = ExitCode.FAILURE, problems: Sequence[Problem] = (), hint: str = "") -> None:
        self.message = message
        self.code = code
        self.problems = tuple(problems)
        self.hint = hint
        super().__init__(message)


class Unreachable(Failure):
    """A server did not answer. Trying again may help."""


class WrongUsage(Failure):
    """The command line, or a file that it names, is wrong: correct it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, code=ExitCode.USAGE, hint=hint)


class NotLoggedIn(Failure):
    """Nobody is logged in, or the login is no longer valid."""

    def __init__(self, message: str, *, hint: str = "Log in: justenough login") -> None:
        super().__init__(message, code=ExitCode.NOT_AUTHENTICATED, hint=hint)


def to_failure(error: JustEnoughError) -> Failure:
    if isinstance(error, Failure):
        return error
    code = next((EXIT_CODE_BY_ERROR[kind] for kind in type(error).__mro__ if kind in EXIT_CODE_BY_ERROR), ExitCode.FAILURE)
    if isinstance(error, InvalidInput):
        return Failure(problem_summary(error.what, error.problems), code=code, problems=error.problems)
    return Failure(str(error), code=code)


def problem_summary(subject: str, problems: Sequence[Problem]) -> str:
    """Return the line above a list of problems: `job spec: 2 problems`."""
    return f"{subject}: {len(problems)} problem{'' if len(problems) == 1 else 's'}"
