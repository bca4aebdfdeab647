"""The statements that the command line signs match docs/reference/statements.md."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from justenough.domain.approvals import statements
from justenough.domain.approvals.statements import to_signable, why_not_valid_now
from justenough.domain.approvals.tiers import MAX_WAIT_S
from justenough.domain.core.canonical_json import digest_of

NOW = datetime(2026, 1, 31, 9, 30, 0, 999999, UTC)
SPEC = {"name": "x", "n": 1}
REQUEST = {"job_id": "j-dev-x", "id": "r-dev-x-1", "digest": "sha256:" + "d" * 64, "ttl": 300, "action": "write"}


def test_an_order_statement_names_its_job_content_reason_and_expiry() -> None:
    order = statements.build_order_statement("j-dev-x", SPEC, bundle=None, params={"a": "1"}, reason="why", person="me", now=NOW)

    assert to_signable(order) == {
        "type": "order",
        "job": "j-dev-x",
        "spec_digest": digest_of(SPEC),
        "bundle": None,
        "params": {"a": "1"},
        "reason": "why",
        "person": "me",
        "issued_at": "2026-01-31T09:30:00Z",
        "expires_at": "2026-02-07T09:30:00Z",
    }


def test_a_decision_statement_names_its_request_digest_duration_and_reason() -> None:
    said = to_signable(statements.build_decision_statement(REQUEST, "approve", reason="why", person="me", now=NOW))

    assert said == {
        "type": "decision",
        "job": "j-dev-x",
        "request": "r-dev-x-1",
        "digest": REQUEST["digest"],
        "decision": "approve",
        "ttl": 300,
        "action": "write",
        "reason": "why",
        "person": "me",
        "issued_at": "2026-01-31T09:30:00Z",
        "expires_at": "2026-02-07T09:30:00Z",
    }
    assert (
        statements.build_decision_statement(REQUEST, "deny", narrowing=statements.Narrowing(ttl=60), reason="no", person="me", now=NOW).ttl
        == 60
    )


def test_orders_and_decisions_are_still_valid_when_the_slowest_tiers_have_decided() -> None:
    order = statements.build_order_statement("j-dev-x", SPEC, bundle=None, params={}, reason="why", person="me", now=NOW)
    decision = statements.build_decision_statement(REQUEST, "approve", reason="why", person="me", now=NOW)
    hour = timedelta(hours=1)
    for statement in (order, decision):
        assert why_not_valid_now(statement, now=NOW + timedelta(seconds=MAX_WAIT_S) + 23 * hour) is None
        assert why_not_valid_now(statement, now=NOW + timedelta(seconds=MAX_WAIT_S) + 24 * hour) is not None
