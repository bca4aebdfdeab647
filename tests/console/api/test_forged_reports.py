"""A stranger with access to Temporal answers the console's checks in place of a worker: nothing that a worker did not sign is believed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import httpx
import pytest
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from justenough.adapters.vault import Vault
from justenough.domain.contracts.workflow_messages import ProofReport, SweepReport
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.ids import new_job_id
from justenough.services.dependencies import Deps
from justenough.services.signed_reports import new_nonce, sign_report
from tests.console.served_console import Served

pytestmark = pytest.mark.servers

QUEUE = "justenough-dev"
ACTIVITIES = "of-a-stranger"
"""Another queue: who polls the activities of the workers' counts as a worker for a while."""
AT = datetime.now(UTC).isoformat()


class Thief:
    """What a stranger's workflows answer."""

    prove: ClassVar[Callable[[str, str], Any]]
    sweep: ClassVar[Callable[[str], Any]]


@workflow.defn(name="Prove", sandboxed=False)
class FalseProve:
    @workflow.run
    async def run(self, job: str, nonce: str = "") -> Any:
        return Thief.prove(job, nonce)


@activity.defn(name="fail")
async def fail(why: str) -> None:
    raise ApplicationError(why)


@workflow.defn(name="Sweep", sandboxed=False)
class FalseSweep:
    @workflow.run
    async def run(self, nonce: str = "") -> Any:
        answer = Thief.sweep(nonce)
        if isinstance(answer, ApplicationError):
            within, once = timedelta(seconds=60), RetryPolicy(maximum_attempts=1)
            await workflow.execute_activity(fail, str(answer), task_queue=ACTIVITIES, start_to_close_timeout=within, retry_policy=once)
        return answer


@workflow.defn(name="Squatter", sandboxed=False)
class Squatter:
    @workflow.run
    async def run(self, answer: Any) -> Any:
        await workflow.sleep(2)
        return answer


@pytest.fixture
async def thief(served: Served) -> AsyncIterator[type[Thief]]:
    """A stranger who polls the workers' queue; no worker runs here."""
    async with Worker(served.temporal, task_queue=QUEUE, workflows=[FalseProve, FalseSweep], workflow_runner=UnsandboxedWorkflowRunner()):
        yield Thief


def dead(job: str) -> dict[str, Any]:
    return {"job": job, "dead": True, "revoked": True, "findings": [], "failures": [], "at": AT}


async def both(served: Served, job: str) -> tuple[httpx.Response, httpx.Response]:
    """Ask for a proof and a sweep."""
    return await asyncio.gather(served.post(f"/jobs/{job}/prove", "auditor"), served.post("/sweep", "auditor"))


async def test_why_an_activity_of_a_sweep_failed_is_passed_on(served: Served, thief: type[Thief]) -> None:
    thief.sweep = lambda _: ApplicationError("Vault does not answer")
    async with Worker(served.temporal, task_queue=ACTIVITIES, activities=[fail]):
        answer = await served.post("/sweep", "auditor")
    assert (answer.status_code, answer.json()["detail"]) == (503, "Sweep did not finish: Vault does not answer")


async def test_the_console_does_not_use_the_answer_of_a_workflow_that_a_stranger_started_first(served: Served, thief: type[Thief]) -> None:
    job = (await served.launch())["id"]
    thief.prove, thief.sweep = lambda job, _: dead(job), lambda _: {"looked_at": 7}
    squatted = {f"je-dev-prove-{job}-now": dead(job) | {"failures": ["squatted"]}, "je-dev-sweep-now": {"revoked": ["squatted"]}}
    async with Worker(served.temporal, task_queue="stranger", workflows=[Squatter], workflow_runner=UnsandboxedWorkflowRunner()):
        for name, answer in squatted.items():
            await served.temporal.start_workflow("Squatter", answer, id=name, task_queue="stranger")
        for found in await both(served, job):
            assert "squatted" not in found.text
            assert found.status_code == 503, found.text
            assert "not signed by a worker" in found.json()["detail"]


@pytest.fixture
def worker_deps(served: Served) -> Iterator[Deps]:
    """What a real worker signs with."""
    settings = served.console.deps.settings
    with contextlib.closing(Vault(settings.vault_addr)) as vault:
        vault.login_from_file(settings.worker_approle_file)
        yield dataclasses.replace(served.console.deps, vault=vault)


