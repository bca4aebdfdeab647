"""The sweep alone: what it revokes, what it does not touch, and that stuck, dying or repeated participants do not disturb it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from temporalio.client import Client, WorkflowExecutionStatus

from justenough.adapters.store import Store
from justenough.domain.core.ids import new_job_id
from tests.chaos.consistency import assert_one_outcome
from tests.chaos.exposure import ALL, ENDINGS, Lab, NetCase
from tests.chaos.faulty_worker import LABEL
from tests.chaos.rig import Rig
from tests.support import temporal_client
from tests.support.people import Human
from tests.support.shop import Login, Shop, access, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

LEFT_TO_SWEEP = NetCase("sweep", "terminate")
ORDINARY = NetCase(ALL, "terminate")
LostJobs = list[tuple[str, tuple[Login, ...]]]
REVOKE_PATH = "/v1/sys/leases/revoke/"
SWEEP_TIMEOUT_S = 180
"""Seconds on a busy machine until a sweep has revoked what it can; the credentials would live for 300."""


@pytest.fixture(scope="module", autouse=True)
def expiring(rig: Rig, ops: Human, shop: Shop) -> str:
    """Return a job that has ended and whose credential only time can end, which it does while the other tests run.

    It comes first: the worker of `lab` starts after it and never sees the edited catalog.
    """
    rig.ensure_worker()
    catalog = shop.config / "catalog.yaml"
    before = catalog.read_text()
    edited = yaml.safe_load(before)
    edited["resources"]["orders-db"]["actions"]["read"]["revocable"] = "on_expiry"
    catalog.write_text(json.dumps(edited, default=str))
    try:
        job = launch_after_edit(ops)
        assert ops.until(job)["state"] == "succeeded"
    finally:
        catalog.write_text(before)
    return job


def launch_after_edit(ops: Human) -> str:
    """Launch a job that holds what only time can end, once the worker has read the edit: it looks at its files every half second."""
    for _ in range(50):
        job = ops.launch(spec("true", access(ttl="4s")))
        if ops.until(job)["requests"][0]["revocable"] == "on_expiry":
            return job
    pytest.fail("the edited catalog was never read")


@pytest.fixture(scope="module")
def lost_jobs() -> LostJobs:
    """Jobs that tests have left to the sweep, with their logins. Their second checks are awaited together, at the end."""
    return []


def run_sweep(ops: Human) -> dict[str, Any]:
    """Run a sweep, or wait for one that already runs on request; return its report."""
    report: dict[str, Any] = ops.api.post("sweep", timeout=300).raise_for_status().json()
    return report


@contextmanager
def issue_foreign_login(shop: Shop, job: str) -> Iterator[Login]:
    """Issue a login under a job's name without a console, like another installation on the same Vault."""
    with shop.admin() as vault:
        role = f"je-job-{job}"
        made = {"allowed_policies_glob": ["je-grant-*"], "allowed_entity_aliases": ["je-scope-*"], "orphan": True, "token_type": "service"}
        vault.post(f"auth/token/roles/{role}", json=made).raise_for_status()
        asked = {"policies": ["je-grant-orders-db-read"], "display_name": job, "ttl": "5m", "entity_alias": "je-scope-tenant-acme"}
        token = vault.post(f"auth/token/create/{role}", json=asked).raise_for_status().json()["auth"]["client_token"]
        given = vault.get("database/creds/orders-read-acme", headers={"X-Vault-Token": token}).raise_for_status().json()
        yield Login(given["data"]["username"], given["data"]["password"])
        vault.put(f"sys/leases/revoke/{given['lease_id']}", json={"sync": True}).raise_for_status()
        vault.post("auth/token/revoke", json={"token": token}).raise_for_status()
        vault.delete(f"auth/token/roles/{role}").raise_for_status()


def drive_foreign_workflow(shop: Shop, job: str, *, end: bool = False) -> WorkflowExecutionStatus | None:
    """Have another installation's queue run a workflow of this id, or end it; return what it was until now."""

    async def acted() -> WorkflowExecutionStatus | None:
        client = await Client.connect(str(shop.stack.temporal))
        if not end:
            await client.start_workflow("Job", {}, id=job, task_queue="justenough-other")
            return None
        handle = client.get_workflow_handle(job)
        found = (await handle.describe()).status
        await handle.terminate("a test's end")
        return found

    return asyncio.run(acted())


