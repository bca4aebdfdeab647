"""A worker that is told to stop ends its jobs in order; a console that dies loses no order that it accepted, and no job starts twice."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from temporalio.client import Client

from tests.activities.tcp_door import Door
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import Shop, Witness, spec
from tests.support.wait import until
from worker.stack.environment import own_environment

pytestmark = pytest.mark.servers


@dataclass(frozen=True)
class Console:
    """A console of this test, which nobody restarts, and the door in front of Temporal that it must use."""

    process: subprocess.Popen[bytes]
    url: str
    door: Door


@contextmanager
def run_console(rig: Rig) -> Iterator[Console]:
    """Run one more console for the length of a block."""
    stack = rig.stack
    assert stack.temporal
    port, door = free_port(), Door(int(stack.temporal.rpartition(":")[2]))
    reached = {"temporal_address": f"127.0.0.1:{door.port}", "vault_addr": stack.vault, "console_port": port, "console_url": None}
    environment = own_environment(rig.settings.model_copy(update=reached), {"postgres": rig.postgres.port})
    log = (stack.home / "logs" / "own-console.log").open("wb")
    url = f"http://127.0.0.1:{port}"
    with log, closing(door), subprocess.Popen([sys.executable, "-P", "-m", "console"], env=environment, stdout=log, stderr=log) as process:
        try:
            until(lambda: is_ready(f"{url}/readyz"), "the console is ready and has reached Temporal")
            yield Console(process, url, door)
        finally:
            door.open()
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_ready(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False, timeout=60).status_code == 200
    return False


def send_unheard_order(ops: Human, url: str, order: dict[str, Any]) -> threading.Thread:
    """Send an order to a console that will not live to answer it."""

    def send() -> None:
        with suppress(httpx.HTTPError):
            ops.api.post(f"{url}/api/v1/jobs", json=order)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def orphaned(rig: Rig, ops: Human) -> Iterator[tuple[tuple[dict[str, Any], ...], Console]]:
    """Orders that a console had recorded and was sending to Temporal when it was killed."""
    rig.ensure_worker()
    with run_console(rig) as own:
        # Send a first order, so that the connection for the next ones is established.
        warm = ops.order(spec("true"))
        assert ops.api.post(f"{own.url}/api/v1/jobs", json=warm).status_code == 201
        own.door.hang()
        orders = tuple(ops.order(spec("true")) for _ in range(2))
        sent = [send_unheard_order(ops, own.url, order) for order in orders]
        until(lambda: all(ops.api.get(f"jobs/{order['id']}").status_code == 200 for order in orders), "the orders are recorded")
        own.process.kill()
        own.process.wait(60)
        for thread in sent:
            thread.join(180)
        yield orders, own


def runs_of(rig: Rig, jobs: Sequence[str]) -> list[int]:
    """How many runs Temporal knows of each job."""
    at = rig.stack.temporal
    assert at

    async def counted() -> list[int]:
        client = await Client.connect(at)
        return [(await client.count_workflows(f"WorkflowId = '{job}'")).count for job in jobs]

    return asyncio.run(counted())


def test_a_stopping_worker_drains_even_after_repeated_signals(orphaned: object, rig: Rig, ops: Human, shop: Shop, witness: Witness) -> None:
    worker = rig.ensure_worker()
    scripts = {
        "deaf": f"trap '' TERM; {witness.hand_over}; while :; do sleep 300; done",
        "polite": f"trap 'exit 3' TERM; {witness.hand_over}; sleep 300 & wait",
        "short": f"{witness.hand_over}; sleep 1",
    }
    jobs, logins = {}, []
    for name, script in scripts.items():
        jobs[name] = ops.launch(spec(script))
        logins.append(witness.login())
    with shop.connect(logins[0]) as connection:
        worker.terminate()
        until(lambda: b"worker stops" in worker.log.read_bytes(), "it has heard")
        heard, sign_of_life = time.time(), 0.0
        late = ops.launch(spec("true"))
        while worker.process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGINT):
                worker.process.send_signal(number)
            with suppress(FileNotFoundError):
                sign_of_life = (rig.stack.home / "run" / "worker.alive").stat().st_mtime
            time.sleep(0.05)
        assert sign_of_life > heard + 5, "a supervisor would have killed it as one that hangs"
        assert worker.process.returncode == 0
        assert ops.job(late)["state"] == "pending"
        rig.ensure_worker()
        ended = {name: ops.until(job) for name, job in jobs.items()}
        told = {name: (seen["state"], seen["exit_code"], seen["reason"]) for name, seen in ended.items()}
        assert told == {
            "deaf": ("failed", 137, "worker_stopped"),
            "polite": ("failed", 3, "worker_stopped"),
            "short": ("succeeded", 0, None),
        }
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    for seen in ended.values():
        shop.assert_dead(seen, *logins)
        by = [entry["data"]["by"] for entry in ops.ledger(seen["id"]) if entry["type"] == "revocation.confirmed"]
        assert by == ["session"], "its own worker revoked and proved it before it went"
    assert ops.until(late)["state"] == "succeeded"


def test_an_order_that_a_killed_console_had_accepted_is_started_exactly_once(
    orphaned: tuple[tuple[dict[str, Any], ...], Console], rig: Rig, ops: Human, shop: Shop
) -> None:
    orders, own = orphaned
    rig.ensure_worker()
    jobs = [str(order["id"]) for order in orders]
    for order in orders:
        seen = ops.until(order["id"])
        assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed")
        shop.assert_dead(seen)
    # Now the requests of the dead console arrive after all, and the order's sender sends it again.
    own.door.open()
    until(own.door.is_quiet, "what was on its way has arrived")
    assert [ops.api.post("jobs", json=order).status_code for order in orders] == [200, 200]
    until(lambda: runs_of(rig, jobs) == [1, 1], "Temporal knows one run of each")
    for job in jobs:
        types = [entry["type"] for entry in ops.ledger(job)]
        assert [types.count(once) for once in ("job.submitted", "job.started", "credential.issued", "job.ended")] == [1, 1, 1, 1]
