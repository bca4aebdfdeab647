"""Builds ledger events of orders, requests, decisions and answers, for activities and the console. Records nothing itself.

Their ids are derived from their subject, so that recording an event again changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from justenough.adapters.vault.transit import ENTITY_ID_PATTERN
from justenough.domain.approvals.ladder import ApprovalAnswer, GrantTerms, Ladder
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.approvals.tier_names import bypassed_tiers
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.approvals.verification import Withdrawal
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.ids import REQUEST_ID, request_id
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.spec import Access, at_start
from justenough.domain.jobs.states import ReasonSource
from justenough.domain.jobs.tool_bounds import tools_to_json
from justenough.domain.ledger.events import Event, EventType, build_event, chain_for_job
from justenough.domain.policy.cedar_request import DecisionFacts
from justenough.domain.readmodel.views import RequestView
from justenough.domain.tools.call import call_of
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder


def order_events(deps: Deps, order: JobInput, verified: VerifiedOrder) -> Iterator[Event]:
    """Yield the events of an accepted order and of each access that it requests at its start."""
    yield job_submitted_event(order, verified, at=deps.now())
    for number, access in at_start(verified.spec):
        yield access_requested_event(deps, order.job, number, access, signed_reason=access.reason)


def access_requested_event(deps: Deps, job: str, number: int, access: Access, *, signed_reason: str | None) -> Event:
    """Build the event of one requested access, which the catalog must contain.

    `signed_reason`: the order's reason, if the order lists this access.
    """
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
        **_fields_of(access, "ttl", "reason", "optional"),
        reason_by=ReasonSource.ORDER.value if access.reason == signed_reason else ReasonSource.PROGRAM.value,
        signed_reason=signed_reason,
        title=resource.title,
        sensitivity=resource.sensitivity.name.lower(),
        revocable=resource.actions[access.action].revocable.value,
        **({"call": call.model_dump(mode="json")} if call else {"tools": tools_to_json(access.tools)} if access.tools is not None else {}),
    )


def job_submitted_event(order: JobInput, verified: VerifiedOrder, *, at: Any) -> Event:
    """Build the event of an accepted order. Console and worker build it with the same id, so that it is recorded once."""
    spec = verified.spec
    return build_event(
        EventType.JOB_SUBMITTED,
        order.job,
        at=at,
        **_fields_of(order, "spec", "params", "bundle", "parent"),
        **_fields_of(spec, "name", "task", "environment", "beyond"),
        agent=spec.agent.model_dump(mode="json") if spec.agent else None,
        data_scope=dict(spec.data_scope),
        labels=dict(spec.labels),
        reason=verified.statement.reason,
        requester=verified.person.id,
        requester_name=verified.person.name,
        order=order.order.model_dump(mode="json"),
    )


def access_decided_event(
    job: str, request: str, decision: Decision, digest: str, *, facts: DecisionFacts, phase: str, at: Any, about: str | None = None
) -> Event:
    """Build the event of one decision with its reasons and facts. `about` distinguishes several decisions of one phase."""
    return build_event(
        EventType.ACCESS_DECIDED,
        job,
        at=at,
        about=f"{request}/{about or phase}",
        request=request,
        phase=phase,
        **_fields_of(decision, "outcome", "tier", "policy_digest"),
        policies=list(decision.policies),
        digest=digest,
        errors=list(decision.errors),
        facts=facts.model_dump(mode="json"),
    )


def issue_decision_about(nth: int) -> str:
    """Return what distinguishes the decision before the `nth` attempt to issue for a request from those before its other attempts."""
    return "issue" if nth == 1 else f"issue-{nth}"


def approval_opened_event(job: str, ladder: Ladder, tiers: Tiers, *, at: datetime) -> Event:
    """Build the event of a request that now waits for its approvers."""
    return build_event(EventType.APPROVAL_OPENED, job, at=at, about=ladder.request, **_tier_fields(ladder, tiers))


def approval_escalated_event(job: str, ladder: Ladder, tiers: Tiers, *, at: datetime) -> Event:
    """Build the event of a request that has escalated; it says so if the answers that still count are enough for the new tier."""
    is_approved = ladder.verdict(tiers) == "approved"
    return build_event(
        EventType.APPROVAL_ESCALATED,
        job,
        at=at,
        about=f"{ladder.request}/{ladder.current}",
        **_tier_fields(ladder, tiers),
        **({"verdict": "approved", **granted_fields(ladder.grant)} if is_approved else {}),
    )


def _tier_fields(ladder: Ladder, tiers: Tiers) -> dict[str, Any]:
    quorum, respond_by = tiers.tiers[ladder.current].quorum, ladder.respond_by.isoformat()
    return {"request": ladder.request, "tier": ladder.current, "respond_by": respond_by, "quorum": quorum}


def granted_fields(granted: GrantTerms | None) -> dict[str, Any]:
    """Return the fields of the terms that an approval grants; those of a pending request are None."""
    return {
        "granted_ttl": granted.ttl if granted else None,
        "granted_action": granted.action.value if granted else None,
        **({"granted_tools": tools_to_json(granted.tools)} if granted and granted.tools is not None else {}),
    }


def approval_decided_event(job: str, ladder: Ladder, answer: ApprovalAnswer, *, verdict: str, at: datetime, again: bool = False) -> Event:
    """Build the event of one answer that counts, with the request's verdict after it. `again`: the person answered at a lower tier, too."""
    return build_event(
        EventType.APPROVAL_DECIDED,
        job,
        at=at,
        about=f"{ladder.request}/{answer.person}" + (f"/{ladder.current}" if again else ""),
        request=ladder.request,
        **_fields_of(answer, "person", "name", "tier", "decision", "reason", "ttl", "on_behalf_of", "on_behalf_of_name"),
        action=answer.action.value if answer.action else None,
        signed=answer.signed.model_dump(mode="json"),
        verdict=verdict,
        current_tier=ladder.current,
        **({"tools": tools_to_json(answer.tools)} if answer.tools is not None else {}),
        **granted_fields(ladder.grant if verdict == "approved" else None),
    )


