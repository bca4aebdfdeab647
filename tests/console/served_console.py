"""People who log in and sign for real, and a console that uvicorn serves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import httpx
import uvicorn
from temporalio.client import Client

from console import app
from console.services.console import Console
from console.temporal.schedule_sync import ScheduleSync
from justenough.adapters.runtime.http_protocol import HttpProtocolWithDeadlines
from justenough.adapters.store import Store
from justenough.domain.approvals.statements import DecisionStatement, OrderStatement, Statement, to_signable
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.ids import credential_id, new_job_id, request_id
from justenough.domain.jobs.spec import Access, at_start
from justenough.domain.jobs.states import Action
from justenough.domain.tools.call import ToolCall, access_for_call
from justenough.services.evaluate_request import compute_request_digest
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.adapters.store import event_samples as samples
from tests.support.plain_http import NO_TLS
from worker.stack.stack_file import Stack

SHOP = Path(__file__).resolve().parents[2] / "examples" / "shop"
DIGEST = "sha256:" + "d" * 64
SPEC: dict[str, Any] = {
    "name": "refund-triage",
    "task": "Refund ticket 4711",
    "environment": "prod",
    "data_scope": {"tenant": "acme"},
    "params": {"ticket": "4711"},
    "run": {"command": ["python", "-c", "print('{ticket}')"]},
    "access": [{"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look up the order"}],
}
REFUND_WRITE = {"resource": "refunds-db", "title": "Refunds", "action": "write", "ttl": 300}


@dataclass(frozen=True)
class Human:
    """A person with their own login at Vault."""

    name: str
    id: str
    vault: str
    token: str

    def _vault(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = httpx.request(
            method, f"{self.vault}/v1/{path}", json=body, headers={"X-Vault-Token": self.token}, timeout=60, trust_env=False, verify=NO_TLS
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    @property
    def bearer(self) -> dict[str, str]:
        """The headers that show a fresh identity token."""
        token = self._vault("GET", "identity/oidc/token/je-console")["data"]["token"]
        return {"Authorization": f"Bearer {token}"}

    def sign(self, statement: Statement) -> dict[str, Any]:
        raw = to_signable(statement)
        content = base64.b64encode(to_canonical_json(raw)).decode()
        answer = self._vault("POST", f"transit/sign/je-sign-{self.id}", {"input": content})
        return {"statement": raw, "signature": answer["data"]["signature"]}

    def order(self, spec: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """A whole, signed body for POST /jobs. `changes` go into the statement alone, except id, params, bundle and reason."""
        now = datetime.now(UTC)
        body: dict[str, Any] = {
            "id": changes.pop("id", None) or new_job_id("dev", now=now),
            "spec": SPEC if spec is None else spec,
            "bundle": changes.pop("bundle", None),
            "params": changes.pop("params", {}),
            "reason": changes.pop("reason", "because"),
        }
        fields = {
            "job": body["id"],
            "spec_digest": digest_of(body["spec"]),
            "bundle": body["bundle"],
            "params": body["params"],
            "reason": body["reason"],
            "person": self.id,
            "issued_at": now,
            "expires_at": now + timedelta(minutes=10),
        }
        return body | self.sign(OrderStatement.model_validate(fields | changes))

    def decision(self, request: dict[str, Any], changes: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """A signed body for POST /requests/{id}/decisions. `changes` go into the statement."""
        now = datetime.now(UTC)
        fields = {
            "job": request["job_id"],
            "request": request["id"],
            "digest": request["digest"],
            "decision": "approve",
            "ttl": request["ttl"],
            "action": Action(request["action"]),
            "reason": "the customer is right",
            "person": self.id,
            "issued_at": now,
            "expires_at": now + timedelta(minutes=10),
        }
        return self.sign(DecisionStatement.model_validate({**fields, **changes}))


def log_in(stack: Stack, name: str, password: str) -> Human:
    """Log a person in, and see that they have a key to sign with."""
    assert stack.vault
    answer = httpx.post(f"{stack.vault}/v1/auth/people/login/{name}", json={"password": password}, trust_env=False, verify=NO_TLS)
    answer.raise_for_status()
    auth = answer.json()["auth"]
    human = Human(name=name, id=auth["entity_id"], vault=stack.vault, token=auth["client_token"])
    human._vault("POST", f"transit/keys/je-sign-{human.id}", {"type": "ed25519"})
    return human


@dataclass(frozen=True)
class Served:
    """A console that serves, a client without a token, and the parts behind it."""

    http: httpx.AsyncClient
    console: Console
    temporal: Client
    stack: Stack
    people: dict[str, Human]

    @property
    def store(self) -> Store:
        return self.console.deps.store

    async def get(self, path: str, who: str, **options: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1{path}", headers=self.people[who].bearer | options.pop("headers", {}), **options)

    async def post(self, path: str, who: str, body: object = None, **options: Any) -> httpx.Response:
        headers = self.people[who].bearer | options.pop("headers", {})
        return await self.http.post(f"/api/v1{path}", json=body, headers=headers, **options)

    async def launch(self, spec: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """A job that ops launched."""
        answer = await self.post("/jobs", "ops", self.people["ops"].order(spec, **changes))
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def record_request(
        self,
        job: str,
        *,
        number: int = 1,
        tier: int = 1,
        quorum: int = 1,
        minutes: int = 15,
        policies: Sequence[str] = ("write-at-tier-1",),
        digest: str = "",
        **changes: Any,
    ) -> dict[str, Any]:
        """Record a pending request of a job, as the worker would; return it. `minutes`: how long its tier has to decide."""
        now, asked = datetime.now(UTC), {**REFUND_WRITE, **changes}
        digest = digest or self.request_digest(job, number, asked, tier=tier)
        decision: dict[str, Any] = {"policies": policies, "policy_digest": DIGEST, "digest": digest, "facts": {}}
        self.store.ledger.append(
            [
                samples.access_request(job, number=number, at=now, **asked),
                samples.access_decision("needs_approval", job, number=number, tier=tier, at=now, **decision),
                samples.approval_opening(job, number=number, tier=tier, at=now, respond_by=now + timedelta(minutes=minutes), quorum=quorum),
            ]
        )
        found = self.store.requests.get(request_id(job, number))
        assert found is not None
        return found.model_dump(mode="json")

    def request_digest(self, job: str, number: int, asked: Mapping[str, Any], *, tier: int) -> str:
        """Return the digest that approvers sign; any digest if the console does not know the job's order."""
        deps, order = self.console.deps, self.store.jobs.order(job)
        verified = verify_order(deps, order, now=deps.now()) if order else None
        if order is None or not isinstance(verified, VerifiedOrder):
            return DIGEST
        access = dict(at_start(verified.spec)).get(number)
        if access is None:
            terms = {name: asked[name] for name in ("resource", "action", "ttl", "tools") if name in asked}
            access, call = Access(reason=asked.get("reason", "because"), at="request", **terms), asked.get("call")
            access = access_for_call(access, ToolCall.model_validate(call)) if call else access
        return compute_request_digest(deps, verified, access, bundle=order.bundle, tier=tier)

    async def launch_and_request(self, **changes: Any) -> dict[str, Any]:
        """Return a pending request, as the API does, of a job that ops launches. `changes`: as in `record_request`."""
        request = self.record_request((await self.launch())["id"], **changes)
        found: dict[str, Any] = (await self.get(f"/requests/{request['id']}", "auditor")).json()
        return found

    def record_answer(
        self,
        request: dict[str, Any],
        who: str,
        *,
        verdict: str = "approved",
        absent: str | None = None,
        signed: Mapping[str, Any] = samples.SIGNED,
    ) -> None:
        """Record an answer as the worker would once it has counted it."""
        answer = samples.approval_decision(
            verdict,
            request["job_id"],
            number=number_of(request),
            person=who,
            person_id=self.people[who].id,
            tier=request["current_tier"],
            decision="deny" if verdict == "denied" else "approve",
            at=datetime.now(UTC),
            ttl=request["ttl"],
            action=request["action"],
            absent=absent,
            absent_id=self.people[absent].id if absent else None,
            signed=signed,
        )
        self.store.ledger.append([answer])

    def issue(self, job: str) -> str:
        """Record a credential as a session would; return its id."""
        now = datetime.now(UTC)
        self.store.ledger.append([samples.issuance(job, at=now, resource="refunds-db", expires_at=now + timedelta(minutes=5))])
        return credential_id(job, 1)

    def end(self, job: str, state: str = "succeeded") -> None:
        """Record a job's end as the worker would."""
        self.store.ledger.append([samples.job_end(state, job, at=datetime.now(UTC))])

    async def signals(self, job: str) -> list[tuple[str, list[Any]]]:
        """The signals that Temporal holds for a job, with their arguments."""
        history = await self.temporal.get_workflow_handle(job).fetch_history()
        found = []
        for item in history.events:
            if item.HasField("workflow_execution_signaled_event_attributes"):
                signal = item.workflow_execution_signaled_event_attributes
                found.append((signal.signal_name, await self.temporal.data_converter.decode(signal.input.payloads)))
        return found


def number_of(request: Mapping[str, Any]) -> int:
    """Return which request of its job it is, from its id."""
    return int(request["id"].rpartition("-")[2])


async def idle(*_: object) -> None:
    """Do nothing until cancelled."""
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def serve_console(console: Console) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a console that uvicorn serves on a free port."""
    server = uvicorn.Server(
        uvicorn.Config(
            app.create_app(console),
            port=0,
            http=HttpProtocolWithDeadlines,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )
    # Checkpoints and jobs of schedules while tests run would be events that no test caused. And most tests serve a console of their own: a
    # worker of Temporal in each, and a look into Temporal for every pending job, took a third of their time. Tests of these do this work
    # themselves.
    with contextlib.ExitStack() as patched:
        for owner, name in ((app, "run_checkpoints"), (app, "run_occasions"), (app, "run_reconciler"), (ScheduleSync, "run")):
            patched.enter_context(mock.patch.object(owner, name, idle))
        task = asyncio.create_task(server.serve())
        while not server.started:
            assert not task.done(), task
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=NO_TLS) as http:
            yield http
    finally:
        server.should_exit = True
        await task