def report_count(rig: Rig, job: str) -> int:
    """Return how often the ledger reports an active credential of an unknown job."""
    store = Store(rig.settings.store_url)
    entries = store.ledger.entries(job="-", limit=1000).items
    store.close()
    return sum(job in entry.data["unknown"] for entry in entries if entry.type == "sweep.reported")


def entry_types(ops: Human, job: str) -> list[str]:
    return [entry["type"] for entry in ops.ledger(job)]


def test_other_installations_are_left_alone_and_an_unknown_credential_is_reported_once(
    lab: Lab, auditor: Human, shop: Shop, rig: Rig
) -> None:
    theirs, nobodys, beside = (new_job_id(name, now=datetime.now(UTC)) for name in ("other", "dev", "dev"))
    with issue_foreign_login(shop, theirs) as their_login, issue_foreign_login(shop, nobodys) as nobodys_login:
        drive_foreign_workflow(shop, theirs)
        assert nobodys in run_sweep(auditor)["unknown"]
        with issue_foreign_login(shop, beside):
            # This one comes and goes, which is no reason to report the other one again.
            assert {nobodys, beside} <= set(run_sweep(auditor)["unknown"])
        again = run_sweep(auditor)
        assert theirs not in [*again["unknown"], *again["revoked"], *again["lost"]]
        assert (report_count(rig, nobodys), report_count(rig, beside), report_count(rig, theirs)) == (1, 1, 0)
        assert all(map(lab.can_log_in, (their_login, nobodys_login)))
        assert all(map(shop.tokens_of, (theirs, nobodys)))
        assert drive_foreign_workflow(shop, theirs, end=True) is WorkflowExecutionStatus.RUNNING


def test_a_job_that_starts_during_a_sweep_is_not_taken_for_a_leftover(lab: Lab, ops: Human, rig: Rig) -> None:
    looking = rig.gate.hold("/v1/sys/leases/lookup/auth/token/create/?$", method="LIST", once=True)
    asked = lab.watchers.submit(run_sweep, ops)
    looking.until_held()
    (item,) = lab.hold([ORDINARY])
    looking.release()
    looking.until_answered()
    for report in (asked.result(300), run_sweep(ops)):
        assert item.job not in [*report["unknown"], *report["revoked"], *report["lost"]]
    assert lab.can_log_in(item.login)
    assert "revocation.started" not in entry_types(ops, item.job)
    item.line.sendall(b"0\n")
    assert ops.until(item.job)["state"] == "succeeded"


def test_a_stuck_job_delays_no_other_and_a_dead_sweep_is_followed_by_another(lab: Lab, shop: Shop, rig: Rig, lost_jobs: LostJobs) -> None:
    stuck, taken, *others = held = lab.hold([LEFT_TO_SWEEP] * 3)
    rig.gate.hold(REVOKE_PATH, method="PUT", job=stuck.job)
    for item in held:
        lab.strike(item)
    drive_foreign_workflow(shop, taken.job)
    wait([item.refused_at for item in (taken, *others)], timeout=300)
    assert max(item.exposure for item in (taken, *others)) < SWEEP_TIMEOUT_S
    assert lab.can_log_in(stuck.login)
    # The sweep that is stuck with it dies.
    rig.start_alone(labelled=True)
    rig.gate.release_all()
    assert stuck.exposure < SWEEP_TIMEOUT_S
    # Another's workflow under the name of a job of ours says that ours has closed, and is not ours to end.
    assert drive_foreign_workflow(shop, taken.job, end=True) is WorkflowExecutionStatus.RUNNING
    lost_jobs += [(item.job, (item.login,)) for item in held if item is not taken]


