"""People who log in to Vault, sign with their own keys and call the API, as the command line does."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from justenough.domain.approvals.statements import (
    DecisionStatement,
    DelegationStatement,
    OrderStatement,
    ReviewStatement,
    Statement,
    to_signable,
)
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState
from tests.support.plain_http import NO_TLS
from tests.support.wait import pause, until
from worker.stack.stack_file import Stack

ENDED = tuple(state.value for state in JobState if state.ended)
ACCEPTED_STATUSES = {200, 202}
"""The console accepted a decision: 200, it counts; 202, the worker has not confirmed it yet, so a test of its effect must wait."""


REFRESH_S, VALID_S = 300, 600
"""Seconds after which a person's identity token is replaced, and for which it is certainly valid: Vault's role gives it 15 minutes."""


class FreshToken(httpx.Auth):
    """Sends an identity token. Gets a new one every five minutes, and keeps a valid one while Vault is away."""

    def __init__(self, vault: httpx.Client) -> None:
        self._vault = vault
        self._token, self._fetched_at = "", float("-inf")

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        age = time.monotonic() - self._fetched_at
        if age > REFRESH_S:
            with suppress(httpx.HTTPError) if age < VALID_S else nullcontext():
                self._token = self._vault.get("identity/oidc/token/je-console").raise_for_status().json()["data"]["token"]
                self._fetched_at = time.monotonic()
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


@dataclass(frozen=True)
class Human:
    """One person, with clients that are logged in to Vault and to the API."""

    name: str
    id: str
    vault: httpx.Client
    api: httpx.Client

    def sign(self, statement: Statement) -> dict[str, Any]:
        """Return {statement, signature} as it is sent."""
        raw = to_signable(statement)
        content = base64.b64encode(to_canonical_json(raw)).decode()
        response = self.vault.post(f"transit/sign/je-sign-{self.id}", json={"input": content}).raise_for_status().json()
        return {"statement": raw, "signature": response["data"]["signature"]}

    def order(self, spec: dict[str, Any], *, job: str | None = None, **changes: Any) -> dict[str, Any]:
        """Return a complete signed body for POST /jobs; `changes` go into the statement."""
        now = datetime.now(UTC).replace(microsecond=0)
        job = job or new_job_id("dev", now=datetime.now(UTC))
        fields: dict[str, Any] = {
            "job": job,
            "spec_digest": digest_of(spec),
            "bundle": None,
            "params": {},
            "reason": "a test",
            "person": self.id,
            "issued_at": now,
            "expires_at": now + timedelta(hours=12),
        }
        statement = OrderStatement(**{**fields, **changes})
        body = {"id": job, "spec": spec, "bundle": statement.bundle, "params": dict(statement.params), "reason": statement.reason}
        return {**body, **self.sign(statement)}

    def launch(self, spec: dict[str, Any], **changes: Any) -> str:
        """Launch a job and return its id. Try again while its target cannot be revoked, as until the sweep after an outage."""
        order, began = self.order(spec, **changes), time.monotonic()
        while (response := self.api.post("jobs", json=order)).status_code == 503 and time.monotonic() < began + 180:
            pause(since=began)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        """Return a job as the API shows it."""
        shown: dict[str, Any] = self.api.get(f"jobs/{job}").raise_for_status().json()
        return shown

    def until(self, job: str, *states: str, within: float = 180) -> dict[str, Any]:
        """Return the job once it is in one of these states (default: ended). Fails after `within` seconds."""
        began, expected = time.monotonic(), states or ENDED
        while True:
            shown = self.job(job)
            if shown["state"] in expected:
                return shown
            assert shown["state"] not in ENDED, f"{job} ended {shown['state']} ({shown['reason']}), not {expected}"
            assert time.monotonic() < began + within, f"{job} is {shown['state']}, not {expected}: {shown['revocation']}"
            pause(since=began)

    def ledger(self, job: str) -> list[dict[str, Any]]:
        """Return the job's ledger entries in order."""
        items: list[dict[str, Any]] = self.api.get(f"jobs/{job}/timeline", params={"limit": 1000}).raise_for_status().json()["items"]
        return items

    def output(self, job: str) -> str:
        """Return what a job has printed, however it was cut into chunks."""
        items = self.api.get(f"jobs/{job}/logs", params={"limit": 1000}).raise_for_status().json()["items"]
        return "".join(item["text"] for item in items)

    def decision(self, request: dict[str, Any], decision: str = "approve", **changes: Any) -> dict[str, Any]:
        """Return a signed decision about a request as the API shows it; `changes` go into the statement."""
        now = datetime.now(UTC).replace(microsecond=0)
        fields: dict[str, Any] = {
            "job": request["job_id"],
            "request": request["id"],
            "digest": request["digest"],
            "decision": decision,
            "ttl": request["ttl"],
            "action": request["action"],
            "reason": "it is needed",
            "person": self.id,
            "issued_at": now,
            "expires_at": now + timedelta(hours=1),
        }
        return self.sign(DecisionStatement(**{**fields, **changes}))

    def authorize(self, request: dict[str, Any]) -> httpx.Response:
        """Authorize a locked request in Vault, with its control group's accessor."""
        return self.vault.post("sys/control-group/authorize", json={"accessor": request["lock"]["accessor"]})

    def answer(self, request: dict[str, Any], decision: str = "approve", **changes: Any) -> httpx.Response:
        """Post a decision about a request. Approving a locked request authorizes it in Vault first, as the command line does."""
        if decision == "approve" and request.get("lock"):
            self.authorize(request)
        return self.answer_unauthorized(request, decision, **changes)

    def answer_unauthorized(self, request: dict[str, Any], decision: str = "approve", **changes: Any) -> httpx.Response:
        """Post a decision about a request, without authorizing it in Vault."""
        signed = self.decision(request, decision, **changes)
        return self.api.post(f"requests/{request['id']}/decisions", json=signed, headers={"If-Match": request["digest"]})

    def decide(self, request: dict[str, Any], decision: str = "approve", **changes: Any) -> None:
        """Post a decision about a request and wait until it is recorded."""

        def count_decisions() -> int:
            return [entry["type"] for entry in self.ledger(request["job_id"])].count("approval.decided")

        before = count_decisions()
        assert self.answer(request, decision, **changes).status_code in ACCEPTED_STATUSES
        until(lambda: count_decisions() > before, f"the decision of {self.name} is recorded")

    def review(self, request: dict[str, Any], verdict: str = "justified", **changes: Any) -> httpx.Response:
        """Post a review of a break-glass approval."""
        return self.api.post(f"requests/{request['id']}/review", json=self.review_body(request, verdict, **changes))

    def review_body(self, request: dict[str, Any], verdict: str = "justified", **changes: Any) -> dict[str, Any]:
        """Return a signed review of a break-glass approval."""
        now = datetime.now(UTC).replace(microsecond=0)
        about = {"job": request["job_id"], "request": request["id"], "digest": request["digest"], "verdict": verdict, "reason": "seen"}
        signer = {"person": self.id, "issued_at": now, "expires_at": now + timedelta(hours=1)}
        return self.sign(ReviewStatement.model_validate({**about, **signer, **changes}))

    def delegate(self, delegate: str, **changes: Any) -> httpx.Response:
        """Name a delegate (entity id) for an hour."""
        return self.api.post("delegations", json=self.delegation(delegate, **changes))

    def delegation(self, delegate: str, **changes: Any) -> dict[str, Any]:
        """Return a signed delegation."""
        now = datetime.now(UTC).replace(microsecond=0)
        fields = {"delegate": delegate, "reason": "away", "person": self.id, "issued_at": now, "expires_at": now + timedelta(hours=1)}
        return self.sign(DelegationStatement.model_validate({**fields, **changes}))


@contextmanager
def log_in(
    stack: Stack, name: str, password: str | None = None, *, namespace: str = "", verify: ssl.SSLContext = NO_TLS
) -> Iterator[Human]:
    """Log a person in for a block, and create their signing key if it is missing. `verify`: how to trust Vault."""
    headers = {"X-Vault-Namespace": namespace} if namespace else {}
    # If two threads share a client, one may close an expired idle connection that the other has just been given.
    lasting = httpx.Limits(keepalive_expiry=None)
    clients: dict[str, Any] = {"timeout": 60, "trust_env": False, "limits": lasting}
    with (
        httpx.Client(base_url=f"{stack.vault}/v1/", headers=headers, verify=verify, **clients) as vault,
        httpx.Client(base_url=f"{stack.console}/api/v1/", auth=FreshToken(vault), verify=NO_TLS, **clients) as api,
    ):
        body = {"password": password or stack.users[name].password}
        auth = vault.post(f"auth/people/login/{name}", json=body).raise_for_status().json()["auth"]
        vault.headers["X-Vault-Token"] = auth["client_token"]
        vault.post(f"transit/keys/je-sign-{auth['entity_id']}", json={"type": "ed25519"}).raise_for_status()
        yield Human(name, auth["entity_id"], vault, api)
