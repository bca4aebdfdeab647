"""Random faults of jobs, workers and servers: each job has one ending, all sources agree on it, and no access is left."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from temporalio.service import RPCError

from tests.attacks.intruder import NothingToResetTo
from tests.chaos.administrator import EARLY, Administrator
from tests.chaos.consistency import assert_one_outcome
from tests.chaos.rig import Rig
from tests.support.people import ENDED, Human
from tests.support.shop import Shop, spec

pytestmark = pytest.mark.servers

SHORT = settings(
    max_examples=2,
    stateful_step_count=12,
    deadline=None,
    # Hypothesis cannot shrink a failure here, because real servers cannot be reset.
    phases=[Phase.generate],
    # The same courses every time: what CI says of a change is about that change. `make chaos LONG=1` tries others.
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=int(os.environ.get("CHAOS_EXAMPLES", "25")), stateful_step_count=25, derandomize=False)
ENDS_WITHIN = 300
"""Seconds on a busy machine: a worker's death shows after ten, and its second look comes after fifteen more, or thirty where something landed."""
SCRIPTS = ("true", "exit 3", "sleep 1", "sleep 300", "trap '' TERM; sleep 300")
Order = tuple[str, list[str]]
KINDS = {
    kind: {"resource": "orders-db", "action": action, "ttl": "5m", "reason": "a test needs it", "optional": optional}
    for kind, action, optional in (("read", "read", False), ("write", "write", False), ("optional", "write", True))
}
"""Nothing is delivered to the job: the gate records the logins."""

WHICH = st.integers(0, 11)
"""Which of the course's jobs."""
ORDERS = st.tuples(st.sampled_from(SCRIPTS), st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=2, unique=True))


@dataclass
class World:
    """The world on which the state machine acts."""

    rig: Rig
    shop: Shop
    ops: Human
    lead: Human
    administrator: Administrator
    jobs: list[str] = field(default_factory=list)
    one_by_one: bool = True
    """Whether all jobs of a course have ended before the next one begins; else they end while it goes on."""

    def calm(self, jobs: list[str]) -> None:
        """Restore everything, and ask each of these jobs to end."""
        self.rig.mend()
        for worker in self.rig.workers:
            if worker.stopped and worker.process.poll() is None:
                worker.go_on()
        for job in jobs:
            self.has_ended(job)

    def settle(self, jobs: list[str]) -> None:
        """Let each of these jobs end, and check that all sources agree."""
        end, waiting = time.monotonic() + ENDS_WITHIN, jobs
        while waiting := self.jobs_left(waiting) or self.jobs_left(jobs):
            assert time.monotonic() < end, [(job, *self.facts_of(job)) for job in waiting]
            # Start a worker again, like a supervisor: one that found a server unavailable at its start has ended.
            if not any(worker.alive for worker in self.rig.workers):
                self.rig.start(ready=False)
            time.sleep(0.5)
        for job in jobs:
            assert_one_outcome(self.ops, self.shop, job, *self.rig.gate.logins(job))

    def jobs_left(self, jobs: list[str]) -> list[str]:
        """Return those of these jobs that have not ended."""
        return [job for job in jobs if not self.has_ended(job)]

    def has_ended(self, job: str) -> bool:
        """Whether a job has ended. A job that waits for approval or sleeps is cancelled first."""
        seen = self.ops.job(job)
        if seen["state"] not in ENDED:
            self.ops.api.post(f"jobs/{job}/cancel")
            return False
        return seen["revocation"]["state"] in {"none", "confirmed"}

    def facts_of(self, job: str) -> list[str]:
        """Return the known facts about a job that does not end."""
        seen = self.ops.job(job)
        told = [f"{entry['at'][11:23]} {entry['type']} {entry['data'].get('by', '')}" for entry in self.ops.ledger(job)]
        return [seen["state"], *seen["revocation"]["failures"], *told, str(self.administrator.status(job))]


