"""The whole demo, as `make demo` runs it: on its own stack, which it starts, and stops or leaves running."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.support.child_process import run_child
from tests.support.detached_stacks import stop_at_exit
from tests.support.terminal_signals import interruptible_command
from tests.support.wait import until
from worker.stack import StackPaths, read_stack
from worker.stack.control import find_running_stack
from worker.stack.pidfile import read_pidfile
from worker.stack.stack_file import CHILDREN

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "console.cli", "demo"]
CLOSED = '@id("closed-for-today") forbid (principal, action, resource);\n'

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


SKIPPED_SCENARIO = "from console.cli import demo, main; demo.run_scenario = lambda stage: 0; main.program()(['demo'])"
"""A demo that skips its scenario and treats it as successful."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Yield a home whose servers do not outlive the test."""
    with stop_at_exit(tmp_path / "home"):
        yield tmp_path / "home"


def run_demo(home: Path, *, command: Sequence[str] = DEMO, **environment: str) -> subprocess.CompletedProcess[str]:
    said = {**os.environ, "JUSTENOUGH_HOME": str(home), **environment}
    return subprocess.run(command, cwd=ROOT, env=said, capture_output=True, text=True, check=False)


def test_a_successful_demo_leaves_nothing_running(home: Path) -> None:
    done = run_demo(home, command=[sys.executable, "-c", SKIPPED_SCENARIO])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Starting real servers" in done.stdout
    assert "The servers are still running" not in done.stdout
    assert find_running_stack(StackPaths.of(home)) is None
    assert not (home / "stack.json").exists()


@pytest.mark.timeout(600)
def test_an_open_demo_that_failed_leaves_its_servers_and_the_next_demo_proves_every_credential_dead_on_them(
    home: Path, tmp_path: Path
) -> None:
    config = tmp_path / "shop"
    shutil.copytree(ROOT / "examples" / "shop", config, ignore=shutil.ignore_patterns("__pycache__"))
    (config / "policies" / "closed.cedar").write_text(CLOSED)
    failed = run_demo(home, DEMO_OPEN="1", JUSTENOUGH_CONFIG=str(config))
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "demo failed: request approve" in failed.stdout
    assert_open(failed, home)

    (config / "policies" / "closed.cedar").unlink()
    again = run_demo(home, DEMO_OPEN="1", JUSTENOUGH_CONFIG=str(config))
    assert_proven(again)
    assert f"Using the servers that are running in {home}" in again.stdout
    assert_open(again, home)

    stopped = subprocess.run(["bash", "-c", find_command(again, "Stop")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stderr
    assert find_running_stack(StackPaths.of(home)) is None


def test_an_interrupted_demo_stops_its_servers_even_if_they_should_stay(home: Path) -> None:
    said = {**os.environ, "JUSTENOUGH_HOME": str(home), "DEMO_OPEN": "1"}
    with run_child(interruptible_command(DEMO), cwd=ROOT, env=said, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        played = next(line for line in process.stdout if "job run" in line)
        # Like a terminal: the signal goes to the whole foreground process group.
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        process.wait(300)
    assert process.returncode == 130, played + rest
    assert "Interrupted: stopping the servers" in rest
    assert "The servers are still running" not in rest
    assert find_running_stack(StackPaths.of(home)) is None


@pytest.mark.timeout(900)
def test_the_servers_of_a_killed_demo_end_even_if_they_should_stay(home: Path) -> None:
    said, places = {**os.environ, "JUSTENOUGH_HOME": str(home), "DEMO_OPEN": "1"}, StackPaths.of(home)
    with run_child(DEMO, cwd=ROOT, env=said, stdout=subprocess.DEVNULL):
        until(lambda: read_pidfile(places.run, "vault"), "Vault is being started", within=300)
        marks = [mark for name in ("supervisor", *CHILDREN) if (mark := read_pidfile(places.run, name))]
    until(lambda: not any(mark.is_alive() for mark in marks), "supervisor and servers are gone", within=300)
    assert find_running_stack(places) is None
    assert not any(read_pidfile(places.run, name) for name in CHILDREN)


def assert_proven(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 credentials, all verified as revoked" in done.stdout
    assert re.search(r"^export-customers +export-api:write +denied +no-export-after-restricted ", done.stdout, re.MULTILINE)
    assert 'once, with exactly {"amount": ' in done.stdout
    assert "Its remaining database users: none" in done.stdout
    assert "No job ever saw model-api:read" in done.stdout
    assert done.stdout.count("Its login worked while the job ran. Now: FATAL:") == 7
    assert "waits in Vault (accessor " in done.stdout
    assert "Writing one: permission denied for table refunds" in done.stdout
    assert "The ledger is intact: " in done.stdout


def assert_open(done: subprocess.CompletedProcess[str], home: Path) -> None:
    """Fail unless the printed servers answer and the printed users can log in."""
    stack = read_stack(StackPaths.of(home))
    assert stack is not None
    summary = done.stdout.partition("The servers are still running")[2]
    console, vault = (re.search(rf"^{name} +(http\S+)$", summary, re.MULTILINE) for name in ("console", "Vault"))
    assert console
    assert vault
    assert httpx.get(f"{console[1]}/livez", trust_env=False).status_code == 200
    users = dict(re.findall(r"^(\w+) +([0-9a-f]{32}) ", summary, re.MULTILINE))
    assert set(users) == set(stack.users)
    for name, password in users.items():
        answer = httpx.post(f"{vault[1]}/v1/auth/people/login/{name}", json={"password": password}, trust_env=False)
        assert answer.status_code == 200


def find_command(done: subprocess.CompletedProcess[str], what: str) -> str:
    found = re.search(rf"^{what}: +(.+)$", done.stdout, re.MULTILINE)
    assert found
    return found[1]
