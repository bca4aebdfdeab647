"""Attacks on signed orders and decisions, against real people in a real Vault; any other input gets a verdict, never an exception."""

from __future__ import annotations

import dataclasses
import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from justenough.adapters.vault import VaultUnavailable
from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
from justenough.domain.approvals.statements import DecisionStatement, SignedStatement, to_signable
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.ids import new_job_id, request_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.jobs.states import Action
from justenough.services.dependencies import Deps
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.ledger_events import job_submitted_event
from justenough.services.verify_order import VerifiedOrder, build_approval_verifier, verify_order
from tests.activities.vault_shop import SPEC, Desk, Shop, Someone, admin_vault, copy_config, open_desk

pytestmark = pytest.mark.servers

DIGEST = "sha256:" + "a" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ORDER_FIELDS = ["type", "job", "spec_digest", "bundle", "params", "reason", "person", "issued_at", "expires_at"]
DECISION_FIELDS = ["type", "job", "request", "digest", "decision", "ttl", "action", "reason", "person", "issued_at", "expires_at"]


def fresh_job_id(at: Desk) -> str:
    return new_job_id("dev", now=at.clock.now())


def build_ladder(at: Desk, job: str, *, requester: str = "someone") -> Ladder:
    return Ladder(
        request=request_id(job, 1),
        digest=DIGEST,
        action=Action.WRITE,
        requester=requester,
        needed=1,
        current=1,
        respond_by=at.clock.now(),
        ttl=300,
    )


def decision(someone: Someone, job: str, changes: Mapping[str, Any] | None = None, *, now: datetime) -> SignedStatement:
    """A decision that this person signed, with `changes` to its statement."""
    statement = DecisionStatement(
        job=job,
        request=request_id(job, 1),
        digest=DIGEST,
        decision="approve",
        ttl=300,
        action=Action.WRITE,
        reason="ticket 4711",
        person=someone.id,
        issued_at=now,
        expires_at=now + timedelta(hours=1),
    )
    return someone.sign({**to_signable(statement), **(changes or {})})


def verify_decision(deps: Deps, job: str, ladder: Ladder, signed: SignedStatement, *, now: datetime) -> ApprovalAnswer | Rejection:
    return build_approval_verifier(deps, now=now).verify_answer(job, ladder, signed)


@pytest.mark.parametrize(
    "spec, before, expected", [(SPEC, True, "policy"), (SPEC, False, "ask"), ({**SPEC, "beyond": "none"}, True, "none")]
)
def test_an_order_that_was_recorded_before_orders_were_ceilings_keeps_its_meaning(
    at: Desk, spec: dict[str, Any], before: bool, expected: str
) -> None:
    launcher = at.shop.newcomer(f"launcher-{secrets.token_hex(4)}", "ops")
    order = launcher.order(fresh_job_id(at), now=at.clock.now(), spec=spec)
    verified = verify_order(at.deps, order, now=at.clock.now())
    assert isinstance(verified, VerifiedOrder)
    assert verified.spec.beyond == spec.get("beyond", "ask")
    event = job_submitted_event(order, verified, at=at.clock.now())
    data = {name: value for name, value in event.data.items() if name != "beyond" or not before}
    at.deps.store.ledger.append([event.model_copy(update={"data": data})])
    again = verify_order(at.deps, order, now=at.clock.now())
    assert isinstance(again, VerifiedOrder)
    assert again.spec.beyond == expected


def rejection_message(verdict: object) -> str:
    assert isinstance(verdict, Rejection), verdict
    assert verdict.message
    assert "\n" not in verdict.message
    return verdict.message


# Orders.


@pytest.mark.parametrize("group, is_read", [("support-leads", True), ("auditors", True), ("break-glass", True), (None, False)])
def test_a_job_can_be_launched_within_any_job_that_its_launcher_may_read(at: Desk, group: str | None, is_read: bool) -> None:
    parent, now = at.shop.newcomer(f"launcher-{secrets.token_hex(4)}", "ops").order(fresh_job_id(at), now=at.clock.now()), at.clock.now()
    verified = verify_order(at.deps, parent, now=now)
    assert isinstance(verified, VerifiedOrder)
    at.deps.store.ledger.append([job_submitted_event(parent, verified, at=now)])
    other = at.shop.newcomer(f"other-{secrets.token_hex(4)}", "ops")
    if group is not None:
        at.shop.admin("POST", f"identity/group/name/{group}", {"type": "internal"})
        at.shop.join(other, group)
    verdict = verify_order(at.deps, other.order(fresh_job_id(at), {"parent": parent.job}, now=now), now=now)
    assert isinstance(verdict, VerifiedOrder if is_read else Rejection), verdict


