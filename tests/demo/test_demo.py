"""The demo's own stack: it stops with a demo that ends, is interrupted or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.demo_program import DEMO, ROOT, run_demo
from tests.support.child_process import run_child
from tests.support.detached_stacks import stop_at_exit
from tests.support.terminal_signals import interruptible_command
from tests.support.wait import until
from worker.stack.control import find_running_stack
from worker.stack.paths import StackPaths
from worker.stack.pidfile import read_pidfile
from worker.stack.stack_file import CHILDREN

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


SKIPPED_SCENARIO = "from console.cli import demo, root_group; demo.run_scenario = lambda stage: 0; root_group.build_program()(['demo'])"
"""A demo that skips its scenario and treats it as successful."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Yield a home whose servers do not outlive the test."""
    with stop_at_exit(tmp_path / "home"):
        yield tmp_path / "home"


def test_a_successful_demo_leaves_nothing_running(home: Path) -> None:
    done = run_demo(home, command=[sys.executable, "-c", SKIPPED_SCENARIO])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Starting real servers" in done.stdout
    assert "The servers are still running" not in done.stdout
    assert find_running_stack(StackPaths(home)) is None
    assert not (home / "stack.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_stops_its_servers_even_if_they_should_stay(home: Path, number: signal.Signals) -> None:
    said = {**os.environ, "JUSTENOUGH_HOME": str(home), "DEMO_OPEN": "1"}
    with run_child(interruptible_command(DEMO), cwd=ROOT, env=said, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        played = next(line for line in process.stdout if "job run" in line)
        # Like a terminal: the signal goes to the whole foreground process group.
        os.killpg(process.pid, number)
        rest = process.stdout.read()
        process.wait(300)
    assert process.returncode == 130, played + rest
    assert "Interrupted: stopping the servers" in rest
    assert "The servers are still running" not in rest
    assert find_running_stack(StackPaths(home)) is None


@pytest.mark.timeout(900)
def test_the_servers_of_a_killed_demo_end_even_if_they_should_stay(home: Path) -> None:
    said, places = {**os.environ, "JUSTENOUGH_HOME": str(home), "DEMO_OPEN": "1"}, StackPaths(home)
    with run_child(DEMO, cwd=ROOT, env=said, stdout=subprocess.DEVNULL):
        until(lambda: read_pidfile(places.run, "vault"), "Vault is being started", within=300)
        marks = [mark for name in ("supervisor", *CHILDREN) if (mark := read_pidfile(places.run, name))]
    until(lambda: not any(mark.is_alive() for mark in marks), "supervisor and servers are gone", within=300)
    assert find_running_stack(places) is None
    assert not any(read_pidfile(places.run, name) for name in CHILDREN)
