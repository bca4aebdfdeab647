"""Processes of whole jobs on the stack: whatever they do, none outlives its job, and no other job's end waits for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from psycopg.conninfo import conninfo_to_dict

from activities.process.log_capture import MAX_OUTPUT_BYTES
from activities.process.no_sandbox import FOLDER_PREFIX, MEMORY_FOLDER
from tests.activities.process.job_process import is_alive
from tests.chaos.faulty_worker import UNKILLABLE
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import LOGIN, Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

LEAVER = """
import os, psycopg, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        kept = psycopg.connect()
        kept.execute("SELECT count(*) FROM orders")
        open("/tmp/ready", "w").close()
        for end in range(3):
            os.close(end)
        os.execvp("sleep", ["sleep", "61413.25"])
    os._exit(0)
while not os.path.exists("/tmp/ready"):
    time.sleep(0.01)
"""
FLOOD = 2**29
OWN_UID_BASE = "790000"
"""The first of the user ids that no other worker on this machine lends: whichever starts next ends what a dead worker's jobs left behind."""
ORPHAN = f"sleep\x00614{os.getpid()}"
"""The command line of the processes that the job without a sandbox leaves, without the fraction of its number: no other run's has this number."""
MEGABYTE = 2**20


def peak_memory(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def test_the_access_of_a_cancelled_job_ends_with_the_grace_period_and_not_with_its_process(
    rig: Rig, ops: Human, shop: Shop, witness: Witness, tmp_path: Path
) -> None:
    mortal = tmp_path / "mortal"
    rig.start_alone(**{UNKILLABLE: str(mortal)})
    job = ops.launch(spec(f"trap '' TERM; {witness.hand_over}; while :; do sleep 1; done"))
    login = witness.login()
    assert shop.can_log_in(login)
    assert ops.api.post(f"jobs/{job}/cancel").status_code == 202
    until(lambda: not shop.can_log_in(login), "its login is refused")
    assert ops.job(job)["ended_at"] is None, "its process lives"
    mortal.touch()
    ended = ops.until(job)
    assert (ended["state"], ended["revocation"]["state"]) == ("cancelled", "confirmed")


@dataclass(frozen=True)
class OrphanedJob:
    """A job that ran without a sandbox when its worker was killed."""

    job: str
    login: Login
    room: Path


@pytest.fixture(scope="module")
def orphaned(rig: Rig, ops: Human) -> Iterator[OrphanedJob]:
    """Kill a worker that isolates nothing, with a job in it that forked, left its session and was given a file."""
    plain = rig.ensure_worker()
    bare = rig.start(JUSTENOUGH_SANDBOX="off", JUSTENOUGH_JOB_UID_BASE=OWN_UID_BASE)
    plain.kill()
    with closing(Witness()) as witness:
        delivered = access(deliver={**LOGIN, "file": {"path": "db.json"}})
        sleep = ORPHAN.replace("\0", " ")
        script = f"{witness.hand_over}; (setsid env -i {sleep}.25 &); exec {sleep}.75"
        job = ops.launch(spec(script, delivered))
        login = witness.login()
    until(lambda: all(is_alive(f"{ORPHAN}.{part}") for part in (25, 75)), "its processes run")
    # Beside it lies the folder of the job's broker.
    (room,) = [root for root in MEMORY_FOLDER.glob(f"{FOLDER_PREFIX}.{job}.*") if (root / "files").is_dir()]
    assert list(room.glob("files/db.json"))
    bare.kill()
    yield OrphanedJob(job, login, room)
    # A worker that is not root ends no processes of a dead one.
    for process in psutil.process_iter(["cmdline"]):
        if ORPHAN in "\0".join(process.info["cmdline"] or ()):
            process.kill()


@pytest.mark.root
def test_without_a_sandbox_the_first_process_dies_with_its_worker_and_the_next_worker_ends_the_rest(
    orphaned: OrphanedJob, rig: Rig
) -> None:
    until(lambda: not is_alive(f"{ORPHAN}.75"), "the first process is gone")
    # This much is true: without a sandbox, what left the first process behind lives on until a worker starts here.
    assert is_alive(f"{ORPHAN}.25")
    rig.start_alone(JUSTENOUGH_JOB_UID_BASE=OWN_UID_BASE)
    assert not is_alive(ORPHAN)
    assert not orphaned.room.exists()


def test_processes_that_a_job_leaves_behind_end_with_it_and_so_do_their_connections(
    orphaned: OrphanedJob, rig: Rig, ops: Human, shop: Shop
) -> None:
    rig.ensure_worker()
    at = conninfo_to_dict(shop.dsn)
    where = {f"PG{name.upper().replace('DBNAME', 'DATABASE')}": str(at[name]) for name in ("host", "port", "dbname")}
    leaver = spec(run={"command": ["python", "-c", LEAVER], "timeout": "2m", "env": where})
    seen = ops.until(ops.launch(leaver))
    assert (seen["state"], seen["exit_code"], seen["revocation"]["state"]) == ("succeeded", 0, "confirmed")
    assert not is_alive("sleep\x0061413.25")
    shop.assert_dead(seen)


def test_jobs_that_flood_their_log_cost_no_memory_and_delay_no_other_job(
    orphaned: OrphanedJob, rig: Rig, ops: Human, shop: Shop, witness: Witness
) -> None:
    worker = rig.ensure_worker()
    assert ops.until(ops.launch(spec("true")))["state"] == "succeeded"
    reset_peak(worker.process.pid)
    before = peak_memory(worker.process.pid)
    finite = ops.launch(spec(f"head -c {FLOOD} /dev/zero | tr '\\0' x"))
    endless = ops.launch(spec(f"{witness.hand_over}; (setsid yes &); exec yes"))
    login = witness.login()
    until(lambda: len(ops.api.get(f"jobs/{endless}/logs").json()["items"]) > 3, "it floods")
    assert ops.until(ops.launch(spec("echo whole")))["state"] == "succeeded"
    assert ops.job(endless)["state"] == "running", "another job waits for one that floods"
    assert ops.api.post(f"jobs/{endless}/cancel").status_code == 202
    until(lambda: not shop.can_log_in(login), "its login no longer works")
    seen = ops.until(endless)
    assert (seen["state"], seen["revocation"]["state"]) == ("cancelled", "confirmed")
    shop.assert_dead(seen, login)
    seen = ops.until(finite)
    assert (seen["state"], seen["exit_code"], seen["revocation"]["state"]) == ("succeeded", 0, "confirmed")
    assert peak_memory(worker.process.pid) - before < 64 * MEGABYTE
    assert MAX_OUTPUT_BYTES <= log_size(ops, finite) < MAX_OUTPUT_BYTES + MEGABYTE
    # How far it came depends on the machine.
    assert log_size(ops, endless) < MAX_OUTPUT_BYTES + MEGABYTE


def log_size(ops: Human, job: str) -> int:
    """Bytes of output that are stored of a job."""
    size, after = 0, -1
    items: list[dict[str, Any]] = [{}]
    while items:
        items = ops.api.get(f"jobs/{job}/logs", params={"after": after, "limit": 100}).raise_for_status().json()["items"]
        size += sum(len(item["text"].encode()) for item in items)
        after = items[-1]["seq"] if items else after
    return size


def test_a_job_whose_worker_was_killed_without_a_sandbox_is_revoked_like_any_other(orphaned: OrphanedJob, ops: Human, shop: Shop) -> None:
    seen: dict[str, Any] = ops.until(orphaned.job)
    assert (seen["state"], seen["reason"], seen["revocation"]["state"]) == ("failed", "worker_lost", "confirmed")
    assert seen["sandbox"] == "off"
    shop.assert_dead(seen, orphaned.login)
