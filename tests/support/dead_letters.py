"""A webhook receiver that rejects every event of the stack's console with 410, so that each event becomes a dead letter at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.canned_server import CannedServer, serve_canned_answers
from tests.support.people import Human
from tests.support.wait import until

SECRET = "kv/data/je/triggers/ticket-created"


@contextmanager
def reject_events(config: Path, auditor: Human, name: str) -> Iterator[CannedServer]:
    """Configure a webhook of this name whose receiver answers 410, for a block. Dead letters stay, so each test needs a name of its own."""
    file = config / "triggers.yaml"
    before = file.read_text()
    with serve_canned_answers() as receiver:
        receiver.set_response(410, {})
        url = f"{receiver.address}/hooks"
        hook = {"name": name, "url": url, "events": ["job.submitted"], "signing_secret": SECRET, "allow_private": True}
        file.write_text(f"{before}\nwebhooks: [{json.dumps(hook)}]\n")
        try:
            # An earlier webhook of this name may still be listed, with another address.
            until(lambda: _active_urls(auditor, name) == [[url]], f"the console uses the webhook {name}")
            yield receiver
        finally:
            file.write_text(before)


def _active_urls(auditor: Human, name: str) -> list[Any]:
    items = auditor.api.get("webhooks").raise_for_status().json()["items"]
    return [item["to"] for item in items if item["name"] == name and item["state"] != "new"]