@pytest.mark.parametrize("many", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_target_that_hangs_delays_no_revocation_in_other_targets(
    many: int, lab: Lab, ops: Human, shop: Shop, rig: Rig, lost_jobs: LostJobs
) -> None:
    off = {LABEL: LEFT_TO_SWEEP.off}
    elsewhere = ops.launch(spec("sleep 300", access("helpdesk-api", deliver={"env": {"TOKEN": "token"}}), labels=off))
    there = lab.hold([LEFT_TO_SWEEP] * many)
    until(lambda: bool(shop.tokens_of(elsewhere)), "what lies elsewhere is issued")
    with rig.postgres.hanging():
        lab.administrator.terminate(*(item.job for item in there), elsewhere)
        until(lambda: not shop.tokens_of(elsewhere), "what lies elsewhere is ended")
        assert all(lab.can_log_in(item.login) for item in there)
    for item in there:
        item.ended_at = time.monotonic()
        lab.watch(item)
    assert max(item.exposure for item in there) < SWEEP_TIMEOUT_S
    lost_jobs += [(elsewhere, ()), *((item.job, (item.login,)) for item in there)]


def test_a_restored_temporal_without_the_running_jobs_costs_no_job_its_access(lab: Lab, ops: Human, shop: Shop, rig: Rig) -> None:
    (item,) = lab.hold([ORDINARY])
    # The worker that has the session is not told; another worker, which reaches Temporal, sweeps.
    with rig.temporal.closed():
        ENDINGS["delete"](lab, item)
        other = rig.start(JUSTENOUGH_TEMPORAL_ADDRESS=str(rig.stack.temporal))
        for _ in range(2):
            report = run_sweep(ops)
            assert item.job not in [*report["unknown"], *report["revoked"], *report["lost"]]
        assert lab.can_log_in(item.login)
        assert "revocation.started" not in entry_types(ops, item.job)
        item.line.sendall(b"0\n")
        item.ended_at = time.monotonic()
        lab.watch(item)
        assert item.exposure < SWEEP_TIMEOUT_S
        # Only now is there evidence, because the session has closed its claim.
        assert ops.until(item.job)["state"] == "lost"
    other.kill()
    assert_one_outcome(ops, shop, item.job, item.login)


def test_guard_sweeps_and_a_late_session_record_one_outcome(lab: Lab, ops: Human, shop: Shop, rig: Rig) -> None:
    held = lab.hold([NetCase(ALL, "terminate", action) for action in ("read", "write")])
    with rig.temporal.closed():
        other = rig.start(JUSTENOUGH_TEMPORAL_ADDRESS=str(rig.stack.temporal))
        for item in held:
            lab.strike(item)
        several = [lab.watchers.submit(run_parallel_sweep, shop, number) for number in range(3)]
        for item in held:
            assert item.exposure < SWEEP_TIMEOUT_S
    # While guard and sweeps wait for their second check, both sessions are told, too.
    for sweep in several:
        sweep.result(300)
    for item in held:
        assert ops.until(item.job)["state"] == "lost"
    run_sweep(ops)
    other.kill()
    for item in held:
        assert_one_outcome(ops, shop, item.job, item.login)


def run_parallel_sweep(shop: Shop, number: int) -> None:
    """Run a sweep in parallel to the running ones, like anyone with write access to Temporal."""

    async def run() -> None:
        client = await temporal_client.connect(shop.stack)
        await client.execute_workflow("Sweep", id=f"a-test's-sweep-{number}", task_queue="justenough-dev")

    asyncio.run(run())


def test_a_credential_that_only_expires_is_recorded_as_expired_after_its_ttl(expiring: str, ops: Human, shop: Shop) -> None:
    until(lambda: ops.job(expiring)["credentials"][0]["state"] == "expired", "the credential is told expired")
    told = [entry for entry in ops.ledger(expiring) if entry["type"] == "credential.expired"]
    assert len(told) == 1
    assert datetime.fromisoformat(told[0]["at"]) >= datetime.fromisoformat(ops.job(expiring)["credentials"][0]["expires_at"])
    assert shop.users_of(expiring) == []


def test_each_job_that_was_left_to_the_sweep_is_recorded_as_lost_once(ops: Human, shop: Shop, lost_jobs: LostJobs) -> None:
    assert lost_jobs, "the tests above leave them"
    for job, logins in lost_jobs:
        seen = ops.until(job)
        assert (seen["state"], entry_types(ops, job).count("job.ended")) == ("lost", 1)
        # An API key cannot be revoked.
        assert seen["revocation"]["state"] in {"confirmed", "residual"}
        assert [login.user for login in logins if shop.can_log_in(login)] == []
        assert (shop.users_of(job), shop.tokens_of(job), shop.live_leases(seen)) == ([], [], [])