def test_a_job_is_refused_once_the_launcher_of_an_ancestor_has_another_entity(at: Desk) -> None:
    """Their new entity could decide the requests of their own job's descendants."""
    name, now = f"launcher-{secrets.token_hex(4)}", at.clock.now()
    people = at.shop.newcomer(name, "ops"), *(at.shop.newcomer(f"{name}-{nth}", "ops", "support-leads") for nth in range(2))
    orders = list[JobInput]()
    for person in people:
        order = person.order(fresh_job_id(at), {"parent": orders[-1].job} if orders else {}, now=now)
        verified = verify_order(at.deps, order, now=now)
        assert isinstance(verified, VerifiedOrder), verified
        at.deps.store.ledger.append([job_submitted_event(order, verified, at=now)])
        orders.append(order)
    at.shop.admin("DELETE", f"identity/entity/id/{people[0].id}")
    assert at.shop.sign_in(name).id != people[0].id
    assert "no longer an active person" in rejection_message(verify_order(at.deps, orders[-1], now=now))


def test_a_launchers_order_is_valid_and_has_its_params_filled_in(at: Desk) -> None:
    job, ops = fresh_job_id(at), at.shop.sign_in("ops")
    verdict = verify_order(at.deps, ops.order(job, now=at.clock.now()), now=at.clock.now())
    assert isinstance(verdict, VerifiedOrder)
    assert (verdict.person.id, verdict.person.name) == (ops.id, "ops")
    assert verdict.spec.task == "Refund ticket 4712"


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"job": "j-dev-00000000000000000000000000"}, "another job"),
        ({"spec_digest": DIGEST}, "another spec"),
        ({"bundle": DIGEST}, "another bundle"),
        ({"params": {"ticket": "4711"}}, "other params"),
        ({"params": {}}, "other params"),
        ({"type": "decision"}, "not a statement of type order"),
        ({"extra": 1}, "not a statement of type order"),
        ({"parent": None}, "in canonical form (RFC 8785, without extra fields)"),
        ({"parent": 5}, "not a statement of type order"),
        ({"parent": "j-dev-00000000000000000000000000"}, "there is no job j-dev-00000000000000000000000000"),
        ({"reason": 5}, "not a statement of type order"),
        ({"issued_at": "2026-01-01T00:00:00"}, "not a statement"),
        ({"issued_at": 1767225600}, "not a statement"),
        ({"issued_at": "2099-01-01T00:00:00Z", "expires_at": "2099-01-01T01:00:00Z"}, "future"),
        ({"issued_at": "2020-01-01T00:00:00Z", "expires_at": "2020-01-01T01:00:00Z"}, "expired"),
        ({"expires_at": "2099-01-01T00:00:00Z"}, "longer than"),
        ({"person": "00000000-0000-0000-0000-000000000000"}, "not an active person"),
        ({"person": "../../sys/mounts"}, "not an active person"),
    ],
)
def test_a_validly_signed_order_that_does_not_match_its_job_is_rejected(at: Desk, changes: dict[str, Any], why: str) -> None:
    order = at.shop.sign_in("ops").order(fresh_job_id(at), changes, now=at.clock.now())
    assert why in rejection_message(verify_order(at.deps, order, now=at.clock.now()))


@pytest.mark.parametrize(
    "job, spec, why",
    [
        ("../../sys/mounts", SPEC, "the job's id is not valid"),
        ("j-dev-\0", SPEC, "the job's id is not valid"),
        (None, {**SPEC, "acess": []}, "the spec is invalid: acess: "),
        (None, {**SPEC, "params": {}}, "the spec is invalid: params.ticket: "),
    ],
)
def test_a_validly_signed_order_with_an_invalid_spec_or_id_is_rejected(at: Desk, job: str | None, spec: dict[str, Any], why: str) -> None:
    order = at.shop.sign_in("ops").order(fresh_job_id(at) if job is None else job, now=at.clock.now(), spec=spec)
    assert rejection_message(verify_order(at.deps, order, now=at.clock.now())).startswith(why)


