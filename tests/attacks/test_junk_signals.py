"""Junk signals from a stranger keep no workflow or session from serving people's requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.common import RawValue

from justenough.services.count_answers import MAX_REJECTIONS_RECORDED
from tests.attacks.intruder import Intruder, encrypted_junk, entry_data
from tests.support.people import Human
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

JUNK_ANSWERS = 520
JUNK_REVOCATIONS = 110


def flood(intruder: Intruder, job: str, name: str, payloads: list[Any]) -> None:
    """Send one signal for each payload."""

    async def send() -> None:
        handle = intruder.client.get_workflow_handle(job)
        for start in range(0, len(payloads), 50):
            await asyncio.gather(*(handle.signal(name, payload) for payload in payloads[start : start + 50]))

    intruder.run_async(send())


def test_answers_and_revocations_still_count_after_a_flood_of_junk(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness
) -> None:
    write = access("orders-db", "write")
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300", write))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    # Half of them are encrypted, each with a key that Vault never made.
    flood(intruder, job, "decide", [{"junk": number} if number % 2 else RawValue(encrypted_junk()) for number in range(JUNK_ANSWERS)])
    assert lead.answer(request).status_code in {200, 202}
    ops.until(job, "running")
    login = witness.login()
    assert shop.can_log_in(login)

    flood(intruder, job, "revoke_credential", [f"c{job[1:]}-{number}" for number in range(2, JUNK_REVOCATIONS)])
    (credential,) = ops.job(job)["credentials"]
    assert ops.api.post(f"credentials/{credential['id']}/revoke").status_code in {200, 202}
    until(lambda: not shop.can_log_in(login), "its login fails")
    assert ops.job(job)["state"] == "running"
    # The session revoked it, not the sweep, which would notice later.
    recorded = until(lambda: entry_data(auditor, job, "credential.revoked"), "the revocation is recorded")
    assert [entry["by"] for entry in recorded] == ["session"]
    ops.api.post(f"jobs/{job}/kill")
    ops.until(job)
    # A stranger fills the ledger only so far.
    assert len(entry_data(auditor, job, "approval.rejected")) == MAX_REJECTIONS_RECORDED