class Storm(RuleBasedStateMachine):
    """One random sequence of events.

    What is drawn must not depend on what the servers do: hypothesis takes that for a fault of the test. So every rule is always possible,
    and does nothing where there is nothing to do.
    """

    world: World

    @initialize(orders=st.lists(ORDERS, min_size=4, max_size=4))
    def begin(self, orders: list[Order]) -> None:
        self.began, self.struck = len(self.world.jobs), set[str]()
        self.world.rig.ensure_worker()
        for script, kinds in orders:
            self.world.jobs.append(self.world.ops.launch(spec(script, *(KINDS[kind] for kind in kinds))))

    @property
    def mine(self) -> list[str]:
        """The course's jobs."""
        return self.world.jobs[self.began :]

    def job(self, which: int) -> str:
        return self.mine[which % len(self.mine)]

    @rule(order=ORDERS)
    def launch(self, order: Order) -> None:
        """Launch another, whatever is down; a console that cannot take it says so, and then there is no job."""
        script, kinds = order
        sent = self.world.ops.order(spec(script, *(KINDS[kind] for kind in kinds)))
        answer = self.world.ops.api.post("jobs", json=sent)
        if answer.status_code != 201:
            assert answer.status_code == 503, answer.text
            assert self.world.ops.api.get(f"jobs/{sent['id']}").status_code == 404
            return
        self.world.jobs.append(sent["id"])

    @rule(which=WHICH, decision=st.sampled_from(["approve", "approve", "deny"]))
    def answer(self, which: int, decision: str) -> None:
        for request in self.world.ops.job(self.job(which))["requests"]:
            if request["state"] == "pending" and request["digest"]:
                self.world.lead.answer(request, decision)

    @rule(which=WHICH, how=st.sampled_from(["cancel", "kill"]))
    def stop(self, which: int, how: str) -> None:
        self.world.ops.api.post(f"jobs/{self.job(which)}/{how}")

    @rule(which=WHICH, what=st.sampled_from(["job", "guard", "both", "delete", "reset"]))
    def strike_workflow(self, which: int, what: str) -> None:
        """Strike a job's workflows, once in the job's life."""
        job, administrator = self.job(which), self.world.administrator
        if job in self.struck:
            return
        self.struck.add(job)
        strikes = {
            "guard": lambda: administrator.terminate(f"{job}-guard"),
            "job": lambda: administrator.terminate(job),
            "both": lambda: administrator.terminate_together(job, f"{job}-guard"),
            "delete": lambda: administrator.delete(job),
            "reset": lambda: administrator.reset(job, to=EARLY),
        }
        # There may be no guard, nothing left to strike, or no finished task to reset the workflow to.
        with suppress(RPCError, NothingToResetTo):
            strikes[what]()

    @rule(which=WHICH)
    def revoke_one(self, which: int) -> None:
        for item in self.world.ops.job(self.job(which))["credentials"]:
            self.world.ops.api.post(f"credentials/{item['id']}/revoke")

    @rule()
    def kill_worker(self) -> None:
        for worker in self.world.rig.workers:
            worker.kill()
        # If Temporal is shut off, the worker ends again at once.
        self.world.rig.start(ready=False)

    @rule()
    def second_worker(self) -> None:
        if len(self.world.rig.workers) < 3:
            self.world.rig.start(ready=False)

    @rule()
    def worker_sleeps(self) -> None:
        """Suspend a worker, if there is another one."""
        alive = [item for item in self.world.rig.workers if item.alive]
        if len(alive) > 1:
            self.world.rig.suspend(alive[0])

    @rule()
    def worker_wakes(self) -> None:
        for worker in [item for item in self.world.rig.workers if item.stopped][:1]:
            worker.go_on()

    @rule(server=st.sampled_from(["vault", "postgres", "temporal"]))
    def kill_server(self, server: str) -> None:
        self.world.rig.kill(server)

    @rule(door=st.sampled_from(["postgres", "temporal"]), how=st.sampled_from(["close", "hang"]))
    def shut(self, door: str, how: str) -> None:
        getattr(getattr(self.world.rig, door), how)()

    @rule()
    def mend(self) -> None:
        self.world.rig.reconnect()

    def teardown(self) -> None:
        """Restore everything and let every job end."""
        self.world.calm(self.mine)
        if self.world.one_by_one:
            self.world.settle(self.mine)


@pytest.fixture
def storm(rig: Rig, shop: Shop, ops: Human, lead: Human, administrator: Administrator) -> type[Storm]:
    """Return a state machine on this rig."""
    # Until a search in the target has found the users of a job, a credential that may have been issued is in doubt for as long as it may live.
    rig.ensure_worker()
    first = ops.launch(spec("true", KINDS["read"], KINDS["write"]))
    for request in ops.until(first, "awaiting_approval")["requests"]:
        if request["state"] == "pending":
            lead.answer(request)
    assert ops.until(first)["state"] == "succeeded"
    return type("Storm", (Storm,), {"world": World(rig, shop, ops, lead, administrator)})


@pytest.mark.timeout(900)
def test_each_job_has_one_ending_after_random_faults(storm: type[Storm]) -> None:
    storm.world.one_by_one = False
    run_state_machine_as_test(storm, settings=SHORT)
    assert storm.world.jobs
    storm.world.settle(storm.world.jobs)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_each_job_has_one_ending_after_hours_of_random_faults(storm: type[Storm]) -> None:
    run_state_machine_as_test(storm, settings=LONG)
    assert storm.world.jobs
