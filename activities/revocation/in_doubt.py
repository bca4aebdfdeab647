"""What a job may have been issued without anybody having learned of it. Reads the ledger; decides nothing, changes nothing.

Right before each issue its decision is recorded, right after it the credential or the refusal. Where only the decision is there, the
session died in between, with the answer on its way or in its hand. A user in a target that can be searched is found by its name; of
anything else nobody can say more than when it ends at the latest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from justenough.domain.core.ids import credential_id
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action, Revocable
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.services.dependencies import Deps
from justenough.services.job_history import read_entries
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY

ANSWER_EVENTS = frozenset({EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_REFUSED, EventType.CREDENTIAL_DOUBTED})


def find_unconfirmed_issues(deps: Deps, job: str) -> tuple[CredentialHandle, ...]:
    """Return what may live, unknown to everybody and findable nowhere: with neither lease nor accessor, until its latest end."""
    requests: dict[str, dict[str, Any]] = {}
    asked: dict[str, datetime] = {}
    for entry in read_entries(deps.store.ledger, job).items:
        kind, data = EventType(entry.type), entry.data
        if kind is EventType.ACCESS_REQUESTED:
            requests[data["request"]] = {**data, "issued": 0}
        elif kind is EventType.CREDENTIAL_ISSUED and data["request"] in requests:
            requests[data["request"]]["issued"] += 1
            asked.pop(data["request"], None)
        elif kind is EventType.ACCESS_DECIDED and data["phase"] == "issue" and data["outcome"] != "denied":
            asked[data["request"]] = entry.at
        elif kind in ANSWER_EVENTS:
            asked.pop(data["request"], None)
    return tuple(_to_credentials(deps, job, ((requests[name], at) for name, at in asked.items() if name in requests)))


def doubted_event(job: str, credential: CredentialHandle, *, at: datetime) -> Event:
    """Return the event that tells of one of them."""
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


def _to_credentials(deps: Deps, job: str, unanswered: Iterable[tuple[Mapping[str, Any], datetime]]) -> Iterator[CredentialHandle]:
    for request, at in unanswered:
        definition = deps.config.current().catalog.action(request["resource"], Action(request["action"]))
        revocable = definition.revocable if definition else Revocable(request["revocable"])
        # What cannot be revoked is as valid as it was before; what has a target is looked for there, by its name.
        if revocable is Revocable.NEVER or (definition and definition.target):
            continue
        # It can have landed after its token had died; then it lives as long as the engine gives, not as long as was asked for.
        longest = max(definition.max_ttl if definition else 0, request["ttl"])
        yield CredentialHandle(
            id=credential_id(job, request["number"], request["issued"] + 1),
            request_id=request["request"],
            resource=request["resource"],
            action=Action(request["action"]),
            lease_id=None,
            accessor=None,
            issued_at=at,
            expires_at=at + SECOND_CHECK_DELAY + timedelta(seconds=longest),
            revocable=revocable,
        )
