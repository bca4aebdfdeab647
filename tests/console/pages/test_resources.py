"""The page of a resource: who has and had access, who asked and decided, what nobody needs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from console.services.resources import MAX_CREDENTIALS, MAX_REQUESTS_PER_ACTION
from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import EventType, build_event
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_access(records: Desk, *, over: bool = False, requester: str = "e-ops", **changes: Any) -> str:
    """Record a job that has, or had, write access to a resource that a person approved."""
    job, now = records.record_job(requester=requester, requester_name="ops"), datetime.now(UTC)
    events = [
        samples.access_request(job, at=now, **changes),
        samples.access_decision("needs_approval", job, tier=1, at=now),
        samples.approval_decision("approved", job, person="lead", at=now),
        samples.issuance(job, at=now, expires_at=now + timedelta(minutes=10), resource=changes.get("resource", "orders-db")),
    ]
    records.store.ledger.append([*events, *([samples.credential_confirmation(job, at=now)] if over else [])])
    return job


async def test_a_resource_page_shows_who_has_and_had_access_and_who_decided(records: Desk) -> None:
    lead = await records.log_in()
    now, past = (
        record_access(records, resource="refunds-db", action="read"),
        record_access(records, resource="refunds-db", action="read", over=True),
    )
    page = await load_page(lead, "/resources/refunds-db")
    has, _, had = page.text.partition("What can be requested")
    assert "write refund-triage ops" in has
    assert "Other actions cannot be requested." in had
    assert "lead approved" in had
    assert page.links.index(f"/credentials/{part_id(now, 'c')}") < page.links.index(f"/credentials/{part_id(past, 'c')}")
    assert {f"/inbox/{part_id(job, 'r')}" for job in (now, past)} <= set(page.links)
    assert "2 of 2 granted" in page.text
    assert "/catalog/policies#" in " ".join(page.links)


async def test_a_resource_with_much_active_access_is_not_said_to_have_been_used_by_nobody(records: Desk) -> None:
    lead, _ = await records.log_in(), record_access(records, over=True)
    for _ in range(MAX_CREDENTIALS):
        record_access(records)
    page = await load_page(lead, "/resources/orders-db")
    assert "Nobody has had access yet." not in page.text
    assert "/credentials?show=all&resource=orders-db" in page.links


async def test_a_withdrawn_approval_is_not_shown_as_one_that_stands(records: Desk) -> None:
    lead, job = await records.log_in(), record_access(records, over=True)
    who = {"request": part_id(job, "r"), "person": "e-lead", "name": "lead", "reason": "no longer needed", "signed": None}
    about = f"{part_id(job, 'r')}/lead/withdrawn"
    records.store.ledger.append(
        [build_event(EventType.APPROVAL_WITHDRAWN, job, at=datetime.now(UTC), about=about, verdict="withdrawn", **who)]
    )
    assert "lead approved, then withdrew it" in (await load_page(lead, "/resources/orders-db")).text


async def test_access_that_nothing_can_revoke_is_listed_after_its_job_ended(records: Desk) -> None:
    lead = await records.log_in()
    job, now = records.record_job(), datetime.now(UTC)
    kept = samples.credential_event(EventType.CREDENTIAL_RESIDUAL, job, at=now, until=None, why="its owner must change it")
    issued = samples.issuance(job, at=now, resource="refunds-db", action="read", revocable="never")
    records.store.ledger.append([issued, samples.revocation_start(job, at=now), kept, samples.revocation_proof(job, at=now)])
    has, _, rest = (await load_page(lead, "/resources/refunds-db")).text.partition("What can be requested")
    assert re.search(r"read refund-triage ops still valid .* valid until its owner changes it", has), has
    assert "Nobody has access now." not in has
    assert "Nobody has had access yet." in rest
    for path in ("/credentials", "/now"):
        page = await load_page(lead, path)
        assert "1 more that cannot be revoked is still valid: show" in page.text, path
        assert any(link.startswith("/credentials?state=residual") for link in page.links), path
    assert "still valid: show" not in (await load_page(lead, "/credentials?resource=orders-db")).text


async def test_access_that_nothing_can_revoke_is_listed_however_much_newer_access_ends_by_itself(records: Desk) -> None:
    lead, now = await records.log_in(), datetime.now(UTC)
    ends = now + timedelta(minutes=10)

    def leave(revocable: str, until: str | None) -> str:
        job = records.record_job()
        left = samples.credential_event(EventType.CREDENTIAL_RESIDUAL, job, at=now, until=until, why="nothing revokes it early")
        issued = samples.issuance(job, at=now, expires_at=ends, resource="refunds-db", action="read", revocable=revocable)
        records.store.ledger.append([issued, samples.revocation_start(job, at=now), left, samples.revocation_proof(job, at=now)])
        return job

    endless = leave("never", None)
    for _ in range(MAX_CREDENTIALS):
        leave("on_expiry", ends.isoformat())
    page = await load_page(lead, "/resources/refunds-db")
    assert f"/credentials/{part_id(endless, 'c')}" in page.links
    assert "valid until its owner changes it" in page.text


async def test_a_resource_page_names_actions_that_nobody_requested(records: Desk) -> None:
    auditor = await records.log_in("auditor")
    page = await load_page(auditor, "/resources/refunds-db")
    assert "Nobody has access now." in page.text
    assert "in 90 days: consider removing" in page.text


async def test_a_launcher_sees_access_of_their_own_jobs_only(records: Desk) -> None:
    ops = await records.log_in("ops")
    own, other = record_access(records, requester=await records.id_of(ops)), record_access(records, requester="e-else")
    page = await load_page(ops, "/resources/orders-db")
    assert f"/credentials/{part_id(own, 'c')}" in page.links
    assert not [link for link in page.links if other[2:] in link]
    assert "90 days" not in page.text


async def test_a_launcher_sees_older_access_of_their_own_jobs_however_much_others_have(records: Desk) -> None:
    ops = await records.log_in("ops")
    mine = await records.id_of(ops)
    oldest = record_access(records, requester=mine)
    for _ in range(MAX_REQUESTS_PER_ACTION):
        record_access(records, requester="e-else")
    own = oldest, record_access(records, requester=mine)
    page = await load_page(ops, "/resources/orders-db")
    assert {f"/{kind}/{part_id(job, name)}" for job in own for kind, name in (("credentials", "c"), ("inbox", "r"))} <= set(page.links)


async def test_a_removed_resource_is_shown_to_those_who_may_read_of_it(records: Desk) -> None:
    lead, ops = await records.log_in(), await records.log_in("ops")
    record_access(records, resource="removed-db", requester="e-else")
    assert "The catalog no longer has this resource." in (await load_page(lead, "/resources/removed-db")).text
    assert "There is no resource removed-db." in (await load_page(ops, "/resources/removed-db", status=404)).text
    await load_page(lead, "/resources/%3Cscript%3E", status=404)
    assert (await (await records.log_in("outsider")).open("/resources/orders-db")).status_code == 403


async def test_untrusted_text_about_a_resource_is_shown_as_text(records: Desk) -> None:
    record_access(records, resource=HOSTILE)
    record_access(records, title=HOSTILE, reason=HOSTILE)
    await load_page(await records.log_in(), "/resources/orders-db")
