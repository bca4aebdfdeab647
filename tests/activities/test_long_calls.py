"""Calls with long arguments: other jobs are not affected, and a call that takes long to examine does not prolong its own job's access."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
import rfc8785

from activities.broker import Broker, ToolGateway
from activities.issuing.lease_keeper import LeaseKeeper
from activities.session import session as sessions
from justenough.domain.contracts.workflow_messages import SessionInput, SessionResult
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.states import JobState
from justenough.services.job_history import read_job_history
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.issuing_session import Session, start_session
from tests.activities.vault_shop import Desk, Shop

pytestmark = pytest.mark.servers
READ: dict[str, Any] = {"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "a test"}
LONG: dict[str, Any] = {"numbers": [0.5] * 7_000}
"""As long as arguments may be, and of many values."""


def add_tool(catalog: dict[str, Any]) -> None:
    """Add a tool that sends its arguments to a server which does not listen."""
    request = {"url": "https://127.0.0.1:65000/x", "method": "POST", "json": {"numbers": "{numbers}"}, "allow_private": True}
    arguments = {"type": "object", "properties": {"numbers": {"type": "array", "items": {"type": "number"}}}}
    uses = {"resource": "orders-db", "action": "read"}
    catalog["tools"]["send-numbers"] = {"description": "Send numbers", "uses": uses, "input": arguments, "http": request}


async def nobody(*_: Any, **__: Any) -> None:
    """Nobody is notified or told."""


def broker_of(session: Session) -> tuple[Broker, LeaseKeeper]:
    keeper = LeaseKeeper(session.at.deps, session.job, session.issuer)
    broker = Broker(session.at.deps, session.verified, session.issuer, keeper, Redactor([]), owner="owner", notify_workflow=nobody)
    return broker, keeper


def test_long_arguments_are_examined_and_recorded_outside_the_event_loop(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    to_bytes = rfc8785.dumps

    def note_thread(value: Any) -> bytes:
        written = to_bytes(value)
        if len(written) > 20_000:
            threads.append(threading.get_ident())
        return written

    async def call(session: Session) -> str:
        broker, keeper = broker_of(session)
        gateway = ToolGateway(session.at.deps, session.verified, session.issuer, broker)
        answer = await gateway.call("send-numbers", LONG, report_progress=nobody, max_wait=60)
        await keeper.close()
        return answer.text

    with open_changed_desk(shop, tmp_path, add_tool) as at:
        session = start_session(at, READ)
        monkeypatch.setattr(rfc8785, "dumps", note_thread)
        assert "the upstream does not answer" in asyncio.run(call(session))
        (called,) = (entry for entry in at.deps.store.ledger.entries(job=session.job).items if entry.type == "tool.called")
        assert called.data["outcome"] == "failed"
        session.end()
    # The arguments, their digest in the ledger, and the request that was sent.
    assert len(threads) >= 3
    assert threading.get_ident() not in threads


def test_a_call_that_takes_long_to_examine_does_not_prolong_its_jobs_access(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session, examining, over = start_session(at, READ), threading.Event(), threading.Event()
    logins: list[bool] = []

    def hang() -> None:
        examining.set()
        # Stands for a validation that does not end while the login works.
        assert over.wait(120)

    class Working(sessions.JobSession):
        """Has issued a login, and its process ends while a call is examined."""

        async def _work(self) -> SessionResult:
            issued = await asyncio.to_thread(self._issuer.issue, session.granted)
            fields = {name: value.reveal() for name, value in issued.fields.items()}
            broker, _ = broker_of(session)
            call = asyncio.create_task(broker.run_in_thread(hang))
            assert await asyncio.to_thread(examining.wait, 120)
            watching = asyncio.create_task(asyncio.to_thread(watch_login, fields))
            broker.close()
            self._work_over.set()
            await broker.drain()
            await asyncio.gather(call, return_exceptions=True)
            await watching
            return SessionResult(outcome=JobState.SUCCEEDED)

    def watch_login(fields: dict[str, str]) -> None:
        """Let the call end once the login is refused."""
        while not over.is_set():
            try:
                psycopg.connect(at.shop.superuser, user=fields["username"], password=fields["password"], connect_timeout=60).close()
                logins.append(True)
            except psycopg.OperationalError:
                logins.append(False)
                over.set()

    order = SessionInput(order=session.order, granted=(session.granted,))
    history = read_job_history(at.deps.store.ledger, session.job)
    working = Working(at.deps, cast("Any", None), order, session.verified, history, owner="owner", run="run", notify_workflow=nobody)
    result = asyncio.run(working.run())
    assert logins[0], "the login worked"
    assert not logins[-1]
    assert (result.outcome, result.clean) == (JobState.SUCCEEDED, True)
