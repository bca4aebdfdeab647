"""A job that exhausts the machine is ended or limited alone: its access is revoked, its worker is healthy, other jobs finish."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.job_latch import hold_jobs
from tests.chaos.rig import Rig, Worker
from tests.support.people import Human
from tests.support.shop import Login, Shop, Witness, spec

pytestmark = pytest.mark.servers

MEMORY = {"memory": "128MiB", "processes": 48}
PROCESSOR = {"cpu": "1s", "processes": 48}
ONE = "python3 -c 'import time; held = b\"x\" * (200 * 2**20); time.sleep(600)'"
MANY = "for _ in 1 2 3 4 5 6; do python3 -c 'import time; held = b\"x\" * (50 * 2**20); time.sleep(600)' & done; wait"
FOLDERS = (
    "for f in /tmp /dev/shm $HOME; do dd if=/dev/zero of=$f/x bs=1M; done; python3 -c 'import time; h = b\"x\" * 2**24; time.sleep(600)'"
)
LOOPS = "(while :; do :; done) & (while :; do :; done) & wait"
# Its first process forks once: a shell whose fork goes on being refused gives up by itself.
BOMB = "bomb() { bomb | bomb & }; bomb & while :; do :; done"
CONNECTIONS = """
import os, socket, time, urllib.parse
url = urllib.parse.urlsplit(os.environ["JUSTENOUGH_BROKER_URL"])
held = []
for number in range(128):
    held.append(socket.socket(socket.AF_UNIX) if number % 2 else socket.socket())
    held[-1].connect(os.environ["JUSTENOUGH_BROKER"] if number % 2 else (url.hostname, url.port))
print(flush=True)
time.sleep(600)
"""
"""Opens as many connections to its broker as a job may, at both of its addresses, prints a line and holds them."""
HOGS = {
    "memory": (ONE, MEMORY, "limits.memory: it used "),
    "memory of many": (MANY, MEMORY, "limits.memory: it used "),
    "folders in memory": (FOLDERS, MEMORY, "limits.memory: it used "),
    "processor": (LOOPS, PROCESSOR, "limits.cpu: it used "),
    # The kernel limits processes only for a job that has a user of its own. For others, the worker counts processes and ends the job.
    "fork bomb": (BOMB, PROCESSOR, "limits.cpu: it used " if os.geteuid() == 0 else "limits.processes: it had more than "),
}
"""Each hog's command, its limits, and the message about the limit that it exceeds."""


@dataclass(frozen=True)
class Herd:
    """All hogs at once on one worker, and a normal job, which ends after all of them."""

    worker: Worker
    jobs: dict[str, str]
    logins: dict[str, Login]
    beside: str


@pytest.fixture(scope="module")
def herd(rig: Rig, ops: Human) -> Iterator[Herd]:
    """Run all hogs and the normal job; return once only the normal job is left."""
    worker = rig.ensure_worker()
    with closing(Witness()) as witness, hold_jobs() as held:
        beside = ops.launch(spec(f"{witness.hand_over}; {held.wait}; echo whole"))
        # This job runs before any hog does.
        witness.login()
        jobs = {name: ops.launch(hog_spec(f"{witness.hand_over}; {script}", limits)) for name, (script, limits, _) in HOGS.items()}
        heard = [witness.login() for _ in jobs]
        logins = {name: next(login for login in heard if job in login.user) for name, job in jobs.items()}
        for job in jobs.values():
            ops.until(job)
        assert ops.job(beside)["state"] == "running"
        held.open()
        ops.until(beside)
        yield Herd(worker, jobs, logins, beside)


def hog_spec(script: str, limits: dict[str, Any]) -> dict[str, Any]:
    return spec(run={"command": ["bash", "-c", script], "timeout": "10m", "limits": limits})


@pytest.mark.parametrize("name", HOGS)
def test_a_hog_ends_alone_with_the_exceeded_limit_and_its_access_is_revoked(herd: Herd, name: str, ops: Human, shop: Shop) -> None:
    seen = ops.job(herd.jobs[name])
    assert (seen["state"], seen["exit_code"], seen["revocation"]["state"]) == ("failed", 137, "confirmed")
    assert str(seen["reason"]).startswith(HOGS[name][2])
    shop.assert_dead(seen, herd.logins[name])


def test_a_job_next_to_hogs_succeeds_and_their_worker_stays_healthy(herd: Herd, rig: Rig, ops: Human) -> None:
    seen = ops.job(herd.beside)
    assert (seen["state"], seen["exit_code"], seen["revocation"]["state"]) == ("succeeded", 0, "confirmed")
    assert rig.ensure_worker() is herd.worker
    assert herd.worker.alive


def test_jobs_with_as_many_connections_as_they_may_have_leave_their_worker_enough_file_handles(rig: Rig, ops: Human) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Most systems start a process with 1024, which takes eight jobs.
    resource.setrlimit(resource.RLIMIT_NOFILE, (320, hard))
    try:
        worker = rig.start_alone(forked=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with closing(Witness()) as witness:
        script = f"coproc python3 -c '{CONNECTIONS}'; read -r _ <&${{COPROC[0]}}; {witness.hand_over}; wait"
        jobs = [ops.launch(spec(script)) for _ in range(3)]
        for _ in jobs:
            witness.login()
    beside = ops.launch(spec("echo whole"))
    ops.until(beside)
    seen = ops.job(beside)
    assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed")
    for job in jobs:
        ops.api.post(f"jobs/{job}/kill", json={}).raise_for_status()
        ops.until(job)
        assert ops.job(job)["revocation"]["state"] == "confirmed"
    assert "Too many open files" not in worker.log.read_text()
