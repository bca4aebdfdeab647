"""Jobs at their steps, the faults that hit them there, and how each job ends. All faults happen at once; tests check the jobs one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.chaos.administrator import EARLY, LATE, Administrator
from tests.chaos.faulty_worker import BUG_ARGUMENT
from tests.chaos.steps import LEASES, ROLE, Stage, exposures, launch_leashed
from tests.support.people import Human
from tests.support.shop import Login
from tests.support.wait import until

MENDED = {"JUSTENOUGH_TEST_BUGS": "_outcome", "JUSTENOUGH_TEST_LEASE": "12"}
"""A worker with a bug that workflows recover from. The recovery is in their histories, so later code must keep it."""
BROKEN = {**MENDED, "JUSTENOUGH_TEST_BUGS": "_outcome,_compensate,_close,receive"}
"""A worker whose bugs affect only the jobs below that are named after them, or that get the signal that triggers them."""
NO_RESULT = "its workflow closed without a result"
REFUSED = "refused: this job has already run or ended; a workflow reset does not run it again"


@dataclass(frozen=True)
class Case:
    """A job at one step, the fault that hits it there, and how it ends."""

    step: str
    strike: str
    state: str
    reason: str | None = None
    issued: int = 1
    """How many credentials it may have got."""

    @property
    def is_held(self) -> bool:
        """Whether its step lasts only while Vault's response is held."""
        return self.step in {"issuing", "revoking", "guarded_revoking"}


def loss(step: str, strike: str, issued: int = 1) -> Case:
    """A case in which the workflow cannot report how the job ended."""
    return Case(step, strike, "lost", NO_RESULT, issued)


STEPS = {
    "issuing, cancelled": Case("issuing", "cancel", "cancelled"),
    "running, cancelled twice": Case("running", "cancel twice", "cancelled"),
    # The process has ended by itself before the cancel.
    "revoking, cancelled": Case("revoking", "cancel", "succeeded"),
    "waiting, terminated": loss("waiting", "terminate", 0),
    "issuing, terminated": loss("issuing", "terminate"),
    "running, terminated": loss("running", "terminate"),
    "revoking, terminated": loss("revoking", "terminate"),
    "waiting, deleted": loss("waiting", "delete", 0),
    "issuing, deleted": loss("issuing", "delete"),
    "running, deleted": loss("running", "delete"),
    "revoking, deleted": loss("revoking", "delete"),
    "issuing, reset early": Case("issuing", "reset early", "failed", REFUSED),
    "running, reset early": Case("running", "reset early", "failed", REFUSED),
    "guarded, reset early": Case("guarded", "reset early", "failed", REFUSED),
    "guarded, reset late": Case("guarded", "reset late", "failed", REFUSED),
    "guarded and revoking, reset late": Case("guarded_revoking", "reset late", "failed", REFUSED),
    "guarded, terminated": loss("guarded", "terminate"),
    "guarded, deleted": loss("guarded", "delete"),
    "guarded, terminated together with its guard": loss("guarded", "terminate together"),
    "guarded, terminated after its guard": loss("guarded", "terminate guard first"),
    "running, its history too long for Temporal": loss("running", "fill"),
    "ended, a bug in what the workflow makes of it": Case("breaking", "nothing", "failed", "unexpected RuntimeError"),
}
COMPENSATING = {
    "compensating, cancelled": Case("running", "cancel", "failed", "worker_lost"),
    "compensating, terminated": loss("running", "terminate"),
    "compensating, deleted": loss("running", "delete"),
    "compensating, reset early": Case("running", "reset early", "failed", REFUSED),
    "compensating, reset late": Case("running", "reset late", "failed", "worker_lost"),
}
"""Their worker died, and another is about to delete their token role. It cannot do that, nor revoke their lease, until all faults have happened."""
CASES = STEPS | COMPENSATING
FILLED = "running, its history too long for Temporal"
STUCK_ENDINGS = {
    "its process ends": ("succeeded", None),
    "it is killed": ("killed", None),
    "its worker is lost": ("failed", "worker_lost"),
    "it is about to close": ("succeeded", None),
}
"""Jobs whose workflow task keeps failing: what happens to them meanwhile, and how they end once a worker without the bug runs."""


@dataclass(frozen=True)
class FaultOutcome:
    """The outcome of all jobs."""

    jobs: dict[str, str]
    logins: dict[str, Login]
    exposed: dict[str, float]
    """Seconds from the fault until the login was refused, by job."""

    def logins_of(self, job: str) -> list[Login]:
        """Return the login of a job, if it has one."""
        return [self.logins[job]] if job in self.logins else []


