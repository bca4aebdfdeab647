"""The credential pages: what they show to whom, and that a revocation reaches Temporal and the ledger."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import EventType
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk, submit_form
from tests.support import temporal_client
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def issue(records: Desk, job: str, *, number: int = 1, **changes: object) -> str:
    """Record a credential of a job that is active for ten minutes."""
    now = datetime.now(UTC)
    records.store.ledger.append([samples.issuance(job, number=number, at=now, expires_at=now + timedelta(minutes=10), **changes)])
    return part_id(job, "c", number)


def confirm_revocation(records: Desk, job: str, *, number: int = 1) -> None:
    """Record that a credential's revocation was verified."""
    records.store.ledger.append([samples.credential_confirmation(job, number=number, at=datetime.now(UTC))])


async def test_the_list_shows_active_credentials_and_all_on_request(records: Desk) -> None:
    lead, job = await records.log_in(), records.record_job()
    alive, dead = issue(records, job, resource="refunds-db"), issue(records, job, number=2)
    confirm_revocation(records, job, number=2)
    page = await load_page(lead, "/credentials")
    assert [link for link in page.links if link.startswith("/credentials/c-")] == [f"/credentials/{alive}"]
    assert "active" in page.text
    both = await load_page(lead, "/credentials?show=all")
    assert {link for link in both.links if link.startswith("/credentials/c-")} == {f"/credentials/{alive}", f"/credentials/{dead}"}
    assert "its lease is gone, its login is gone" in both.text


async def test_a_credential_whose_answer_was_lost_is_not_said_to_have_no_lease(records: Desk) -> None:
    lead, job, now = await records.log_in(), records.record_job(), datetime.now(UTC)
    known: dict[str, Any] = {"request": part_id(job, "r"), "resource": "orders-db", "action": "write", "revocable": "now"}
    times: dict[str, Any] = {"asked_at": now.isoformat(), "expires_at": (now + timedelta(minutes=10)).isoformat()}
    records.store.ledger.append([samples.credential_event(EventType.CREDENTIAL_DOUBTED, job, at=now, **known, **times)])
    page = (await load_page(lead, f"/credentials/{part_id(job, 'c')}")).text
    assert "may have been issued" in page
    assert "Vault lease unknown Vault accessor unknown" in page


async def test_a_credential_shows_its_user_in_the_target(records: Desk) -> None:
    lead, job = await records.log_in(), records.record_job()
    name = issue(records, job, user="v-token-xyz-987654")
    for path in (f"/credentials/{name}", f"/jobs/{job}"):
        assert "v-token-xyz-987654" in (await load_page(lead, path)).text, path


@pytest.mark.parametrize(
    "query,found",
    [
        ("resource=refunds-db", {1}),
        ("action=read", {2}),
        ("state=confirmed", {3}),
        ("state=issued&action=write", {1}),
        ("resource=gone-db", set()),
        ("show=all&resource=orders-db", {2, 3}),
    ],
)
async def test_filters_are_in_the_address(records: Desk, query: str, found: set[int]) -> None:
    lead, job = await records.log_in(), records.record_job()
    issue(records, job, resource="refunds-db")
    issue(records, job, number=2, action="read")
    issue(records, job, number=3)
    confirm_revocation(records, job, number=3)
    page = await load_page(lead, f"/credentials?job={job}&{query}")
    assert {link for link in page.links if link.startswith("/credentials/c-")} == {
        f"/credentials/{part_id(job, 'c', one)}" for one in found
    }
    if not found:
        assert "No credentials match these filters" in page.text


