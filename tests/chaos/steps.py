"""Brings many jobs to their steps at once, and measures how long their logins work after a fault."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.rig import Rig
from tests.chaos.vault_gate import Hold
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop, Witness, access, spec

PAUSE = 0.5
"""Seconds between two attempts of all logins: each makes the database start a process."""
CREDS = r"/v1/database/creds/"
LEASES = r"/v1/sys/leases/revoke/"
ROLE = r"/v1/auth/token/roles/je-job-"
LEASH_SCRIPT = 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf "%s %s\\n" "$PGUSER" "$PGPASSWORD" >&3; read -r -u 3; exit 0'


@dataclass(eq=False)
class Stage:
    """Jobs on the way to their steps; `until_ready` waits until each has reached its step."""

    rig: Rig
    shop: Shop
    ops: Human
    lead: Human
    witness: Witness
    logins: dict[str, Login] = field(default_factory=dict)
    """The login of each job that has one."""
    _login_due: set[str] = field(default_factory=set)
    _short_lived: set[str] = field(default_factory=set)
    _guarded: list[str] = field(default_factory=list)
    _holds: list[Hold] = field(default_factory=list)

    def waiting(self) -> str:
        """Bring a job to the step where it needs an approval."""
        job = self.ops.launch(spec("true", access(action="write")))
        self.ops.until(job, "awaiting_approval")
        return job

    def issuing(self) -> str:
        """Bring a job to the step where Vault has its request for a credential and has not answered."""
        return self._launch_held(CREDS, "GET", spec("sleep 300"))

    def running(self, **more: Any) -> str:
        """Bring a job to the step where its process runs with a login."""
        return self._expect_login(self.ops.launch(spec(f"{self.witness.hand_over}; sleep 300", **more)))

    def ending(self, **more: Any) -> str:
        """Bring a job to the step where its process has ended by itself."""
        job = self.ops.launch(spec(self.witness.hand_over, **more))
        self._short_lived.add(job)
        return self._expect_login(job)

    def breaking(self) -> str:
        """Bring a job to the step where its workflow hits a bug while it handles the session's result; needs a worker with that bug."""
        return self.ending(name="bug-outcome")

    def revoking(self, *items: dict[str, Any]) -> str:
        """Bring a job to the step where its process has ended and its lease is about to be revoked."""
        return self._expect_login(self._launch_held(LEASES, "PUT", spec(self.witness.hand_over, *items)))

    def guarded(self) -> str:
        """Bring a job to the step where its process runs with an approved login."""
        return self._approve_later(self.ops.launch(spec(f"{self.witness.hand_over}; sleep 300", access(action="write"))))

    def guarded_revoking(self) -> str:
        """Bring an approved job to the step where its lease is about to be revoked."""
        return self._approve_later(self.revoking(access(action="write")))

    def until_ready(self) -> None:
        """Wait until each job is at its step and each login that must last until the fault has worked."""
        for job in self._guarded:
            self._approve(job)
        self._guarded.clear()
        while missing := self._login_due - set(self.logins):
            login = self.witness.login()
            job = next(job for job in missing if job in login.user)
            self.logins[job] = login
            assert job in self._short_lived or self.shop.can_log_in(login)
        for hold in self._holds:
            hold.until_held()
        self._holds.clear()

    def logins_of(self, jobs: set[str]) -> dict[str, Login]:
        """Return the logins of those of these jobs that have one."""
        return {job: login for job, login in self.logins.items() if job in jobs}

    def _launch_held(self, path: str, method: str, job_spec: dict[str, Any]) -> str:
        order = self.ops.order(job_spec)
        self._holds.append(self.rig.gate.hold(path, method=method, job=order["id"]))
        assert self.ops.api.post("jobs", json=order).status_code == 201
        return str(order["id"])

    def _expect_login(self, job: str) -> str:
        self._login_due.add(job)
        return job

    def _approve_later(self, job: str) -> str:
        self._guarded.append(job)
        return self._expect_login(job)

    def _approve(self, job: str) -> None:
        request = self.ops.until(job, "awaiting_approval")["requests"][0]
        assert self.lead.answer(request).status_code in ACCEPTED_STATUSES


@contextmanager
def set_stage(rig: Rig, shop: Shop, ops: Human, lead: Human) -> Iterator[Stage]:
    """Yield a stage for a block."""
    with closing(Witness()) as witness:
        yield Stage(rig, shop, ops, lead, witness)


@contextmanager
def launch_leashed(ops: Human, shop: Shop) -> Iterator[tuple[str, Login]]:
    """Run a job whose process hands its login over and ends by itself, with 0, at the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(180)
        job = ops.launch(spec(LEASH_SCRIPT.format(port=server.getsockname()[1]), timeout="10m"))
        connection, _ = server.accept()
        with connection, connection.makefile() as lines:
            login = Login(*lines.readline().split())
            assert shop.can_log_in(login)
            yield job, login


def exposures(shop: Shop, logins: dict[str, Login], *, since: dict[str, float], within: float = 180) -> dict[str, float]:
    """Return for each job the seconds from `since` (monotonic) until its login was refused; fail where one still works after `within`."""
    seen = dict[str, float]()
    while left := {job: login for job, login in logins.items() if job not in seen}:
        for job, login in left.items():
            open_ = shop.can_log_in(login)
            lasted = time.monotonic() - since[job]
            assert lasted < within or not open_, f"the login of {job} still works after {within:.0f} s"
            if not open_:
                seen[job] = lasted
        time.sleep(PAUSE)
    return seen
