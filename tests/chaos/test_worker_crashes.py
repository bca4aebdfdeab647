"""A worker that crashes or hangs at any step of a session: no credential works afterwards, and a worker that wakes up does no harm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.activities.process.job_process import is_alive
from tests.chaos.rig import Rig, Worker
from tests.chaos.vault_gate import Hold
from tests.support.people import Human
from tests.support.shop import Login, Shop, Witness, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

ROLE, TOKEN, CREDS, LEASE = (
    r"/v1/auth/token/roles/",
    r"/v1/auth/token/create/",
    r"/v1/database/creds/orders-read",
    r"/v1/sys/leases/revoke/",
)
KILLED = ("asked", "answered", "running", "revoking")
HUNG = ("opening", "wanting", *KILLED)
TREE = "(setsid sleep {0}.25 &); (trap '' TERM HUP; sleep {0}.5 >&- 2>&- <&-) & exec sleep {0}.75"
"""Processes that leave their session, ignore signals and close their pipes."""
OF_KILLED, OF_HUNG = "51413", "51414"
REFUSAL_TIMEOUT_S = 180.0
"""Seconds on a busy machine from a worker's hanging until no login of it works: its silence (10 s), tasks that went to it and were never
answered.
"""


@dataclass(frozen=True)
class CrashedJobs:
    """Jobs, one at each step, when their worker failed."""

    jobs: Mapping[str, str]
    holds: Mapping[str, Hold]
    logins: Mapping[str, Login]
    worker: Worker


def launch_held_job(
    ops: Human, rig: Rig, path: str, script: str = "sleep 300", *, method: str = "GET", answer: bool = False
) -> tuple[str, Hold]:
    """Launch a job that will stop at a request to Vault."""
    order = ops.order(spec(script))
    hold = rig.gate.hold(path, method=method, job=order["id"], answer=answer)
    assert ops.api.post("jobs", json=order).status_code == 201
    return str(order["id"]), hold


def bring_to_steps(rig: Rig, ops: Human, shop: Shop, worker: Worker, *, marker: str) -> CrashedJobs:
    """Bring one job to each step: its role, token or credential requested; answered; running; its lease being revoked."""
    with closing(Witness()) as witness:
        running = ops.launch(spec(f"{witness.hand_over}; {TREE.format(marker)}"))
        logins = {"running": witness.login()}
        # All at once: the worker gives up a request to Vault that is held for long.
        held = {
            "revoking": launch_held_job(ops, rig, LEASE, witness.hand_over, method="PUT"),
            "opening": launch_held_job(ops, rig, ROLE, method="POST"),
            "wanting": launch_held_job(ops, rig, TOKEN, method="POST"),
            "asked": launch_held_job(ops, rig, CREDS),
            "answered": launch_held_job(ops, rig, CREDS, answer=True),
        }
        logins["revoking"] = witness.login()
    for _, hold in held.values():
        hold.until_held()
    jobs = {**{step: job for step, (job, _) in held.items()}, "running": running}
    assert all(map(shop.can_log_in, logins.values()))
    assert shop.users_of(jobs["answered"])
    until(lambda: all(is_alive(f"sleep\0{marker}.{part}") for part in ("25", "5", "75")), "the job's processes run")
    return CrashedJobs(jobs, {step: hold for step, (_, hold) in held.items()}, logins, worker)


@dataclass(frozen=True)
class Strike:
    """A worker that was killed, another that hangs, and a third that is healthy."""

    killed: CrashedJobs
    hung: CrashedJobs


@pytest.fixture(scope="module")
def strike(rig: Rig, ops: Human, shop: Shop) -> Iterator[Strike]:
    """Kill one worker, suspend the next, start a third. The endings of their jobs run in parallel."""
    rig.ensure_worker()
    # Not finding a user in a target counts only after the observer has found one there.
    assert ops.until(ops.launch(spec()))["state"] == "succeeded"
    killed = bring_to_steps(rig, ops, shop, rig.ensure_worker(), marker=OF_KILLED)
    killed.worker.kill()
    # The delayed requests reach Vault now, after their session has died.
    rig.reconnect()
    hung = bring_to_steps(rig, ops, shop, rig.ensure_worker(), marker=OF_HUNG)
    rig.suspend(hung.worker)
    rig.start()
    try:
        yield Strike(killed, hung)
    finally:
        hung.worker.kill()
        rig.mend()


@pytest.fixture(autouse=True)
def _whole_again() -> None:
    """A request that is held for a suspended worker stays held from one test to the next."""


def assert_lost(job: str, ops: Human, shop: Shop, *logins: Login) -> dict[str, Any]:
    """Fail unless a job has ended once, because its worker was lost, and no access of it is left."""
    seen = ops.until(job)
    assert (seen["state"], seen["reason"], seen["revocation"]["state"]) == ("failed", "worker_lost", "confirmed")
    shop.assert_dead(seen, *logins)
    assert [entry["type"] for entry in ops.ledger(job)].count("job.ended") == 1
    return seen


def test_all_processes_of_a_killed_workers_jobs_end(strike: Strike) -> None:
    assert strike.killed.worker.process.returncode == -9
    until(lambda: not is_alive(f"sleep\0{OF_KILLED}"), "no process of the killed worker's job runs")


def test_no_login_works_soon_after_its_worker_hangs_though_its_processes_live(strike: Strike, shop: Shop) -> None:
    until(lambda: not any(map(shop.can_log_in, strike.hung.logins.values())), "no login works", within=REFUSAL_TIMEOUT_S)
    assert is_alive(f"sleep\0{OF_HUNG}.75"), "its worker, which alone could end it, sleeps"


@pytest.mark.parametrize("step", HUNG)
def test_a_worker_killed_at_any_step_leaves_no_access(strike: Strike, step: str, ops: Human, shop: Shop) -> None:
    assert_lost(strike.killed.jobs[step], ops, shop, *strike.killed.logins.values())


@pytest.mark.parametrize("step", HUNG)
def test_another_worker_revokes_the_credentials_of_a_hanging_worker(strike: Strike, step: str, ops: Human, shop: Shop) -> None:
    assert_lost(strike.hung.jobs[step], ops, shop, *strike.hung.logins.values())


@pytest.fixture(scope="module")
def before(strike: Strike, rig: Rig, ops: Human) -> dict[str, dict[str, Any]]:
    """The endings of the hanging worker's jobs when it was resumed, and the responses to its held requests."""
    before = {step: ops.until(job) for step, job in strike.hung.jobs.items()}
    for hold in strike.hung.holds.values():
        hold.release()
        hold.until_answered()
    strike.hung.worker.go_on()
    return before


