"""A receiver that wants nothing any more, and that the stack's console tells of jobs: whatever it is sent is a dead letter at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.canned_server import Answering, answering
from tests.support.people import Human
from tests.support.wait import until

SECRET = "kv/data/je/triggers/ticket-created"


@contextmanager
def deaf(config: Path, auditor: Human, name: str) -> Iterator[Answering]:
    """Have the console tell it, by a webhook of that name, for the length of a block. Dead letters outlive it: each who counts them has a name of their own."""
    file = config / "triggers.yaml"
    before = file.read_text()
    with answering() as found:
        found.says(410, {})
        url = f"{found.address}/hooks"
        hook = {"name": name, "url": url, "events": ["job.submitted"], "signing_secret": SECRET, "allow_private": True}
        file.write_text(f"{before}\nwebhooks: [{json.dumps(hook)}]\n")
        try:
            # An earlier one of the name may still be there, at another address.
            told = [[url]]
            until(
                lambda: [item["to"] for item in _listed(auditor) if item["name"] == name and item["state"] != "new"] == told,
                f"{name} is told",
            )
            yield found
        finally:
            file.write_text(before)


def _listed(auditor: Human) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = auditor.api.get("webhooks").raise_for_status().json()["items"]
    return items
