"""A person, as the command line acts for one: a login at Vault, signatures with their own key, and the API. Asynchronous."""

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
from worker.stack.stack_file import Stack

# The console closes idle connections after 5 s; a request must not be sent at that moment.
LIMITS = httpx.Limits(max_connections=128, max_keepalive_connections=128, keepalive_expiry=2)


class FreshToken(httpx.Auth):
    """Sends an identity token, and gets a new one every five minutes."""

    def __init__(self, vault: httpx.AsyncClient) -> None:
        self._vault = vault
        self._token, self._fetched_at = "", float("-inf")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add the token to the request."""
        if time.monotonic() - self._fetched_at > 300:
            self._token, self._fetched_at = await identity_token(self._vault), time.monotonic()
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


async def identity_token(vault: httpx.AsyncClient) -> str:
    """Return a new identity token for the console."""
    response = await vault.get("identity/oidc/token/je-console")
    return str(response.raise_for_status().json()["data"]["token"])


@dataclass(frozen=True)
class Human:
    """One person, with clients that are logged in to Vault and to the API."""

    id: str
    vault: httpx.AsyncClient
    api: httpx.AsyncClient

    async def order(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Return a complete signed body for POST /jobs."""
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
        signed = await self._sign(statement)
        return {"id": statement.job, "spec": spec, "bundle": None, "params": {}, "reason": statement.reason, **signed}

    async def launch(self, order: dict[str, Any]) -> str:
        """Post an order and return the job's id."""
        response = await self.api.post("jobs", json=order)
        assert response.status_code == 201, response.text
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
        return await self._sign(statement)

    async def decide(self, request: dict[str, Any], signed: dict[str, Any]) -> None:
        """Post a signed decision."""
        response = await self.api.post(f"requests/{request['id']}/decisions", json=signed, headers={"If-Match": request["digest"]})
        assert response.status_code in {200, 202}, response.text

    async def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a GET."""
        return (await self.api.get(path, params=params)).raise_for_status().json()

    async def follow_events(self, after: int) -> AsyncGenerator[dict[str, Any], None]:
        """Yield every ledger entry after a position, as CloudEvents."""
        async with self.api.stream("GET", "events", params={"after": after}, timeout=None) as response:
            async for line in response.raise_for_status().aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    async def _sign(self, statement: OrderStatement | DecisionStatement) -> dict[str, Any]:
        raw = to_signable(statement)
        content = base64.b64encode(to_canonical_json(raw)).decode()
        response = await self.vault.post(f"transit/sign/je-sign-{self.id}", json={"input": content})
        return {"statement": raw, "signature": response.raise_for_status().json()["data"]["signature"]}


@asynccontextmanager
async def login(stack: Stack, name: str) -> AsyncIterator[Human]:
    """Log a person in for a block, and create their signing key if it is missing."""
    async with (
        httpx.AsyncClient(base_url=f"{stack.vault}/v1/", timeout=60, limits=LIMITS, trust_env=False) as vault,
        httpx.AsyncClient(base_url=f"{stack.console}/api/v1/", auth=FreshToken(vault), timeout=60, limits=LIMITS, trust_env=False) as api,
    ):
        response = await vault.post(f"auth/people/login/{name}", json={"password": stack.users[name].password})
        auth = response.raise_for_status().json()["auth"]
        vault.headers["X-Vault-Token"] = auth["client_token"]
        (await vault.post(f"transit/keys/je-sign-{auth['entity_id']}", json={"type": "ed25519"})).raise_for_status()
        yield Human(auth["entity_id"], vault, api)
