"""The page of a person: what they launched, decided and delegated; only for themselves and for those who may read everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, Event, EventType, build_event
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def delegation(name: str, person: str) -> Event:
    at = datetime.now(UTC)
    who = {"delegation": f"d-{person}", "person": person, "name": name, "delegate": "e-lead", "delegate_name": "lead"}
    terms = {"until": (at + timedelta(hours=1)).isoformat(), "reason": "away", "signed": samples.SIGNED}
    return build_event(EventType.DELEGATION_MADE, UNATTRIBUTED_CHAIN, at=at, about=f"d-{person}", **who, **terms)


def index(records: Desk) -> None:
    while not records.store.search.index().is_complete:
        pass


async def test_a_person_is_shown_with_their_groups_jobs_and_decisions(records: Desk) -> None:
    lead, ops = await records.log_in(), await records.log_in("ops")
    mine = await records.id_of(lead)
    job = records.record_job(requester=await records.id_of(ops), requester_name="ops")
    answers = [("approved", "approve", 1), ("denied", "deny", 2), ("approved", "break_glass", 3)]
    for verdict, decision, number in answers:
        answer = samples.approval_decision(verdict, job, number=number, person="lead", person_id=mine, decision=decision)
        records.store.ledger.append([samples.access_request(job, number=number), answer])
    index(records)
    page = await load_page(lead, "/people/lead")
    assert "Groups: support-leads · decides up to" in page.text
    assert "1 approved, 1 denied, 1 by break-glass" in page.text
    assert {f"/inbox/{part_id(job, 'r', number)}" for number in (1, 2, 3)} <= set(page.links)
    assert "No jobs launched." in page.text
    other = await load_page(lead, "/people/ops")
    assert f"/jobs/{job}" in other.links
    assert "No decisions." in other.text


async def test_a_login_name_with_a_slash_has_a_page(records: Desk) -> None:
    auditor = await records.log_in("auditor")
    job = records.record_job(requester="e-ada", requester_name="corp/ada")
    index(records)
    for path in ("/people/corp/ada", "/people/corp%2Fada"):
        assert f"/jobs/{job}" in (await load_page(auditor, path)).links


async def test_others_see_only_themselves(records: Desk) -> None:
    ops, mallory, auditor = [await records.log_in(name) for name in ("ops", "mallory", "auditor")]
    job = records.record_job(requester=await records.id_of(ops), requester_name="ops")
    # This job is of somebody who had the same login name before.
    former = records.record_job(requester="e-former", requester_name="ops")
    index(records)
    page = await load_page(ops, "/people/ops")
    assert (f"/jobs/{job}" in page.links, f"/jobs/{former}" in page.links) == (True, False)
    assert {f"/jobs/{job}", f"/jobs/{former}"} <= set((await load_page(auditor, "/people/ops")).links)
    assert "There is no person ops" in (await load_page(mallory, "/people/ops", status=404)).text
    assert "No jobs launched." in (await load_page(mallory, "/people/mallory")).text
    await load_page(auditor, "/people/nobody-at-all", status=404)
    await load_page(auditor, "/people/%3Cscript%3E", status=404)


async def test_a_launchers_own_decisions_are_shown_only_on_jobs_that_they_may_read(records: Desk) -> None:
    ops, auditor = await records.log_in("ops"), await records.log_in("auditor")
    # Of the time when they could decide, and of somebody who had the same login name then.
    jobs = {person: records.record_job(requester="e-eve", requester_name="eve") for person in (await records.id_of(ops), "e-former")}
    for person, job in jobs.items():
        answer = samples.approval_decision("approved", job, person="ops", person_id=person)
        records.store.ledger.append([samples.access_request(job), answer, delegation("ops", person)])
    index(records)
    requests = {f"/inbox/{part_id(job, 'r')}" for job in jobs.values()}
    page = await load_page(ops, "/people/ops")
    assert not requests & {*page.links, *(await load_page(ops, "/inbox?show=answers")).links}
    assert page.text.count("ops → lead") == 1
    page = await load_page(auditor, "/people/ops")
    assert requests <= set(page.links)
    assert page.text.count("ops → lead") == 2


async def test_a_person_whom_vault_does_not_know_still_has_a_record(records: Desk) -> None:
    auditor, job = await records.log_in("auditor"), records.record_job(requester="e-gone", requester_name="departed", task=HOSTILE)
    index(records)
    page = await load_page(auditor, "/people/departed")
    assert "Vault does not know this person now" in page.text
    assert f"/jobs/{job}" in page.links
