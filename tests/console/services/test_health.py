"""Health: which queues are polled, when the last sweep ended, what is overdue; bounded, shared, and without anyone's name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url
from temporalio import activity, workflow
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from console.auth.vault_directory import ConsoleVault
from console.services import health
from console.services.console import build_console
from console.services.health import Check, HealthMonitor
from console.temporal.client import TemporalGateway, TemporalUnavailable
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import StoreUnavailable
from justenough.adapters.vault import Vault, VaultRefused
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.ledger.overdue import MAX_REPORT_AGE
from justenough.domain.readmodel.views import WorkerView
from tests.console.served_console import Served
from tests.support.canned_server import CannedServer, serve_canned_answers
from tests.support.plain_http import NO_TLS
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack

HANGS_S = 60
QUEUE = "justenough-polled"
ENDINGS = f"{QUEUE}-endings"


@workflow.defn(name="Sweep")
class Swept:
    @workflow.run
    async def run(self) -> None:
        """Be over at once."""


@activity.defn
async def nothing() -> None:
    """Stand for what a worker can do."""


@pytest.fixture
def gateway(served: Served) -> TemporalGateway:
    return TemporalGateway(served.temporal, served.console.deps.settings.model_copy(update={"installation": "polled"}))


@pytest.fixture
async def looking(served: Served, gateway: TemporalGateway) -> AsyncIterator[HealthMonitor]:
    assert served.stack.vault
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        yield HealthMonitor(served.console.deps, gateway, client)


async def workers_detail(monitor: HealthMonitor) -> str:
    """Return what the check of workers says; empty if all is well."""
    return next(check.detail for check in (await monitor.report()).checks if check.name == "workers")


async def test_each_queue_that_no_worker_polls_is_named_until_one_does(
    served: Served, looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CACHE_TTL_S", 0)
    assert f"no worker polls {QUEUE}: " in await workers_detail(looking)
    async with AsyncExitStack() as running:
        jobs = Worker(
            served.temporal, task_queue=QUEUE, workflows=[Swept], activities=[nothing], workflow_runner=UnsandboxedWorkflowRunner()
        )
        await running.enter_async_context(jobs)
        while f"no worker polls {QUEUE}: " in (said := await workers_detail(looking)):
            pass  # Each check asks Temporal again.
        assert said.startswith(f"no worker polls {ENDINGS}: ")
        await running.enter_async_context(Worker(served.temporal, task_queue=ENDINGS, activities=[nothing]))
        while said:
            said = await workers_detail(looking)


async def test_a_sweep_is_late_once_no_worker_has_ended_one_for_a_minute(
    served: Served, looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CACHE_TTL_S", 0)
    sweeps = looking._store.sweeps
    assert not (await looking.report()).sweep.late, "the console has just started to look"
    looking._since = datetime.now(UTC) - timedelta(hours=1)
    assert (await looking.report()).sweep.late
    # What Temporal says about sweeps proves nothing, because anybody can answer in a worker's place.
    async with Worker(served.temporal, task_queue=QUEUE, workflows=[Swept], workflow_runner=UnsandboxedWorkflowRunner()):
        await served.temporal.execute_workflow(Swept.run, id="je-polled-sweep", task_queue=QUEUE)
    assert (await looking.report()).sweep.late
    now = datetime.now(UTC)
    sweeps.begin(now=now - timedelta(seconds=31), by_clock=False)
    assert (await looking.report()).sweep.late, "it has not ended"
    sweeps.end(now=now - timedelta(seconds=30))
    sweep = (await looking.report()).sweep
    assert (sweep.late, sweep.by_clock, sweep.last_ended_at) == (False, False, now - timedelta(seconds=30))
    assert sweep.age_seconds is not None
    assert sweep.age_seconds >= 30
    figures = dict(line.rsplit(" ", 1) for line in (await served.http.get("/metrics")).text.splitlines() if "justenough_sweep" in line)
    assert float(figures["justenough_sweep_age_seconds"]) >= 30
    assert float(figures["justenough_sweep_by_clock"]) == 0
    assert sweeps.begin_if_idle(now=now, idle=timedelta(seconds=13))
    sweeps.end(now=now - timedelta(seconds=90))
    sweep = (await looking.report()).sweep
    assert (sweep.late, sweep.by_clock) == (True, True)


async def test_overdue_revocations_are_counted_for_everyone_and_named_only_to_those_who_may_read_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CACHE_TTL_S", 0)
    job = (await served.launch())["id"]
    credential, began = served.issue(job), datetime.now(UTC)
    started = build_event(EventType.REVOCATION_STARTED, job, at=began, about="1", by="session", why="it ended")
    failures = ["target shop: away"]
    told = {"by": "session", "failures": failures, "attempt": 2, "seen_from": datetime.now(UTC).isoformat()}
    failed = build_event(EventType.REVOCATION_OVERDUE, job, at=datetime.now(UTC), about="1-2", **told)
    served.store.ledger.append([started, failed])
    try:
        ready = await served.http.get("/readyz")
        found = ready.json()
        assert (found["overdue_revocations"], found["overdue_credentials"]) == (1, 1)
        assert datetime.fromisoformat(found["overdue_since"]) == began
        assert "\njustenough_credentials_overdue 1.0\n" in (await served.http.get("/metrics")).text
        assert "j-dev-" not in ready.text
        assert "shop" not in ready.text
        mine = (await served.get("/jobs?revocation=overdue", "ops")).json()["items"]
        assert [(item["id"], item["revocation"]["failures"]) for item in mine] == [(job, failures)]
        assert (await served.get("/jobs?revocation=overdue", "ops2")).json()["items"] == []
        assert job not in {item["id"] for item in (await served.get("/jobs?revocation=pending", "ops")).json()["items"]}
        assert (await served.get("/jobs?revocation=none", "ops")).status_code == 422
        assert (await served.get(f"/credentials/{credential}", "ops")).json()["why"] == "target shop: away"
    finally:
        now = datetime.now(UTC)
        dead = build_event(EventType.CREDENTIAL_CONFIRMED, job, at=now, about=credential, credential=credential, how="it is gone")
        served.store.ledger.append([dead, build_event(EventType.REVOCATION_CONFIRMED, job, at=now, about="1", by="session", proof={})])
    # The count is null if a busy machine does not answer in time.
    while (count := (await served.http.get("/readyz")).json()["overdue_revocations"]) != 0:
        assert count is None


@contextlib.contextmanager
def serve_status(status: int) -> Iterator[CannedServer]:
    with serve_canned_answers() as vault:
        vault.set_response(status, {}, "application/json")
        yield vault


@pytest.mark.parametrize(
    "status, said", [(503, "is sealed (bao operator unseal)"), (501, "is not initialised (bao operator init)"), (500, "answered 500")]
)
async def test_a_vault_that_does_not_serve_is_reported(looking: HealthMonitor, status: int, said: str) -> None:
    with serve_status(status) as vault:
        looking._vault = Vault(vault.address)
        checks = {check.name: check for check in (await looking.report()).checks}
    assert (checks["vault"].ok, checks["vault"].detail) == (False, said)


async def check_of(looking: HealthMonitor, name: str) -> Check:
    return next(check for check in (await looking.report()).checks if check.name == name)


@contextlib.contextmanager
def stuck_audit_log(stack: Stack) -> Iterator[None]:
    """Have Vault write its audit log to a pipe that nobody reads, as to a disk that hangs."""
    log = StackPaths(stack.home).vault / "audit.log"
    kept = log.with_suffix(".kept")
    log.rename(kept)
    os.mkfifo(log)
    shutil.chown(log, kept.owner(), kept.group())
    os.kill(stack.pids["vault"], signal.SIGHUP)
    try:
        yield
    finally:
        # The console's end of the pipe opens once somebody reads; then restore its file.
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        kept.rename(log)
        os.kill(stack.pids["vault"], signal.SIGHUP)
        os.close(reader)


async def test_a_vault_that_cannot_write_its_audit_log_is_not_ready_though_it_calls_itself_healthy(
    served: Served, looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CACHE_TTL_S", 0)

    assert (await check_of(looking, "vault")).ok
    with stuck_audit_log(served.stack):
        while (check := await check_of(looking, "vault")).ok:
            pass
        assert check.detail == "no answer in 2 s"
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
            assert (await client.get(f"{served.stack.vault}/v1/sys/health")).status_code == 200
    while not (await check_of(looking, "vault")).ok:
        pass


async def test_a_console_that_nobody_has_used_yet_logs_in_to_vault_to_check_it(served: Served, gateway: TemporalGateway) -> None:
    unused = ConsoleVault(served.console.deps.settings)
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        report = await HealthMonitor(replace(served.console.deps, vault=unused), gateway, client).report()
    unused.close()
    assert [(check.ok, check.detail) for check in report.checks if check.name == "vault"] == [(True, "")]


async def test_a_store_that_takes_no_writes_is_not_ready_though_it_answers_reads(
    served: Served, looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CACHE_TTL_S", 0)

    assert (await check_of(looking, "store")).ok
    file = make_url(served.console.deps.settings.store_url).database
    assert file is not None
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not (await check_of(looking, "store")).ok
        served.store.ping()
        other.execute("ROLLBACK")
    while not (await check_of(looking, "store")).ok:
        pass


async def test_servers_that_hang_do_not_delay_the_report_and_each_check_has_its_own_timeout(
    looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hangs() -> None:
        released.wait(HANGS_S)

    async def hangs_too() -> None:
        await asyncio.sleep(HANGS_S)

    monkeypatch.setattr(looking._store.metrics, "overdue", hangs)
    monkeypatch.setattr(looking._gateway, "ping", hangs_too)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        looking._vault = Vault(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        found = await looking.report()
    assert time.monotonic() - began < HANGS_S
    released.set()
    assert {check.name for check in found.checks if check.detail == "no answer in 2 s"} == {"store", "temporal", "vault"}
    assert found.overdue is None


async def test_a_worker_that_cannot_read_its_configuration_is_an_alarm_of_the_installation(
    served: Served, looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CACHE_TTL_S", 0)
    assert (await looking.report()).config_alarm(None) is None
    now = datetime.now(UTC)
    broken = WorkerView(name="host-7", version="1", config_digest=None, config_alarm="SHOP_PORT is missing", last_seen=now)
    served.store.workers.report(broken)
    report = await looking.report()
    assert report.workers == (broken,)
    assert report.config_alarm(None) == "worker host-7: SHOP_PORT is missing"
    assert report.config_alarm("ours") == "ours\nworker host-7: SHOP_PORT is missing"
    served.store.workers.report(broken.model_copy(update={"last_seen": now - MAX_REPORT_AGE}))
    assert (await looking.report()).workers == ()


async def test_an_unreachable_store_is_reported_and_its_sweep_does_not_count_as_healthy(
    looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise StoreUnavailable("does not answer")

    monkeypatch.setattr(looking._store.sweeps, "last", away)
    assert (await looking.report()).sweep.late


async def test_concurrent_health_requests_share_one_check(looking: HealthMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    ask = looking._gateway.ping

    async def counted() -> None:
        looks.append(1)
        await ask()

    monkeypatch.setattr(looking._gateway, "ping", counted)
    await asyncio.gather(*(looking.report() for _ in range(20)))
    assert len(looks) == 1


@contextlib.contextmanager
def without_payload_key(admin: httpx.Client) -> Iterator[None]:
    """Take the console's right to encrypt with the key of payloads for a block."""
    path = "sys/policies/acl/je-console"
    policy = admin.get(path).raise_for_status().json()["data"]["policy"]
    without = re.sub(r'path "transit/encrypt/je-payloads" \{.*?\n\}\n', "", policy, flags=re.DOTALL)
    assert without != policy
    admin.post(path, json={"policy": without}).raise_for_status()
    try:
        yield
    finally:
        admin.post(path, json={"policy": policy}).raise_for_status()


