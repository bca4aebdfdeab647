"""The requests of one launcher's jobs that wait for people are limited: people have to read all of them."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from activities.broker.tools import ToolGateway
from activities.issuing.results import IssuedCredential, PendingRequest
from justenough.domain.approvals.ladder import GrantTerms
from justenough.domain.core.errors import OverQuota
from justenough.domain.core.ids import request_number_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Bounds
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.tools.call import ToolCall, access_for_call
from justenough.services.evaluate_request import evaluate_grant
from tests.activities.issuing_session import Session, start_session
from tests.activities.test_long_calls import broker_of, nobody
from tests.activities.vault_shop import Desk

pytestmark = pytest.mark.servers
SIGNED = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look the order up", "at": "request"}


def request_access(session: Session, resource: str, action: Action) -> IssuedCredential | PendingRequest:
    return session.issuer.access(Access(resource=resource, action=action, ttl=300, reason="a test", at="request"))


def test_a_running_job_cannot_ask_people_for_more_once_its_launchers_quota_is_used_up(at: Desk) -> None:
    settings = at.deps.settings.model_copy(update={"quota_waiting_requests": 1})
    at = dataclasses.replace(at, deps=dataclasses.replace(at.deps, settings=settings))
    asking, other = start_session(at, SIGNED), start_session(at, SIGNED)
    assert isinstance(request_access(asking, "refunds-db", Action.WRITE), PendingRequest)
    with pytest.raises(OverQuota, match="of this launcher's jobs in prod wait for people; at most 1 may") as refused:
        request_access(asking, "orders-db", Action.WRITE)
    assert refused.value.headers == {"Retry-After": "60"}
    broker, _ = broker_of(asking)
    refund = ToolGateway(at.deps, asking.verified, asking.issuer, broker).call(
        "refund-order", {"order_id": 1, "amount": 1, "reason": "broken"}, report_progress=nobody, max_wait=0
    )
    text = asyncio.run(refund).text
    assert text.startswith("Not done now: ")
    assert text.endswith(" wait for people; at most 1 may: wait for their answers first. Try again later.")
    # The same request again is the one that waits; what policy allows needs no people; another launcher has a quota of their own.
    assert isinstance(request_access(asking, "refunds-db", Action.WRITE), PendingRequest)
    assert isinstance(request_access(asking, "orders-db", Action.READ), IssuedCredential)
    assert isinstance(request_access(other, "refunds-db", Action.WRITE), PendingRequest)
    for session in (asking, other):
        session.end()


def test_a_request_can_be_narrowed_however_many_decisions_its_job_has(at: Desk) -> None:
    session = start_session(at, SIGNED)
    job, first = session.job, at.deps.store.ledger.entries
    assert isinstance(request_access(session, "orders-db", Action.READ), IssuedCredential)
    decided = first(job=job, types=[EventType.ACCESS_DECIDED]).items[0]
    renewals = [build_event(EventType.ACCESS_DECIDED, job, at=at.deps.now(), about=f"renewal-{n}", **decided.data) for n in range(1_000)]
    at.deps.store.ledger.append(renewals)
    waiting = request_access(session, "refunds-db", Action.WRITE)
    assert isinstance(waiting, PendingRequest)
    narrowed = evaluate_grant(at.deps, job, request_number_of(waiting.request_id), GrantTerms(action=Action.READ, ttl=60))
    assert not isinstance(narrowed, Rejection), narrowed
    assert session.end().confirmed


CALL = ToolCall(tool="refund-order", arguments={"order_id": 7, "amount": 449.50, "reason": "“broken” \u2028 <b>é</b>\n1e-7"})
WRITE = Access(resource="refunds-db", action=Action.WRITE, ttl=300, reason="a test", at="request")
BOUNDS = {
    "refund-order": Bounds.model_validate({"calls": 3, "arguments": {"amount": {"maximum": 99.9}, "order_id": {"one_of": [7, 8.5, "x"]}}})
}


@pytest.mark.parametrize(
    "asked", [WRITE, access_for_call(WRITE, CALL), WRITE.model_copy(update={"tools": BOUNDS})], ids=["access", "a call", "tools"]
)
def test_the_record_of_a_running_jobs_request_has_the_digest_that_approvers_sign(at: Desk, asked: Access) -> None:
    session = start_session(at, SIGNED)
    ask = session.issuer.access_through_tools if asked.tools else session.issuer.access
    waiting = ask(asked)
    assert isinstance(waiting, PendingRequest)
    terms = GrantTerms(action=Action.WRITE, ttl=60, tools=asked.tools)
    evaluated = evaluate_grant(at.deps, session.job, request_number_of(waiting.request_id), terms)
    assert not isinstance(evaluated, Rejection), evaluated
    session.end()
