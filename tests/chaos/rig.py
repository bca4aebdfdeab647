"""The stack of the chaos tests: the tests start its workers, Vault is behind a gate, PostgreSQL and Temporal are behind doors."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.secret import Secret
from tests.activities.tcp_door import Door
from tests.chaos.faulty_worker import ENV_PREFIX, NETS_OFF
from tests.chaos.forked_workers import ForkedWorker
from tests.chaos.vault_gate import Gate
from tests.support.shop import Shop
from tests.support.wait import until
from worker.provisioning.setup import VaultTarget, provision_vault
from worker.stack.control import running_stack
from worker.stack.environment import own_environment
from worker.stack.paths import StackPaths
from worker.stack.pidfile import supervisor_of
from worker.stack.seed import shop_environment
from worker.stack.stack_file import Stack

SERVERS = ("temporal", "vault", "postgres", "console")
MEND_TIMEOUT_S = 180.0
"""Seconds that the servers may take to answer again on a busy machine."""
SQLITE_TIMEOUT_S = 5.0
"""Seconds that other processes may take for their writes on a busy machine."""


@dataclass(eq=False)
class Worker:
    """One worker process without a supervisor."""

    process: subprocess.Popen[bytes] | ForkedWorker
    log: Path
    plain: bool
    """Whether it runs as in production: no net is off and nothing else is changed."""
    stopped: bool = False

    @property
    def alive(self) -> bool:
        """Whether it runs and is not suspended."""
        return self.process.poll() is None and not self.stopped

    def kill(self) -> None:
        """Kill the process, like a crash."""
        self.process.kill()
        self.process.wait(60)

    def stop(self) -> None:
        """Suspend it (SIGSTOP), like a process that hangs; see `Rig.suspend`."""
        self.process.send_signal(signal.SIGSTOP)
        self.stopped = True

    def go_on(self) -> None:
        """Resume it (SIGCONT)."""
        self.process.send_signal(signal.SIGCONT)
        self.stopped = False

    def terminate(self) -> None:
        """Ask it to end, like an orderly restart; return at once."""
        self.process.terminate()


@dataclass(eq=False)
class Rig:
    """One stack without a worker, and the proxies between it and the workers of the tests."""

    stack: Stack
    gate: Gate
    postgres: Door
    """The door in front of PostgreSQL, for workers and Vault; tests connect directly."""
    temporal: Door
    """The door in front of Temporal, for workers; the console and tests connect directly."""
    settings: Settings
    workers: list[Worker] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, *, off: tuple[str, ...] = (), labelled: bool = False, ready: bool = True, forked: bool = True, **env: str) -> Worker:
        """Start one more worker; return it once it polls.

        `off`: nets that it does not have; `labelled`: each job's own label may say which it does not have; `forked`: as a copy of a process that
        has imported everything, or all by itself, as users start it; `env`: further settings.
        """
        log = self.stack.home / "logs" / f"own-worker-{next(self._numbers)}.log"
        changed = bool(off) or labelled or any(name.startswith(ENV_PREFIX) for name in env)
        environment = {**own_environment(self.settings, {"postgres": self.postgres.port}), NETS_OFF: ",".join(off), **env}
        log.touch()
        process = ForkedWorker(environment, log, changed=changed) if forked or changed else _start_worker(environment, log)
        worker = Worker(process, log, plain=not (off or labelled or env))
        self.workers.append(worker)
        if ready:
            until(lambda: b"worker ready" in log.read_bytes() or process.poll() is not None, "a worker is ready", within=180)
            assert process.poll() is None, log.read_text()
        return worker

    def start_alone(self, **more: Any) -> Worker:
        """Kill every worker and start this one instead; see `start`."""
        for worker in self.workers:
            worker.kill()
        self._forget_dead()
        return self.start(**more)

    def ensure_worker(self) -> Worker:
        """Return the running worker; start one if none runs."""
        self._forget_dead()
        for worker in self.workers:
            if not (worker.alive and worker.plain):
                worker.kill()
        self._forget_dead()
        for worker in self.workers[1:]:
            worker.kill()
        self._forget_dead()
        return self.workers[0] if self.workers else self.start()

    def suspend(self, worker: Worker) -> None:
        """Suspend a worker between two writes to the store.

        In the middle of one it would hold the lock of the SQLite file, as a process that hangs does until its supervisor kills it: nobody else
        could write, and these workers have no supervisor.
        """
        worker.stop()
        while not self._can_write():
            worker.go_on()
            worker.stop()

    def _can_write(self) -> bool:
        """Whether the store's file is not locked, or not for longer than a write takes."""
        file = self.stack.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(file, timeout=SQLITE_TIMEOUT_S, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
        return True

    @contextmanager
    def freeze(self, *children: str) -> Iterator[None]:
        """Suspend servers for a block, without a restart by the supervisor; return once they answer again."""
        supervisor = supervisor_of(StackPaths(self.stack.home))
        assert supervisor
        for pid in (supervisor.pid, *map(self._shop.pid_of, children)):
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self.thaw()
            self._until_healthy()

    @contextmanager
    def seal_vault(self) -> Iterator[None]:
        """Seal Vault for a block, without a restart by the supervisor; return once it was restarted, which unseals it."""
        was = self._shop.pid_of("vault")
        os.kill(self.stack.supervisor, signal.SIGSTOP)
        try:
            with self._shop.admin() as vault:
                vault.put("sys/seal").raise_for_status()
            yield
        finally:
            os.kill(self.stack.supervisor, signal.SIGCONT)
            if self._is_sealed():
                self._shop.until_restarted("vault", was=was, within=MEND_TIMEOUT_S)
            self._until_healthy()

    @contextmanager
    def break_audit(self) -> Iterator[None]:
        """Let Vault's only audit device fail for a block: its file cannot be opened."""
        file, kept = self._audit_paths()
        file.rename(kept)
        file.mkdir()
        try:
            os.kill(self._shop.pid_of("vault"), signal.SIGHUP)
            with self._shop.admin() as vault:
                until(lambda: vault.get("auth/token/lookup-self").status_code == 500, "no request passes Vault's audit device")
            yield
        finally:
            self._restore_audit_log()

    def reconnect(self) -> None:
        """Open every door and gate again."""
        self.gate.release_all()
        self.postgres.open()
        self.temporal.open()

    def mend(self) -> None:
        """Restore everything that a test can break, except its workers; return once the servers answer again."""
        self.reconnect()
        self.thaw()
        self._restore_audit_log()
        self._until_healthy()

    def thaw(self) -> None:
        """Resume every suspended server, and the supervisor last: it would restart a suspended server."""
        for pid in (*(self._shop.pid_of(child) for child in SERVERS), self.stack.supervisor):
            # A server that was killed is started again by the supervisor.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _until_healthy(self) -> None:
        until(self._shop.is_healthy, "the servers answer again", within=MEND_TIMEOUT_S)

    def _is_sealed(self) -> bool:
        """Whether Vault reports that it is sealed. False if it does not answer."""
        with suppress(httpx.HTTPError):
            return bool(httpx.get(f"{self.stack.vault}/v1/sys/seal-status", timeout=180, trust_env=False).json()["sealed"])
        return True

    def _audit_paths(self) -> tuple[Path, Path]:
        """Return the path of Vault's audit log, and its path while the device fails."""
        file = self.stack.home / "vault" / "audit.log"
        return file, file.with_suffix(".kept")

    def _restore_audit_log(self) -> None:
        file, kept = self._audit_paths()
        if kept.exists():
            file.rmdir()
            kept.rename(file)

    @property
    def _shop(self) -> Shop:
        return Shop(self.stack, str(self.stack.shop_dsn))

    def kill(self, child: str) -> None:
        """Kill one of the servers, or the console, with SIGKILL; return once its supervisor has started it again."""
        with self.take_down(child):
            pass

    @contextmanager
    def take_down(self, child: str, *, away: float = 0) -> Iterator[None]:
        """Kill a child with SIGKILL and run the block while it is down, for so many seconds at least; return once it was started again."""
        was, back = self._shop.pid_of(child), time.monotonic() + away
        # Suspend the supervisor, too: it would start the child again at once.
        os.kill(self.stack.supervisor, signal.SIGSTOP)
        try:
            os.kill(was, signal.SIGKILL)
            yield
            time.sleep(max(0.0, back - time.monotonic()))
        finally:
            os.kill(self.stack.supervisor, signal.SIGCONT)
        self._shop.until_restarted(child, was=was, within=MEND_TIMEOUT_S)

    def _forget_dead(self) -> None:
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]