WIDER = {**SPEC, "access": [*SPEC["access"], {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Refund it"}]}


def record(at: Desk, order: JobInput) -> JobInput:
    """Record an order as submitted, and return it."""
    verified = verify_order(at.deps, order, now=at.clock.now())
    assert isinstance(verified, VerifiedOrder), verified
    at.deps.store.ledger.append([job_submitted_event(order, verified, at=at.clock.now())])
    return order


def test_an_order_for_more_than_its_parent_job_has_is_rejected(at: Desk) -> None:
    ops, now = at.shop.sign_in("ops"), at.clock.now()
    parent = record(at, ops.order(fresh_job_id(at), now=now))
    child = ops.order(fresh_job_id(at), {"parent": parent.job}, now=now, spec=WIDER)
    why = "it requests more than its parent job has: access[1].resource: the parent job has no access to refunds-db"
    assert rejection_message(verify_order(at.deps, child, now=now)) == why


@pytest.mark.parametrize(
    "change, why",
    [
        ("DELETE FROM orders", "there is no job {}"),
        ("""UPDATE orders SET spec = '{"acess": []}'""", "the order of {} cannot be parsed"),
        (f"UPDATE orders SET spec = '{json.dumps(WIDER)}'", "the stored order of {} differs from the signed order"),
        (
            "UPDATE orders SET signed = json_set(signed, '$.statement.type', 'decision')",
            "the order of {}: this is not a statement of type order",
        ),
        ("UPDATE orders SET signed = json_set(signed, '$.statement.reason', 'another')", "the order of {}: the signature does not match"),
    ],
)
def test_a_job_has_nothing_once_its_parents_order_was_changed_in_the_store(at: Desk, tmp_path: Path, change: str, why: str) -> None:
    ops, now = at.shop.sign_in("ops"), at.clock.now()
    parent = record(at, ops.order(fresh_job_id(at), now=now)).job
    child = ops.order(fresh_job_id(at), {"parent": parent}, now=now)
    verified = verify_order(at.deps, child, now=now)
    assert isinstance(verified, VerifiedOrder)
    (access,) = verified.spec.access
    assert why_exceeds_ancestors(at.deps, access, verified.statement) is None

    with closing(sqlite3.connect(tmp_path / "store.db")) as store, store:
        store.execute(change)

    assert why.format(parent) in rejection_message(verify_order(at.deps, child, now=now))
    # A running job is checked in the same way, at each issue and renewal.
    assert why.format(parent) in rejection_message(why_exceeds_ancestors(at.deps, access, verified.statement))


def test_an_order_is_valid_only_for_the_content_that_was_signed(at: Desk) -> None:
    order = at.shop.sign_in("ops").order(fresh_job_id(at), now=at.clock.now())
    altered: dict[str, dict[str, Any]] = {
        "another job": {"job": fresh_job_id(at)},
        "another spec": {"spec": {**SPEC, "run": {"command": ["rm"]}}},
        "another bundle": {"bundle": DIGEST},
        "other params": {"params": {"ticket": "1"}},
        "another parent": {"parent": fresh_job_id(at)},
    }
    for why, changes in altered.items():
        assert why in rejection_message(verify_order(at.deps, order.model_copy(update=changes), now=at.clock.now()))


def test_a_signature_by_another_key_or_of_another_statement_is_rejected(at: Desk) -> None:
    ops, lead, now = at.shop.sign_in("ops"), at.shop.sign_in("lead"), at.clock.now()
    job = fresh_job_id(at)
    by_lead = lead.order(job, {"person": ops.id}, now=now)
    assert "does not match" in rejection_message(verify_order(at.deps, by_lead, now=now))
    order = ops.order(job, now=now)
    for signature in (
        "",
        "vault:v1:",
        "vault:v9:" + order.order.signature.split(":")[2],
        "hmac:v1:AAAA",
        order.order.signature[:-8] + "AAAAAA==",
    ):
        forged = order.model_copy(update={"order": order.order.model_copy(update={"signature": signature})})
        rejection_message(verify_order(at.deps, forged, now=now))
    other = ops.order(fresh_job_id(at), now=now).order
    swapped = order.model_copy(update={"order": order.order.model_copy(update={"signature": other.signature})})
    assert "does not match" in rejection_message(verify_order(at.deps, swapped, now=now))


def test_an_order_of_a_person_who_may_not_launch_is_rejected(at: Desk) -> None:
    lead, now = at.shop.sign_in("lead"), at.clock.now()
    assert "may launch" in rejection_message(verify_order(at.deps, lead.order(fresh_job_id(at), now=now), now=now))


def test_an_edited_configuration_applies_to_the_next_order(shop: Shop, tmp_path: Path) -> None:
    approvals = copy_config(tmp_path) / "approvals.yaml"
    closed = approvals.read_text()
    with open_desk(shop, tmp_path, folder=approvals.parent) as at:
        order, now = at.shop.sign_in("lead").order(fresh_job_id(at), now=at.clock.now()), at.clock.now()
        assert "may launch" in rejection_message(verify_order(at.deps, order, now=now))
        approvals.write_text(closed.replace("launch: [ops]", "launch: [ops, support-leads]"))
        assert isinstance(verify_order(at.deps, order, now=now), VerifiedOrder)
        approvals.write_text(closed)
        assert "may launch" in rejection_message(verify_order(at.deps, order, now=now))


def test_an_order_is_valid_only_while_its_person_may_launch(at: Desk) -> None:
    someone, now = at.shop.newcomer(f"p{secrets.token_hex(4)}", "ops"), at.clock.now()
    order = someone.order(fresh_job_id(at), now=now)
    assert isinstance(verify_order(at.deps, order, now=now), VerifiedOrder)
    assert "expired" in rejection_message(verify_order(at.deps, order, now=now + timedelta(hours=1)))
    at.shop.leave(someone, "ops")
    assert "may launch" in rejection_message(verify_order(at.deps, order, now=now))
    at.shop.join(someone, "ops")
    at.shop.admin("POST", f"identity/entity/id/{someone.id}", {"disabled": True})
    assert "not an active person" in rejection_message(verify_order(at.deps, order, now=now))


# Decisions.


def test_a_valid_decision_counts_at_the_tier_of_its_approver(at: Desk) -> None:
    job, lead, now = fresh_job_id(at), at.shop.sign_in("lead"), at.clock.now()
    verdict = verify_decision(at.deps, job, build_ladder(at, job), decision(lead, job, now=now), now=now)
    assert isinstance(verdict, ApprovalAnswer)
    assert (verdict.person, verdict.name, verdict.tier, verdict.decision, verdict.ttl) == (lead.id, "lead", 1, "approve", 300)


def test_a_denial_and_a_shorter_ttl_count(at: Desk) -> None:
    job, security, now = fresh_job_id(at), at.shop.sign_in("security"), at.clock.now()
    signed = decision(security, job, {"ttl": 60, "decision": "deny"}, now=now)
    verdict = verify_decision(at.deps, job, build_ladder(at, job), signed, now=now)
    assert isinstance(verdict, ApprovalAnswer)
    assert (verdict.tier, verdict.decision, verdict.ttl) == (2, "deny", 60)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"job": "j-dev-00000000000000000000000000"}, "another job"),
        ({"request": "r-dev-00000000000000000000000000-1"}, "another request"),
        ({"digest": "sha256:" + "b" * 64}, "something other"),
        ({"action": "admin"}, "another action"),
        ({"ttl": 301}, "ttl"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": True}, "canonical form"),
        ({"ttl": "300"}, "canonical form"),
        ({"ttl": 300.5}, "not a statement"),
        ({"decision": "maybe"}, "not a statement"),
        ({"reason": "", "decision": "deny"}, "no reason"),
        ({"reason": " \n", "decision": "deny"}, "no reason"),
        ({"decision": "withdraw"}, "the decision is a withdrawal"),
        ({"decision": "break_glass"}, "break-glass"),
        ({"on_behalf_of": "00000000-0000-0000-0000-000000000000"}, "has not named the signer"),
        ({"on_behalf_of": None}, "canonical form"),
        ({"type": "order"}, "not a statement"),
        ({"also": "this"}, "not a statement"),
        ({"issued_at": "2099-01-01T00:00:00Z", "expires_at": "2099-01-01T01:00:00Z"}, "future"),
        ({"issued_at": "2020-01-01T00:00:00Z", "expires_at": "2020-01-01T01:00:00Z"}, "expired"),
        ({"issued_at": "0001-01-01T00:00:00+14:00"}, "not a statement"),
    ],
)
def test_a_validly_signed_decision_about_something_else_is_rejected(at: Desk, changes: dict[str, Any], why: str) -> None:
    job, lead, now = fresh_job_id(at), at.shop.sign_in("lead"), at.clock.now()
    assert why in rejection_message(verify_decision(at.deps, job, build_ladder(at, job), decision(lead, job, changes, now=now), now=now))


