"""The requests of one launcher's jobs that wait for people are limited: people have to read all of them."""

from __future__ import annotations

import dataclasses

import pytest

from activities.issuing.results import IssuedCredential, PendingApproval
from justenough.domain.core.errors import OverQuota
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from tests.activities.issuing_session import Session, start_session
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers
SIGNED = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look the order up", "at": "request"}


def request_access(session: Session, resource: str, action: Action) -> IssuedCredential | PendingApproval:
    return session.issuer.access(Access(resource=resource, action=action, ttl=300, reason="a test", at="request"))


def test_a_running_job_cannot_ask_people_for_more_once_its_launchers_quota_is_used_up(at: Desk) -> None:
    settings = at.deps.settings.model_copy(update={"quota_waiting_requests": 1})
    at = dataclasses.replace(at, deps=dataclasses.replace(at.deps, settings=settings))
    asking, other = start_session(at, SIGNED), start_session(at, SIGNED)
    assert isinstance(request_access(asking, "refunds-db", Action.WRITE), PendingApproval)
    with pytest.raises(OverQuota, match="of this launcher's jobs in prod wait for people; at most 1 may") as refused:
        request_access(asking, "orders-db", Action.WRITE)
    assert refused.value.headers == {"Retry-After": "60"}
    # The same request again is the one that waits; what policy allows needs no people; another launcher has a quota of their own.
    assert isinstance(request_access(asking, "refunds-db", Action.WRITE), PendingApproval)
    assert isinstance(request_access(asking, "orders-db", Action.READ), IssuedCredential)
    assert isinstance(request_access(other, "refunds-db", Action.WRITE), PendingApproval)
    for session in (asking, other):
        session.end()