async def test_pages_of_the_list_are_consecutive_and_keep_the_filter(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.pages.credentials.PAGE_SIZE", 2)
    lead, job = await records.log_in(), records.record_job()
    wanted = [issue(records, job, number=number) for number in range(1, 6)]
    found, path = [], f"/credentials?job={job}&action=write"
    while path:
        page = await load_page(lead, path)
        found += [link.removeprefix("/credentials/") for link in page.links if link.startswith("/credentials/c-")]
        (path,) = [f"/credentials{link}" for link in page.links if "cursor=" in link and f"/credentials{link}" != path] or [""]
        assert not path or f"job={job}" in path
    assert found == wanted[::-1]


async def test_an_unknown_filter_value_is_rejected(records: Desk) -> None:
    lead = await records.log_in()
    for query in ("state=gone", "action=own", "cursor=x", f"resource={'a' * 64}"):
        assert "Nothing was changed." in (await load_page(lead, f"/credentials?{query}", status=422)).text


async def test_a_launcher_sees_credentials_of_their_own_jobs_only(records: Desk) -> None:
    ops, mallory, nobody = await records.log_in("ops"), await records.log_in("mallory"), await records.log_in("outsider")
    own = issue(records, records.record_job(requester=await records.id_of(ops)))
    for _ in range(3):
        issue(records, records.record_job())
    page = await load_page(ops, "/credentials")
    assert [link for link in page.links if link.startswith("/credentials/c-")] == [f"/credentials/{own}"]
    await load_page(ops, f"/credentials/{own}")
    theirs = await load_page(mallory, "/credentials")
    assert "No active credentials." in theirs.text
    assert not [link for link in theirs.links if link.startswith("/credentials/c-")]
    await load_page(mallory, f"/credentials/{own}", status=404)
    for path in ("/credentials", f"/credentials/{own}"):
        assert "Needs one of the groups" in (await load_page(nobody, path, status=403)).text


async def test_one_credential_shows_only_its_own_history_in_order(records: Desk) -> None:
    lead, job = await records.log_in(), records.record_job()
    name = issue(records, job)
    issue(records, job, number=10)
    at = datetime.now(UTC)
    facts = [
        samples.credential_event(EventType.CREDENTIAL_RENEWED, job, at=at, expires_at=(at + timedelta(minutes=12)).isoformat()),
        samples.revocation_start(job, at=at),
        samples.credential_event(EventType.CREDENTIAL_REVOKED, job, at=at, by="session", why=None),
        samples.credential_event(EventType.CREDENTIAL_REVOKED, job, number=10, at=at, by="guard", why=None),
        samples.credential_confirmation(job, at=at),
        samples.revocation_proof(job, at=at),
    ]
    records.store.ledger.append(facts)
    page = await load_page(lead, f"/credentials/{name}")
    told = ["credential.issued", "credential.renewed", "revocation.started", "credential.revoked", "credential.confirmed"]
    places = [page.text.index(kind) for kind in [*told, "revocation.confirmed"]]
    assert places == sorted(places)
    assert "by session" in page.text
    assert "by guard" not in page.text
    assert "database/creds/orders-write/abc" in page.text
    assert f"/credentials/{name}/revoke" not in page.forms


async def test_after_very_many_attempts_to_revoke_a_jobs_access_the_newest_are_shown(records: Desk) -> None:
    lead, job, at = await records.log_in(), records.record_job(), datetime.now(UTC)
    name = issue(records, job)
    records.store.ledger.append(samples.overdue_revocation(job, at=at, attempt=number) for number in range(1, 61))
    records.store.ledger.append([samples.credential_confirmation(job, at=at), samples.revocation_proof(job, at=at)])
    page = await load_page(lead, f"/credentials/{name}")
    assert "revocation.confirmed" in page.text
    assert "revocation.overdue" in page.text


async def test_a_value_that_only_its_owner_can_change_is_shown_without_a_date_at_which_it_would_end(records: Desk) -> None:
    lead, job, at = await records.log_in(), records.record_job(), datetime.now(UTC)
    name = issue(records, job, revocable="never")
    residual = samples.credential_event(EventType.CREDENTIAL_RESIDUAL, job, at=at, until=None, why="its owner must change it")
    records.store.ledger.append([samples.revocation_start(job, at=at), residual, samples.revocation_proof(job, at=at)])
    records.store.ledger.append([samples.access_request(job, number=2), samples.access_decision("needs_approval", job, number=2, tier=1)])
    records.store.ledger.append([samples.approval_opening(job, number=2)])
    for path in (f"/credentials?job={job}&show=all", f"/credentials/{name}", f"/jobs/{job}", f"/inbox/{part_id(job, 'r', 2)}"):
        page = (await load_page(lead, path)).text
        assert "valid until its owner changes it" in page, path
        assert not re.search(r"\b(10|9) min( \d+ s)? left", page), path


async def test_a_value_that_only_the_worker_had_is_not_said_to_have_expired(records: Desk) -> None:
    lead, job, at = await records.log_in(), records.record_job(), datetime.now(UTC)
    name = issue(records, job, revocable="never", held_by_job=False)
    over = samples.credential_event(EventType.CREDENTIAL_EXPIRED, job, at=at, why="only the worker used it")
    records.store.ledger.append([samples.revocation_start(job, at=at), over, samples.revocation_proof(job, at=at)])
    for path in (f"/credentials?job={job}&show=all", f"/credentials/{name}", f"/jobs/{job}"):
        page = (await load_page(lead, path)).text
        assert "never reached the job" in page, path
        # The list of credentials has the words of all states in its filter.
        assert "expired (not verified)" not in page or path.startswith("/credentials?"), path


@pytest.mark.parametrize(
    "revocable, said", [("never", "stays valid until its owner rotates it"), ("on_expiry", "It cannot be revoked early: it is valid until")]
)
async def test_revoking_is_not_offered_if_nothing_could_be_revoked(records: Desk, revocable: str, said: str) -> None:
    lead, job = await records.log_in(), records.record_job()
    name = issue(records, job, revocable=revocable)
    page = await load_page(lead, f"/credentials/{name}")
    assert said in page.text
    assert f"/credentials/{name}/revoke" not in page.forms


async def test_an_overdue_credential_shows_why_it_is_not_verified(records: Desk) -> None:
    lead, job = await records.log_in(), records.record_job()
    name = issue(records, job)
    records.store.ledger.append(
        [samples.revocation_start(job, at=datetime.now(UTC)), samples.overdue_revocation(job, at=datetime.now(UTC))]
    )
    page = await load_page(lead, f"/credentials/{name}")
    assert "overdue: may still work" in page.text
    assert "the target does not answer" in page.text


async def test_a_revocation_reaches_the_workflow_and_the_ledger(records: Desk, stack: Stack) -> None:
    temporal = await temporal_client.connect(stack)
    lead, job = await records.log_in(), records.record_job()
    name = issue(records, job)
    handle = await temporal.start_workflow("Job", "-", id=job, task_queue="nobody-polls")
    try:
        answer = await submit_form(lead, f"/credentials/{name}", f"/credentials/{name}/revoke")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/credentials/{name}")
        signals = [
            event.workflow_execution_signaled_event_attributes
            for event in (await handle.fetch_history()).events
            if event.HasField("workflow_execution_signaled_event_attributes")
        ]
        decoded = [(one.signal_name, await temporal.data_converter.decode(one.input.payloads)) for one in signals]
        assert decoded == [("revoke_credential", [name])]
        (entry,) = records.store.ledger.entries(job=job, types=[EventType.REVOCATION_REQUESTED]).items
        assert (entry.data["credential"], entry.data["name"], entry.data["person"]) == (name, "lead", await records.id_of(lead))
        page = await load_page(lead, f"/credentials/{name}")
        assert "lead requested revocation" in page.text
        confirm_revocation(records, job)
        page = await load_page(lead, f"/credentials/{name}")
        assert "revoked (verified)" in page.text
        assert "not verified yet" not in page.text
        again = await submit_form(lead, f"/credentials/{name}", f"/credentials/{name}/revoke")
        assert again.status_code == 303
        assert len(records.store.ledger.entries(job=job, types=[EventType.REVOCATION_REQUESTED]).items) == 1
    finally:
        await handle.terminate()


async def test_a_person_who_may_not_revoke_is_told_who_may_and_is_refused(records: Desk) -> None:
    auditor, job = await records.log_in("auditor"), records.record_job()
    name = issue(records, job)
    page = await load_page(auditor, f"/credentials/{name}")
    assert (
        "You cannot revoke this credential (only the job's launcher may do this, or a member of: break-glass, chiefs, security, support-leads)."
        in page.text
    )
    assert f"/credentials/{name}/revoke" not in page.forms
    answer = await submit_form(auditor, f"/credentials/{name}", f"/credentials/{name}/revoke")
    assert answer.status_code == 403
    assert records.store.ledger.entries(types=[EventType.REVOCATION_REQUESTED]).items == ()


async def test_neither_a_link_nor_a_form_without_the_csrf_token_revokes(records: Desk) -> None:
    lead, job = await records.log_in(), records.record_job()
    name = issue(records, job)
    assert (await lead.open(f"/credentials/{name}/revoke")).status_code in {404, 405}
    for fields in ({}, {"csrf": "x"}):
        assert (await lead.send(f"/credentials/{name}/revoke", fields)).status_code == 403
    foreign = await lead.send(f"/credentials/{name}/revoke", {"csrf": "x"}, {"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    assert records.store.ledger.entries(types=[EventType.REVOCATION_REQUESTED]).items == ()


async def test_a_verification_runs_and_its_result_is_shown(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # No worker runs here, so the expected result is that none answers.
    monkeypatch.setattr("console.temporal.client.REPORT_TIMEOUT", timedelta(seconds=1))
    lead, job = await records.log_in(), records.record_job()
    name = issue(records, job)
    answer = await submit_form(lead, f"/credentials/{name}", f"/credentials/{name}/prove")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/credentials/{name}#proof")
    page = await load_page(lead, f"/credentials/{name}")
    assert "Verifying… Started by lead" in page.text
    assert page.values("data-again") == ["2"]
    with pytest.raises(Exception, match="no worker answered"):
        await records.console.background_reads.proofs.result(job, by="lead")
    page = await load_page(lead, f"/credentials/{name}")
    assert "The verification could not be completed" in page.text
    assert "no worker answered in time" in page.text
    assert page.values("data-again") == []


async def test_a_certificate_is_shown_by_its_path_in_vault(records: Desk) -> None:
    lead, job = await records.log_in(), records.record_job()
    plain, certified = issue(records, job), issue(records, records.record_job(), certificate="pki/cert/0a:1b")
    assert "Vault certificate" not in (await load_page(lead, f"/credentials/{plain}")).text
    page = await load_page(lead, f"/credentials/{certified}")
    assert "Vault certificate" in page.text
    assert "pki/cert/0a:1b" in page.text


async def test_untrusted_text_is_shown_as_text(records: Desk) -> None:
    lead = await records.log_in()
    job = records.record_job(name=HOSTILE, requester_name=HOSTILE, task=HOSTILE)
    name = issue(records, job, resource=HOSTILE, lease_id=HOSTILE, accessor=HOSTILE, certificate=HOSTILE)
    at = datetime.now(UTC)
    records.store.ledger.append(
        [
            samples.credential_event(EventType.CREDENTIAL_USED, job, at=at, what=HOSTILE),
            samples.credential_event(EventType.CREDENTIAL_REVOKED, job, at=at, by="session", why=HOSTILE),
            samples.credential_event(EventType.CREDENTIAL_EXPIRED, job, at=at, why=HOSTILE),
        ]
    )
    for path in ("/credentials?show=all", f"/credentials/{name}"):
        page = await load_page(lead, path)
        assert "<script>alert(1)</script>\\u202e\\u2066" in page.text