async def test_only_what_a_worker_signed_for_this_question_is_believed(served: Served, thief: type[Thief], worker_deps: Deps) -> None:
    job, other = (await served.launch())["id"], (await served.launch())["id"]
    proof, swept = ProofReport(job=job, dead=True, revoked=True), SweepReport(looked_at=7)
    foreign = dataclasses.replace(worker_deps, settings=worker_deps.settings.model_copy(update={"installation": "other"}))
    earlier = "0" * 32

    def signed(report: ProofReport | SweepReport, nonce: str, deps: Deps = worker_deps) -> dict[str, Any]:
        seal = sign_report(deps, report, nonce=nonce)
        assert seal
        return {**report.model_dump(mode="json"), "signed": seal.model_dump()}

    def altered(report: ProofReport | SweepReport, nonce: str) -> dict[str, Any]:
        found = signed(report, nonce)
        found["signed"]["payload"] += " "
        return found

    long_version = {"signed": {"payload": "{}", "signature": f"vault:v{'9' * 5000}:AAAA"}}
    lies: list[tuple[str, Callable[[str], Any], Callable[[str], Any]]] = [
        ("not signed", lambda _: None, lambda _: "junk"),
        ("not signed", lambda _: dead(job) | {"signed": {"payload": "{}"}}, lambda _: {"signed": {"payload": "{}", "signature": "x"}}),
        ("is not a worker's", lambda _: long_version, lambda _: long_version),
        ("is not a worker's", lambda nonce: altered(proof, nonce), lambda nonce: altered(swept, nonce)),
        ("another question", lambda _: signed(proof, earlier), lambda _: signed(swept, earlier)),
        ("another question", lambda nonce: signed(swept, nonce), lambda nonce: signed(proof, nonce)),
        ("another question", lambda nonce: signed(proof, nonce, foreign), lambda nonce: signed(swept, nonce, foreign)),
    ]
    for why, prove, sweep in lies:
        thief.prove, thief.sweep = (lambda _, nonce, prove=prove: prove(nonce)), sweep  # type: ignore[misc]
        for found in await both(served, job):
            assert found.status_code == 503, found.text
            assert why in found.json()["detail"]
    thief.prove = lambda _, nonce: signed(proof.model_copy(update={"job": other}), nonce)
    assert "another job" in (await served.post(f"/jobs/{job}/prove", "auditor")).json()["detail"]
    thief.prove, thief.sweep = lambda _, nonce: signed(proof, nonce), lambda nonce: signed(swept, nonce)
    assert [found.json() for found in await both(served, job)] == [proof.model_dump(mode="json"), swept.model_dump(mode="json")]


async def test_a_launcher_gets_only_their_own_jobs_in_the_report_of_a_sweep(served: Served, thief: type[Thief], worker_deps: Deps) -> None:
    job, never = (await served.launch())["id"], new_job_id("dev", now=datetime.now(UTC))
    swept = SweepReport(looked_at=3, revoked=(job,), lost=(job,), unknown=(never,), failures=(f"{job}: target shop: away", "Vault: sealed"))

    def signed(nonce: str) -> dict[str, Any]:
        seal = sign_report(worker_deps, swept, nonce=nonce)
        assert seal
        return {**swept.model_dump(mode="json"), "signed": seal.model_dump()}

    thief.sweep = signed
    told = {who: (await served.post("/sweep", who)).json() for who in ("auditor", "ops", "ops2")}
    assert told["auditor"] == swept.model_dump(mode="json")
    assert told["ops"] == {**told["auditor"], "unknown": []}
    assert told["ops2"] == {**told["auditor"], "revoked": [], "lost": [], "unknown": [], "failures": ["Vault: sealed"]}


def test_the_console_cannot_sign_as_a_worker(served: Served) -> None:
    with pytest.raises(JustEnoughError, match="je-jobs"):
        sign_report(served.console.deps, SweepReport(), nonce=new_nonce())


def test_a_worker_signs_no_report_with_a_malformed_nonce(worker_deps: Deps) -> None:
    for nonce in ("", "0" * 31, "x" * 32, "0" * 33):
        assert sign_report(worker_deps, SweepReport(), nonce=nonce) is None
