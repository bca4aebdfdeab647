"""What can go wrong, named by what a job can do about it. No error holds a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class JobError(Exception):
    """Whatever the broker, or the lack of one, stands against."""


class OutsideJob(JobError):
    """There is no broker: the program does not run as a job. Launch it with `justenough job run`."""


class Invalid(JobError):
    """What was asked for cannot be asked for: no such resource, action or ttl. Mend the program or the spec.

    `problems`: one sentence each.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join((message, *self.problems)))


class Denied(JobError):
    """Policy or people said no: go on without it.

    `outcome`: `denied`, `expired` (nobody answered) or `withdrawn`. `policies`: the names of those that said no, none where people did.
    """

    def __init__(self, message: str, *, outcome: str = "denied", policies: Iterable[str] = (), request_id: str | None = None) -> None:
        self.outcome = outcome
        self.policies = tuple(policies)
        self.request_id = request_id
        super().__init__(f"{message} ({', '.join(self.policies)})" if self.policies else message)


class Pending(JobError):
    """People have not answered within `wait`. The request stands: ask again for the same later.

    `respond_by`: when it climbs to the next tier, as RFC 3339, where it is known.
    """

    def __init__(self, message: str, *, request_id: str, tier: int, respond_by: str | None = None) -> None:
        self.request_id = request_id
        self.tier = tier
        self.respond_by = respond_by
        super().__init__(message)


class NotIssued(JobError):
    """It was allowed, and could not be issued all the same: a signature, a rule of the worker's, or the resource stood against it."""


class Failed(JobError):
    """A tool was not used, or its use failed; the message says why, and what may be done instead."""


class Closed(JobError):
    """The job's access has been cut off: by a kill, by its own end, by its time. Nothing is issued any more; stop."""


class Unavailable(JobError):
    """The broker, or a server behind it, does not answer well. Whoever can wait tries again."""


class NotReleased(UserWarning):
    """A credential could not be given back. It lives until its ttl or the job's end, whichever comes first."""


def refusal_of(status: int, body: Mapping[str, Any]) -> JobError:
    """Return the error that an answer of the broker stands for (RFC 9457; docs/reference/broker.md lists the statuses)."""
    said = str(body.get("detail") or body.get("title") or f"the broker answered {status}")
    if status == 403:
        request = body.get("request_id")
        return Denied(said, outcome=str(body.get("outcome", "denied")), policies=map(str, body.get("policies", ())), request_id=request)
    if status in {400, 404, 405, 413, 422}:
        problems = (f"{one.get('path', '')}: {one.get('message', '')}".removeprefix(": ") for one in body.get("errors", ()))
        return Invalid(said, (one for one in problems if one not in said))
    if status == 409:
        return NotIssued(said)
    if status == 410:
        return Closed(said)
    return Unavailable(f"{said} ({status})")
