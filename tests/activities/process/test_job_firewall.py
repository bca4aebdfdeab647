"""The firewall keeps the users of jobs, and nobody else, from Temporal and Vault; if it cannot be set up, that is reported.

The ranges of user ids do not overlap those that other test processes lend. Without root there is no firewall; that is tested instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from shutil import which
from socket import AF_INET6, create_connection, create_server
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from activities.process import job_firewall
from activities.process.job_firewall import (
    MAX_CONNECTIONS,
    FirewallMissing,
    JobFirewall,
    dead_tables,
    entries_of,
    keep_servers_closed,
    ports_beside,
)
from activities.process.uid_pool import CLOSED_UIDS, MAX_UIDS
from justenough.adapters.configuration.settings import Settings
from tests.activities.process.job_process import is_root, until

REPOSITORY = Path(__file__).resolve().parents[3]
UID = 780_000
NFT = which("nft", path=job_firewall.SYSTEM_PROGRAMS) or "nft"
CONNECT = """
import socket, sys
address, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
kind = socket.socket(family, socket.SOCK_STREAM, {"mptcp": 262}.get(how, 0))
try:
    if how == "fast open":
        kind.sendto(b"x", 0x20000000, (address, port))
    else:
        kind.connect((address, port))
    kind.getpeername()
    print("connected")
except ConnectionRefusedError:
    print("refused")
"""
WITHOUT_NET_ADMIN = """
from activities.process.job_firewall import FirewallMissing, JobFirewall
from justenough.adapters.configuration.settings import Settings
try:
    JobFirewall(Settings(job_uid_base=781_000)).apply()
except FirewallMissing as error:
    print(error.remedy)
"""


def connect(uid: int, address: str, port: int, how: str = "tcp") -> str:
    """Connect as this user and return how it went. `how`: tcp, mptcp or fast open."""
    drop = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    argv = (*drop, "/usr/bin/python3", "-c", CONNECT, address, str(port), how)
    return subprocess.run(argv, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


TABLE = JobFirewall(Settings(job_uid_base=UID)).table


def list_table(table: str = TABLE) -> dict[str, set[str]]:
    """Return the entries of each set in the table as text."""
    listed = subprocess.run((NFT, "--json", "list", "table", "inet", table), capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(listed.stdout)["nftables"] if listed.returncode == 0 else []
    return {item["set"]["name"]: {json.dumps(entry) for entry in item["set"].get("elem", ())} for item in found if "set" in item}


@pytest.fixture
def servers() -> Iterator[tuple[int, int]]:
    """Two ports on which a server listens at all addresses of this machine, IPv6 included: Vault's, and another one."""
    with ExitStack() as opened:
        made = [
            opened.enter_context(closing(create_server(("::", 0), family=AF_INET6, dualstack_ipv6=True, backlog=500))) for _ in range(2)
        ]
        yield made[0].getsockname()[1], made[1].getsockname()[1]
    JobFirewall(Settings(job_uid_base=UID)).remove()


def test_only_the_users_of_jobs_are_kept_from_vault_at_every_address_of_this_machine(servers: tuple[int, int]) -> None:
    vault, other = servers
    firewall = JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{vault}", job_uid_base=UID))
    if not is_root():
        with pytest.raises(FirewallMissing, match="jobs run as the worker's own user"):
            firewall.apply()
        return
    firewall.apply(check=True)
    assert connect(UID, "127.0.0.1", vault) == "connected", "a check changes nothing"
    firewall.apply()
    firewall.apply()
    for address in ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::ffff:127.0.0.1"):  # noqa: S104 - a way to loopback
        assert (connect(UID, address, vault), connect(UID, address, other)) == ("refused", "connected"), address
    for how in ("mptcp", "fast open"):
        assert (connect(UID, "127.0.0.1", vault, how), connect(UID, "127.0.0.1", other, how)) == ("refused", "connected"), how
    assert connect(UID + CLOSED_UIDS - 1, "127.0.0.1", vault) == "refused"
    assert connect(UID + CLOSED_UIDS, "127.0.0.1", vault) == connect(UID - 1, "127.0.0.1", vault) == "connected"


