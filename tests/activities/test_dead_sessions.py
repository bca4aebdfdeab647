"""Sessions of dead workers are recognised by their locks; those of running workers, however slow, are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from activities.session.dead_sessions import find_dead_sessions, hold_session_lock
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.ids import new_job_id
from tests.support.wait import until

REPOSITORY = Path(__file__).resolve().parents[2]
FORKS = """
import os, signal, sys, time
from pathlib import Path
from activities.session.dead_sessions import hold_session_lock
from justenough.adapters.configuration.settings import Settings
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
parent = os.getpid()
for line in sys.stdin:
    home, _, job = line.strip().rpartition(" ")
    if os.fork() == 0:
        with hold_session_lock(Settings(home=Path(home)), job):
            print(os.getpid(), flush=True)
            while os.getppid() == parent:
                time.sleep(1)
        os._exit(0)
"""
"""For each home and job that it reads, it forks a process that holds the job's lock: importing takes each 30 times as long as the rest."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def job() -> str:
    return new_job_id("dev", now=datetime.now(UTC))


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    """A process that forks others."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-P", "-c", FORKS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1) as process:
        yield process


@pytest.fixture
def other(forks: subprocess.Popen[str], settings: Settings, job: str) -> Iterator[psutil.Process]:
    """Another process, which holds the job's lock."""
    assert forks.stdin
    assert forks.stdout
    forks.stdin.write(f"{settings.home} {job}\n")
    process = psutil.Process(int(forks.stdout.readline()))
    yield process
    kill(process)


def kill(process: psutil.Process) -> None:
    """Kill a process unless it has ended, and wait for its end."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
    process.wait(60)


def dead_jobs(settings: Settings) -> list[str]:
    """Return the jobs whose workers died, and forget them."""
    found = find_dead_sessions(settings)
    for dead in found:
        dead.forget()
    return [dead.job for dead in found]


def test_a_session_whose_process_was_killed_is_found_once(settings: Settings, job: str, other: psutil.Process) -> None:
    assert dead_jobs(settings) == []
    kill(other)
    assert dead_jobs(settings) == [job]
    assert dead_jobs(settings) == []


def test_only_one_worker_deals_with_a_dead_session(settings: Settings, job: str, other: psutil.Process) -> None:
    kill(other)
    (dead,) = find_dead_sessions(settings)
    assert find_dead_sessions(settings) == ()
    os.close(dead.lock)
    # The process that dealt with the dead session died, too.
    assert dead_jobs(settings) == [job]


def test_a_suspended_worker_is_not_taken_for_a_dead_one(settings: Settings, other: psutil.Process) -> None:
    other.suspend()
    until(lambda: other.status() == psutil.STATUS_STOPPED, "it is suspended")
    open_files = psutil.Process().num_fds()
    assert dead_jobs(settings) == []
    assert psutil.Process().num_fds() == open_files, "it is looked at every second"
    other.resume()


def test_a_session_that_ends_leaves_no_lock_file(settings: Settings, job: str) -> None:
    with hold_session_lock(settings, job):
        assert dead_jobs(settings) == [], "its own worker does not take it for dead"
    assert dead_jobs(settings) == []
    assert list((settings.home / "run" / "sessions").iterdir()) == []


def test_a_session_of_another_machine_is_never_taken_for_dead(settings: Settings, job: str, other: psutil.Process) -> None:
    kill(other)
    (settings.home / "run" / "sessions" / job).write_text("the boot id of another machine")
    assert dead_jobs(settings) == []


def test_a_session_runs_without_a_lock_if_it_cannot_have_one(settings: Settings, job: str) -> None:
    folder = settings.home / "run" / "sessions"
    (folder / f"{job}.new").mkdir(parents=True)
    with capture_logs() as logs, hold_session_lock(settings, job):
        assert dead_jobs(settings) == []
    (entry,) = logs
    assert entry["event"] == "session has no lock; if its worker dies, its access ends later"
