"""A workflow whose worker cannot unwrap a payload's key, because Vault is sealed, waits for Vault."""

from __future__ import annotations

import pytest

from tests.chaos.administrator import Administrator
from tests.chaos.rig import Rig, Worker
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import access, spec

pytestmark = pytest.mark.servers


def test_a_workflow_with_an_unknown_key_goes_on_once_vault_is_unsealed(
    rig: Rig, worker: Worker, administrator: Administrator, ops: Human, lead: Human
) -> None:
    job = ops.launch(spec("true", access("orders-db", "write")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    with rig.seal_vault():
        administrator.send_unreadable(job)
        administrator.until_task_repeated(job)
    assert lead.answer(request).status_code in ACCEPTED_STATUSES
    ended = ops.until(job)
    assert (ended["state"], ended["revocation"]["state"]) == ("succeeded", "confirmed")
    assert worker.alive
