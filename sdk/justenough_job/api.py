"""Asking the job's broker: for access, for an identity, for what can be asked for. Acquiring and releasing stand on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from justenough_job.broker import BrokerClient
from justenough_job.credential import Credential
from justenough_job.errors import Denied, Failed, Pending
from justenough_job.types import Identity, Offer, ToolOffer, moment_of, offer_of, seconds_of, tool_of

NO_REASON = "the job gives no reason"
MAX_WAIT_S = 50.0
"""Seconds of one call that waits for people; the broker takes up to a minute."""
MIN_POLL_INTERVAL_S = 1.0
"""Seconds between two such calls."""


@contextmanager
def access(
    resource: str, action: str, *, reason: str = NO_REASON, ttl: str | int | None = None, wait: str | float | None = None
) -> Iterator[Credential]:
    """Hold a credential for the length of a block; it is dead when the block has ended, however it did.

    `reason` is what approvers and the ledger read. `ttl` (`"5m"`, or seconds): the order's, else five minutes, never more than the
    catalog's. `wait` (the same): how long to wait for people where they are asked; until they have answered, unless you say. Blocks.

    Raises Denied, Pending, Invalid, NotIssued, Closed, Unavailable, OutsideJob. A credential that cannot be given back is a warning, NotReleased.
    """
    credential = ask(resource, action, reason=reason, ttl=ttl, wait=wait)
    try:
        yield credential
    finally:
        credential.release_or_warn()


def ask(
    resource: str, action: str, *, reason: str = NO_REASON, ttl: str | int | None = None, wait: str | float | None = None
) -> Credential:
    """Return a credential that lives until you release it, its ttl, or the job's end. As `access` in all else."""
    wish = AccessRequest.build(resource, action, reason=reason, ttl=ttl)
    end = None if wait is None else time.monotonic() + seconds_of(wait)
    while True:
        found = wish.send()
        if isinstance(found, Credential):
            return found
        wish.wait_for_answer(found, end=end)


def identity(audience: str) -> Identity:
    """Return a token that proves to one audience which job this is. Raises Denied for an audience that the catalog does not name for it, Invalid
    for one that is none, Closed, Unavailable, OutsideJob.
    """
    _, told = BrokerClient.from_environment().call("GET", f"/v1/identity?{urlencode({'audience': audience})}")
    return Identity(told["token"], moment_of(told["expires_at"]))


def catalog() -> tuple[Offer, ...]:
    """Return what this job may ask for, and what policy would say now. Raises Closed, Unavailable, OutsideJob."""
    _, told = BrokerClient.from_environment().call("GET", "/v1/catalog")
    return tuple(map(offer_of, told["items"]))


def tools() -> tuple[ToolOffer, ...]:
    """Return the tools that this job may have used for it, and what policy would say of a call now. Raises Closed, Unavailable, OutsideJob."""
    _, told = BrokerClient.from_environment().call("GET", "/v1/catalog")
    return tuple(map(tool_of, told.get("tools", ())))


def use(tool: str, **arguments: Any) -> str:
    """Have a tool used, and return what it answers; blocks while people are asked, for up to ten minutes.

    Raises Failed with what is told instead (a denial, a wrong argument, an error of the tool's), Closed, Unavailable, OutsideJob.
    """
    meta = {"progressToken": tool}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments, "_meta": meta}}
    told = BrokerClient.from_environment().post("/mcp", asked)
    if "error" in told:
        raise Failed(str(told["error"].get("message", "")))
    text = "\n".join(str(one.get("text", "")) for one in told["result"].get("content", ()))
    if told["result"].get("isError"):
        raise Failed(text)
    return text


@dataclass(frozen=True)
class UnansweredRequest:
    """A request that people must answer."""

    request_id: str
    tier: int
    respond_by: str | None


@dataclass(frozen=True)
class AccessRequest:
    """One action on one resource that this job wants, as often as it takes."""

    broker: BrokerClient
    body: dict[str, Any]

    @classmethod
    def build(cls, resource: str, action: str, *, reason: str, ttl: str | int | None) -> AccessRequest:
        """Return a wish to this job's broker; raise OutsideJob."""
        body = {"resource": resource, "action": action, "reason": reason, **({} if ttl is None else {"ttl": ttl})}
        return cls(BrokerClient.from_environment(), body)

    def send(self) -> Credential | UnansweredRequest:
        """Ask, without waiting for people."""
        status, told = self.broker.call("POST", "/v1/access", self.body)
        if status == 202:
            return UnansweredRequest(told["request_id"], told["tier"], told["respond_by"])
        # Approvers may have allowed less than was asked for.
        resource, action, until = self.body["resource"], told["action"], moment_of(told["expires_at"])
        names = {"id": told["credential_id"], "request_id": told["request_id"]}
        return Credential(self.broker, told["data"], resource=resource, action=action, expires_at=until, **names)

    def wait_for_answer(self, request: UnansweredRequest, *, end: float | None) -> None:
        """Return once people have approved; raise Denied where they have not, Pending where `end` (monotonic) has come."""
        where = f"/v1/requests/{quote(request.request_id, safe='')}"
        what = f"{self.body['action']} on {self.body['resource']}"
        while True:
            left = MAX_WAIT_S if end is None else min(MAX_WAIT_S, max(0.0, end - time.monotonic()))
            began = time.monotonic()
            _, told = self.broker.call("GET", f"{where}?wait={left:.3f}", wait=left)
            state = told["state"]
            if state == "approved":
                return
            if state != "pending":
                raise Denied(f"{what}: the request is {state}", outcome=state, request_id=request.request_id)
            if end is not None and time.monotonic() >= end:
                message = f"{what} waits for people of tier {told['tier']} ({request.request_id})"
                raise Pending(message, request_id=request.request_id, tier=told["tier"], respond_by=told["respond_by"])
            # Where very many of a job's calls wait, the broker answers the others at once.
            time.sleep(max(0.0, min(MIN_POLL_INTERVAL_S, left) - (time.monotonic() - began)))