def review_opened_event(job: str, ladder: Ladder, answer: ApprovalAnswer, tiers: Tiers, *, at: datetime) -> Event:
    """Build the event of a break-glass approval, with the names and the groups of the bypassed tiers.

    The highest tier stands for higher ones that have left the configuration, because nobody could review for those.
    """
    bypassed = bypassed_tiers(min(ladder.needed, tiers.top), min(ladder.current, tiers.top))
    return build_event(
        EventType.REVIEW_OPENED,
        job,
        at=at,
        about=ladder.request,
        request=ladder.request,
        **_fields_of(answer, "person", "name", "reason"),
        tiers=list(bypassed),
        tier_names=[tiers.tiers[tier].name for tier in bypassed],
        groups=sorted({group for tier in bypassed for group in tiers.tiers[tier].approvers}),
    )


def approval_withdrawn_event(job: str, request: str, withdrawal: Withdrawal, *, verdict: str, at: datetime) -> Event:
    """Build the event of a withdrawn answer, with the request's verdict after it."""
    return build_event(
        EventType.APPROVAL_WITHDRAWN,
        job,
        at=at,
        # A person who withdrew their own answer may later withdraw an approval that others gave. That needs an entry with another id.
        about=f"{request}/{withdrawal.person}/{verdict}",
        request=request,
        **_fields_of(withdrawal, "person", "name", "reason"),
        signed=withdrawal.signed.model_dump(mode="json") if withdrawal.signed else None,
        verdict=verdict,
    )


def withdrawal_requested_event(request: RequestView, person: Person, signed: SignedStatement | None, *, at: datetime) -> Event:
    """Build the event that informs a running job's session that a person withdraws an approval.

    Without a signature it does not count by itself: the session revokes if the approval is recorded as withdrawn.
    """
    return event_of_person(
        person,
        EventType.WITHDRAWAL_REQUESTED,
        request.job_id,
        at=at,
        about=f"{request.id}/{person.id}",
        request=request.id,
        signed=signed.model_dump(mode="json") if signed else None,
    )


def approval_rejected_event(job: str, why: str, *, at: Any, about: str, raw: Any, request: Any = None, person: Any = None) -> Event:
    """Build the event of an answer that does not count. The received text is untrusted, so only its digest is recorded."""
    try:
        received = digest_of(raw)
    except (ValueError, RecursionError):
        received = None
    return build_event(
        EventType.APPROVAL_REJECTED,
        chain_for_job(job),
        at=at,
        # A stranger could use up ids with numbers alone, and numbers restart after a reset. With the digest, each attempt has its own entry.
        about=f"{about}-{received.removeprefix('sha256:')[:16]}" if received else about,
        request=_matching_text(request, REQUEST_ID),
        why=why,
        person=_matching_text(person, ENTITY_ID_PATTERN),
        received=received,
    )


def event_of_person(person: Person, kind: EventType, job: str, *, at: datetime, about: str, **data: Any) -> Event:
    """Build the event of something that a person did, with their entity id and login name. Raises ValueError as `build_event` does."""
    return build_event(kind, job, at=at, about=about, person=person.id, name=person.name, **data)


def _matching_text(value: Any, form: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None


def _fields_of(source: object, *names: str) -> dict[str, Any]:
    """Return the attributes that an event's data has under the same names."""
    return {name: getattr(source, name) for name in names}


def is_well_formed(item: Event, job: str) -> bool:
    """Whether an event is of this job, and has the fields and id of its type."""
    head, names = f"{job}/{item.type.value}", item.data.keys()
    has_fields = item.type.required_fields <= names <= set(item.type.fields)
    return item.job == job and has_fields and (item.id == head or item.id.startswith(f"{head}/"))
