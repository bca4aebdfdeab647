"""Events of another system: CloudEvents with a Standard Webhooks signature, computed here and not by our own code."""

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
    """Return the event of a new ticket, with changes; None removes a field."""
    whole = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/helpdesk", "type": TYPE, "data": {"id": 4711}, **changes}
    return {name: value for name, value in whole.items() if value is not None}


@dataclass(frozen=True)
class Sender:
    """The helpdesk, with the console's address and the trigger's secret."""

    address: str
    secret: str

    def headers(self, body: bytes, *, delivery: str | None = None, at: int | None = None) -> dict[str, str]:
        """Return the three headers of Standard Webhooks for a body."""
        delivery, at = delivery or f"msg_{uuid.uuid4()}", int(time.time()) if at is None else at
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        mac = hmac.new(key, f"{delivery}.{at}.".encode() + body, hashlib.sha256).digest()
        return {"webhook-id": delivery, "webhook-timestamp": str(at), "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}

    def post(self, body: bytes, headers: dict[str, str], *, trigger: str = "ticket-created") -> httpx.Response:
        """Send a request; return the response."""
        return httpx.post(f"{self.address}/api/v1/triggers/{trigger}", content=body, headers=headers, timeout=180, trust_env=False)

    def send(self, payload: Any, *, trigger: str = "ticket-created", at: int | None = None) -> httpx.Response:
        """Send an event in structured mode."""
        body = json.dumps(payload).encode()
        return self.post(body, {"content-type": CONTENT, **self.headers(body, at=at)}, trigger=trigger)

    def send_binary(self, payload: dict[str, Any], *, delivery: str | None = None) -> httpx.Response:
        """Send an event in binary mode, with the event's id as webhook-id."""
        body = json.dumps(payload["data"]).encode()
        attributes = {f"ce-{name}": value for name, value in payload.items() if name != "data"}
        signed = self.headers(body, delivery=delivery or payload["id"])
        return self.post(body, {"content-type": "application/json", **attributes, **signed})
