"""The real embedded servers: a restart keeps their data, and none is left running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from temporalio.client import Client

from justenough.adapters.configuration.settings import Settings
from tests.support.child_process import run_child
from tests.support.detached_stacks import stop_at_exit
from tests.worker.stack.conftest import LIFELINE
from worker.stack.control import StackNotStarted, find_running_stack, start_detached, stop_stack
from worker.stack.paths import StackPaths
from worker.stack.pidfile import ProcessIdentity, birth_time, identity_of, read_pidfile, supervisor_of, wait_until, write_pidfile
from worker.stack.stack_file import SERVERS, Stack, read_stack
from worker.stack.starter_pipes import watch_lifeline
from worker.stack.status import check_status

SHOP = Path(__file__).parents[3] / "examples" / "shop"
pytestmark = pytest.mark.servers


def start_stack(home: Path, *only: str) -> Stack:
    return start_detached(Settings(home=home, config=SHOP), only=only or SERVERS, provision=False, lifeline=LIFELINE)


def current_stack(stack: Stack) -> Stack:
    found = read_stack(StackPaths(stack.home))
    assert found is not None
    return found


def wait_for_new_pids(stack: Stack, *names: str, within: float) -> Stack:
    assert wait_until(lambda: all(current_stack(stack).pids[name] != stack.pids[name] for name in names), within=within), check_status(
        StackPaths(stack.home)
    )
    return current_stack(stack)


class Belongings:
    """A row, a secret and a workflow, each stored in its server."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._name = f"kept-{secrets.token_hex(4)}"

    async def put(self) -> None:
        with psycopg.connect(self._stack.shop_dsn or "") as shop:
            shop.execute("CREATE TABLE IF NOT EXISTS kept (name text)")
            shop.execute("INSERT INTO kept VALUES (%s)", (self._name,))
        self._vault("POST", "sys/mounts/kept", {"type": "kv"})
        assert self._vault("POST", f"kept/{self._name}", {"value": self._name}) == 204
        client = await Client.connect(self._stack.temporal or "")
        await client.start_workflow("Nothing", id=self._name, task_queue="nobody")

    async def check(self) -> None:
        with psycopg.connect(self._stack.shop_dsn or "") as shop:
            assert shop.execute("SELECT count(*) FROM kept WHERE name = %s", (self._name,)).fetchone() == (1,)
        assert self._vault("GET", f"kept/{self._name}") == 200
        described = await (await Client.connect(self._stack.temporal or "")).get_workflow_handle(self._name).describe()
        assert described.workflow_type == "Nothing"

    def _vault(self, method: str, path: str, body: object = None) -> int:
        token = self._stack.admin_token_file.read_text(encoding="utf-8")
        return httpx.request(method, f"{self._stack.vault}/v1/{path}", json=body, headers={"X-Vault-Token": token}, timeout=60).status_code


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a home that other users can pass through, so that PostgreSQL runs without bubblewrap even if we are root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        path = Path(folder) / "home"
        try:
            yield path
        finally:
            stop_stack(StackPaths(path))


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused_over_tcp(servers: Stack, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no password supplied"):
        psycopg.connect(servers.shop_dsn or "", password=password)


def test_postgres_trusts_nobody_and_listens_on_loopback_only(servers: Stack) -> None:
    with psycopg.connect(servers.shop_dsn or "") as shop:
        assert shop.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall() == [("scram-sha-256",)]
        assert shop.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert shop.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_other_users_can_read_no_file_in_the_home(servers: Stack) -> None:
    files = [path for path in servers.home.rglob("*") if path.is_file() and "postgres/" not in str(path.relative_to(servers.home))]
    assert {"stack.json", "seal.key", "vault-admin.token", "people.json", "postgres.json", "audit.log", "temporal.db"} <= {
        f.name for f in files
    }
    assert [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077] == []
    assert stat.S_IMODE((servers.home / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE((servers.home / "stack.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", SERVERS)
def test_no_child_leaves_a_core_dump(servers: Stack, name: str) -> None:
    limits = Path(f"/proc/{current_stack(servers).pids[name]}/limits").read_text(encoding="utf-8")
    assert next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4:6] == ["0", "0"]


def test_a_second_start_while_running_changes_nothing(servers: Stack) -> None:
    assert start_stack(servers.home) == current_stack(servers)


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_killed_with_9_comes_back_with_its_data_and_its_new_pid_is_published(servers: Stack, name: str) -> None:
    belongings = Belongings(servers)
    await belongings.put()
    before = current_stack(servers)
    os.kill(before.pids[name], signal.SIGKILL)
    after = wait_for_new_pids(before, name, within=180)
    assert {other for other in SERVERS if after.pids[other] != before.pids[other]} == {name}
    await belongings.check()
    assert stat.S_IMODE((servers.home / "stack.json").stat().st_mode) == 0o600


async def test_servers_that_hang_are_restarted(servers: Stack) -> None:
    """All three hang at once: each is detected separately."""
    belongings = Belongings(servers)
    await belongings.put()
    before = current_stack(servers)
    for pid in before.pids.values():
        os.kill(pid, signal.SIGSTOP)
    wait_for_new_pids(before, *SERVERS, within=180)
    await belongings.check()


def test_status_checks_each_child(servers: Stack) -> None:
    seen = check_status(StackPaths(servers.home))
    assert {child.name: child.health for child in seen.children} == dict.fromkeys(SERVERS, "healthy")
    assert seen.is_well
    assert not any(user.password in str(seen.as_json()) for user in servers.users.values())
    assert (servers.shop_dsn or "").split(":")[2].partition("@")[0] not in str(seen.as_json())


async def test_a_second_start_keeps_data_addresses_and_passwords(servers: Stack) -> None:
    first, places = current_stack(servers), StackPaths(servers.home)
    belongings = Belongings(first)
    await belongings.put()
    try:
        assert set(stop_stack(places)) == set(SERVERS)
        assert [pid for pid in first.pids.values() if birth_time(pid)] == []
        assert find_running_stack(places) is None
        assert not places.stack.exists()
    finally:
        second = start_stack(servers.home)
    await belongings.check()
    assert second.model_copy(update={"pids": {}, "supervisor": 0}) == first.model_copy(update={"pids": {}, "supervisor": 0})


async def test_the_next_start_ends_the_servers_of_a_killed_supervisor(home: Path) -> None:
    first = start_stack(home)
    belongings = Belongings(first)
    await belongings.put()
    os.kill(first.supervisor, signal.SIGKILL)
    assert wait_until(lambda: birth_time(first.supervisor) is None, within=180)
    assert check_status(StackPaths(home)).supervisor is None
    assert all(birth_time(pid) for pid in first.pids.values())

    second = start_stack(home)
    assert [pid for pid in first.pids.values() if birth_time(pid)] == []
    assert second.shop_dsn == first.shop_dsn
    await belongings.check()


def test_down_ends_the_servers_of_a_killed_supervisor(home: Path) -> None:
    first = start_stack(home, "temporal")
    os.kill(first.supervisor, signal.SIGKILL)
    assert wait_until(lambda: birth_time(first.supervisor) is None, within=180)
    assert set(stop_stack(StackPaths(home))) == {"temporal"}
    assert [pid for pid in first.pids.values() if birth_time(pid)] == []


def test_the_next_start_ends_an_orphaned_postgres_without_a_pidfile(home: Path) -> None:
    """The supervisor was killed after it started the server and before it wrote the pidfile."""
    first = start_stack(home, "postgres")
    os.kill(first.supervisor, signal.SIGKILL)
    assert wait_until(lambda: birth_time(first.supervisor) is None, within=180)
    (home / "run" / "postgres.pid").unlink()
    assert start_stack(home, "postgres").pids["postgres"] != first.pids["postgres"]
    assert birth_time(first.pids["postgres"]) is None


def test_postgres_starts_although_another_process_got_the_pid_of_a_killed_server(home: Path) -> None:
    start_stack(home, "postgres")
    stop_stack(StackPaths(home))
    data = home / "postgres" / "data"
    account = data.stat()
    identity = {"user": account.st_uid, "group": account.st_gid} if os.geteuid() == 0 else {}
    with run_child(("cat",), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", **identity) as stranger:
        lock = data / "postmaster.pid"
        lock.write_text(f"{stranger.pid}\n{data}\n1700000000\n5432\n\n127.0.0.1\n  1234567    1\nready   \n")
        lock.chmod(0o600)
        os.chown(lock, account.st_uid, account.st_gid)
        assert start_stack(home, "postgres").pids["postgres"] != stranger.pid
        # It is still alive.
        assert stranger.communicate(b"here", timeout=60)[0] == b"here"


def test_a_start_while_the_stack_stops_waits_and_then_starts_it_again(home: Path) -> None:
    first, places, steps = start_stack(home, "temporal"), StackPaths(home), list[str]()
    # A suspended server ends only when it is killed, so that the stop takes seconds.
    os.kill(first.pids["temporal"], signal.SIGSTOP)
    os.kill(first.supervisor, signal.SIGTERM)
    assert wait_until(lambda: find_running_stack(places) is None, within=180)
    assert birth_time(first.supervisor)
    settings = Settings(home=home, config=SHOP)
    second = start_detached(settings, only=("temporal",), provision=False, lifeline=LIFELINE, on_step=steps.append)
    assert steps[0] == "waiting for another start or stop in this folder"
    assert second.supervisor != first.supervisor
    assert birth_time(first.supervisor) is None
    assert find_running_stack(places) == second


def test_down_lets_the_worker_of_a_killed_supervisor_revoke_before_it_stops_the_servers(tmp_path: Path) -> None:
    places = StackPaths(tmp_path)
    places.run.mkdir()
    done = tmp_path / "done"
    # It takes longer than servers may.
    slow = ("sh", "-c", f"trap 'sleep 7; touch {done}; exit' TERM; echo; while :; do sleep 0.1; done")
    with run_child(slow, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        worker.stdout.readline()
        identity = identity_of(worker.pid)
        assert identity is not None
        write_pidfile(places.run, "worker", identity)
        assert stop_stack(places) == ("worker",)
    assert done.exists()


def test_down_without_a_stack_stops_nothing(tmp_path: Path) -> None:
    assert stop_stack(StackPaths(tmp_path / "home")) == ()


def test_down_never_ends_another_process_that_got_the_pid_of_a_child(tmp_path: Path) -> None:
    places = StackPaths(tmp_path)
    places.run.mkdir()
    with run_child(("cat",), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        mark = identity_of(stranger.pid)
        assert mark is not None
        write_pidfile(places.run, "vault", ProcessIdentity(pid=stranger.pid, born=f"not {mark.born}"))
        assert stop_stack(places) == ()
        # It is still alive.
        assert stranger.communicate(b"here", timeout=60)[0] == b"here"


def test_a_start_without_the_admin_token_says_what_to_do_and_leaves_nothing_running(home: Path) -> None:
    first = start_stack(home, "vault")
    stop_stack(StackPaths(home))
    first.admin_token_file.unlink()
    with pytest.raises(StackNotStarted, match=r"Vault is initialised but .*vault-admin.token is missing. Put it back, or remove"):
        start_stack(home, "vault")
    assert find_running_stack(StackPaths(home)) is None
    assert not any(kept.name != "supervisor.pid" for kept in (home / "run").glob("*.pid"))


def test_a_vault_whose_initialisation_was_interrupted_is_initialised_anew(home: Path) -> None:
    places, first = StackPaths(home), start_stack(home, "vault")
    stop_stack(places)
    token = first.admin_token_file.read_text(encoding="utf-8")
    assert not places.vault_initialising.exists()
    # An interruption leaves this: the initialisation has begun, and nobody has the keys.
    places.vault_initialising.touch()
    first.admin_token_file.unlink()

    again = start_stack(home, "vault")

    saved = again.admin_token_file.read_text(encoding="utf-8")
    assert saved != token
    assert httpx.get(f"{again.vault}/v1/sys/mounts", headers={"X-Vault-Token": saved}, timeout=60).status_code == 200
    assert not places.vault_initialising.exists()


def test_a_vault_whose_keys_are_saved_keeps_its_data_whatever_was_interrupted(home: Path) -> None:
    places, first = StackPaths(home), start_stack(home, "vault")
    stop_stack(places)
    token = first.admin_token_file.read_text(encoding="utf-8")
    places.vault_initialising.touch()

    again = start_stack(home, "vault")

    assert again.admin_token_file.read_text(encoding="utf-8") == token
    assert httpx.get(f"{again.vault}/v1/sys/mounts", headers={"X-Vault-Token": token}, timeout=60).status_code == 200
    # If the file stayed, Vault would lose its data once somebody moves the token away.
    assert not places.vault_initialising.exists()


def test_a_child_that_cannot_start_fails_the_start_with_the_end_of_its_log(home: Path) -> None:
    home.mkdir()
    (home / "temporal").mkdir()
    (home / "temporal" / "temporal.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(StackNotStarted, match=r"(?s)temporal ended while it was starting. Its log, .*temporal.log, ends with:.*database"):
        start_stack(home, "temporal")


def test_a_database_that_cannot_be_initialised_fails_the_start_with_the_reason(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "new").symlink_to("/proc")
    with pytest.raises(StackNotStarted, match=r"^PostgreSQL's initdb failed: initdb: error: "):
        start_stack(home, "postgres")


def test_a_supervisor_that_ends_during_the_start_is_reported_with_its_log(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(StackNotStarted, match=rf"^the supervisor ended without a report; see {home}/logs/supervisor\.log$"):
            start_detached(Settings(home=home, config=SHOP), only=("temporal",), provision=False, lifeline=reading)
    finally:
        os.close(reading)
    assert find_running_stack(StackPaths(home)) is None


def test_two_starts_at_once_start_one_stack(home: Path) -> None:
    command = ("import sys, pathlib; from justenough.adapters.configuration.settings import Settings; from worker.stack.control import start_detached; "
               "print(start_detached(Settings(home=pathlib.Path(sys.argv[1])), only=('temporal',), provision=False).supervisor)")  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.enter_context(stop_at_exit(home))
        arguments = (sys.executable, "-c", command, str(home))
        both = [stack.enter_context(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=SHOP.parents[1])) for _ in range(2)]
        said = [process.communicate(timeout=60)[0] for process in both]
        assert said[0] == said[1] != ""
        # Without a lifeline the stack outlives its starters.
        assert check_status(StackPaths(home)).is_well


STARTER = """
import pathlib, sys
from worker.stack.control import running_stack
with running_stack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), only=sys.argv[3:], provision=False) as stack:
    print(stack.model_dump_json(), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def run_starter(home: Path, *only: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds a running stack."""
    command = (sys.executable, "-c", STARTER, str(home), str(SHOP), *only)
    with run_child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SHOP.parents[1]) as process:
        yield process


@pytest.mark.timeout(900)
def test_a_stack_ends_with_its_starter_even_if_that_is_killed(home: Path) -> None:
    with run_starter(home, *SERVERS) as process:
        assert process.stdout
        stack = Stack.model_validate_json(process.stdout.readline())
        pids = {"supervisor": stack.supervisor, **stack.pids}
        assert {name for name, pid in pids.items() if birth_time(pid)} == {"supervisor", *SERVERS}
        process.kill()
    assert wait_until(lambda: not any(birth_time(pid) for pid in pids.values()), within=300), check_status(StackPaths(home))
    assert not StackPaths(home).stack.exists()


@pytest.mark.timeout(900)
def test_a_stack_ends_with_its_starter_even_if_its_processes_are_suspended(home: Path) -> None:
    with run_starter(home, "temporal") as process:
        assert process.stdout
        stack = Stack.model_validate_json(process.stdout.readline())
        pids = (stack.supervisor, stack.pids["temporal"])
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        process.kill()
    assert wait_until(lambda: not any(map(birth_time, pids)), within=300), check_status(StackPaths(home))


@pytest.mark.timeout(900)
def test_a_stack_whose_starter_is_killed_before_it_is_ready_ends_too(home: Path) -> None:
    places = StackPaths(home)
    with run_starter(home, *SERVERS) as process:
        assert wait_until(lambda: read_pidfile(places.run, "vault") is not None, within=300)
        marks = [mark for name in ("supervisor", *SERVERS) if (mark := read_pidfile(places.run, name))]
        process.kill()
    assert wait_until(lambda: not any(mark.is_alive() for mark in marks) and supervisor_of(places) is None, within=300)
    assert not any(read_pidfile(places.run, name) for name in SERVERS)
    assert not places.stack.exists()


async def test_a_starter_may_let_its_stack_outlive_it() -> None:
    reading, writing = os.pipe()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    watch_lifeline(reading, loop, ended.set)
    os.write(writing, b"stay")
    os.close(writing)
    assert await asyncio.to_thread(wait_until, lambda: not loop.remove_reader(reading), within=180)
    assert not ended.is_set()
    os.close(reading)
