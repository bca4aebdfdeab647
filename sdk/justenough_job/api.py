"""Calls to the job's broker: access, identity, catalog, tools."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from justenough_job.broker import BrokerClient
from justenough_job.credential import Credential
from justenough_job.errors import Denied, Failed, Invalid, Pending
from justenough_job.types import Identity, Offer, ToolOffer, moment_of, offer_of, seconds_of, tool_of

NO_REASON = "the job gives no reason"
MAX_WAIT_S = 50.0
"""Seconds that one call waits for people; the broker allows up to a minute."""
MIN_POLL_INTERVAL_S = 1.0
"""Minimum seconds between two such calls."""


@contextmanager
def access(
    resource: str, action: str, *, reason: str = NO_REASON, ttl: str | int | None = None, wait: str | float | None = None
) -> Iterator[Credential]:
    """Yield a credential that is revoked when the block ends. Blocks.

    `reason`: for approvers and the ledger. `ttl` (`"5m"`, or seconds): default is the order's ttl, else five minutes, never more than the
    catalog's maximum. `wait` (same format): how long to wait for people if they must approve; default is until they have answered.

    Raises Denied, Pending, Invalid, NotIssued, Closed, Unavailable, OutsideJob. Warns with NotReleased if it cannot be released.
    """
    credential = ask(resource, action, reason=reason, ttl=ttl, wait=wait)
    try:
        yield credential
    finally:
        credential.release_or_warn()


def ask(
    resource: str, action: str, *, reason: str = NO_REASON, ttl: str | int | None = None, wait: str | float | None = None
) -> Credential:
    """Return a credential that is valid until you release it, its ttl has passed, or the job ends. Otherwise like `access`."""
    request = AccessRequest.build(resource, action, reason=reason, ttl=ttl)
    return request.obtain(request.send, wait=wait)


def identity(audience: str) -> Identity:
    """Return a token that proves to one audience which job this is.

    Raises Denied (the catalog does not name the audience for this job), Invalid (not an audience), Closed, Unavailable, OutsideJob.
    """
    _, body = BrokerClient.from_environment().call("GET", f"/v1/identity?{urlencode({'audience': audience})}")
    return Identity(body["token"], moment_of(body["expires_at"]))


def catalog() -> tuple[Offer, ...]:
    """Return what this job may request, and what policy would decide now. Raises Closed, Unavailable, OutsideJob."""
    _, body = BrokerClient.from_environment().call("GET", "/v1/catalog")
    return tuple(map(offer_of, body["items"]))


def tools() -> tuple[ToolOffer, ...]:
    """Return the tools that this job may use, and what policy would decide about a call now. Raises Closed, Unavailable, OutsideJob."""
    _, body = BrokerClient.from_environment().call("GET", "/v1/catalog")
    return tuple(map(tool_of, body.get("tools", ())))


def use(tool: str, /, **arguments: Any) -> str:
    """Call a tool and return its answer. Blocks while people must approve, for up to ten minutes.

    Raises Failed (a denial, a wrong argument or the tool's own error; the message names it), Closed, Unavailable, OutsideJob.
    """
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": tool}}
    answer = BrokerClient.from_environment().post("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    if "error" in answer:
        raise Failed(str(answer["error"].get("message", "")))
    text = "\n".join(str(block.get("text", "")) for block in answer["result"].get("content", ()))
    if answer["result"].get("isError"):
        raise Failed(text)
    return text


@dataclass(frozen=True)
class AccessRequest:
    """A request for one action on one resource. It can be sent repeatedly."""

    broker: BrokerClient
    body: dict[str, Any]

    @classmethod
    def build(cls, resource: str, action: str, *, reason: str, ttl: str | int | None) -> AccessRequest:
        """Return a request to this job's broker. Raises OutsideJob."""
        body = {"resource": resource, "action": action, "reason": reason, **({} if ttl is None else {"ttl": ttl})}
        return cls(BrokerClient.from_environment(), body)

    def send(self) -> Credential | str:
        """Return a credential, or the id of the request that people must answer."""
        status, body = self.broker.call("POST", "/v1/access", self.body)
        if status == 202:
            return str(body["request_id"])
        # Approvers may have granted less than was requested.
        resource, action, until = self.body["resource"], body["action"], moment_of(body["expires_at"])
        ids = {"id": body["credential_id"], "request_id": body["request_id"]}
        return Credential(self.broker, body["data"], resource=resource, action=action, expires_at=until, **ids)

    def obtain(self, send: Callable[[], Credential | str], *, wait: str | float | None) -> Credential:
        """Return the credential, however often people must be asked for it. `send` is this request's, or does more with its answer."""
        end, unknown = None if wait is None else time.monotonic() + seconds_of(wait), ""
        while True:
            answer = send()
            if isinstance(answer, Credential):
                return answer
            try:
                self.wait_for_answer(answer, end=end)
            except Invalid:
                # The broker does not know it any more: a failover of the store lost it. Asked again, the broker makes another one.
                if answer == unknown:
                    raise
                unknown = answer

    def wait_for_answer(self, request_id: str, *, end: float | None) -> None:
        """Return once people have approved. Raises Denied if they have not, Pending at `end` (monotonic time)."""
        path, what = f"/v1/requests/{quote(request_id, safe='')}", f"{self.body['action']} on {self.body['resource']}"
        while True:
            began = time.monotonic()
            # An outage does not end the request, and people may take days, so keep asking.
            _, body = self.broker.call("GET", path, wait=MAX_WAIT_S, until=math.inf if end is None else end)
            state = body["state"]
            if state == "approved":
                return
            if state != "pending":
                raise Denied(f"{what}: the request is {state}", outcome=state, request_id=request_id)
            if end is not None and time.monotonic() >= end:
                message = f"{what} waits for approval at tier {body['tier']} ({request_id})"
                raise Pending(message, request_id=request_id, tier=body["tier"], respond_by=body["respond_by"])
            # If very many of the job's calls wait, the broker answers further ones immediately.
            pause = MIN_POLL_INTERVAL_S if end is None else min(MIN_POLL_INTERVAL_S, end - began)
            time.sleep(max(0.0, pause - (time.monotonic() - began)))
