"""Finds credentials that Vault may have issued without anybody recording them. Reads the ledger and how Vault is configured; changes nothing.

A session records its decision before each issue, and the credential or the refusal after it. If only the decision is recorded, the session
died in between. If a search by job id was seen to find users of the same configuration, it finds this one too; of any other credential only
its latest possible end is known. Where the search was trusted, a session records no decision before issuing again; if that trust does not hold
any more, each such grant is in doubt.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from justenough.domain.core.ids import credential_id
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action, Revocable
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.readmodel.views import JobView
from justenough.services.dependencies import Deps
from justenough.services.job_history import read_entries
from justenough.services.positive_control import is_search_trusted, issue_path
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY

ANSWER_EVENTS = frozenset({EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_REFUSED, EventType.CREDENTIAL_DOUBTED})


def find_unconfirmed_issues(deps: Deps, job: JobView) -> tuple[CredentialHandle, ...]:
    """Return the credentials that may be alive but are neither recorded nor findable: without lease and accessor, valid until their latest end.

    Raises RetryLater.
    """
    requests: dict[str, dict[str, Any]] = {}
    unanswered: dict[str, datetime] = {}
    trusting: dict[str, datetime] = {}
    """By request, the last issue after which the session issued without recording its decision first."""
    for entry in read_entries(deps.store.ledger, job.id).items:
        kind, data = EventType(entry.type), entry.data
        if kind is EventType.ACCESS_REQUESTED:
            requests[data["request"]] = {**data, "issued": 0}
        elif kind is EventType.CREDENTIAL_ISSUED and data["request"] in requests:
            requests[data["request"]]["issued"] += 1
            unanswered.pop(data["request"], None)
            trusting.pop(data["request"], None)
            if data.get("search_digest"):
                trusting[data["request"]] = entry.at
        elif kind is EventType.ACCESS_DECIDED and data["phase"] == "issue" and data["outcome"] != "denied":
            unanswered[data["request"]] = entry.at
        elif kind in ANSWER_EVENTS:
            unanswered.pop(data["request"], None)
            if kind is EventType.CREDENTIAL_DOUBTED:
                trusting.pop(data["request"], None)
    credentials = []
    for request, at in ((requests[name], at) for name, at in {**trusting, **unanswered}.items() if name in requests):
        definition = deps.config.current().catalog.action(request["resource"], Action(request["action"]))
        revocable = definition.revocable if definition else Revocable(request["revocable"])
        # A value that cannot be revoked is as valid as before the issue.
        path = issue_path(definition, job.data_scope) if definition else ""
        if revocable is Revocable.NEVER or (definition and is_search_trusted(deps, definition, path, since=at)):
            continue
        # The credential may have been issued after its token had died; then it lives as long as the engine allows, not as requested.
        role = deps.vault.database_role(path, fresh=True)
        longest = max(definition.max_ttl if definition else 0, request["ttl"], role.ttl if role else 0)
        asked_at = at if request["request"] in unanswered else deps.now()
        credentials.append(
            CredentialHandle(
                id=credential_id(job.id, request["number"], request["issued"] + 1),
                request_id=request["request"],
                resource=request["resource"],
                action=Action(request["action"]),
                lease_id=None,
                accessor=None,
                issued_at=asked_at,
                expires_at=asked_at + SECOND_CHECK_DELAY + timedelta(seconds=longest),
                revocable=revocable,
            )
        )
    return tuple(credentials)


def doubted_event(job: str, credential: CredentialHandle, *, at: datetime) -> Event:
    """Return the event that records one of them."""
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
