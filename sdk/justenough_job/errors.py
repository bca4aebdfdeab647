"""Errors, named by what a job can do about them. No error contains a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class JobError(Exception):
    """Base of every error of this package."""


class OutsideJob(JobError):
    """There is no broker: the program does not run as a job. Launch it with `justenough job run`."""


class Invalid(JobError):
    """The request is invalid: no such resource, action or ttl. Correct the program or the spec.

    `problems`: one sentence each.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join((message, *self.problems)))


class Denied(JobError):
    """Policy or people denied it: continue without it.

    `outcome`: `denied`, `expired` (nobody answered) or `withdrawn`. `policies`: names of the policies that denied it; empty if people did.
    """

    def __init__(self, message: str, *, outcome: str = "denied", policies: Iterable[str] = (), request_id: str | None = None) -> None:
        self.outcome = outcome
        self.policies = tuple(policies)
        self.request_id = request_id
        super().__init__(f"{message} ({', '.join(self.policies)})" if self.policies else message)


class Pending(JobError):
    """People have not answered within `wait`. The request stays open: send the same one again later.

    `respond_by`: when it escalates to the next tier (RFC 3339), if known.
    """

    def __init__(self, message: str, *, request_id: str, tier: int, respond_by: str | None = None) -> None:
        self.request_id = request_id
        self.tier = tier
        self.respond_by = respond_by
        super().__init__(message)


class NotIssued(JobError):
    """The access was allowed, but the credential could not be issued, because of a signature, a rule of the worker, or the resource."""


class Failed(JobError):
    """A tool call was refused or failed; the message gives the reason, and what the job may do instead."""


class Closed(JobError):
    """The job's access was closed by a kill, its end or its timeout. Nothing more is issued: stop."""


class Unavailable(JobError):
    """The broker, or a server behind it, does not answer or fails. Try again later."""


class NotReleased(UserWarning):
    """A credential could not be released. It is valid until its ttl or the job's end, whichever comes first."""


def refusal_of(status: int, body: Mapping[str, Any]) -> JobError:
    """Return the error for a problem response of the broker (RFC 9457; docs/reference/broker.md lists the statuses)."""
    detail = str(body.get("detail") or body.get("title") or f"the broker answered {status}")
    if status == 403:
        outcome, policies = str(body.get("outcome", "denied")), map(str, body.get("policies", ()))
        return Denied(detail, outcome=outcome, policies=policies, request_id=body.get("request_id"))
    if status in {400, 404, 405, 413, 422}:
        problems = (f"{error.get('path', '')}: {error.get('message', '')}".removeprefix(": ") for error in body.get("errors", ()))
        return Invalid(detail, (problem for problem in problems if problem not in detail))
    if status == 409:
        return NotIssued(detail)
    if status == 410:
        return Closed(detail)
    return Unavailable(f"{detail} ({status})")
