"""However a job ends, its login works while it runs and fails afterwards, and Vault and the target list nothing of it."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.jobs.test_spaces import launch_with_space
from tests.support import temporal_client
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers
CALL_BROKER = """
import os, socket
broker = socket.socket(socket.AF_UNIX)
broker.connect(os.environ["JUSTENOUGH_BROKER"])
broker.sendall(b"GET /v1/catalog HTTP/1.1\\r\\nHost: broker\\r\\n\\r\\n")
print(broker.makefile().readline())
"""


@contextmanager
def rewrite_file(file: Path, pattern: str, replacement: str) -> Iterator[None]:
    """Edit a configuration file for a block; worker and console reload it by themselves."""
    before = file.read_text()
    after = re.sub(pattern, replacement, before)
    assert after != before
    file.write_text(after)
    try:
        yield
    finally:
        file.write_text(before)


def launch_with_login(ops: Human, witness: Witness, shop: Shop, *items: dict[str, object], **more: object) -> tuple[str, Login]:
    """Launch a job that sends its login to the test and keeps running; return it once that login works."""
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300", *items, **more))
    login = witness.login()
    assert shop.can_log_in(login)
    return job, login


def launch_with_short_tiers(ops: Human) -> str:
    """Launch a job that needs approval, once the worker has reloaded the edited tiers, which it checks every half second."""
    for _ in range(50):
        job = ops.launch(spec("true", access(action="write")))
        request = ops.until(job, "awaiting_approval", "denied")["requests"][0]
        if datetime.fromisoformat(request["expires_at"]) - datetime.fromisoformat(request["created_at"]) < timedelta(seconds=10):
            return job
        assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    pytest.fail("the edited tiers were never read")


def test_a_job_that_succeeds_leaves_nothing_alive(ops: Human, shop: Shop, witness: Witness) -> None:
    job = ops.launch(spec(witness.hand_over))
    login = witness.login()
    seen = ops.until(job)
    assert (seen["state"], seen["exit_code"], seen["revocation"]["state"]) == ("succeeded", 0, "confirmed")
    shop.assert_dead(seen, login)


def test_a_job_that_fails_leaves_nothing_alive(ops: Human, shop: Shop, witness: Witness) -> None:
    job = ops.launch(spec(f"{witness.hand_over}; exit 3"))
    login = witness.login()
    seen = ops.until(job)
    assert (seen["state"], seen["exit_code"], seen["reason"]) == ("failed", 3, "exit code 3")
    shop.assert_dead(seen, login)


def test_a_job_over_its_timeout_gets_nothing_more_is_ended_and_leaves_nothing_alive(ops: Human, shop: Shop, witness: Witness) -> None:
    script = f"call() {{ python3 -c {shlex.quote(CALL_BROKER)}; }}; trap 'call; exit' TERM; {witness.hand_over}; sleep 300 & wait"
    job = ops.launch(spec(script, timeout="2s"))
    login = witness.login()
    seen = ops.until(job)
    assert (seen["state"], seen["reason"]) == ("timed_out", "it ran longer than 2 s")
    assert "HTTP/1.1 410 Gone" in ops.output(job)
    shop.assert_dead(seen, login)


def test_a_denied_job_never_gets_anything(ops: Human, lead: Human, shop: Shop) -> None:
    job = ops.launch(spec("true", access(action="write")))
    seen = ops.until(job, "awaiting_approval")
    assert shop.users_of(job) == []
    assert lead.answer(seen["requests"][0], "deny").status_code in ACCEPTED_STATUSES
    seen = ops.until(job)
    assert (seen["state"], seen["requests"][0]["state"], seen["credentials"]) == ("denied", "denied", [])
    shop.assert_dead(seen)


def test_a_job_that_policy_denies_never_starts(ops: Human, shop: Shop) -> None:
    export = {"resource": "export-api", "action": "write", "ttl": "5m", "reason": "a test needs it"}
    both = [access("customers-db", "read", optional=True), export]
    seen = ops.until(ops.launch(spec("true", *both)))
    assert (seen["state"], seen["credentials"]) == ("denied", [])
    assert seen["requests"][1]["policies"]
    shop.assert_dead(seen)


def test_a_request_without_decisions_escalates_and_is_then_denied(ops: Human, shop: Shop) -> None:
    with rewrite_file(shop.config / "approvals.yaml", r"respond_within: \w+", "respond_within: 1s"):
        job = launch_with_short_tiers(ops)
        seen = ops.until(job)
    assert (seen["state"], seen["requests"][0]["state"], seen["credentials"]) == ("denied", "expired", [])
    steps = [entry["type"] for entry in ops.ledger(job)]
    assert steps.count("approval.escalated") == 2
    assert steps.count("approval.expired") == 1
    shop.assert_dead(seen)


def test_a_job_cancelled_while_it_waits_never_gets_anything(ops: Human, shop: Shop) -> None:
    job = ops.launch(spec("true", access(action="write")))
    ops.until(job, "awaiting_approval")
    assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    seen = ops.until(job)
    assert (seen["state"], seen["requests"][0]["state"], seen["credentials"]) == ("cancelled", "withdrawn", [])
    shop.assert_dead(seen)


async def cancel_in_temporal(shop: Shop, job: str) -> None:
    """Cancel a job's workflow as an administrator of Temporal may. Nothing of it is in the store."""
    client = await temporal_client.connect(shop.stack)
    await client.get_workflow_handle(job).cancel()


