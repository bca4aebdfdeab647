"""Each server is killed (SIGKILL) while jobs stand at every step, and started again: jobs go on or end truthfully, and nothing stays alive.

The worker is the same all the time and its own login at Vault lives for seconds, so that it also runs out while Vault is away.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.chaos.consistency import assert_one_outcome
from tests.chaos.job_latch import Latch, hold_jobs
from tests.chaos.rig import Rig, Worker
from tests.support.people import Human
from tests.support.shop import Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

SERVERS = ("temporal", "vault", "postgres")
STEPS = ("waiting", "asked", "answered", "running", "revoking")
CREDS = r"/v1/database/creds/orders-read-acme"
LOGIN_LIVES, AWAY = 2, 3
"""Seconds. The worker's login runs out while Vault is away."""
WORKER_ROLE = "auth/approle/role/je-worker"


@dataclass
class ServerCourse:
    """The test of one server: a job at each step when it was killed."""

    jobs: dict[str, str] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    went_on: bool = False
    """Whether the running job's login worked, and its process ran, after the server was back."""
    answers: list[int] = field(default_factory=list)
    """The console's responses to the approver's decision, which was repeated until it was accepted."""
    worker_logins: set[str] = field(default_factory=set)
    """The worker's logins at Vault when the server was killed."""


@dataclass
class ServerStage:
    """Shared by the tests of all servers."""

    rig: Rig
    ops: Human
    lead: Human
    shop: Shop
    witness: Witness
    latches: ExitStack


@pytest.fixture(scope="module")
def worker(rig: Rig, shop: Shop) -> Iterator[Worker]:
    """One worker, whose Vault login has a TTL of seconds."""
    for other in rig.workers:
        other.kill()
    with shorten_logins(shop):
        worker = rig.start()
        yield worker
        worker.kill()


@contextmanager
def shorten_logins(shop: Shop) -> Iterator[None]:
    """Give the worker's logins a TTL of seconds, renewable or not."""
    with shop.admin() as vault:
        before = vault.get(WORKER_ROLE).raise_for_status().json()["data"]
        vault.post(WORKER_ROLE, json={"token_period": LOGIN_LIVES, "token_ttl": LOGIN_LIVES}).raise_for_status()
        try:
            yield
        finally:
            vault.post(WORKER_ROLE, json={name: before[name] for name in ("token_period", "token_ttl")}).raise_for_status()


@pytest.fixture(scope="module")
def struck(rig: Rig, ops: Human, lead: Human, shop: Shop, worker: Worker) -> Iterator[dict[str, ServerCourse]]:
    """Kill each server in turn, with its own jobs at each step; return all of them once the last server is back."""
    with closing(Witness()) as witness, ExitStack() as latches:
        stage = ServerStage(rig, ops, lead, shop, witness, latches)
        yield {server: strike_server(stage, server) for server in SERVERS}
        assert worker.alive


def strike_server(stage: ServerStage, server: str) -> ServerCourse:
    course, rig, held = ServerCourse(), stage.rig, stage.latches.enter_context(hold_jobs())
    launch_steps(stage, course, held)
    request = stage.ops.job(course.jobs["waiting"])["requests"][0]
    # The decision is signed before the outage, because signing needs Vault; only sending it is tested here.
    signed = stage.lead.decision(request)
    course.worker_logins = worker_logins(stage.shop)
    with ThreadPoolExecutor(1) as pool:
        with rig.take_down(server, away=AWAY):
            # Requests in flight reach a server that is away.
            rig.gate.release_all()
            answering = pool.submit(repeat_decision, stage.lead, request, signed)
        course.answers = answering.result()
    login = course.logins["running"]
    until(lambda: stage.shop.can_log_in(login), f"{server} is back, and the running job's access works")
    course.went_on = stage.ops.job(course.jobs["running"])["state"] == "running"
    held.open()
    return course


def launch_steps(stage: ServerStage, course: ServerCourse, held: Latch) -> None:
    """Bring a job to each step."""
    rig, ops, witness = stage.rig, stage.ops, stage.witness
    course.jobs["waiting"] = ops.launch(spec("true", access(action="write")))
    course.jobs["running"] = ops.launch(spec(f"{witness.hand_over}; {held.wait}"))
    course.logins["running"] = witness.login()
    course.jobs["revoking"] = launch_held_job(rig, ops, "/v1/sys/leases/revoke-prefix/", witness.hand_over, method="PUT")
    course.logins["revoking"] = witness.login()
    course.jobs["asked"] = launch_held_job(rig, ops, CREDS)
    course.jobs["answered"] = launch_held_job(rig, ops, CREDS, answer=True)
    ops.until(course.jobs["waiting"], "awaiting_approval")