async def test_a_console_that_may_not_encrypt_what_temporal_gets_is_not_ready(settings: Settings, admin: httpx.Client) -> None:
    with without_payload_key(admin):
        async with build_console(settings) as console:
            (vault,) = (check for check in (await console.health.report()).checks if check.name == "vault")
            with pytest.raises(TemporalUnavailable, match=r"payloads for Temporal cannot be encrypted or decrypted: .*je-payloads"):
                await console.gateway.sweep(nonce="n")
    assert not vault.ok
    assert "Vault does not let the console read or use the key je-payloads; run `justenough vault setup`" in vault.detail


@pytest.mark.parametrize("name, why", [("missing.pem", "No such file"), ("empty.pem", "no certificate")])
async def test_a_console_whose_authorities_cannot_be_read_names_the_file(settings: Settings, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(VaultRefused, match=f"VAULT_CACERT names {tmp_path / name}, which has no certificates in PEM: .*{why}"):
        async with build_console(settings.model_copy(update={"vault_cacert": tmp_path / name})):
            pass


def test_a_console_tells_the_time_by_vaults_clock(served: Served) -> None:
    deps, vaults = served.console.deps, datetime.now(UTC) + timedelta(hours=1)
    deps.vault.clock.note(vaults.timestamp(), sent=deps.vault.clock.steady())
    told = deps.now()
    deps.vault._renew_login()
    assert abs(told - vaults) < timedelta(minutes=5)
    assert abs(deps.now() - datetime.now(UTC)) < timedelta(minutes=5), "looking the login up corrects it"
