"""A person at work, as the command line is: a login at Vault, signatures with their own key, and the API. Asynchronous, for many at once."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from justenough.domain.approvals.statements import DecisionStatement, OrderStatement, to_signable
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.ids import new_job_id
from worker.stack import Stack

# The console lets go of idle connections after 5 s; a request must not meet that moment.
LIMITS = httpx.Limits(max_connections=128, max_keepalive_connections=128, keepalive_expiry=2)


class FreshToken(httpx.Auth):
    """Shows an identity token, a new one every few minutes."""

    def __init__(self, vault: httpx.AsyncClient) -> None:
        self._vault = vault
        self._token, self._drawn = "", float("-inf")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Put it into the request."""
        if time.monotonic() - self._drawn > 300:
            answer = await self._vault.get("identity/oidc/token/je-console")
            self._token, self._drawn = answer.raise_for_status().json()["data"]["token"], time.monotonic()
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


@dataclass(frozen=True)
class Human:
    """One person: a login at Vault, and the API as they see it."""

    id: str
    vault: httpx.AsyncClient
    api: httpx.AsyncClient

    async def order(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Return a whole signed body for POST /jobs."""
        now = datetime.now(UTC)
        statement = OrderStatement(
            job=new_job_id("dev", now=now),
            spec_digest=digest_of(spec),
            bundle=None,
            params={},
            reason="a measurement",
            person=self.id,
            issued_at=now,
            expires_at=now + timedelta(hours=1),
        )
        signed = await self._signed(statement)
        return {"id": statement.job, "spec": spec, "bundle": None, "params": {}, "reason": statement.reason, **signed}

    async def launch(self, order: dict[str, Any]) -> str:
        """Post an order and return the job's id."""
        answer = await self.api.post("jobs", json=order)
        assert answer.status_code == 201, answer.text
        return str(order["id"])

    async def approval(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a signed approval of a request as the API shows it."""
        now = datetime.now(UTC)
        statement = DecisionStatement(
            job=request["job_id"],
            request=request["id"],
            digest=request["digest"],
            decision="approve",
            ttl=request["ttl"],
            action=request["action"],
            reason="it is measured",
            person=self.id,
            issued_at=now,
            expires_at=now + timedelta(hours=1),
        )
        return await self._signed(statement)

    async def answer(self, request: dict[str, Any], signed: dict[str, Any]) -> None:
        """Post a signed answer."""
        answer = await self.api.post(f"requests/{request['id']}/decisions", json=signed, headers={"If-Match": request["digest"]})
        assert answer.status_code in {200, 202}, answer.text

    async def get(self, path: str, **params: Any) -> Any:
        """Return what the API shows."""
        return (await self.api.get(path, params=params)).raise_for_status().json()

    async def followed(self, after: int) -> AsyncGenerator[dict[str, Any], None]:
        """Yield every ledger entry after a position, as CloudEvents."""
        async with self.api.stream("GET", "events", params={"after": after}, timeout=None) as answer:
            async for line in answer.raise_for_status().aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    async def _signed(self, statement: OrderStatement | DecisionStatement) -> dict[str, Any]:
        raw = to_signable(statement)
        content = base64.b64encode(to_canonical_json(raw)).decode()
        answer = await self.vault.post(f"transit/sign/je-sign-{self.id}", json={"input": content})
        return {"statement": raw, "signature": answer.raise_for_status().json()["data"]["signature"]}


@asynccontextmanager
async def logged_in(stack: Stack, name: str) -> AsyncIterator[Human]:
    """Log a person in for the length of a block, and make sure that they have a key to sign with."""
    async with (
        httpx.AsyncClient(base_url=f"{stack.vault}/v1/", timeout=60, limits=LIMITS, trust_env=False) as vault,
        httpx.AsyncClient(base_url=f"{stack.console}/api/v1/", auth=FreshToken(vault), timeout=60, limits=LIMITS, trust_env=False) as api,
    ):
        answer = await vault.post(f"auth/people/login/{name}", json={"password": stack.users[name].password})
        login = answer.raise_for_status().json()["auth"]
        vault.headers["X-Vault-Token"] = login["client_token"]
        (await vault.post(f"transit/keys/je-sign-{login['entity_id']}", json={"type": "ed25519"})).raise_for_status()
        yield Human(login["entity_id"], vault, api)