def test_a_decision_in_another_persons_name_or_altered_after_signing_is_rejected(at: Desk) -> None:
    job, now = fresh_job_id(at), at.clock.now()
    lead, security = at.shop.sign_in("lead"), at.shop.sign_in("security")
    signed = decision(security, job, {"person": lead.id}, now=now)
    assert "does not match" in rejection_message(verify_decision(at.deps, job, build_ladder(at, job), signed, now=now))
    altered = decision(lead, job, now=now)
    altered = altered.model_copy(update={"statement": {**altered.statement, "ttl": 299}})
    assert "does not match" in rejection_message(verify_decision(at.deps, job, build_ladder(at, job), altered, now=now))


def test_a_decision_is_not_replayed_for_another_request_of_the_job(at: Desk) -> None:
    job, lead, now = fresh_job_id(at), at.shop.sign_in("lead"), at.clock.now()
    second = build_ladder(at, job).model_copy(update={"request": request_id(job, 2)})
    assert "another request" in rejection_message(verify_decision(at.deps, job, second, decision(lead, job, now=now), now=now))


def test_people_cannot_decide_on_their_own_job(at: Desk) -> None:
    job, now = fresh_job_id(at), at.clock.now()
    both = at.shop.newcomer(f"p{secrets.token_hex(4)}", "ops", "support-leads")
    own = build_ladder(at, job, requester=both.id)
    assert "launched" in rejection_message(verify_decision(at.deps, job, own, decision(both, job, now=now), now=now))
    assert isinstance(verify_decision(at.deps, job, build_ladder(at, job), decision(both, job, now=now), now=now), ApprovalAnswer)


