"""The shop from outside: which logins work in its database, and jobs that pass their credential to a test on purpose."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.plain_http import NO_TLS
from tests.support.wait import until
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack, read_stack

HAND_OVER = 'printf "%s %s\\n" "$PGUSER" "$PGPASSWORD" >/dev/tcp/127.0.0.1/{port}'
LOGIN = {"env": {"PGUSER": "username", "PGPASSWORD": "password"}}


@dataclass(frozen=True)
class Login:
    """A database login that a job passed to a test."""

    user: str
    password: str


@dataclass(frozen=True)
class Shop:
    """The shop's database, seen as its owner."""

    stack: Stack
    dsn: str

    @classmethod
    @contextlib.contextmanager
    def open(cls, stack: Stack) -> Iterator[Shop]:
        """Yield the stack's shop for a block."""
        assert stack.shop_dsn
        yield cls(stack, stack.shop_dsn)

    def users_of(self, job: str) -> list[str]:
        """Return the database users whose names contain a job's id."""
        with psycopg.connect(self.dsn) as connection:
            return [name for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE strpos(rolname, %s) > 0", (job,))]

    def spaces_of(self, job: str) -> list[str]:
        """Return the database schemas whose names contain a job's id."""
        with psycopg.connect(self.dsn) as connection:
            return [name for (name,) in connection.execute("SELECT nspname FROM pg_namespace WHERE strpos(nspname, %s) > 0", (job,))]

    def connect(self, login: Login) -> psycopg.Connection[Any]:
        """Log in as a job's user. Raises psycopg.OperationalError if that fails."""
        parts = conninfo_to_dict(self.dsn)
        dsn = make_conninfo(host=parts["host"], port=parts["port"], dbname=parts["dbname"], user=login.user, password=login.password)
        return psycopg.connect(dsn, connect_timeout=30)

    def can_log_in(self, login: Login) -> bool:
        """Whether a login works now."""
        try:
            self.connect(login).close()
        except psycopg.OperationalError:
            return False
        return True

    def tokens_of(self, job: str) -> list[str]:
        """Return the token leases that Vault lists under a job's prefix, read as its administrator."""
        with self.admin() as vault:
            response = vault.request("LIST", f"sys/leases/lookup/auth/token/create/je-job-{job}/")
            return [] if response.status_code == 404 else list(response.raise_for_status().json()["data"]["keys"])

    def live_leases(self, view: dict[str, Any]) -> list[str]:
        """Return the job's leases that Vault still knows. `view` is the job as the API shows it."""
        with self.admin() as vault:
            leases = [item["lease_id"] for item in view["credentials"] if item["lease_id"]]
            return [lease for lease in leases if vault.put("sys/leases/lookup", json={"lease_id": lease}).status_code == 200]

    def forget_refunds(self) -> None:
        """Delete the refunds that jobs of tests wrote. Together they may exceed an order's amount."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM refunds WHERE created_by LIKE '%-token-j-%'")

    def admin(self) -> httpx.Client:
        """Return a client of Vault with the administrator's token."""
        token = self.stack.admin_token_file.read_text().strip()
        return httpx.Client(
            base_url=f"{self.stack.vault}/v1/", headers={"X-Vault-Token": token}, timeout=60, trust_env=False, verify=NO_TLS
        )

    def assert_dead(self, view: dict[str, Any], *logins: Login) -> None:
        """Fail unless a job's access is gone: by login, in the database's own list, in Vault's own list, and in our API (`view`)."""
        job = view["id"]
        assert [login.user for login in logins if self.can_log_in(login)] == []
        assert self.users_of(job) == []
        assert self.spaces_of(job) == []
        assert self.tokens_of(job) == []
        assert self.live_leases(view) == []
        assert {item["state"] for item in view["credentials"]} <= {"confirmed"}, (view["credentials"], view["revocation"])

    def pid_of(self, child: str) -> int:
        """Return a child's current process id, which the supervisor updates when it restarts the child."""
        stack = read_stack(StackPaths(self.stack.home))
        assert stack is not None
        return stack.pids[child]

    def is_healthy(self) -> bool:
        """Whether Vault and the console answer."""
        try:
            sealed = httpx.get(f"{self.stack.vault}/v1/sys/health", timeout=10, trust_env=False, verify=NO_TLS).status_code != 200
            return not sealed and httpx.get(f"{self.stack.console}/livez", timeout=10, trust_env=False, verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False

    def kill_worker(self) -> None:
        """Kill the worker and the jobs that it runs; return once the supervisor has started another."""
        worker = self.pid_of("worker")
        os.kill(worker, signal.SIGKILL)
        self.until_restarted("worker", was=worker)

    def until_restarted(self, child: str, *, was: int, within: float = 120) -> None:
        """Wait until the supervisor has started a child again."""
        until(lambda: self.pid_of(child) != was, f"{child} is restarted", within=within)

    @property
    def config(self) -> Path:
        """The configuration folder that worker and console read."""
        return self.stack.config


class Witness:
    """Receives on loopback the logins that jobs pass to the test."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(180)

    @property
    def hand_over(self) -> str:
        """The shell command with which a job sends its login to the test."""
        return HAND_OVER.format(port=self._socket.getsockname()[1])

    def login(self, *, of: str = "") -> Login:
        """Return the next login that a job sends. `of`: a job's id, to skip those of other jobs."""
        while True:
            connection, _ = self._socket.accept()
            with connection, connection.makefile() as lines:
                user, password = lines.readline().split()
            if of in user:
                return Login(user, password)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def access(resource: str = "orders-db", action: str = "read", **more: Any) -> dict[str, Any]:
    """Return one access item that delivers a database login."""
    return {"resource": resource, "action": action, "ttl": "5m", "reason": "a test needs it", "deliver": LOGIN, **more}


def spec(script: str = "true", *items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a spec that runs a bash script with these access items (default: one read)."""
    run = {"command": ["bash", "-c", script], "timeout": more.pop("timeout", "2m")}
    fields = {"name": "test", "task": "A test", "environment": "prod", "data_scope": {"tenant": "acme"}, "run": run}
    return {**fields, "access": list(items) if items else [access()], **more}
