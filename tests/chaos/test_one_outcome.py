"""Random faults of jobs, workers and servers: each job has one ending, all sources agree on it, and no access is left."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, precondition, rule, run_state_machine_as_test
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
    # What happened once on real servers cannot be taken back and tried again in a smaller way.
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
            # As whoever keeps workers does: one that found a server away at its start has ended again.
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
    """One random sequence of events."""

    world: World
    jobs = Bundle("jobs")

    @initialize(target=jobs, orders=st.lists(ORDERS, min_size=4, max_size=4))
    def begin(self, orders: list[Order]) -> Any:
        self.began = len(self.world.jobs)
        self.world.rig.ensure_worker()
        for script, kinds in orders:
            self.world.jobs.append(self.world.ops.launch(spec(script, *(KINDS[kind] for kind in kinds))))
        return multiple(*self.world.jobs[self.began :])

    @rule(target=jobs, order=ORDERS)
    def launch(self, order: Order) -> Any:
        """Launch another, whatever is down; a console that cannot take it says so, and then there is no job."""
        script, kinds = order
        sent = self.world.ops.order(spec(script, *(KINDS[kind] for kind in kinds)))
        answer = self.world.ops.api.post("jobs", json=sent)
        if answer.status_code != 201:
            assert answer.status_code == 503, answer.text
            assert self.world.ops.api.get(f"jobs/{sent['id']}").status_code == 404
            return multiple()
        self.world.jobs.append(sent["id"])
        return sent["id"]

    @rule(job=jobs, decision=st.sampled_from(["approve", "approve", "deny"]))
    def answer(self, job: str, decision: str) -> None:
        for request in self.world.ops.job(job)["requests"]:
            if request["state"] == "pending" and request["digest"]:
                self.world.lead.answer(request, decision)

    @rule(job=jobs, how=st.sampled_from(["cancel", "kill"]))
    def stop(self, job: str, how: str) -> None:
        self.world.ops.api.post(f"jobs/{job}/{how}")

    @rule(job=consumes(jobs), what=st.sampled_from(["job", "guard", "both", "delete", "reset"]))
    def strike_workflow(self, job: str, what: str) -> None:
        administrator = self.world.administrator
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

    @rule(job=jobs)
    def revoke_one(self, job: str) -> None:
        for item in self.world.ops.job(job)["credentials"]:
            self.world.ops.api.post(f"credentials/{item['id']}/revoke")

    @rule()
    def kill_worker(self) -> None:
        for worker in self.world.rig.workers:
            worker.kill()
        # Where Temporal is shut off, it ends again at once.
        self.world.rig.start(ready=False)

    @rule()
    def second_worker(self) -> None:
        if len(self.world.rig.workers) < 3:
            self.world.rig.start(ready=False)

    @precondition(lambda self: len([item for item in self.world.rig.workers if item.alive]) > 1)
    @rule()
    def worker_sleeps(self) -> None:
        self.world.rig.suspend(next(item for item in self.world.rig.workers if item.alive))

    @precondition(lambda self: any(item.stopped for item in self.world.rig.workers))
    @rule()
    def worker_wakes(self) -> None:
        next(item for item in self.world.rig.workers if item.stopped).go_on()

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
        mine = self.world.jobs[self.began :]
        self.world.calm(mine)
        if self.world.one_by_one:
            self.world.settle(mine)


@pytest.fixture
def storm(rig: Rig, shop: Shop, ops: Human, lead: Human, administrator: Administrator) -> type[Storm]:
    """Return a state machine on this rig."""
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
