"""Finds credentials that Vault may have issued without anybody recording them. Reads the ledger and Vault's configuration; changes nothing.

A session records its decision before each attempt to issue, and the credential or the refusal after it. If only the decision is recorded,
Vault's answer was lost: the session died in between, or went on without it. If a search by job id has been observed to find users of the
same configuration, it finds this one too. For any other credential, only its latest possible end is known. If the search was trusted, a
session records no decision before issuing again. If it is no longer trusted, each such grant is in doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from activities.revocation.steps import with_store_timeout
from justenough.domain.core.ids import credential_id
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action, Revocable
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.readmodel.views import EntryView, JobView
from justenough.services.dependencies import Deps
from justenough.services.positive_control import configuration_digest, issue_path, was_found
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY

ISSUE_DECISION = re.compile(r"(?P<request>r-[^/]+)/issue(?:-(?P<attempt>[0-9]+))?(?:/.+)?")
REFUSAL = re.compile(r"(?P<request>r-[^/]+)(?:/(?P<attempt>[0-9]+))?")
CREDENTIAL = re.compile(r"c(?P<request>-[^/.]+)(?:\.(?P<attempt>[0-9]+))?")
"""Match what an entry is about: the end of its id, which names the request and the attempt (if it names none, the first).

An attempt that waits for a server may have several decisions.
"""
ATTEMPT_EVENTS = {
    EventType.ACCESS_DECIDED: ISSUE_DECISION,
    EventType.CREDENTIAL_ISSUED: CREDENTIAL,
    EventType.CREDENTIAL_REFUSED: REFUSAL,
    EventType.CREDENTIAL_DOUBTED: CREDENTIAL,
}
"""The types of entries about one attempt to issue, each with the pattern of what it is about. All but decisions record the attempt's outcome."""


@dataclass
class RequestIssues:
    """The attempts to issue for one request, according to the ledger."""

    id: str
    number: int
    resource: str
    action: Action
    """The granted action: approvers may have narrowed it."""
    ttl: int
    """Seconds."""
    revocable: Revocable | None
    """By the catalog at the time of the request; None if approvers narrowed the action: then only the current catalog shows it."""
    newest: int = 0
    """The number of the newest attempt that is recorded."""
    unanswered: dict[int, datetime] = field(default_factory=dict)
    """By number, the decision times of the attempts whose outcome nobody recorded."""
    first_entries: dict[int, datetime] = field(default_factory=dict, compare=False)
    """By number, the time of the first entry that was read of each attempt."""
    trusted_since: datetime | None = None
    """The time of the last issue after which the session issued without recording its decision first."""

    def add(self, entry: EntryView) -> None:
        kind, data, attempt = EventType(entry.type), entry.data, attempt_of(entry.id)
        if attempt is None:
            return
        self.first_entries.setdefault(attempt.number, entry.at)
        if kind is EventType.ACCESS_DECIDED:
            if data["outcome"] == "denied":
                # Vault was not asked yet, even if an earlier decision about this attempt allowed it.
                self.unanswered.pop(attempt.number, None)
                return
            self.unanswered[attempt.number] = entry.at
            granted = Action(data["facts"].get("action", self.action))
            self.action, self.revocable = granted, self.revocable if granted is self.action else None
        else:
            self.unanswered.pop(attempt.number, None)
        if kind is EventType.CREDENTIAL_ISSUED:
            self.action, self.revocable = Action(data["action"]), Revocable(data["revocable"])
            self.trusted_since = entry.at if data.get("search_digest") else None
        elif kind is EventType.CREDENTIAL_DOUBTED:
            self.trusted_since = None
        self.newest = max(self.newest, attempt.number)

    def latest_call(self, number: int, *, closed_at: datetime) -> datetime:
        """Return the latest time at which Vault was asked in an attempt. If a server is unreachable, an attempt may wait for long after its decision,
        but no longer than until the next one, or until the job's claim is closed.
        """
        return min((at for later, at in self.first_entries.items() if later > number), default=closed_at)


class IssueAttempt(NamedTuple):
    """One attempt to issue for a request; `number`: from 1."""

    request: str
    number: int


def attempt_of(entry: str) -> IssueAttempt | None:
    """Return the attempt that an entry is about, by the entry's id; None if it is about none."""
    _, kind, about = entry.split("/", 2)
    pattern = ATTEMPT_EVENTS.get(EventType(kind))
    named = pattern.fullmatch(about) if pattern else None
    return IssueAttempt(f"r{named['request'].removeprefix('r')}", int(named["attempt"] or 1)) if named else None