def _start_worker(environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a worker as in production."""
    with log.open("ab") as output:
        return subprocess.Popen(
            # It ends with this process, even if that is killed.
            ["setpriv", "--pdeathsig=KILL", sys.executable, "-P", "-m", "worker"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


@contextmanager
def run_rig(home: Path, config: Path) -> Iterator[Rig]:
    """Yield a rig for a block."""
    with running_stack(home, config, only=SERVERS) as stack:
        assert stack.vault
        assert stack.temporal
        places = StackPaths(home)
        port = int(read_json(places.ports)["postgres"])
        door = Door(port)
        temporal = Door(int(stack.temporal.rpartition(":")[2]))
        gate = Gate(stack.vault)
        settings = Settings(
            home=home,
            config=config,
            temporal_address=f"127.0.0.1:{temporal.port}",
            vault_addr=gate.url,
            console_url=stack.console,
            database_url=stack.database_url,
            drain=2,
        )
        # Vault reaches PostgreSQL through the door too: a target that is away is away for everybody.
        provision_vault(
            VaultTarget(
                settings.model_copy(update={"vault_addr": stack.vault, "vault_issuer": settings.issuer}),
                admin_token=Secret(places.admin_token.read_text(encoding="utf-8").strip()),
                environment={**os.environ, **shop_environment(places), "SHOP_PORT": str(door.port)},
            )
        )
        rig = Rig(stack, gate, door, temporal, settings)
        try:
            yield rig
        finally:
            rig.reconnect()
            rig.thaw()
            for worker in rig.workers:
                worker.kill()
            gate.close()
            door.close()
            temporal.close()


def watcher_of(worker: Worker) -> psutil.Process:
    """Return a worker's watcher, which is a copy of its process."""
    process = psutil.Process(worker.process.pid)
    (watcher,) = (child for child in process.children() if child.cmdline() == process.cmdline())
    return watcher
