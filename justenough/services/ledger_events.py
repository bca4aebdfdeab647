"""Ledger events of orders, requests, decisions and answers, as activities and the console record them. Records nothing itself.

Their ids are made from what happened, so that whoever records one a second time changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.tiers import Tiers
from justenough.domain.approvals.verification import Withdrawal
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.ids import REQUEST_ID, request_id
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access, at_start
from justenough.domain.jobs.tool_bounds import tools_to_json
from justenough.domain.ledger.events import EVENT_FIELDS, Event, EventType, build_event, chain_for_job
from justenough.domain.policy.cedar_request import DecisionFacts
from justenough.domain.tools.call import call_of
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder

ENTITY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def order_events(deps: Deps, order: JobInput, verified: VerifiedOrder) -> Iterator[Event]:
    """Yield the events of an order that was taken and of each access that it asks for at its start."""
    yield job_submitted_event(order, verified, at=deps.now())
    for number, access in at_start(verified.spec):
        yield access_requested_event(deps, order.job, number, access)


def access_requested_event(deps: Deps, job: str, number: int, access: Access) -> Event:
    """Return the event of one access that a job asks for; the catalog must have it."""
    resource = deps.config.current().catalog.resources[access.resource]
    call = call_of(access)
    return build_event(
        EventType.ACCESS_REQUESTED,
        job,
        at=deps.now(),
        about=(request := request_id(job, number)),
        request=request,
        number=number,
        resource=access.resource,
        action=access.action.value,
        ttl=access.ttl,
        reason=access.reason,
        optional=access.optional,
        title=resource.title,
        sensitivity=resource.sensitivity.name.lower(),
        revocable=resource.actions[access.action].revocable.value,
        **({"call": call.model_dump(mode="json")} if call else {"tools": tools_to_json(access.tools)} if access.tools is not None else {}),
    )


def job_submitted_event(order: JobInput, verified: VerifiedOrder, *, at: Any) -> Event:
    """Return the event of an order that was taken; console and worker make it with the same id, so that it is recorded once."""
    spec = verified.spec
    return build_event(
        EventType.JOB_SUBMITTED,
        order.job,
        at=at,
        spec=order.spec,
        name=spec.name,
        task=spec.task,
        environment=spec.environment,
        agent=spec.agent.model_dump(mode="json") if spec.agent else None,
        data_scope=dict(spec.data_scope),
        labels=dict(spec.labels),
        params=order.params,
        bundle=order.bundle,
        reason=verified.statement.reason,
        requester=verified.person.id,
        requester_name=verified.person.name,
        parent=order.parent,
        order=order.order.model_dump(mode="json"),
    )


def access_decided_event(
    job: str, request: str, decision: Decision, digest: str, *, facts: DecisionFacts, phase: str, at: Any, about: str | None = None
) -> Event:
    """Return the event of one decision with its reasons, and what it was made from. `about` tells apart several of one phase."""
    return build_event(
        EventType.ACCESS_DECIDED,
        job,
        at=at,
        about=f"{request}/{about or phase}",
        request=request,
        phase=phase,
        outcome=decision.outcome,
        tier=decision.tier,
        policies=list(decision.policies),
        policy_digest=decision.policy_digest,
        digest=digest,
        errors=list(decision.errors),
        facts=facts.model_dump(mode="json"),
    )


def approval_opened_event(job: str, ladder: Ladder, tiers: Tiers, *, at: datetime) -> Event:
    """Return the event of a request that waits for its approvers from now on."""
    return build_event(
        EventType.APPROVAL_OPENED,
        job,
        at=at,
        about=ladder.request,
        request=ladder.request,
        tier=ladder.current,
        respond_by=ladder.respond_by.isoformat(),
        quorum=tiers.tiers[ladder.current].quorum,
    )


def approval_decided_event(job: str, ladder: Ladder, answer: ApprovalAnswer, *, verdict: str, at: datetime) -> Event:
    """Return the event of one answer that counts, with what the request stands at after it."""
    granted = ladder.grant if verdict == "approved" else None
    return build_event(
        EventType.APPROVAL_DECIDED,
        job,
        at=at,
        about=f"{ladder.request}/{answer.person}",
        request=ladder.request,
        person=answer.person,
        name=answer.name,
        tier=answer.tier,
        decision=answer.decision,
        reason=answer.reason,
        ttl=answer.ttl,
        action=answer.action.value if answer.action else None,
        on_behalf_of=answer.on_behalf_of,
        on_behalf_of_name=answer.on_behalf_of_name,
        signed=answer.signed.model_dump(mode="json"),
        verdict=verdict,
        granted_ttl=granted.ttl if granted else None,
        granted_action=granted.action.value if granted else None,
        **({"tools": tools_to_json(answer.tools)} if answer.tools is not None else {}),
        **({"granted_tools": tools_to_json(granted.tools)} if granted and granted.tools is not None else {}),
    )


def review_opened_event(job: str, ladder: Ladder, answer: ApprovalAnswer, tiers: Tiers, *, at: datetime) -> Event:
    """Return the event of a tier that somebody passed alone: who was passed over, and may say afterwards what they think of it."""
    passed = range(ladder.needed, ladder.current + 1)
    return build_event(
        EventType.REVIEW_OPENED,
        job,
        at=at,
        about=ladder.request,
        request=ladder.request,
        person=answer.person,
        name=answer.name,
        tiers=list(passed),
        groups=sorted({group for tier in passed for group in tiers.tiers[tier].approvers}),
        reason=answer.reason,
    )


def approval_withdrawn_event(job: str, request: str, withdrawal: Withdrawal, *, verdict: str, at: datetime) -> Event:
    """Return the event of an approval that somebody took back, with what the request stands at after it."""
    return build_event(
        EventType.APPROVAL_WITHDRAWN,
        job,
        at=at,
        # Whoever took their own part back may take back later what others approved without them: that is another entry.
        about=f"{request}/{withdrawal.person}/{verdict}",
        request=request,
        person=withdrawal.person,
        name=withdrawal.name,
        reason=withdrawal.reason,
        signed=withdrawal.signed.model_dump(mode="json"),
        verdict=verdict,
    )


def approval_rejected_event(job: str, why: str, *, at: Any, about: str, raw: Any, request: Any = None, person: Any = None) -> Event:
    """Return the event of an answer that does not count. What was received is kept as a digest: it is a stranger's text."""
    try:
        received = digest_of(raw)
    except (ValueError, RecursionError):
        received = None
    return build_event(
        EventType.APPROVAL_REJECTED,
        chain_for_job(job),
        at=at,
        # Numbers alone could be used up beforehand, or start again after a reset: another attempt is another entry.
        about=f"{about}-{received.removeprefix('sha256:')[:16]}" if received else about,
        request=_matching_text(request, REQUEST_ID),
        why=why,
        person=_matching_text(person, ENTITY_ID),
        received=received,
    )


def _matching_text(value: Any, form: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None


def is_well_formed(item: Event, job: str) -> bool:
    """Whether an event is about this job, and has the fields and the id that one of its type has."""
    head = f"{job}/{item.type.value}"
    return item.job == job and item.data.keys() == set(EVENT_FIELDS[item.type]) and (item.id == head or item.id.startswith(f"{head}/"))