def test_a_worker_that_wakes_up_ends_its_processes(strike: Strike, before: dict[str, dict[str, Any]]) -> None:
    assert before
    until(lambda: not is_alive(f"sleep\0{OF_HUNG}"), "no process of the woken worker's job runs")


@pytest.mark.parametrize("step", HUNG)
def test_a_worker_that_resumes_after_its_jobs_were_closed_issues_nothing_and_changes_no_outcome(
    strike: Strike, before: dict[str, dict[str, Any]], step: str, ops: Human, shop: Shop
) -> None:
    job, was = strike.hung.jobs[step], before[step]

    def types() -> list[str]:
        return [entry["type"] for entry in ops.ledger(job)]

    def woke() -> bool:
        return any(entry["type"] == "revocation.started" and entry["data"]["by"] == "session" for entry in ops.ledger(job))

    until(woke, "its session has ended itself")
    until(lambda: ops.job(job)["revocation"]["state"] == "confirmed", "it is proven again that nothing of it lives")
    seen = assert_lost(job, ops, shop, *strike.hung.logins.values())
    assert {name: seen[name] for name in ("exit_code", "ended_at", "started_at")} == {
        name: was[name] for name in ("exit_code", "ended_at", "started_at")
    }
    after = types()[types().index("job.ended") :]
    # A credential that Vault has issued is recorded before anything else, as always.
    assert after.count("credential.issued") == (1 if step == "answered" else 0)
    assert "job.started" not in after
    with shop.admin() as vault:
        assert vault.get(f"auth/token/roles/je-job-{job}").status_code == 404
