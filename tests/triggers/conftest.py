"""The session's whole stack, and the helpdesk that sends events to it."""

from __future__ import annotations

import pytest

from tests.support.shop import Shop
from tests.triggers.event_sender import Sender


@pytest.fixture(scope="session")
def helpdesk(shop: Shop) -> Sender:
    """Return the sender with the secret that `vault setup` created."""
    with shop.admin() as vault:
        kept = vault.get("kv/data/je/triggers/ticket-created").raise_for_status().json()["data"]["data"]
    return Sender(str(shop.stack.console), kept["secret"])
