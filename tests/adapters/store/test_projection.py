"""What each event does to the read model, and what a late or repeated one does not."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.store import Store
from justenough.adapters.store.metrics import OverdueCounts
from justenough.adapters.store.projection import EFFECTS
from justenough.adapters.store.queries import MAX_DEAD_CREDENTIALS
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.readmodel.views import CredentialView, JobView, RequestView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, SIGNED, job_id, later, part_id


def job_after(store: Store, *facts: Event) -> JobView:
    """Each fact recorded by itself, as parts of the system do."""
    for fact in (samples.submission(), *facts):
        store.ledger.append([fact])
    view = store.jobs.get(JOB)
    assert view is not None
    return view


def request_after(store: Store, *facts: Event) -> RequestView:
    return job_after(store, samples.access_request(), *facts).requests[0]


def credential_after(store: Store, *facts: Event) -> CredentialView:
    return job_after(store, samples.issuance(), *facts).credentials[0]


def test_the_docs_describe_the_effect_of_each_type_and_say_none_if_it_has_none() -> None:
    docs = (Path(__file__).resolve().parents[3] / "docs/reference/ledger.md").read_text().partition("## What each type does")[2]
    rows = (row.split("|")[1:3] for row in docs.splitlines() if row.startswith("| `"))
    described = [(kind, not effect.strip().startswith("none")) for kinds, effect in rows for kind in re.findall(r"`([^`]+)`", kinds)]
    assert sorted(described) == sorted((kind.value, kind in EFFECTS) for kind in EventType), (
        "ledger.md differs from EFFECTS in projection.py"
    )


def test_a_submitted_job_is_pending_and_shows_what_was_ordered(store: Store) -> None:
    view = job_after(store)
    assert (view.state, view.name, view.task, view.environment) == ("pending", "refund-triage", "Refund ticket 4711", "prod")
    assert (view.requester, view.requester_id, view.order_reason) == ("ops", "e-ops", "The customer waits")
    assert (view.data_scope, view.labels, view.params) == ({"tenant": "acme"}, {"team": "support"}, {"ticket": "4711"})
    assert view.agent == {"name": "refund-agent", "version": "1.4", "model": "scripted", "owner": "support"}
    assert (view.created_at, view.revocation.state) == (NOW, "none")


def test_an_order_is_read_back_as_it_was_signed(store: Store) -> None:
    spec = {"name": "x", "nested": {"list": [1, 2.5, None, True, "ü"]}}
    store.ledger.append([samples.submission(spec=spec, agent=None, bundle=None)])
    found = store.jobs.order(JOB)
    assert found is not None
    assert (found.spec, found.params, found.bundle) == (spec, {"ticket": "4711"}, None)
    assert found.order.model_dump() == SIGNED
    assert store.jobs.order("j-dev-unknown") is None


def test_a_job_runs_once_started_and_keeps_its_first_start(store: Store) -> None:
    again = samples.job_start(at=later(9)).model_copy(update={"id": "again"})
    view = job_after(store, samples.job_start(at=later(2)), again)
    assert (view.state, view.started_at, view.sandbox) == ("running", later(2), "bubblewrap")


@pytest.mark.parametrize("state", ["succeeded", "failed", "denied", "cancelled", "timed_out", "killed", "lost"])
def test_a_job_shows_the_state_time_and_exit_code_of_its_recorded_end(store: Store, state: str) -> None:
    view = job_after(store, samples.job_start(), samples.job_end(state, at=later(5), exit_code=3))
    assert (view.state, view.ended_at, view.exit_code) == (state, later(5), 3)


def test_the_first_recorded_ending_wins(store: Store) -> None:
    view = job_after(store, samples.job_end("succeeded", at=later(5)), samples.job_end("lost", at=later(6), about="sweep", exit_code=None))
    assert (view.state, view.ended_at, view.exit_code) == ("succeeded", later(5), 0)


@pytest.mark.parametrize(
    "late",
    [samples.job_start(at=later(7)), samples.revocation_start(at=later(7)), samples.approval_opening(at=later(7))],
    ids=lambda fact: str(fact.type),
)
def test_no_later_event_reopens_an_ended_job(store: Store, late: Event) -> None:
    assert job_after(store, samples.access_request(), samples.job_end("failed", at=later(5)), late).state == "failed"


def test_a_request_shows_the_access_its_job_and_its_requester(store: Store) -> None:
    view = request_after(store)
    assert (view.id, view.job_id, view.resource, view.action, view.ttl) == (part_id(JOB, "r"), JOB, "orders-db", "write", 600)
    assert (view.state, view.job_name, view.task, view.requester) == ("pending", "refund-triage", "Refund ticket 4711", "ops")
    assert store.requests.get(part_id(JOB, "r")) == view
    assert store.requests.get("r-dev-unknown-1") is None


@pytest.mark.parametrize("outcome,tier,state", [("allowed", 0, "allowed"), ("needs_approval", 2, "pending"), ("denied", 0, "denied")])
def test_a_decision_settles_a_request_and_says_why(store: Store, outcome: str, tier: int, state: str) -> None:
    view = request_after(store, samples.access_decision(outcome, tier=tier))
    assert (view.state, view.tier, view.current_tier, view.policies) == (state, tier, tier, ("writes-need-tier-1",))
    assert view.policy_digest.endswith("d" * 64)
    assert view.digest.endswith("e" * 64)


def test_an_opened_approval_makes_the_job_wait_and_says_until_when(store: Store) -> None:
    view = job_after(
        store, samples.access_request(), samples.access_decision("needs_approval", tier=1), samples.approval_opening(tier=1, at=later(1))
    )
    assert view.state == "awaiting_approval"
    assert (view.requests[0].current_tier, view.requests[0].quorum, view.requests[0].expires_at) == (1, 1, later(1 + 900))


def test_an_unanswered_request_escalates_and_then_expires(store: Store) -> None:
    climbed = request_after(
        store,
        samples.access_decision("needs_approval", tier=1),
        samples.approval_opening(tier=1),
        samples.approval_opening(tier=2, at=later(900), escalated=True),
    )
    assert (climbed.tier, climbed.current_tier, climbed.quorum, climbed.expires_at) == (1, 2, 2, later(1800))
    store.ledger.append([_request_event(EventType.APPROVAL_EXPIRED, tier=2)])
    assert _request(store).state == "expired"


def test_an_escalation_grants_a_request_whose_approvals_are_enough_for_the_new_tier(store: Store) -> None:
    granted: dict[str, Any] = {"granted_ttl": 120, "granted_action": "read"}
    escalated = samples.approval_opening(tier=2, at=later(900), escalated=True, quorum=1, verdict="approved", **granted)
    view = request_after(store, samples.access_decision("needs_approval", tier=1), samples.approval_opening(tier=1, quorum=2), escalated)
    assert (view.state, view.current_tier, view.granted_ttl, view.granted_action) == ("approved", 2, 120, "read")


def test_the_approval_that_reaches_the_quorum_grants_the_request(store: Store) -> None:
    waiting = request_after(
        store,
        samples.access_decision("needs_approval", tier=1),
        samples.approval_opening(),
        samples.approval_decision("pending", person="lead", at=later(1)),
    )
    assert (waiting.state, waiting.granted_ttl) == ("pending", None)
    store.ledger.append([samples.approval_decision("approved", person="chief", at=later(2))])
    view = _request(store)
    assert (view.state, view.granted_ttl) == ("approved", 300)
    assert [(answer.approver, answer.decision, answer.at) for answer in view.approvals] == [
        ("lead", "approve", later(1)),
        ("chief", "approve", later(2)),
    ]


def test_a_denial_ends_a_request_and_a_later_approval_does_not_revive_it(store: Store) -> None:
    denied = request_after(
        store,
        samples.access_decision("needs_approval", tier=1),
        samples.approval_opening(),
        samples.approval_decision("denied", decision="deny"),
    )
    assert denied.state == "denied"
    store.ledger.append([samples.approval_decision("approved", person="chief")])
    assert _request(store).state == "denied"


@pytest.mark.parametrize("outcome,state", [("allowed", "approved"), ("needs_approval", "approved"), ("denied", "denied")])
def test_the_decision_at_issue_can_only_take_access_away(store: Store, outcome: str, state: str) -> None:
    settled = (samples.access_decision("needs_approval", tier=1), samples.approval_opening(), samples.approval_decision("approved"))
    assert request_after(store, *settled, samples.access_decision(outcome, phase="issue", tier=1)).state == state


@pytest.mark.parametrize("phase", ["issue", "granted"])
def test_a_request_that_other_policies_deny_at_the_issue_names_their_digest(store: Store, phase: str) -> None:
    changed: dict[str, Any] = {"policies": ["closed"], "policy_digest": "sha256:" + "9" * 64}
    denied = request_after(store, samples.access_decision("allowed"), samples.access_decision("denied", phase=phase, **changed))
    assert (denied.state, denied.policies, denied.policy_digest) == ("denied", ("closed",), changed["policy_digest"])


def test_a_withdrawal_sets_the_request_to_withdrawn(store: Store) -> None:
    assert request_after(store, _request_event(EventType.ACCESS_WITHDRAWN, why="cancelled")).state == "withdrawn"


def test_nobody_can_answer_a_request_of_a_job_that_has_ended(store: Store) -> None:
    assert request_after(store, samples.approval_opening(), samples.job_end("cancelled")).state == "withdrawn"
    assert store.requests.list(state=None).items[0].state == "withdrawn"


def test_a_request_that_is_recorded_after_its_job_has_ended_waits_for_nobody(store: Store) -> None:
    late = (samples.access_request(), samples.access_decision("needs_approval", tier=1), samples.approval_opening(at=later(1)))
    view = job_after(store, samples.job_end("lost"), *late)
    assert (view.state, view.requests[0].state) == ("lost", "withdrawn")
    assert store.requests.count_waiting("e-ops", origin=None, environment=None) == 0


def test_an_event_of_another_job_does_not_change_a_jobs_request(store: Store) -> None:
    foreign = samples.access_decision("allowed").model_copy(update={"id": "foreign", "job": "j-dev-stranger"})
    assert request_after(store, foreign).state == "pending"


def test_an_issued_credential_shows_its_lease_accessor_and_expiry(store: Store) -> None:
    view = credential_after(store)
    assert (view.id, view.request_id, view.state, view.revocable) == (part_id(JOB, "c"), part_id(JOB, "r"), "issued", "now")
    assert (view.lease_id, view.accessor, view.expires_at) == ("database/creds/orders-write/abc", "acc-1", later(600))
    assert store.credentials.get(view.id) == view
    assert store.credentials.get("c-dev-unknown-1") is None


def test_a_job_with_very_many_credentials_shows_every_live_one_and_the_newest_dead_ones(store: Store) -> None:
    # A live credential is among the first ones.
    facts = [samples.issuance(number=number, at=later(number)) for number in range(1, MAX_DEAD_CREDENTIALS + 12)]
    facts += [
        samples.credential_confirmation(number=number, at=later(2000)) for number in range(1, MAX_DEAD_CREDENTIALS + 12) if number != 3
    ]
    store.ledger.append([samples.submission(), *facts])
    view = store.jobs.get(JOB)
    assert view is not None
    numbers = [int(one.id.rpartition("-")[2]) for one in view.credentials]
    assert numbers == [3, *range(12, MAX_DEAD_CREDENTIALS + 12)]
    assert view.older_credentials == 10


def test_a_renewed_credential_ends_later(store: Store) -> None:
    assert credential_after(store, samples.credential_event(EventType.CREDENTIAL_RENEWED, expires_at=later(900))).expires_at == later(900)


def test_a_credential_goes_from_revoking_to_revoked_to_confirmed(store: Store) -> None:
    assert credential_after(store, samples.revocation_start()).state == "revoking"
    store.ledger.append([samples.credential_event(EventType.CREDENTIAL_REVOKED, by="session", why=None, at=later(1))])
    assert _live_states(store) == ["revoked"]
    store.ledger.append([samples.credential_confirmation(at=later(2))])
    view = store.credentials.get(part_id(JOB, "c"))
    assert view is not None
    assert (view.state, view.revoked_at, view.confirmed_at) == ("confirmed", later(1), later(2))
    assert view.confirmed_how == "its lease is gone, its login is gone"
    assert _live_states(store) == []


@pytest.mark.parametrize(
    "late",
    [
        samples.credential_event(EventType.CREDENTIAL_REVOKED, by="sweep", why=None, at=later(9)),
        samples.credential_event(EventType.CREDENTIAL_EXPIRED, why="its time ran out", at=later(9)),
        samples.overdue_revocation(at=later(9)),
        samples.revocation_start(at=later(9)),
    ],
    ids=lambda fact: str(fact.type),
)
def test_a_confirmed_credential_stays_confirmed(store: Store, late: Event) -> None:
    assert credential_after(store, samples.credential_confirmation(at=later(2)), late).state == "confirmed"


def test_a_credential_that_expired_unseen_is_never_shown_as_confirmed(store: Store) -> None:
    gone = samples.credential_event(EventType.CREDENTIAL_EXPIRED, why="its target cannot be searched", at=later(600))
    view = credential_after(store, gone, samples.credential_confirmation(at=later(601)))
    assert (view.state, view.why) == ("expired", "its target cannot be searched")
    assert _live_states(store) == []


def test_a_job_that_held_nothing_has_no_revocation(store: Store) -> None:
    assert job_after(store, samples.job_start(), samples.job_end()).revocation.state == "none"


def test_a_proof_is_shown_even_if_nothing_was_issued(store: Store) -> None:
    view = job_after(store, samples.job_start(), samples.revocation_proof(at=later(3)), samples.job_end())
    assert (view.revocation.state, view.revocation.confirmed_at) == ("confirmed", later(3))


def test_a_job_goes_from_running_to_clean(store: Store) -> None:
    during = job_after(store, samples.issuance(), samples.job_start(), samples.revocation_start(at=later(3)))
    assert (during.state, during.revocation.state) == ("revoking", "pending")
    store.ledger.append([samples.credential_confirmation(at=later(4)), samples.revocation_proof(at=later(4)), samples.job_end(at=later(5))])
    after = store.jobs.get(JOB)
    assert after is not None
    assert (after.state, after.revocation.state, after.revocation.confirmed_at) == ("succeeded", "confirmed", later(4))


def test_a_failed_revocation_is_a_state_that_is_shown_until_proof(store: Store) -> None:
    failed = job_after(
        store,
        samples.issuance(),
        samples.job_end("failed"),
        samples.revocation_start(at=later(1)),
        samples.overdue_revocation(at=later(2)),
        samples.revocation_start(at=later(3), about="2"),
    )
    assert (failed.state, failed.revocation.state) == ("failed", "overdue")
    assert failed.revocation.failures == ("leases: the target does not answer",)
    assert failed.credentials[0].state == "overdue"
    store.ledger.append([samples.credential_confirmation(at=later(4)), samples.revocation_proof(at=later(4), about="2")])
    clean = store.jobs.get(JOB)
    assert clean is not None
    assert (clean.revocation.state, clean.revocation.failures, clean.credentials[0].state) == ("confirmed", (), "confirmed")


def test_later_attempts_do_not_change_when_a_revocation_began(store: Store) -> None:
    failed = job_after(
        store,
        samples.issuance(),
        samples.revocation_start(at=later(1)),
        samples.overdue_revocation(at=later(2)),
        samples.revocation_start(at=later(3), about="2"),
        samples.job_end(at=later(4)),
    )
    assert failed.revocation.since == later(1)
    assert store.metrics.overdue() == OverdueCounts(jobs=1, since=later(1), credentials=1)
    store.ledger.append([samples.credential_confirmation(at=later(5)), samples.revocation_proof(at=later(5), about="2")])
    clean = store.jobs.get(JOB)
    assert clean is not None
    assert clean.revocation.since is None
    assert store.metrics.overdue() == OverdueCounts(jobs=0, since=None, credentials=0)
    store.ledger.append([samples.revocation_start(at=later(9), about="sweep")])
    again = store.jobs.get(JOB)
    assert again is not None
    assert again.revocation.since == later(9)


def test_each_credential_shows_only_the_failures_that_concern_it(store: Store) -> None:
    first, second = samples.issuance(number=1, lease_id="lease/1"), samples.issuance(number=2, lease_id="lease/2", accessor="acc-2")
    failures = ["lease lease/1: the target is down", "target shop: away", f"token {second.data['accessor']}: no answer"]
    tried = {"by": "sweep", "failures": failures, "attempt": 2, "seen_from": later(2).isoformat()}
    told = build_event(EventType.REVOCATION_OVERDUE, JOB, at=later(2), about="1", **tried)
    view = job_after(store, first, second, told)
    assert [item.why for item in view.credentials] == ["; ".join(failures[:2]), "; ".join(failures[1:])]


def test_one_credential_is_overdue_while_its_job_goes_on(store: Store) -> None:
    told = samples.credential_event(EventType.CREDENTIAL_OVERDUE, by="person", failures=["a", "b"], attempt=1, at=later(2))
    view = job_after(store, samples.job_start(), samples.issuance(), told)
    assert (view.state, view.revocation.state) == ("running", "none")
    assert [(item.state, item.why) for item in view.credentials] == [("overdue", "a; b")]
    assert store.metrics.overdue() == OverdueCounts(jobs=0, since=None, credentials=1)
    store.ledger.append([samples.credential_confirmation(at=later(3))])
    after = store.credentials.get(part_id(JOB, "c"))
    assert after is not None
    assert (after.state, after.why) == ("confirmed", None)


@pytest.mark.parametrize("at", [later(0), later(4)])
def test_a_job_that_ends_with_a_live_credential_is_not_clean(store: Store, at: datetime) -> None:
    view = job_after(store, samples.issuance(at=at), samples.job_end(at=later(5)))
    assert view.revocation.state == "pending"
    assert store.jobs.open(later(1)) == (JOB,)


def test_a_credential_issued_after_the_proof_invalidates_it(store: Store) -> None:
    view = job_after(store, samples.revocation_proof(at=later(3)), samples.job_end(at=later(4)), samples.issuance(at=later(5)))
    assert (view.revocation.state, view.revocation.confirmed_at) == ("pending", None)


def test_a_credential_issued_before_the_proof_but_recorded_after_it_leaves_it_valid(store: Store) -> None:
    view = job_after(store, samples.revocation_proof(at=later(3)), samples.job_end(at=later(4)), samples.issuance(at=later(2)))
    assert view.revocation.state == "confirmed"


@pytest.mark.parametrize(
    "late", [samples.revocation_start(at=later(1)), samples.overdue_revocation(at=later(1))], ids=lambda fact: str(fact.type)
)
def test_a_late_attempt_does_not_undo_a_newer_proof(store: Store, late: Event) -> None:
    assert job_after(store, samples.issuance(), samples.revocation_proof(at=later(3)), late).revocation.state == "confirmed"


def test_only_an_attempt_that_checked_after_a_proof_can_undo_it(store: Store) -> None:
    hung = samples.overdue_revocation(at=later(5), seen_from=later(1))
    assert (
        job_after(store, samples.issuance(), samples.revocation_proof(at=later(3)), samples.job_end(), hung).revocation.state == "confirmed"
    )
    store.ledger.append([samples.overdue_revocation(at=later(6), attempt=2, seen_from=later(4))])
    seen = store.jobs.get(JOB)
    assert seen is not None
    assert seen.revocation.state == "overdue"


def test_a_new_attempt_after_a_proof_is_pending_until_its_own_proof(store: Store) -> None:
    view = job_after(
        store,
        samples.issuance(),
        samples.revocation_proof(at=later(3)),
        samples.job_end(),
        samples.revocation_start(at=later(4), about="sweep"),
    )
    assert (view.revocation.state, view.revocation.confirmed_at) == ("pending", None)


@pytest.mark.parametrize("by", ["person", "stranger"])
def test_cutting_access_reopens_the_revocation_of_a_job_only_if_it_has_no_proof_yet(store: Store, by: str) -> None:
    cut = [samples.revocation_start(at=later(4), about="cut", by=by), samples.overdue_revocation(at=later(5), by=by)]
    view = job_after(store, samples.issuance(), samples.revocation_proof(at=later(3)), samples.job_end(), *cut)
    assert (view.revocation.state, view.credentials[0].state) == ("confirmed", "issued")
    other = job_id(7)
    store.ledger.append([samples.submission(other), samples.issuance(other), samples.revocation_start(other, at=later(4), by=by)])
    assert [seen.revocation.state for seen in [store.jobs.get(other)] if seen] == ["pending"]
    store.ledger.append([samples.overdue_revocation(other, at=later(5), by=by)])
    assert [seen.revocation.state for seen in [store.jobs.get(other)] if seen] == ["overdue"]


def test_an_event_of_an_unknown_job_is_recorded_and_changes_nothing(store: Store) -> None:
    entries = store.ledger.append([samples.job_refusal("no such order", job="j-dev-stranger"), samples.job_end(job="j-dev-stranger")])
    assert [entry.seq for entry in entries] == [1, 2]
    assert store.jobs.get("j-dev-stranger") is None


def _request_event(kind: EventType, **data: Any) -> Event:
    request = part_id(JOB, "r")
    return Event(id=f"{JOB}/{kind}/{request}", job=JOB, type=kind, at=later(1800), data={"request": request, **data})


def _request(store: Store) -> RequestView:
    view = store.requests.get(part_id(JOB, "r"))
    assert view is not None
    return view


def _live_states(store: Store) -> list[str]:
    assert store.credentials.list(live=True, job=JOB).items == store.credentials.live_of(JOB)
    return [view.state for view in store.credentials.live_of(JOB)]
