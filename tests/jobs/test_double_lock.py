"""Requests that Vault locks: issued once, only if the same people approved and authorized them; nothing is left, however the job ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.attacks.intruder import Intruder, entry_data, json_payload
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

PAYOUT = access("payouts-db", "write")
PAY = "INSERT INTO payouts (tenant, order_id, amount) VALUES ('acme', 100001, 1) RETURNING id"


def request_payout(ops: Human, script: str = "true", *items: dict[str, Any]) -> dict[str, Any]:
    """Launch a job whose locked request is pending, and return that request."""
    job = ops.launch(spec(script, *(items or (PAYOUT,))))
    request: dict[str, Any] = next(item for item in ops.until(job, "awaiting_approval")["requests"] if item["resource"] == "payouts-db")
    return request


def assert_nothing_waits(shop: Shop, intruder: Intruder, request: dict[str, Any]) -> None:
    """Fail unless Vault has nothing of a job any more, and the store no wrapping token of it."""
    job = request["job_id"]
    assert shop.tokens_of(job) == []
    assert shop.users_of(job) == []
    with shop.admin() as vault:
        assert vault.get(f"auth/token/roles/je-job-{job}").status_code == 404
        assert vault.post("auth/token/lookup-accessor", json={"accessor": request["lock"]["accessor"]}).status_code != 200
    assert intruder.read_store("SELECT count(*) FROM locks WHERE job = ?", job) == [(0,)]


def rejection_reasons(auditor: Human, request: dict[str, Any]) -> list[str]:
    return [data["why"] for data in entry_data(auditor, request["job_id"], "approval.rejected")]


def next_two_rejections(auditor: Human, request: dict[str, Any], *, known: int) -> list[str]:
    """Return the reasons of two rejections after the first `known` ones, once both are recorded."""

    def find() -> list[str]:
        found = rejection_reasons(auditor, request)[known:]
        return found if len(found) == 2 else []

    return until(find, f"two rejections of {request['id']} are recorded")


def test_an_approval_without_vaults_authorization_does_not_count_and_names_the_remedy(
    ops: Human, security: Human, auditor: Human, shop: Shop, witness: Witness, intruder: Intruder
) -> None:
    request = request_payout(ops, f"{witness.hand_over}; sleep 300")
    assert (request["tier"], request["state"]) == (2, "pending")
    (lock,) = entry_data(auditor, request["job_id"], "lock.opened")
    assert (lock["accessor"], lock["groups"], lock["approvals"]) == (request["lock"]["accessor"], ["security", "chiefs"], 1)
    assert len(shop.tokens_of(request["job_id"])) == 1

    answer = security.answer_unauthorized(request)
    (why,) = rejection_reasons(auditor, request)
    assert (answer.status_code, answer.json()["detail"]) == (403, f"the decision is not valid: {why}")
    assert "Vault has no authorization by security" in why
    assert f"bao write sys/control-group/authorize accessor={request['lock']['accessor']}" in why
    assert shop.users_of(request["job_id"]) == []

    assert security.answer(request).json()["state"] == "approved"
    login = witness.login()
    with shop.connect(login) as connection:
        assert connection.execute(PAY).fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT amount FROM payouts")
    # While it runs already, Vault unwraps nothing a second time.
    with shop.admin() as vault:
        assert vault.post("sys/control-group/request", json={"accessor": request["lock"]["accessor"]}).status_code == 400
    assert len(shop.users_of(request["job_id"])) == 1
    assert ops.api.post(f"jobs/{request['job_id']}/cancel").status_code == 202
    seen = ops.until(request["job_id"])
    assert (seen["state"], seen["revocation"]["state"]) == ("cancelled", "confirmed")
    shop.assert_dead(seen, login)
    assert_nothing_waits(shop, intruder, request)


def test_a_person_outside_of_vaults_groups_cannot_open_a_lock(
    ops: Human, lead: Human, chief: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    request = request_payout(ops)
    for nobody in (ops, lead, auditor):
        assert nobody.authorize(request).json()["data"] == {"approved": False}
    # The answer of a chief whose authorization Vault accepted counts for every tier.
    assert chief.authorize(request).json()["data"] == {"approved": True}
    assert lead.answer_unauthorized(request).status_code == 403
    assert chief.answer_unauthorized(request, "deny").status_code in ACCEPTED_STATUSES
    seen = ops.until(request["job_id"])
    assert (seen["state"], seen["credentials"], seen["revocation"]["state"]) == ("denied", [], "confirmed")
    assert_nothing_waits(shop, intruder, request)


def test_a_locked_request_is_approved_unchanged_and_break_glass_does_not_open_it(
    ops: Human, security: Human, oncall: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    request = request_payout(ops)
    for who, decision, changes, why, past_the_console in (
        (oncall, "break_glass", {}, "counts only authorizations by members of security, chiefs", "Vault has no authorization by oncall"),
        (security, "approve", {"action": "read"}, "cannot be narrowed to read", "cannot be narrowed to read"),
    ):
        who.authorize(request)
        known = len(rejection_reasons(auditor, request))
        assert who.answer_unauthorized(request, decision, **changes).status_code == 403
        intruder.send_signal(request["job_id"], "decide", json_payload(who.decision(request, decision, **changes)))
        by_console, by_worker = next_two_rejections(auditor, request, known=known)
        assert why in by_console
        assert past_the_console in by_worker
    # For less time, though.
    assert security.answer_unauthorized(request, ttl=60).json()["state"] == "approved"
    seen = ops.until(request["job_id"])
    assert (seen["state"], seen["requests"][0]["granted_ttl"]) == ("succeeded", 60)
    shop.assert_dead(seen)


def by_cancel(ops: Human, intruder: Intruder, job: str) -> str:
    del intruder
    assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    return "cancelled"


def by_kill(ops: Human, intruder: Intruder, job: str) -> str:
    del intruder
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    return "killed"


def by_terminate(ops: Human, intruder: Intruder, job: str) -> str:
    del ops
    intruder.terminate_job(job)
    return "lost"


@pytest.mark.parametrize("end", [by_cancel, by_kill, by_terminate])
def test_a_job_that_ends_while_its_lock_is_pending_leaves_nothing_behind(
    ops: Human, security: Human, shop: Shop, intruder: Intruder, end: Callable[[Human, Intruder, str], str]
) -> None:
    request = request_payout(ops)
    # This holds even after the request was opened in Vault.
    assert security.authorize(request).json()["data"] == {"approved": True}
    state = end(ops, intruder, request["job_id"])
    seen = ops.until(request["job_id"])
    assert (seen["state"], seen["credentials"], seen["revocation"]["state"]) == (state, [], "confirmed")
    assert_nothing_waits(shop, intruder, request)


def test_a_denied_optional_locked_request_ends_with_its_job(
    ops: Human, security: Human, shop: Shop, witness: Witness, intruder: Intruder
) -> None:
    request = request_payout(
        ops, witness.hand_over, access(), access("payouts-db", "write", optional=True, deliver={"env": {"PAY": "username"}})
    )
    assert security.answer(request, "deny").status_code in ACCEPTED_STATUSES
    login = witness.login()
    seen = ops.until(request["job_id"])
    assert (seen["state"], [item["resource"] for item in seen["credentials"]]) == ("succeeded", ["orders-db"])
    shop.assert_dead(seen, login)
    assert_nothing_waits(shop, intruder, request)


def test_a_job_whose_lock_cannot_be_opened_does_not_run_and_says_why(ops: Human, shop: Shop) -> None:
    path, open_policy = "sys/policies/acl/je-grant-payouts-db-write", 'path "database/creds/payouts-write-acme" { capabilities = ["read"] }'
    with shop.admin() as vault:
        before = vault.get(path).json()["data"]["policy"]
        vault.put(path, json={"policy": open_policy}).raise_for_status()
        try:
            seen = ops.until(ops.launch(spec("true", PAYOUT)))
        finally:
            vault.put(path, json={"policy": before}).raise_for_status()
    assert seen["state"] == "failed"
    assert "Vault issues this without authorization; run `justenough vault setup`" in seen["reason"]
    shop.assert_dead(seen)


def test_a_session_that_is_refused_before_it_starts_leaves_nothing_pending_in_vault(
    ops: Human, security: Human, shop: Shop, intruder: Intruder
) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    job = ops.launch(spec("true", PAYOUT), expires_at=soon)
    (request,) = ops.until(job, "awaiting_approval")["requests"]
    while datetime.now(UTC) <= soon:
        assert len(shop.tokens_of(job)) == 1
        time.sleep(0.2)
    security.authorize(request)
    refused = security.answer_unauthorized(request)
    assert (refused.status_code, "the job's order is no longer valid: the statement has expired" in refused.text) == (403, True)
    # If the approval bypasses the console, the worker counts it, because the session verifies the order.
    intruder.send_signal(job, "decide", json_payload(security.decision(request)))
    seen = ops.until(job)
    assert (seen["state"], seen["reason"]) == ("failed", "refused: the statement has expired")
    assert seen["revocation"]["state"] == "confirmed"
    assert_nothing_waits(shop, intruder, request)
