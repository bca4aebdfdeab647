"""Session slots: a worker that is full still ends its jobs, one launcher's jobs leave slots to the jobs of others, and a worker
that does not reach Vault leaves jobs to another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.activities.tcp_door import Door
from tests.chaos.administrator import Administrator
from tests.chaos.rig import Rig
from tests.support.new_people import log_in_newcomer
from tests.support.people import Human
from tests.support.shop import Shop, Witness, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers
SLOTS = 4
QUEUE = "justenough-dev"


@pytest.fixture(scope="module")
def ops2(rig: Rig, shop: Shop) -> Iterator[Human]:
    """Yield a second launcher."""
    with log_in_newcomer(rig.stack, shop, "ops2", "ops") as human:
        yield human


def plain_spec(script: str) -> dict[str, object]:
    """Return a spec without access, so that its job costs little."""
    return {**spec(script), "access": []}


def states(launcher: Human, jobs: list[str]) -> list[str]:
    """Return the state of each job."""
    return [launcher.job(job)["state"] for job in jobs]


def end(launcher: Human, jobs: list[str]) -> None:
    """Kill jobs and wait for their ends."""
    for job in jobs:
        assert launcher.api.post(f"jobs/{job}/kill").status_code in {202, 409}
    for job in jobs:
        launcher.until(job)


def test_a_job_can_be_killed_while_other_jobs_use_every_slot(rig: Rig, ops: Human, shop: Shop, witness: Witness) -> None:
    rig.start_alone(JUSTENOUGH_MAX_SESSIONS="1")
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300"))
    login = witness.login()
    waiting = ops.launch(spec("true"))
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    until(lambda: not shop.can_log_in(login), "the killed job's login is refused")
    seen = ops.until(job)
    assert seen["state"] == "killed"
    shop.assert_dead(seen, login)
    assert ops.until(waiting)["state"] == "succeeded"


def test_the_sleeping_jobs_of_one_launcher_leave_slots_to_another_launcher(rig: Rig, ops: Human, ops2: Human) -> None:
    rig.start_alone(JUSTENOUGH_MAX_SESSIONS=str(SLOTS))
    asleep = [ops.launch(plain_spec("sleep 300")) for _ in range(SLOTS + 2)]
    until(lambda: states(ops, asleep).count("running") >= SLOTS // 2, "the launcher's share is used")
    assert ops2.until(ops2.launch(plain_spec("true")))["state"] == "succeeded"
    # Half of the slots are in use, and the other jobs are shown as waiting. Each can be stopped, and a free place is taken.
    assert sorted(states(ops, asleep)) == ["pending"] * SLOTS + ["running"] * (SLOTS // 2)
    [waiting, *_] = [job for job in asleep if ops.job(job)["state"] == "pending"]
    end(ops, [waiting])
    assert ops.job(waiting)["state"] == "killed"
    end(ops, [next(job for job in asleep if ops.job(job)["state"] == "running")])
    until(lambda: states(ops, asleep).count("running") == SLOTS // 2, "a waiting job took the free place")
    end(ops, [job for job in asleep if not ops.job(job)["ended_at"]])


def test_jobs_that_wait_for_a_full_worker_take_turns_by_launcher(rig: Rig, ops: Human, ops2: Human, administrator: Administrator) -> None:
    rig.start_alone(JUSTENOUGH_MAX_SESSIONS="1", JUSTENOUGH_QUOTA_RUNNING_JOBS="20")
    asleep = ops.launch(plain_spec("sleep 300"))
    ops.until(asleep, "running")
    hog = [ops.launch(plain_spec("true")) for _ in range(8)]
    until(lambda: administrator.count_waiting_activities(QUEUE) >= len(hog), "every job of the first launcher waits in the queue")
    other = ops2.launch(plain_spec("true"))
    until(lambda: administrator.count_waiting_activities(QUEUE) > len(hog), "the other launcher's job waits behind them")
    end(ops, [asleep])
    turns = sorted([ops2.until(other), *map(ops.until, hog)], key=lambda job: str(job["started_at"]))
    # If launchers did not take turns, this job would be among the last.
    assert [job["id"] for job in turns].index(other) < len(hog) // 2


def test_jobs_of_a_worker_that_does_not_reach_vault_run_on_another_and_it_takes_jobs_again_later(
    rig: Rig, ops: Human, shop: Shop, administrator: Administrator
) -> None:
    with closing(Door(int(str(rig.stack.vault).rpartition(":")[2]))) as door:
        cut_off = rig.start_alone(JUSTENOUGH_MAX_SESSIONS="1", VAULT_ADDR=f"http://127.0.0.1:{door.port}")
        asleep = ops.launch(plain_spec("sleep 300"))
        ops.until(asleep, "running")
        job = ops.launch(spec())
        until(lambda: administrator.count_waiting_activities(QUEUE) > 0, "it is decided, and waits for the slot")
        with door.closed():
            assert ops.api.post(f"jobs/{asleep}/kill").status_code == 202
            until(lambda: b"worker takes no tasks until Vault answers" in cut_off.log.read_bytes(), "the worker takes no tasks")
            assert ops.job(job)["state"] == "pending"
            other = rig.start()
            shop.assert_dead(ops.until(job, "succeeded"))
            assert ops.until(asleep)["state"] == "killed"
            other.kill()
        assert ops.until(ops.launch(spec()))["state"] == "succeeded"