def test_no_job_reaches_temporal_even_if_it_may_reach_vault(servers: tuple[int, int]) -> None:
    temporal, other = servers
    if is_root():
        JobFirewall(Settings(temporal_address=f"localhost:{temporal}", job_uid_base=UID)).apply()
        for uid in (UID, UID + CLOSED_UIDS, UID + MAX_UIDS - 1):
            assert (connect(uid, "127.0.0.1", temporal), connect(uid, "127.0.0.1", other)) == ("refused", "connected"), uid
        assert connect(UID + MAX_UIDS, "127.0.0.1", temporal) == connect(UID - 1, "127.0.0.1", temporal) == "connected"


def fixed_port() -> int:
    """Return an unused port outside the range from which the kernel chooses ports."""
    for port in range(20_000, 32_768):
        with suppress(OSError), closing(create_server(("127.0.0.1", port))):
            return port
    raise AssertionError("no port is free")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_job_that_listens_in_the_place_of_any_server_of_the_machine_gets_no_connection(address: str) -> None:
    """Of PostgreSQL, for example, to which workers and Vault send passwords, or of the console."""
    if is_root():
        firewall, port = JobFirewall(Settings(job_uid_base=UID)), fixed_port()
        try:
            with job_listens(UID, address, port):
                firewall.apply()
                assert connect(0, address, port) == "connected", "nobody else ever listened there"
            with closing(create_server(("127.0.0.1", port))):
                firewall.apply()
                assert connect(UID, "127.0.0.1", port) == "connected", "jobs may connect to it"
            firewall.apply()
            with job_listens(UID, address, port), pytest.raises(TimeoutError):
                create_connection((address, port), timeout=1)
        finally:
            firewall.remove()


def test_an_address_that_nat_redirects_is_closed_too(servers: tuple[int, int]) -> None:
    """As docker -p and kube-proxy do, the connection is redirected to a different port than the requested one."""
    behind, asked = servers[0], unused_port()
    if is_root():
        rule = f"tcp dport {asked} redirect to :{behind}"
        table = f"table ip redirect_{asked} {{ chain output {{ type nat hook output priority -100; {rule}; }}; }}"
        subprocess.run((NFT, "-f", "-"), input=table, text=True, check=True)
        try:
            assert connect(UID, "127.0.0.1", asked) == "connected"
            JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{asked}", job_uid_base=UID)).apply()
            assert (connect(UID, "127.0.0.1", asked), connect(UID - 1, "127.0.0.1", asked)) == ("refused", "connected")
        finally:
            subprocess.run((NFT, "delete", "table", "ip", f"redirect_{asked}"), check=True)


LISTEN = """
import ctypes, socket, sys
name, address, *ports = sys.argv[1:]
ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
family = socket.AF_INET6 if ":" in address else socket.AF_INET
open_ = [socket.create_server((address, int(port)), family=family) for port in ports]
print("listening", flush=True)
sys.stdin.read()
"""


