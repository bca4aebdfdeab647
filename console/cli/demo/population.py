"""Launches the further jobs of a demo that keeps its servers running, as the shop's people, and remembers which are worth visiting."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx
import psycopg
from psycopg import sql

from console.cli.demo.demo_shop import DemoShop
from console.cli.demo.environment import STATE_TIMEOUT_S, DemoEnvironment, DemoFailed, poll_until
from console.cli.demo.launches import Launch
from console.cli.json_object import Json

CONFIGURATION_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 30.0
TABLE_TIMEOUT_S = 60.0
LOCK_S = 24 * 3600
BACKUP_NAME = "nightly-backup"
"""The application name in pg_stat_activity of the session that keeps one revocation overdue."""


@dataclass
class Population:
    """What the demo has launched, for the guide at its end."""

    demo: DemoEnvironment
    shop: DemoShop
    began: float = field(default_factory=time.monotonic)
    jobs: dict[str, str] = field(default_factory=dict)
    """Ids of the jobs that are worth visiting, by what they demonstrate."""
    requests: dict[str, str] = field(default_factory=dict)
    """Ids of the requests that are worth visiting, by what they demonstrate."""
    launched: list[str] = field(default_factory=list)
    """Ids of all jobs that it launched."""
    backup: int = 0
    """Process id of the session that keeps one revocation overdue."""

    def launch(self, launch: Launch, *, key: str = "") -> str:
        """Launch a job; return its id. `key`: what it demonstrates, if it is worth visiting."""
        options = [word for param in launch.params for word in ("--param", param)]
        arguments = ("job", "run", str(self.shop.folder / "jobs" / f"{launch.job}.yaml"), *options, "--reason", launch.reason)
        job = str(self.demo.run_as(launch.person, *arguments, quiet=True)["id"])
        self.launched.append(job)
        if key:
            self.jobs[key] = job
        return job

    def set_times(self, times: tuple[str, str, str], *, meanwhile: Iterable[Launch] = ()) -> None:
        """Change how long each tier has to decide, and wait until the worker uses it. `meanwhile`: jobs to launch that need no approval."""
        before = poll_until(lambda: self.digests_in_force() or None, within_s=CONFIGURATION_TIMEOUT_S)
        changed = self.shop.set_times(times)
        for launch in meanwhile:
            self.launch(launch)
        if not changed:
            return
        if poll_until(lambda: self.digests_in_force() - (before or set()) or None, within_s=CONFIGURATION_TIMEOUT_S) is None:
            raise DemoFailed(f"the worker has not read {self.shop.folder}/approvals.yaml after {CONFIGURATION_TIMEOUT_S:.0f} s")

    def wait_for_write_request(self, key: str) -> str:
        """Wait until this job waits for people, remember its pending request for write access, and return the request's id."""
        seen = self.demo.wait_for_state(self.jobs[key], "awaiting_approval")
        self.requests[key] = next(item["id"] for item in seen["requests"] if (item["action"], item["state"]) == ("write", "pending"))
        return self.requests[key]

    def wait_for_output(self, job: str) -> None:
        failure = f"{job} has printed nothing after {STATE_TIMEOUT_S:.0f} s"
        self.demo.repeat("job", "logs", job, until=lambda logs: logs["items"], failure=lambda _: failure)

    def wait_for_tier(self, request: str, tier: int) -> None:
        failure = f"{request} has not escalated to tier {tier} after {STATE_TIMEOUT_S:.0f} s"
        self.demo.repeat(
            "request", "show", request, until=lambda seen: (seen["current_tier"] or seen["tier"]) >= tier, failure=lambda _: failure
        )

    def digests_in_force(self) -> frozenset[str]:
        """Return the digests of the configurations that workers use; empty while the console does not know them."""
        try:
            report: Json = httpx.get(f"{self.demo.stack['console']}/readyz", timeout=READY_TIMEOUT_S, trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            return frozenset()
        return frozenset(worker["config_digest"] for worker in report["workers"])


def lock_table(shop_dsn: str, job: str) -> int:
    """Make the revocation of a job overdue: a database session, like that of a backup whose client is gone, locks `report` in its space.

    Return the session's process id. Raises DemoFailed. The job's space cannot be dropped while the lock is held. PostgreSQL keeps the
    session, because it is told not to look for a lost client. The session ends when somebody terminates it, when PostgreSQL
    stops, or after a day. No process of the demo keeps running.
    """
    with psycopg.connect(shop_dsn, application_name=BACKUP_NAME) as session:
        table = sql.Identifier(f"space-{job}", "report")
        name = table.as_string(session)

        def find_table() -> bool | None:
            found = session.execute("SELECT to_regclass(%s)", (name,)).fetchone()
            session.rollback()
            return True if found and found[0] else None

        if poll_until(find_table, within_s=TABLE_TIMEOUT_S) is None:
            raise DemoFailed(f"{job} has not created its table after {TABLE_TIMEOUT_S:.0f} s")
        process = session.info.backend_pid
        # The shop's database ends sessions whose client is gone, and long transactions.
        session.execute("SET LOCAL client_connection_check_interval = 0; SET LOCAL transaction_timeout = 0")
        session.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table))
        session.pgconn.send_query(f"SELECT pg_sleep({LOCK_S})".encode())
        # The client goes away without an answer; the session stays.
        session.pgconn.finish()
        return process