def test_a_decision_of_a_person_without_a_tier_does_not_count(at: Desk) -> None:
    job, ops, now = fresh_job_id(at), at.shop.sign_in("ops"), at.clock.now()
    assert "no group" in rejection_message(verify_decision(at.deps, job, build_ladder(at, job), decision(ops, job, now=now), now=now))


def test_an_answer_counts_only_while_its_person_may_give_it(at: Desk) -> None:
    job, now = fresh_job_id(at), at.clock.now()
    someone = at.shop.newcomer(f"p{secrets.token_hex(4)}", "support-leads")
    signed = decision(someone, job, now=now)
    assert isinstance(verify_decision(at.deps, job, build_ladder(at, job), signed, now=now), ApprovalAnswer)
    at.shop.leave(someone, "support-leads")
    assert "no group" in rejection_message(verify_decision(at.deps, job, build_ladder(at, job), signed, now=now))
    at.shop.join(someone, "support-leads")
    at.shop.admin("POST", f"identity/entity/id/{someone.id}", {"disabled": True})
    assert "not an active person" in rejection_message(verify_decision(at.deps, job, build_ladder(at, job), signed, now=now))


def test_an_entity_without_a_login_on_a_people_mount_never_counts_whatever_it_signs(at: Desk) -> None:
    job, now = fresh_job_id(at), at.clock.now()
    shop = at.shop
    group = shop.admin("GET", "identity/group/name/support-leads")["data"]["member_entity_ids"]
    entity = shop.admin("POST", "identity/entity", {"name": f"robot-{secrets.token_hex(4)}"})["data"]["id"]
    shop.admin("POST", "identity/group/name/support-leads", {"member_entity_ids": [*group, entity]})
    shop.admin("POST", f"transit/keys/je-sign-{entity}", {"type": "ed25519"})
    robot = Someone(shop, "robot", entity, shop.admin_token)
    assert "not an active person" in rejection_message(
        verify_decision(at.deps, job, build_ladder(at, job), decision(robot, job, now=now), now=now)
    )
    shop.admin("POST", "identity/group/name/support-leads", {"member_entity_ids": group})