@contextmanager
def job_listens(uid: int, address: str, *ports: int, name: str = "bao") -> Iterator[None]:
    """Listen as this user until the block ends, in a process that calls itself `name`."""
    argv = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "/usr/bin/python3", "-c", LISTEN, name, address)
    with subprocess.Popen((*argv, *map(str, ports)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield
        process.kill()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.0.0.2"])
@pytest.mark.parametrize("server, uid", [("vault", UID), ("vault", UID + MAX_UIDS - 1), ("temporal", UID)])
def test_a_job_that_listens_in_a_servers_place_gets_no_connection(address: str, server: str, uid: int) -> None:
    """The server restarts, or `localhost` means another address too. A client would send it a token or a password."""
    if is_root():
        closed, other = unused_port(), unused_port()
        settings = {"vault": {"vault_addr": f"http://127.0.0.1:{closed}"}, "temporal": {"temporal_address": f"127.0.0.1:{closed}"}}
        with job_listens(uid, address, closed, other):
            JobFirewall(Settings(job_uid_base=UID)).apply()
            assert connect(0, address, closed) == connect(0, address, other) == "connected"
            JobFirewall(Settings(job_uid_base=UID).model_copy(update=settings[server])).apply()
            try:
                with pytest.raises(TimeoutError):
                    create_connection((address, closed), timeout=1)
                assert connect(0, address, other) == connect(uid, address, other) == "connected"
            finally:
                JobFirewall(Settings(job_uid_base=UID)).remove()


MANY = """
import socket, sys
open_ = []
for port in sys.stdin:
    try:
        open_.append(socket.create_connection((sys.argv[1], int(port))))
        print("connected", flush=True)
    except ConnectionRefusedError:
        print("refused", flush=True)
"""


@contextmanager
def many_connections(uid: int, address: str) -> Iterator[Callable[[int, int], list[str]]]:
    """Yield a function that opens and keeps so many connections to a port as this user, and returns how each went."""
    argv = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "/usr/bin/python3", "-c", MANY, address)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:

        def open_more(port: int, count: int) -> list[str]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{port}\n" * count)
            process.stdin.flush()
            return [process.stdout.readline().strip() for _ in range(count)]

        yield open_more
        process.kill()


def test_a_server_that_runs_as_a_user_just_beyond_the_jobs_gets_connections_without_a_limit() -> None:
    if is_root():
        port = unused_port()
        firewall = JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{port}", job_uid_base=UID))
        try:
            for uid in (UID - 1, UID + MAX_UIDS):
                with job_listens(uid, "127.0.0.1", port):
                    firewall.apply()
                    with many_connections(uid, "127.0.0.1") as opened:
                        assert opened(port, MAX_CONNECTIONS + 1) == ["connected"] * (MAX_CONNECTIONS + 1)
        finally:
            firewall.remove()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_limit_of_a_jobs_connections_to_one_server_survives_rewriting_the_rules(servers: tuple[int, int], address: str) -> None:
    if is_root():
        firewall = JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{unused_port()}", job_uid_base=UID))
        firewall.apply()
        with many_connections(UID, address) as opened:
            results = opened(servers[0], MAX_CONNECTIONS + 10)
            assert results == ["connected"] * MAX_CONNECTIONS + ["refused"] * 10
            firewall.apply()
            assert opened(servers[0], 5) == ["refused"] * 5
            assert opened(servers[1], 5) == ["connected"] * 5
            for another in (UID + 1, UID - 1, UID + MAX_UIDS - 1):
                assert connect(another, address, servers[0]) == "connected"


def test_the_servers_own_port_is_closed_if_processes_cannot_be_listed(servers: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str) -> list[object]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    assert ports_beside(servers[0], jobs=range(UID, UID + MAX_UIDS)) == {servers[0]}


def test_a_job_that_calls_itself_vault_does_not_close_other_ports() -> None:
    if is_root():
        vault, other = unused_port(), unused_port()
        with closing(create_server(("127.0.0.1", vault))), closing(create_server(("127.0.0.1", other))):
            with job_listens(UID, "127.0.0.2", vault, other):
                JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{vault}", job_uid_base=UID)).apply()
            try:
                assert (connect(UID, "127.0.0.1", vault), connect(UID, "127.0.0.1", other)) == ("refused", "connected")
            finally:
                JobFirewall(Settings(job_uid_base=UID)).remove()


@pytest.mark.parametrize("name", ["bao", "vault", "temporal", "temporal-server"])
def test_every_port_of_a_server_is_closed_and_no_port_of_another_server_of_the_same_program(name: str) -> None:
    """Temporal's HTTP API can do whatever its gRPC port can. Another Vault of the machine may be one that jobs use."""
    if is_root():
        vault, beside, other = unused_port(), unused_port(), unused_port()
        with job_listens(0, "127.0.0.1", vault, beside, name=name), job_listens(0, "127.0.0.1", other, name=name):
            JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{vault}", job_uid_base=UID)).apply()
            try:
                assert [connect(UID, "127.0.0.1", port) for port in (vault, beside, other)] == ["refused", "refused", "connected"]
            finally:
                JobFirewall(Settings(job_uid_base=UID)).remove()


def unused_port() -> int:
    with closing(create_server(("127.0.0.1", 0))) as found:
        return int(found.getsockname()[1])


ANOTHER_WORKER = """
import sys
from activities.process.job_firewall import JobFirewall
from justenough.adapters.configuration.settings import Settings
firewall = JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{sys.argv[1]}", job_uid_base=int(sys.argv[2])))
firewall.apply()
print(firewall.table, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_worker(port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a process that has closed this port to the same users, and the name of its table; kill it at the end."""
    argv = (sys.executable, "-c", ANOTHER_WORKER, str(port), str(UID))
    with subprocess.Popen(argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_workers_with_different_vaults_do_not_undo_each_others_rules(servers: tuple[int, int]) -> None:
    if is_root():
        ours = JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{servers[0]}", job_uid_base=UID))
        with another_worker(servers[1]) as (_, theirs):
            for change in (ours.apply, ours.apply, ours.remove):
                change()
                assert connect(UID, "127.0.0.1", servers[1]) == "refused"
                assert list_table(theirs)["vault_here"]
        assert connect(UID, "127.0.0.1", servers[0]) == "connected"


def test_a_worker_deletes_the_rules_of_one_that_was_killed(servers: tuple[int, int]) -> None:
    """Another program may get the ports of a server that ended with its worker, and jobs may have to reach that program."""
    if is_root():
        with another_worker(servers[1]) as (process, theirs):
            process.kill()
        assert connect(UID, "127.0.0.1", servers[1]) == "refused"
        JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{servers[0]}", job_uid_base=UID)).apply()
        assert [connect(UID, "127.0.0.1", port) for port in servers] == ["refused", "connected"]
        assert list_table(theirs) == {}


def test_only_an_empty_table_of_another_container_is_deleted(servers: tuple[int, int]) -> None:
    if is_root():
        old, used = f"justenough_{UID}_1_7", f"justenough_{UID}_1_8"
        numbers = f"add set inet {used} ports {{ type inet_service; }}\nadd element inet {used} ports {{ 1 }}"
        subprocess.run((NFT, "-f", "-"), input=f"add table inet {old}\nadd table inet {used}\n{numbers}\n", text=True, check=True)
        try:
            JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{servers[0]}", job_uid_base=UID)).apply()
            tables = subprocess.run((NFT, "list", "tables"), capture_output=True, text=True, check=True).stdout.split()
            assert (old in tables, used in tables) == (False, True)
        finally:
            subprocess.run((NFT, "delete", "table", "inet", used), check=True)


def test_a_port_is_open_again_once_no_server_uses_it(servers: tuple[int, int]) -> None:
    if is_root():
        firewall = JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{servers[0]}", job_uid_base=UID))
        firewall.apply()
        firewall.settings = firewall.settings.model_copy(update={"vault_addr": f"http://127.0.0.1:{servers[1]}"})
        firewall._entries.clear()
        firewall.apply()
        assert [connect(UID, "127.0.0.1", port) for port in servers] == ["connected", "refused"]


def test_vaults_other_addresses_are_closed_too(servers: tuple[int, int]) -> None:
    vault, other = servers
    settings = Settings(vault_addr=f"http://127.0.0.1:{vault}", vault_other_addrs=(f"http://[::1]:{other}", "https://192.0.2.7"))
    assert set(entries_of("https://192.0.2.7", "vault", jobs=range(0))) == {("vault4", "192.0.2.7 . 443")}
    if is_root():
        JobFirewall(settings.model_copy(update={"job_uid_base": UID})).apply()
        assert {connect(UID, "127.0.0.1", port) for port in servers} == {"refused"}
        assert any("192.0.2.7" in entry for entry in list_table()["vault4"])


@pytest.mark.parametrize("address", ["http://no-such-host.invalid:8200", "vault:8200", "https://"])
def test_an_address_that_cannot_be_resolved_is_named_with_the_remedy(address: str) -> None:
    if is_root():
        with pytest.raises(FirewallMissing, match=f"{address} cannot be resolved") as caught:
            JobFirewall(Settings(vault_addr=address, job_uid_base=UID)).apply(check=True)
        with pytest.raises(FirewallMissing) as hidden:
            JobFirewall(Settings(vault_addr=address.replace("//", "//ops:hush@"), job_uid_base=UID)).apply(check=True)
        assert "hush" not in str(hidden.value)
        assert caught.value.remedy == (
            "Correct VAULT_ADDR, JUSTENOUGH_TEMPORAL_ADDRESS or the other addresses of both, or make the name resolvable."
        )


def test_a_temporal_address_that_cannot_be_resolved_is_named_as_it_was_written() -> None:
    if is_root():
        with pytest.raises(FirewallMissing, match=r"^temporal cannot be resolved: it does not name a host and a port$"):
            JobFirewall(Settings(temporal_address="temporal", job_uid_base=UID)).apply(check=True)


def test_an_address_that_cannot_be_resolved_leaves_the_others_closed(servers: tuple[int, int]) -> None:
    if is_root():
        others = ("http://no-such-host.invalid:8200",)
        settings = Settings(vault_addr=f"http://127.0.0.1:{servers[0]}", vault_other_addrs=others, job_uid_base=UID)
        with pytest.raises(FirewallMissing, match=r"no-such-host\.invalid:8200 cannot be resolved"):
            JobFirewall(settings).apply()
        assert connect(UID, "127.0.0.1", servers[0]) == "refused"


def test_while_a_name_cannot_be_resolved_its_last_addresses_stay_closed(servers: tuple[int, int]) -> None:
    if is_root():
        firewall = JobFirewall(Settings(vault_addr=f"http://127.0.0.1:{servers[0]}", job_uid_base=UID))
        firewall.apply()
        firewall.remove()
        firewall.settings = firewall.settings.model_copy(update={"vault_addr": "http://no-such-host.invalid:8200"})
        known = entries_of(f"http://127.0.0.1:{servers[0]}", "vault", jobs=range(0))
        firewall._entries["http://no-such-host.invalid:8200"] = tuple(known)
        firewall.apply()
        assert connect(UID, "127.0.0.1", servers[0]) == "refused"


def test_on_a_machine_without_nftables_the_remedy_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_firewall, "SYSTEM_PROGRAMS", "/nonexistent")
    if is_root():
        with pytest.raises(FirewallMissing, match="nftables is not installed") as caught:
            JobFirewall(Settings()).apply()
        assert caught.value.remedy == "apt install nftables"


def test_a_worker_without_net_admin_gets_the_remedy_to_add_it() -> None:
    if is_root():
        argv = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", WITHOUT_NET_ADMIN)
        done = subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True, text=True)
        assert done.stdout.startswith("Give the worker the capability NET_ADMIN")