def needed_entry_ids(ids: Iterable[str]) -> set[str]:
    """Return the ids of the entries that are needed to find a job's unrecorded issues. `ids`: those of its ATTEMPT_EVENTS, in order.

    A job may have been issued very many credentials. For each request, only the newest one is needed.
    """
    unanswered: dict[IssueAttempt, str] = {}
    newest: dict[tuple[str, str], str] = {}
    for entry in ids:
        attempt, kind = attempt_of(entry), entry.split("/", 2)[1]
        if attempt is None:
            continue
        if kind == EventType.ACCESS_DECIDED:
            unanswered[attempt] = entry
        else:
            unanswered.pop(attempt, None)
            newest[attempt.request, kind] = entry
    return {*unanswered.values(), *newest.values()}


def requests_with_unrecorded_issues(entries: Iterable[EntryView]) -> list[RequestIssues]:
    """Return the requests for which Vault may have issued a credential that these entries of their job do not record."""
    requests: dict[str, RequestIssues] = {}
    for entry in entries:
        data = entry.data
        if entry.type == EventType.ACCESS_REQUESTED:
            asked = {name: data[name] for name in ("number", "resource", "ttl")}
            requests[data["request"]] = RequestIssues(
                data["request"], action=Action(data["action"]), revocable=Revocable(data["revocable"]), **asked
            )
        if (request := requests.get(data.get("request", ""))) is not None:
            request.add(entry)
    return [item for item in requests.values() if item.unanswered or item.trusted_since]


@dataclass(frozen=True, slots=True)
class UnrecordedIssues:
    """The requests of a job for which Vault may have issued credentials that nobody recorded, as the store shows them."""

    job: JobView
    requests: tuple[RequestIssues, ...]
    closed_at: datetime
    """When the job's claim was closed: Vault was not asked after that."""
    read_at: datetime


def read_unrecorded_issues(deps: Deps, job: JobView) -> UnrecordedIssues:
    """Read the store, and nothing else. Raises RetryLater."""
    ledger, claim = deps.store.ledger, deps.store.claims.get(job.id)
    requested = ledger.ids(job.id, (EventType.ACCESS_REQUESTED,))
    entries = ledger.with_ids({*requested, *needed_entry_ids(ledger.ids(job.id, ATTEMPT_EVENTS))})
    requests, now = tuple(requests_with_unrecorded_issues(entries)), deps.now()
    return UnrecordedIssues(job, requests, closed_at=(claim and claim.closed_at) or now, read_at=now)


def find_unconfirmed_issues(deps: Deps, issues: UnrecordedIssues) -> tuple[CredentialHandle, ...]:
    """Return the credentials that may be alive but are neither recorded nor findable: without lease and accessor, valid until their latest end.

    Raises RetryLater.
    """
    credentials, job = [], issues.job
    for request in issues.requests:
        definition = deps.config.current().catalog.action(request.resource, request.action)
        # The catalog may have changed since Vault issued it.
        revocable = request.revocable or (definition.revocable if definition else Revocable.NOW)
        # A value that cannot be revoked is as valid as before the issue.
        if revocable is Revocable.NEVER:
            continue
        path = issue_path(definition, job.data_scope) if definition else ""
        # By number: the earliest possible time of the issue, the time that counts as the issue (by the session's clock, as in the proof that may
        # end this doubt), and the latest time at which Vault was asked.
        attempts = {number: (at, at, request.latest_call(number, closed_at=issues.closed_at)) for number, at in request.unanswered.items()}
        if request.trusted_since:
            # Nobody knows when this was decided, but it was between then and the reading of the store. A session's exit since then covers it.
            attempts[request.newest + 1] = request.trusted_since, issues.read_at, issues.read_at
        for number, (since, issued_at, asked_at) in attempts.items():
            # If a search can find the users of Vault's current configuration, the inspection looked for this one, too.
            digest = configuration_digest(deps, definition, path, fresh=True) if definition else None
            if digest and with_store_timeout(partial(was_found, deps, digest, by=since)):
                continue
            # The credential may have been issued after its token had died; then it lives as long as the engine allows, not as requested.
            role = deps.vault.database_role(path, fresh=True)
            longest = max(definition.max_ttl if definition else 0, request.ttl, role.ttl if role else 0)
            credentials.append(
                CredentialHandle(
                    id=credential_id(job.id, request.number, number),
                    request_id=request.id,
                    resource=request.resource,
                    action=request.action,
                    lease_id=None,
                    accessor=None,
                    issued_at=issued_at,
                    expires_at=asked_at + SECOND_CHECK_DELAY + timedelta(seconds=longest),
                    revocable=revocable,
                )
            )
    return tuple(credentials)


def doubted_event(job: str, credential: CredentialHandle, *, at: datetime) -> Event:
    return build_event(
        EventType.CREDENTIAL_DOUBTED,
        job,
        at=at,
        about=credential.id,
        credential=credential.id,
        request=credential.request_id,
        resource=credential.resource,
        action=credential.action.value,
        asked_at=credential.issued_at.isoformat(),
        expires_at=credential.expires_at.isoformat(),
        revocable=credential.revocable.value,
    )
