"""What the supervisor does with a child's log, and that it does not show the child's environment."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import make_private_folder
from justenough.domain.core.secret import Secret
from tests.activities.process.job_process import until
from worker.provisioning.setup import PersonSeed, VaultTarget
from worker.stack import managed_process
from worker.stack.managed_process import ChildFailed, ChildSpec, ManagedProcess, move_log, rotate_log
from worker.stack.paths import StackPaths
from worker.stack.pidfile import read_pidfile

WRITER = """
import itertools, signal, sys, time
def open_anew(*_):
    global own
    own = open(sys.argv[1], "a")
signal.signal(signal.SIGHUP, open_anew)
open_anew()
for number in itertools.count():
    print("line", number, flush=True)
    print("line", number, flush=True, file=own)
    time.sleep(0.001)
"""


async def test_a_log_that_is_too_large_is_rotated_and_only_one_older_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_process, "MAX_LOG_BYTES", 2_000)
    monkeypatch.setattr(managed_process, "HEALTH_CHECK_INTERVAL_S", 0.01)
    places = StackPaths(tmp_path)
    for folder in (places.run, places.logs):
        make_private_folder(folder)
    own = places.logs / "audit.log"
    argv = (sys.executable, "-c", WRITER, str(own))
    # If its log is missing, the writer gets SIGHUP, which would end it before it has set its handler.
    child = ManagedProcess(ChildSpec(name="writer", argv=argv, env={}, healthy=own.exists, answers=lambda: True, own_logs=(own,)), places)
    await child.start()
    keeping = asyncio.create_task(child.keep_running())
    logs = [places.log("writer"), own]
    olders = [log.with_name(f"{log.name}.1") for log in logs]
    try:
        # The logs were rotated twice, so what is kept no longer begins with the first line.
        await until(lambda: all(older.exists() and not older.read_text().startswith("line 0\n") for older in olders))
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await child.stop()
    found = {path: path.read_bytes() for path in places.logs.iterdir()}
    assert b"\0" not in b"".join(found.values()), "the writer goes on at the start of the empty file"
    # The writer may have been stopped just after its own log was moved, before it opened a new one.
    assert found.keys() | {own} == {*logs, *olders}


def count_waiters() -> int:
    """Return how many futures and tasks of asyncio are in memory, including those of other tests."""
    return sum(isinstance(item, asyncio.Future) for item in gc.get_objects())


async def test_checks_of_a_child_that_keeps_running_leave_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_process, "HEALTH_CHECK_INTERVAL_S", 0.001)
    places, checks = StackPaths(tmp_path), itertools.count()
    for folder in (places.run, places.logs):
        make_private_folder(folder)
    spec = ChildSpec(name="sleeper", argv=("sleep", "300"), env={}, healthy=lambda: True, answers=lambda: next(checks) >= 0)
    child, before = ManagedProcess(spec, places), count_waiters()
    await child.start()
    keeping = asyncio.create_task(child.keep_running())
    try:
        await until(lambda: next(checks) > 200)
        assert count_waiters() - before < 50
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await child.stop()


def test_a_log_that_its_writer_opens_anew_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_process, "MAX_LOG_BYTES", 10)
    log, older = tmp_path / "audit.log", tmp_path / "audit.log.1"
    with log.open("a") as writer:
        print("before it is moved", file=writer, flush=True)
        assert move_log(log)
        print("before it is opened anew", file=writer, flush=True)
    assert move_log(log), "its writer is asked again"
    assert older.read_text() == "before it is moved\nbefore it is opened anew\n"
    log.touch()
    assert not move_log(log)


async def test_a_child_is_kept_running_even_if_its_new_pid_cannot_be_published_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed_process, "HEALTH_CHECK_INTERVAL_S", 0.05)
    places, stack_file = StackPaths(tmp_path), tmp_path / "stack" / "pid"
    for folder in (places.run, places.logs):
        make_private_folder(folder)
    spec = ChildSpec(name="sleeper", argv=(sys.executable, "-c", "import time; time.sleep(600)"), env={}, healthy=lambda: True)
    # The folder is missing, as a full disk would refuse the file.
    child = ManagedProcess(spec, places, on_change=lambda: stack_file.write_text(str(child.pid)))
    await child.start()
    keeping = asyncio.create_task(child.keep_running())
    try:
        for _ in range(2):
            first = child.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await until(lambda: child.pid != first)  # noqa: B023 - awaited at once
        stack_file.parent.mkdir()
        await until(lambda: stack_file.exists() and stack_file.read_text() == str(child.pid))
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await child.stop()


@pytest.mark.parametrize(
    "program, changes, says",
    [
        ("import time; time.sleep(600)", {"healthy": lambda: False, "start_within": 0}, "did not become healthy within 0 s"),
        ("import time; time.sleep(600)", {"healthy": lambda: True, "real_pid": lambda _: 2**22 + 1}, "ended right after it started"),
        ("print('no memory')", {"healthy": lambda: False}, "ended while it was starting"),
    ],
)
async def test_a_child_that_does_not_start_is_ended_and_reported_with_the_end_of_its_log(
    tmp_path: Path, program: str, changes: dict[str, Any], says: str
) -> None:
    places = StackPaths(tmp_path)
    for folder in (places.run, places.logs):
        make_private_folder(folder)
    spec = ChildSpec(name="child", argv=(sys.executable, "-c", program), env={}, **changes)
    with pytest.raises(ChildFailed) as failed:
        await ManagedProcess(spec, places).start()
    last = "no memory" if "memory" in program else ""
    assert str(failed.value) == f"child {says}. Its log, {places.log('child')}, ends with:\n{last}"
    identity = read_pidfile(places.run, "child")
    assert identity is None or not identity.is_alive()


async def test_a_child_is_asked_to_end_by_its_signal_and_given_time(tmp_path: Path) -> None:
    paths, ready, ended = StackPaths(tmp_path), tmp_path / "ready", tmp_path / "ended"
    for folder in (paths.run, paths.logs):
        make_private_folder(folder)
    script = f"trap 'sleep 0.3; touch {ended}; exit 0' USR1; touch {ready}; while :; do sleep 0.05; done"
    spec = ChildSpec(
        name="drains", argv=("sh", "-c", script), env=dict(os.environ), healthy=ready.exists, stop_signal=signal.SIGUSR1, stop_within=60
    )
    child = ManagedProcess(spec, paths)
    await child.start()
    await child.stop()
    assert ended.exists()


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "small.log"
    log.write_text("one line\n")
    rotate_log(log)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["one line\n"]


def test_a_log_that_cannot_be_rotated_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_process, "MAX_LOG_BYTES", 3)
    log = tmp_path / "worker.log"
    log.write_text("one line\n")
    (tmp_path / "worker.log.1").mkdir()
    rotate_log(log)
    assert log.read_text() == "one line\n"
    rotate_log(tmp_path / "missing.log")


def test_no_repr_shows_what_a_childs_environment_or_a_set_up_is_given() -> None:
    given = {"SHOP_PASSWORD": "hunter22"}
    child = ChildSpec(name="worker", argv=("worker",), env=given, healthy=lambda: True)
    target = VaultTarget(Settings(), Secret("hunter22"), people={"ops": PersonSeed(Secret("hunter22"), ("ops",))}, environment=given)
    assert "hunter22" not in repr(child) + repr(target)