def launch_held_job(rig: Rig, ops: Human, path: str, script: str = "true", *, method: str = "GET", answer: bool = False) -> str:
    """Launch a job that stops at a request to Vault."""
    order = ops.order(spec(script))
    hold = rig.gate.hold(path, method=method, job=order["id"], answer=answer)
    assert ops.api.post("jobs", json=order).status_code == 201
    hold.until_held()
    return str(order["id"])


def worker_logins(shop: Shop) -> set[str]:
    """Return the accessors of this worker's valid logins: those with a TTL of seconds."""
    with shop.admin() as vault:
        listed = vault.request("LIST", "auth/token/accessors").raise_for_status().json()["data"]["keys"]
        found = {key: vault.post("auth/token/lookup-accessor", json={"accessor": key}) for key in listed}
    # A token that ended between the two calls is not alive.
    alive = {key: answer.json()["data"] for key, answer in found.items() if answer.is_success}
    return {key for key, data in alive.items() if "je-worker" in data["policies"] and data.get("period") == LOGIN_LIVES}


def repeat_decision(lead: Human, request: dict[str, Any], signed: dict[str, Any]) -> list[int]:
    """Repeat a decision until it is accepted, like a person who is told that a server is unavailable."""
    said: list[int] = []

    def taken() -> bool:
        answer = send_decision(lead, request, signed)
        said.append(answer.status_code)
        return answer.status_code < 300

    until(taken, "the answer is taken")
    return said


def send_decision(lead: Human, request: dict[str, Any], signed: dict[str, Any]) -> httpx.Response:
    return lead.api.post(f"requests/{request['id']}/decisions", json=signed, headers={"If-Match": request["digest"]})


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("step", STEPS)
def test_a_server_killed_at_any_step_leaves_one_true_ending_and_no_access(
    struck: dict[str, ServerCourse], server: str, step: str, rig: Rig, ops: Human, shop: Shop
) -> None:
    job = struck[server].jobs[step]
    ops.until(job)
    seen = assert_one_outcome(ops, shop, job, *rig.gate.logins(job))
    if seen["state"] == "failed":
        # Only what had been given nothing yet may fail, and it says why. Vault may have issued something whose user nobody could look for.
        looking = server == "postgres" and step in {"asked", "answered"} and bool(seen["credentials"])
        assert looking or (server in {"vault", "postgres"}, step in {"waiting", "asked"}, seen["credentials"]) == (True, True, [])
        assert seen["reason"].startswith("TargetDown: " if looking else "VaultUnavailable: "), seen["reason"]
    else:
        assert (seen["state"], seen["exit_code"]) == ("succeeded", 0)


@pytest.mark.parametrize("server", SERVERS)
def test_a_running_job_continues_while_a_server_is_unavailable(struck: dict[str, ServerCourse], server: str, ops: Human) -> None:
    course = struck[server]
    assert course.went_on
    seen = ops.until(course.jobs["running"])
    assert (seen["state"], seen["exit_code"]) == ("succeeded", 0)


@pytest.mark.parametrize("server", SERVERS)
def test_a_decision_accepted_while_a_server_is_unavailable_counts_once(struck: dict[str, ServerCourse], server: str, ops: Human) -> None:
    course = struck[server]
    seen = ops.until(course.jobs["waiting"])
    counted = [entry["data"]["decision"] for entry in ops.ledger(seen["id"]) if entry["type"] == "approval.decided"]
    assert counted == ["approve"]
    # Each decision that was not accepted was answered with 503.
    assert set(course.answers[:-1]) <= {503}


def test_a_worker_logs_in_again_by_itself_after_vault_was_away(
    struck: dict[str, ServerCourse], worker: Worker, ops: Human, shop: Shop
) -> None:
    before = struck["vault"].worker_logins
    assert before
    assert not before & worker_logins(shop), "its login ran out while Vault was away"
    assert worker.alive
    assert ops.until(ops.launch(spec()))["state"] == "succeeded"