def test_rules_of_another_worker_that_cannot_be_read_now_are_not_taken_for_a_dead_ones(tmp_path: Path) -> None:
    program = tmp_path / "nft"
    program.write_text('#!/bin/sh\ntest "$2" = tables && echo "table inet justenough_700000_1_1"\n')
    program.chmod(0o755)
    assert dead_tables(str(program)) == ()
    program.write_bytes(b"no program")
    with pytest.raises(FirewallMissing, match=r"nft does not run: \[Errno 8\] Exec format error") as caught:
        dead_tables(str(program))
    assert caught.value.remedy == "Reinstall nftables."


async def test_a_worker_restores_rules_that_somebody_removed(servers: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_firewall, "REFRESH_INTERVAL", timedelta(milliseconds=50))
    with capture_logs() as logged:
        async with keep_servers_closed(Settings(vault_addr=f"http://127.0.0.1:{servers[0]}", job_uid_base=UID)):
            if is_root():
                assert list_table()["vault_here"]
                subprocess.run((NFT, "delete", "table", "inet", TABLE), check=True)  # noqa: ASYNC221 - it takes a moment
                await until(lambda: bool(list_table().get("vault_here")))
    assert list_table() == {}, "a worker that stops takes its rules with it"
    assert [entry["event"] for entry in logged] == ([] if is_root() else ["jobs with `network: host` can reach Temporal and Vault"])


async def test_a_worker_warns_once_that_it_cannot_keep_jobs_from_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_firewall, "REFRESH_INTERVAL", timedelta(milliseconds=1))
    tries = 0

    def why_not() -> int:
        nonlocal tries
        tries += 1
        return 1

    monkeypatch.setattr("os.geteuid", why_not)
    with capture_logs() as logged:
        async with keep_servers_closed(Settings(job_uid_base=UID)):
            await until(lambda: tries > 2)
    [warning] = logged
    assert (warning["event"], warning["log_level"]) == ("jobs with `network: host` can reach Temporal and Vault", "warning")
    assert (warning["why"], warning["remedy"]) == (
        "jobs run as the worker's own user, which must reach Temporal and Vault",
        "Run the worker as root.",
    )
