"""A compromised console, whose attacker orders in its name."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from justenough.domain.approvals.statements import OrderStatement, SignedStatement, to_signable
from justenough.domain.contracts.workflow_messages import JobInput, JobResult
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.ids import new_job_id
from tests.support import temporal_client
from tests.support.shop import Shop


class StolenConsole:
    """A compromised console: its credentials, its key and its right to start workflows."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        pair = json.loads((shop.stack.home / "console.approle.json").read_text())
        login = httpx.post(f"{shop.stack.vault}/v1/auth/approle/login", json=pair, trust_env=False).raise_for_status().json()["auth"]
        self.id = login["entity_id"]
        self._token = login["client_token"]

    def vault(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request to Vault with the console's token."""
        headers = {"X-Vault-Token": self._token}
        return httpx.request(method, f"{self._shop.stack.vault}/v1/{path}", json=body, headers=headers, timeout=180, trust_env=False)

    def run_order(self, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Sign an order and start its workflow without the API; return its outcome."""
        now = datetime.now(UTC).replace(microsecond=0)
        job = new_job_id("dev", now=now)
        fields: dict[str, Any] = {"bundle": None, "params": {}, "reason": "", "person": self.id, "origin": "trigger:ticket-created"}
        times = {"issued_at": now, "expires_at": now + timedelta(hours=1)}
        statement = OrderStatement.model_validate({"job": job, "spec_digest": digest_of(spec), **fields, **times, **changes})
        raw = to_signable(statement)
        answer = self.vault("POST", f"transit/sign/je-sign-{self.id}", {"input": base64.b64encode(to_canonical_json(raw)).decode()})
        signed = SignedStatement(statement=raw, signature=answer.raise_for_status().json()["data"]["signature"])
        order = JobInput.of(job, spec, statement.params, statement.bundle, signed)
        return {"job": job, "closed": asyncio.run(self._run(order))}

    async def _run(self, order: JobInput) -> JobResult:
        client = await temporal_client.connect(self._shop.stack)
        # One that is taken after all would wait for its approvers: it must fail here, not hang.
        options: dict[str, Any] = {"task_queue": "justenough-dev", "execution_timeout": timedelta(seconds=20)}
        found: JobResult = await client.execute_workflow("Job", order, id=order.job, result_type=JobResult, **options)
        return found
