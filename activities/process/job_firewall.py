"""The firewall of jobs: an nftables table that rejects connections of the jobs' user ids to Temporal and Vault, connections to jobs that
listen on a port of one of the machine's servers, and excess connections to any server.

A process that reaches Vault can try passwords in other people's names, and a process that reaches a Temporal server without authentication
can signal workflows and take tasks. Jobs need neither: the broker gives them what they are granted. With hundreds of idle connections to a
database, a job could keep Vault from revoking other jobs' credentials there. The rules recognize jobs by their user id, so the worker must
be root. Entries expire, so that no rule outlives the workers for long.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from shutil import which
from time import monotonic
from urllib.parse import urlsplit

import psutil
import structlog

from activities.process.job_command import CLEAN_ENV
from activities.process.uid_pool import CLOSED_UIDS, MAX_UIDS
from activities.support.async_tools import run_beside, wait_up_to
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import GiveUp

REFRESH_INTERVAL = timedelta(minutes=1)
"""How often the rules are written again: names may lead to other addresses, and somebody may have removed the rules."""
ENTRY_LIFETIME_S = 300
NFT_TIMEOUT_S = 20
MAX_CONNECTIONS = 64
"""Connections that one job may have to one address and port at once. A PostgreSQL server accepts 100 in total by default."""
SYSTEM_PROGRAMS = "/usr/sbin:/sbin:/usr/bin:/bin"
DEFAULT_PORTS = {"https": 443, "http": 80}
CLOSED_TO = {"vault": CLOSED_UIDS, "temporal": MAX_UIDS}
"""For each server, how many of the user ids are blocked from it. The catalog can let a job reach Vault, but no job reaches Temporal."""
CHAINS = {"output": "filter", "asked": "mangle"}
"""The chains and their priorities: one sees where a connection goes, the other its original destination, before NAT redirects it (docker
-p, kube-proxy).
"""
DELETE_TABLE = """
add table inet {table}
delete table inet {table}
"""
"""Adding it first keeps the deletion from failing if there is no such table. nft applies its input as a whole or not at all."""
SET = """
add set inet {table} {name} {{ type {kind}; flags timeout; timeout {lifetime}s; }}
flush set inet {table} {name}
"""
SET_KINDS = {"4": "ipv4_addr . inet_service", "6": "ipv6_addr . inet_service", "_here": "inet_service"}
"""The sets of each server by the ends of their names. `here`: ports of this machine, at all of its addresses."""
CHAIN = "add chain inet {table} {chain} {{ type filter hook output priority {priority}; }}\nflush chain inet {table} {chain}\n"
RULES = """
add rule inet {table} {chain} meta skuid {first}-{last} ip daddr . tcp dport @{server}4 reject with tcp reset
add rule inet {table} {chain} meta skuid {first}-{last} ip6 daddr . tcp dport @{server}6 reject with tcp reset
add rule inet {table} {chain} meta skuid {first}-{last} fib daddr type local tcp dport @{server}_here reject with tcp reset
"""
ANSWERS = """
add rule inet {table} output meta skuid {first}-{last} tcp flags & (syn | ack) == syn | ack tcp sport @{server}_here drop
"""
"""Nobody can connect to a job that listens on a server's port, at another address or while the server restarts: clients send it secrets."""
OTHERS = "others"
"""The server that stands for all the others on this machine, which jobs may connect to."""
SOCKET_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENS = "0A"
"""The state of a listening socket there."""
EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
COUNTERS = {"counted4": "uid . ipv4_addr . inet_service", "counted6": "uid . ipv6_addr . inet_service"}
"""The sets that count connections. They are never emptied, because that would lose the count of open connections."""
COUNTER = "add set inet {table} {name} {{ type {kind}; size 65535; flags dynamic; }}\n"
LIMITS = """
add chain inet {table} limited {{ type filter hook output priority filter; }}
flush chain inet {table} limited
add rule inet {table} limited meta skuid {first}-{last} tcp flags & (syn | ack) == syn add @counted4 {{ meta skuid . ip daddr . tcp dport ct count over {most} }} reject with tcp reset
add rule inet {table} limited meta skuid {first}-{last} tcp flags & (syn | ack) == syn add @counted6 {{ meta skuid . ip6 daddr . tcp dport ct count over {most} }} reject with tcp reset
"""
ELEMENT = "add element inet {table} {name} {{ {entry} }}\n"
PROGRAMS = frozenset({"temporal", "temporal-server", "bao", "vault"})
"""Programs that jobs do not need: all their ports are closed. Temporal's HTTP API and UI can do whatever its gRPC port can."""

log = structlog.get_logger(__name__)