@pytest.mark.parametrize("where", ["in the console", "in Temporal"])
def test_a_job_cancelled_while_it_runs_can_clean_up_and_leaves_nothing_alive(ops: Human, shop: Shop, witness: Witness, where: str) -> None:
    tidy = f"trap 'echo tidied; exit 0' TERM; {witness.hand_over}; sleep 300 & wait"
    job = ops.launch(spec(tidy))
    login = witness.login()
    if where == "in Temporal":
        asyncio.run(cancel_in_temporal(shop, job))
    else:
        assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    seen = ops.until(job)
    assert seen["state"] == "cancelled"
    assert "tidied" in ops.output(job)
    shop.assert_dead(seen, login)


def test_a_killed_job_loses_its_access_at_once(ops: Human, shop: Shop, witness: Witness) -> None:
    job = ops.launch(spec(f"trap '' TERM; {witness.hand_over}; while :; do sleep 1; done"))
    login = witness.login()
    connection = shop.connect(login)
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    seen = ops.until(job)
    assert (seen["state"], seen["exit_code"]) == ("killed", 137)
    asked = [entry["data"] for entry in ops.ledger(job) if entry["type"] == "stop.requested"]
    assert asked == [{"how": "kill", "person": ops.id, "name": "ops"}]
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    shop.assert_dead(seen, login)


def test_jobs_whose_worker_is_killed_fail_and_leave_neither_logins_nor_spaces(ops: Human, shop: Shop, witness: Witness) -> None:
    jobs = launch_with_login(ops, witness, shop), launch_with_space(ops, shop, witness)
    shop.kill_worker()
    for job, login in jobs:
        seen = ops.until(job)
        assert (seen["state"], seen["reason"]) == ("failed", "worker_lost")
        shop.assert_dead(seen, login)


def test_an_approved_job_gets_exactly_the_approved_access(ops: Human, lead: Human, shop: Shop, witness: Witness) -> None:
    job = ops.launch(spec(witness.hand_over, access(action="write")))
    seen = ops.until(job, "awaiting_approval")
    assert lead.answer(seen["requests"][0], ttl=60).status_code in ACCEPTED_STATUSES
    login = witness.login()
    seen = ops.until(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed")
    assert seen["requests"][0]["granted_ttl"] == 60
    shop.assert_dead(seen, login)


def test_a_grant_ends_at_its_ttl_while_the_job_runs(ops: Human, shop: Shop, witness: Witness) -> None:
    short = spec(f"{witness.hand_over}; sleep 300", access(ttl="2s"))
    job = ops.launch(short)
    login = witness.login()
    assert shop.can_log_in(login)
    until(lambda: ops.job(job)["credentials"][0]["state"] == "confirmed", "the grant's end")
    assert not shop.can_log_in(login)
    assert ops.job(job)["state"] == "running"
    assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    shop.assert_dead(ops.until(job), login)


def test_a_person_can_revoke_one_credential_while_the_job_runs(ops: Human, auditor: Human, shop: Shop, witness: Witness) -> None:
    job, login = launch_with_login(ops, witness, shop)
    credential = ops.job(job)["credentials"][0]["id"]
    assert ops.api.post(f"credentials/{credential}/revoke").status_code in ACCEPTED_STATUSES
    until(lambda: not shop.can_log_in(login), "its login no longer works")
    assert ops.job(job)["state"] == "running"
    assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    shop.assert_dead(ops.until(job), login)
    assert auditor.api.post(f"jobs/{job}/prove").json()["dead"] is True
