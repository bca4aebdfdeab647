"""Sessions of dead workers are recognised by their locks; those of workers that live, however slow they are, are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from activities.session.dead_sessions import find_dead_sessions, hold_session_lock
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.ids import new_job_id
from tests.support.wait import until

REPOSITORY = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from activities.session.dead_sessions import hold_session_lock
from justenough.adapters.configuration.settings import Settings
with hold_session_lock(Settings(home=Path(sys.argv[1])), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def job() -> str:
    return new_job_id("dev", now=datetime.now(UTC))


@contextmanager
def other_process(settings: Settings, job: str) -> Iterator[subprocess.Popen[str]]:
    """Yield another process that holds a session's lock."""
    command = [sys.executable, "-P", "-c", HOLD, str(settings.home), job]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def dead_jobs(settings: Settings) -> list[str]:
    """Return the jobs whose workers died, and forget them."""
    found = find_dead_sessions(settings)
    for dead in found:
        dead.forget()
    return [dead.job for dead in found]


def test_a_session_whose_process_was_killed_is_found_once(settings: Settings, job: str) -> None:
    with other_process(settings, job) as process:
        assert dead_jobs(settings) == []
        process.kill()
        process.wait()
        assert dead_jobs(settings) == [job]
    assert dead_jobs(settings) == []


def test_only_one_worker_deals_with_a_dead_session(settings: Settings, job: str) -> None:
    with other_process(settings, job) as process:
        process.kill()
        process.wait()
    (dead,) = find_dead_sessions(settings)
    assert find_dead_sessions(settings) == ()
    os.close(dead.lock)
    # Whoever dealt with it died, too.
    assert dead_jobs(settings) == [job]


def test_a_suspended_worker_is_not_taken_for_a_dead_one(settings: Settings, job: str) -> None:
    with other_process(settings, job) as process:
        process.send_signal(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T", "it is suspended")
        assert dead_jobs(settings) == []
        process.send_signal(signal.SIGCONT)


def test_a_session_that_ends_leaves_no_lock_file(settings: Settings, job: str) -> None:
    with hold_session_lock(settings, job):
        assert dead_jobs(settings) == [], "its own worker does not take it for dead"
    assert dead_jobs(settings) == []
    assert list((settings.home / "run" / "sessions").iterdir()) == []


def test_a_session_of_another_machine_is_never_taken_for_dead(settings: Settings, job: str) -> None:
    with other_process(settings, job) as process:
        process.kill()
        process.wait()
    (settings.home / "run" / "sessions" / job).write_text("the boot id of another machine")
    assert dead_jobs(settings) == []


def test_a_session_runs_without_a_lock_if_it_cannot_have_one(settings: Settings, job: str) -> None:
    folder = settings.home / "run" / "sessions"
    (folder / f"{job}.new").mkdir(parents=True)
    with capture_logs() as logs, hold_session_lock(settings, job):
        assert dead_jobs(settings) == []
    (entry,) = logs
    assert entry["event"] == "session has no lock; if its worker dies, its access ends later"