def strike_all(stage: Stage, administrator: Administrator) -> FaultOutcome:
    """Bring all jobs to their steps and cause the faults; return once none of their logins works any more."""
    strikes, struck_at = strikes_of(stage.ops, administrator), dict[str, float]()

    def strike(*names: str) -> None:
        for name in names:
            job, case = jobs[name], CASES[name]
            strikes[case.strike](job)
            struck_at[job] = time.monotonic()

    jobs = lose_worker(stage, administrator)
    struck_at[jobs["its worker is lost"]] = time.monotonic()
    jobs |= {name: getattr(stage, case.step)() for name, case in STEPS.items() if not case.is_held}
    jobs |= launch_stuck_jobs(stage, administrator, struck_at)
    stage.until_ready()
    strike(FILLED)
    for name in (name for name, case in STEPS.items() if case.is_held):
        # Start all jobs at once: holding a request for longer than a worker waits for Vault would be another failure.
        jobs[name] = getattr(stage, STEPS[name].step)()
        stage.until_ready()
        strike(name)
    strike(*(name for name, case in CASES.items() if not case.is_held and name != FILLED))
    # Once the running jobs have heard of the fault, the held ones have, too.
    running = {jobs[name] for name, case in STEPS.items() if not case.is_held}
    exposed = exposures(stage.shop, stage.logins_of(running), since=struck_at)
    stage.rig.reconnect()
    exposed |= exposures(stage.shop, stage.logins_of(set(stage.logins) - set(exposed)), since=struck_at)
    return FaultOutcome(jobs, stage.logins, exposed)


def lose_worker(stage: Stage, administrator: Administrator) -> dict[str, str]:
    """Kill the worker of some jobs and hold the revocation by another worker; one job hits a bug there instead."""
    stage.rig.start_alone(**BROKEN)
    jobs = {name: stage.running() for name in COMPENSATING}
    jobs["its worker is lost"] = stage.running(name="bug-compensate")
    stage.until_ready()
    holds = [stage.rig.gate.hold(ROLE, method="DELETE", job=jobs[name]) for name in COMPENSATING]
    for name in COMPENSATING:
        stage.rig.gate.hold(LEASES, method="PUT", job=jobs[name])
    stage.rig.start_alone(**BROKEN)
    for hold in holds:
        hold.until_held()
    # Requests of the dead worker's watcher are held, too. The faults must happen once the workflow compensates.
    for name in COMPENSATING:
        until(partial(administrator.has_asked_to_revoke, jobs[name]), "its workflow compensates")
    return jobs


def launch_stuck_jobs(stage: Stage, administrator: Administrator, struck_at: dict[str, float]) -> dict[str, str]:
    """Return jobs whose workflow keeps failing on a bug: two with a running process, of which one ends and one is killed."""
    killed, closing = stage.running(), stage.ending(name="bug-close")
    stage.until_ready()
    with launch_leashed(stage.ops, stage.shop) as (ends, login):
        stage.logins[ends] = login
        for job in (ends, killed):
            administrator.confuse(job, BUG_ARGUMENT)
        for job in (ends, killed, closing):
            administrator.until_task_failed(job)
        assert stage.ops.api.post(f"jobs/{killed}/kill").status_code == 202
    struck_at |= dict.fromkeys((ends, killed, closing), time.monotonic())
    # Jobs that end by themselves need no strike to lose their access.
    return {"its process ends": ends, "it is killed": killed, "it is about to close": closing}


def strikes_of(ops: Human, administrator: Administrator) -> dict[str, Callable[[str], object]]:
    """Return the faults by name."""

    def cancel(job: str) -> None:
        answer = ops.api.post(f"jobs/{job}/cancel")
        assert answer.status_code == 202, answer.text

    def cancel_twice(job: str) -> None:
        cancel(job)
        cancel(job)

    return {
        "nothing": lambda job: job,
        "cancel": cancel,
        "cancel twice": cancel_twice,
        "terminate": administrator.terminate,
        "terminate together": lambda job: administrator.terminate_together(job, f"{job}-guard"),
        "terminate guard first": lambda job: administrator.terminate(f"{job}-guard", job),
        "delete": administrator.delete,
        "reset early": lambda job: administrator.reset(job, to=EARLY),
        "reset late": lambda job: administrator.reset(job, to=LATE),
        "fill": administrator.fill,
    }
