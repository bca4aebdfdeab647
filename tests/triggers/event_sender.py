"""Events as another system sends them: a CloudEvent, signed as Standard Webhooks says. The signature is made here by hand, not by our own code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

TYPE = "com.example.ticket.created"
CONTENT = "application/cloudevents+json"


def event(**changes: Any) -> dict[str, Any]:
    """A new ticket's event, with changes; one that is None is left out."""
    whole = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/helpdesk", "type": TYPE, "data": {"id": 4711}, **changes}
    return {name: value for name, value in whole.items() if value is not None}


@dataclass(frozen=True)
class Sender:
    """The helpdesk: it knows the console's address and the trigger's secret."""

    address: str
    secret: str

    def headers(self, body: bytes, *, delivery: str | None = None, at: int | None = None) -> dict[str, str]:
        """The three headers of Standard Webhooks for a body."""
        delivery, at = delivery or f"msg_{uuid.uuid4()}", int(time.time()) if at is None else at
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        mac = hmac.new(key, f"{delivery}.{at}.".encode() + body, hashlib.sha256).digest()
        return {"webhook-id": delivery, "webhook-timestamp": str(at), "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}

    def post(self, body: bytes, headers: dict[str, str], *, trigger: str = "ticket-created") -> httpx.Response:
        """Send it."""
        return httpx.post(f"{self.address}/api/v1/triggers/{trigger}", content=body, headers=headers, timeout=180, trust_env=False)

    def send(self, sent: Any, *, trigger: str = "ticket-created", at: int | None = None) -> httpx.Response:
        """Send an event in structured mode."""
        body = json.dumps(sent).encode()
        return self.post(body, {"content-type": CONTENT, **self.headers(body, at=at)}, trigger=trigger)

    def send_binary(self, sent: dict[str, Any], *, delivery: str | None = None) -> httpx.Response:
        """Send an event in binary mode, under a webhook-id that is the event's."""
        body = json.dumps(sent["data"]).encode()
        attributes = {f"ce-{name}": value for name, value in sent.items() if name != "data"}
        signed = self.headers(body, delivery=delivery or sent["id"])
        return self.post(body, {"content-type": "application/json", **attributes, **signed})