def test_a_person_without_a_signing_key_signs_nothing(at: Desk) -> None:
    job, now = fresh_job_id(at), at.clock.now()
    lead = at.shop.sign_in("lead")
    someone = at.shop.newcomer(f"p{secrets.token_hex(4)}", "support-leads")
    at.shop.admin("POST", f"transit/keys/je-sign-{someone.id}/config", {"deletion_allowed": True})
    at.shop.admin("DELETE", f"transit/keys/je-sign-{someone.id}")
    signed = decision(lead, job, {"person": someone.id}, now=now)
    assert "does not have" in rejection_message(verify_decision(at.deps, job, build_ladder(at, job), signed, now=now))


def test_there_is_no_verdict_while_vault_is_unreachable(at: Desk) -> None:
    job, lead, now = fresh_job_id(at), at.shop.sign_in("lead"), at.clock.now()
    signed = decision(lead, job, now=now)
    gone = admin_vault(at.shop)
    gone.address = "http://127.0.0.1:1"
    gone.login_token(gone_token := _token())
    away = dataclasses.replace(at.deps, vault=gone)
    assert gone_token
    with pytest.raises(VaultUnavailable):
        verify_decision(away, job, build_ladder(at, job), signed, now=now)


# Anything else.


def _token() -> Any:
    from justenough.domain.core.secret import Secret

    return Secret("none")


FUZZ = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _job_input(build: Callable[[], JobInput]) -> JobInput | None:
    try:
        return build()
    except ValidationError:
        return None


@FUZZ
@given(statement=st.dictionaries(st.sampled_from(ORDER_FIELDS) | st.text(), JSON, max_size=10), spec=st.dictionaries(st.text(), JSON, max_size=4), signature=st.text(max_size=80))  # fmt: skip
def test_any_json_as_an_order_is_refused_and_nothing_is_raised(
    at: Desk, statement: dict[str, Any], spec: dict[str, Any], signature: str
) -> None:
    order = _job_input(lambda: JobInput(job=fresh_job_id(at), spec=spec, order=SignedStatement(statement=statement, signature=signature)))
    if order is not None:
        rejection_message(verify_order(at.deps, order, now=at.clock.now()))


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(DECISION_FIELDS), JSON, min_size=1, max_size=4), signature=st.text(max_size=80))
def test_any_json_within_a_decision_is_refused_and_nothing_is_raised(at: Desk, changes: dict[str, Any], signature: str) -> None:
    job, now = fresh_job_id(at), at.clock.now()
    whole = {
        "type": "decision",
        "job": job,
        "request": request_id(job, 1),
        "digest": DIGEST,
        "decision": "approve",
        "ttl": 60,
        "action": "write",
        "reason": "r",
        "person": "00000000-0000-0000-0000-000000000000",
        "issued_at": to_rfc3339(now),
        "expires_at": to_rfc3339(now + timedelta(hours=1)),
    }
    signed = SignedStatement(statement={**whole, **changes}, signature=signature)
    rejection_message(verify_decision(at.deps, job, build_ladder(at, job), signed, now=now))


def test_a_deep_or_huge_statement_is_refused(at: Desk) -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    job, now = fresh_job_id(at), at.clock.now()
    for statement in ({"type": deep}, {**dict.fromkeys(DECISION_FIELDS, "x"), "reason": deep}, {"reason": "x" * 3_000_000}):
        signed = SignedStatement.model_construct(statement=statement, signature="vault:v1:AAAA")
        rejection_message(verify_decision(at.deps, job, build_ladder(at, job), signed, now=now))
        order = JobInput.model_construct(job=job, spec={"name": deep}, params={}, bundle=None, order=signed)
        rejection_message(verify_order(at.deps, order, now=now))