class FirewallMissing(GiveUp):
    """Jobs can connect to Temporal or Vault. The message gives the reason, `remedy` what to do."""

    def __init__(self, why: str, *, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(why)


@dataclass(slots=True)
class JobFirewall:
    """The rules for one worker's user ids."""

    settings: Settings
    _entries: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """The last known entries (set and entry) of each server's URLs, used while its name cannot be resolved."""
    _taken: dict[int, float] = field(default_factory=dict)
    """When (monotonic) a process that is not a job's last listened on a port of this machine."""

    def apply(self, *, check: bool = False) -> None:
        """Write the rules, or with `check` only ask the kernel whether it would accept them. Raises FirewallMissing. Blocks."""
        if os.geteuid() != 0:
            raise FirewallMissing(
                "jobs run as the worker's own user, which must reach Temporal and Vault", remedy="Run the worker as root."
            )
        program = which("nft", path=SYSTEM_PROGRAMS)
        if program is None:
            raise FirewallMissing("nftables is not installed", remedy="apt install nftables")
        unresolved, now = self._resolve(), monotonic()
        self._taken |= dict.fromkeys(ports_of_others(self._jobs), now)
        self._taken = {port: seen for port, seen in self._taken.items() if now - seen < ENTRY_LIFETIME_S}
        done = _run_nft(program, *(("--check",) if check else ()), "--file", "-", ruleset=self._ruleset(dead_tables(program)))
        if done.returncode != 0:
            remedy = "Give the worker the capability NET_ADMIN, and use a kernel with nf_tables, as distribution kernels are."
            raise FirewallMissing(f"{program} fails: {done.stderr.strip()[:500]}", remedy=remedy)
        if unresolved:
            remedy = "Correct VAULT_ADDR, JUSTENOUGH_TEMPORAL_ADDRESS or the other addresses of both, or make the name resolvable."
            raise FirewallMissing("; ".join(unresolved), remedy=remedy)

    def remove(self) -> None:
        """Delete this worker's rules, if there are any. Blocks."""
        program = which("nft", path=SYSTEM_PROGRAMS)
        if program is not None and os.geteuid() == 0:
            with suppress(FirewallMissing):
                _run_nft(program, "--file", "-", ruleset=DELETE_TABLE.format(table=self.table))

    @property
    def table(self) -> str:
        """The name of this worker's table, with its pid: another worker deletes the table only after that process has ended."""
        return f"justenough_{self.settings.job_uid_base}_{_pid_namespace()}_{os.getpid()}"

    @property
    def _jobs(self) -> range:
        return range(self.settings.job_uid_base, self.settings.job_uid_base + MAX_UIDS)

    def _resolve(self) -> tuple[str, ...]:
        """Look up the servers' addresses. Return, for each URL that was never resolved, why it cannot be."""
        unresolved, settings = [], self.settings
        urls = dict.fromkeys((f"grpc://{settings.temporal_address}", *settings.temporal_other_addrs), "temporal")
        urls |= dict.fromkeys((settings.vault_addr, *settings.vault_other_addrs), "vault")
        for url, server in urls.items():
            try:
                self._entries[url] = tuple(entries_of(url, server, jobs=self._jobs))
            except (OSError, ValueError) as error:
                if url not in self._entries:
                    # A URL may contain a password, and the ValueError a part of it.
                    reason = error.strerror if isinstance(error, OSError) else "it does not name a host and a port"
                    unresolved.append(f"{url.rpartition('@')[2].removeprefix('grpc://')} cannot be resolved: {reason}")
        return tuple(unresolved)

    def _ruleset(self, dead: tuple[str, ...]) -> str:
        """Return the complete input of nft, which replaces this worker's table, except its counters, and deletes the tables of dead
        workers.
        """
        first, table = self.settings.job_uid_base, self.table
        entries = dict.fromkeys(entry for known in self._entries.values() for entry in known)
        deletions = [DELETE_TABLE.format(table=name) for name in dead]
        kinds = {f"{server}{ending}": kind for server in CLOSED_TO for ending, kind in SET_KINDS.items()}
        kinds[f"{OTHERS}_here"] = SET_KINDS["_here"]
        sets = [SET.format(table=table, name=name, kind=kind, lifetime=ENTRY_LIFETIME_S) for name, kind in kinds.items()]
        counters = [COUNTER.format(table=table, name=name, kind=kind) for name, kind in COUNTERS.items()]
        last = first + MAX_UIDS - 1
        limits = LIMITS.format(table=table, first=first, last=last, most=MAX_CONNECTIONS)
        answers = [ANSWERS.format(table=table, first=first, last=last, server=server) for server in (*CLOSED_TO, OTHERS)]
        chains = [CHAIN.format(table=table, chain=chain, priority=priority) for chain, priority in CHAINS.items()]
        rules = [
            RULES.format(table=table, chain=chain, server=server, first=first, last=first + count - 1)
            for chain in CHAINS
            for server, count in CLOSED_TO.items()
        ]
        entries |= dict.fromkeys((f"{OTHERS}_here", str(port)) for port in self._taken)
        elements = [ELEMENT.format(table=table, name=name, entry=entry) for name, entry in entries]
        return "".join((*deletions, f"add table inet {table}\n", *sets, *counters, *chains, *rules, *answers, limits, *elements))


def dead_tables(program: str) -> tuple[str, ...]:
    """Return the tables of workers that are no longer running. Raises FirewallMissing. Blocks."""
    listed = _run_nft(program, "list", "tables").stdout.split()
    return tuple(name for name in listed if name.startswith("justenough_") and _is_dead(program, name))


def _is_dead(program: str, table: str) -> bool:
    before, _, pid = table.rpartition("_")
    if before.endswith(f"_{_pid_namespace()}") and pid.isdecimal() and not psutil.pid_exists(int(pid)):
        return True
    # Processes of another container cannot be seen here, and another process may have the pid by now. What nobody renews expires.
    listed = _run_nft(program, "list", "table", "inet", table)
    return listed.returncode == 0 and "elements" not in listed.stdout


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _run_nft(program: str, *arguments: str, ruleset: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            (program, *arguments), input=ruleset, env=CLEAN_ENV, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallMissing(f"{program} does not run: {error}", remedy="Reinstall nftables.") from error


def entries_of(url: str, server: str, *, jobs: range) -> Iterator[tuple[str, str]]:
    """Yield the set and the entry for each address that a server's URL leads to. `jobs`: the jobs' user ids. Raises OSError, ValueError. Blocks."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        raise ValueError("no host or port")
    for family, _, _, _, address in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM):
        ip = ip_address(str(address[0]).partition("%")[0])
        yield f"{server}{ip.version}", f"{ip} . {port}"
        # Only an address of this machine can be bound. A server here may listen on the machine's other addresses too.
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address[0]), 0, *address[2:]))
            yield from ((f"{server}_here", str(one)) for one in ports_beside(port, jobs=jobs))


def ports_beside(port: int, *, jobs: range) -> frozenset[int]:
    """Return a port of this machine and, if a Temporal or Vault listens on it, the other TCP ports of that process. Blocks."""
    with suppress(psutil.Error, OSError):
        listening = [found for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN]
        servers = {found.pid for found in listening if found.laddr.port == port and found.pid is not None and is_server(found.pid, jobs)}
        return frozenset({port, *(found.laddr.port for found in listening if found.pid in servers)})
    return frozenset({port})


def ports_of_others(jobs: range) -> frozenset[int]:
    """Return the TCP ports of this machine on which a process that is not a job's listens. Blocks.

    Ports from the ephemeral range are left out: the kernel may give a job such a port right after another program has used it.
    """
    rows = [line.split() for table in SOCKET_TABLES if table.exists() for line in table.read_text().splitlines()[1:]]
    ports = {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENS and int(row[7]) not in jobs}
    first, last = map(int, EPHEMERAL_PORTS.read_text().split())
    return frozenset(ports - set(range(first, last + 1)))


def is_server(pid: int, jobs: range) -> bool:
    """Whether a process is a Temporal or Vault server, and not a job's process with such a name. False if it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return process.uids().real not in jobs and process.name() in PROGRAMS
    return False


@asynccontextmanager
async def keep_servers_closed(settings: Settings) -> AsyncIterator[None]:
    """Keep jobs from Temporal and Vault until the block ends. Log a warning whenever that becomes impossible."""
    firewall, problem = JobFirewall(settings), ""

    async def refresh() -> None:
        nonlocal problem
        try:
            await asyncio.to_thread(firewall.apply)
            if problem:
                log.info("jobs cannot reach Temporal and Vault again")
            problem = ""
        except FirewallMissing as error:
            if str(error) != problem:
                log.warning("jobs with `network: host` can reach Temporal and Vault", why=str(error), remedy=error.remedy)
            problem = str(error)

    async def keep_refreshing(ended: asyncio.Event) -> None:
        while not ended.is_set():
            await wait_up_to(REFRESH_INTERVAL, ended)
            await refresh()

    await refresh()
    try:
        async with run_beside(keep_refreshing):
            yield
    finally:
        await asyncio.to_thread(firewall.remove)
