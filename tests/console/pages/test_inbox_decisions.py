"""Decisions from a request's page: what reaches the job's workflow, signed with the person's own key, and what decides nothing."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest

from console.auth.authorization import Caller
from console.pages.page_user import PageUser
from console.temporal.client import TemporalGateway
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.store.inbox_queries import MAX_COUNT, InboxFilter
from justenough.domain.approvals.statements import SignedStatement, build_review_statement, why_signature_invalid
from justenough.domain.inbox.pending import shorter_ttls
from justenough.domain.ledger.events import EventType, build_event
from tests.adapters.store import event_samples as samples
from tests.console.pages.conftest import LogIn
from tests.console.pages.inbox_requests import (
    OTHER_DIGEST,
    Words,
    break_glass,
    decisions,
    read_words,
    record_again,
    spec,
    submit_decision,
    words_of,
)
from tests.console.pages.page_text import text_of
from tests.console.pages.plain_browser import Browser, Site
from tests.console.pages.site_variants import serve_variant
from tests.console.served_console import DIGEST, SHOP, Served

DENY = ("decision", "deny")
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker records decisions here, so do not wait for one."""
    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)


@pytest.fixture
async def request_(served: Served) -> dict[str, Any]:
    return served.record_request((await served.launch(spec()))["id"])


async def launch_request(served: Served, tier: int, **other: Any) -> dict[str, Any]:
    return served.record_request((await served.launch(spec()))["id"], tier=tier, **other)


def is_signed_by(site: Site, person: str, signed: dict[str, Any]) -> bool:
    keys = site.console.deps.vault.public_keys(person)
    return why_signature_invalid(SignedStatement(**signed), keys) is None


@contextlib.contextmanager
def reserve_port() -> Iterator[int]:
    """A port that is reserved and on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def log_in_anew(browser: Browser, path: str, password: str) -> httpx.Response:
    known = (await read_words(browser, path)).forms["/login/fresh"]
    return await browser.send("/login/fresh", {**known, "password": password})


def rejection_reasons(served: Served, request: dict[str, Any]) -> list[str]:
    return [entry.data["why"] for entry in served.store.ledger.entries(job=request["job_id"]).items if entry.type == "approval.rejected"]


async def test_an_approval_reaches_the_workflow_signed_by_the_persons_own_key(
    site: Site, served: Served, logged_in: LogIn, request_: dict[str, Any]
) -> None:
    sent = await submit_decision(await logged_in("lead"), request_, "approve", reason="the customer is right")
    assert (sent.status_code, sent.headers["location"]) == (303, f"/inbox/{request_['id']}?done=sent")
    (signed,) = await decisions(served, request_["job_id"])
    assert is_signed_by(site, served.people["lead"].id, signed)
    said = signed["statement"]
    assert (said["decision"], said["ttl"], said["action"]) == ("approve", 300, "write")
    assert (said["person"], said["digest"], said["reason"]) == (served.people["lead"].id, request_["digest"], "the customer is right")
    assert "on_behalf_of" not in said


async def test_an_approval_can_have_limits(served: Served, logged_in: LogIn) -> None:
    access = [{"resource": "orders-db", "action": "admin", "ttl": "5m", "reason": "Correct the order"}]
    job = (await served.launch(spec(access=access)))["id"]
    request = served.record_request(job, tier=2, action="admin", resource="orders-db", title="Orders", policies=["admin-at-tier-2"])
    browser = await logged_in("security")
    options = [known.get("value") for tag, known in Words((await browser.open(f"/inbox/{request['id']}")).text).tags if tag == "option"]
    assert options == ["", "2m", "1m", "30s", "", "read", "write"]
    sent = await submit_decision(browser, request, "approve", reason="a correction is enough", ttl="2m", action="write", stated="write 2m")
    assert sent.status_code == 303, words_of(sent)
    (signed,) = await decisions(served, job)
    assert (signed["statement"]["ttl"], signed["statement"]["action"]) == (120, "write")


async def test_limits_that_the_page_did_not_state_are_stated_before_anything_is_signed(
    served: Served, logged_in: LogIn, request_: dict[str, Any]
) -> None:
    browser = await logged_in("lead")
    # Without JavaScript, the sentence on the page does not follow the fields.
    asked = await submit_decision(browser, request_, "approve", ttl="2m", action="read", reason="enough")
    assert asked.status_code == 200
    assert await decisions(served, request_["job_id"]) == []
    page = Words(asked.text)
    for words in ("You set limits. Read what you will sign, then sign it.", "lead approves read on Refunds for 2 min for the job"):
        assert words in page.text, words
    known = page.forms[f"/inbox/{request_['id']}/answer"]
    assert known["stated"] == "read 2m"
    sent = await browser.send(
        f"/inbox/{request_['id']}/answer", {**known, "decision": "approve", "ttl": "2m", "action": "read", "reason": "enough"}
    )
    assert sent.status_code == 303, words_of(sent)
    (signed,) = await decisions(served, request_["job_id"])
    assert (signed["statement"]["ttl"], signed["statement"]["action"]) == (120, "read")


async def test_the_page_of_a_refused_decision_is_built_in_a_thread_because_it_reads_the_store(
    served: Served, logged_in: LogIn, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, threads = await logged_in("lead"), []

    def record_thread(seconds: int) -> tuple[int, ...]:
        threads.append(threading.current_thread())
        return shorter_ttls(seconds)

    monkeypatch.setattr("console.pages.inbox.inbox.shorter_ttls", record_thread)
    refused = await submit_decision(browser, request_, "deny", reason="")
    assert refused.status_code == 422
    assert threads
    assert threading.main_thread() not in threads


async def test_ticked_reasons_are_signed_before_the_typed_one(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 2)
    browser = await logged_in("security")
    page = await read_words(browser, f"/inbox/{request['id']}")
    ticks = [known["value"] for tag, known in page.tags if tag == "input" and known.get("name") == "ticked"]
    assert ticks == ["Ticket checked", "Details checked", "Called the requester"]
    path = f"/inbox/{request['id']}/answer"
    body = {**page.forms[path], "decision": "approve", "ticked": ticks[:2], "reason": "see 4711"}
    sent = await browser.http.post(path, data=body, headers={"Sec-Fetch-Site": "same-origin"})
    assert sent.status_code == 303, words_of(sent)
    (signed,) = await decisions(served, request["job_id"])
    assert signed["statement"]["reason"] == "Ticket checked. Details checked. see 4711"


async def test_no_reasons_are_offered_to_tick_if_none_is_required(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    page = await read_words(await logged_in("lead"), f"/inbox/{request_['id']}")
    assert not any(known.get("name") == "ticked" for _, known in page.tags)


async def test_after_a_decision_the_page_leads_to_the_next_request_and_to_a_withdrawal(served: Served, logged_in: LogIn) -> None:
    first, _ = [await launch_request(served, 1) for _ in range(2)]
    browser = await logged_in("lead")
    onward = (await submit_decision(browser, first, "approve")).headers["location"]
    served.record_answer(first, "lead")
    page = await read_words(browser, onward)
    links = {known.get("href", "") for tag, known in page.tags if tag == "a"}
    (following,) = (known["href"] for tag, known in page.tags if tag == "a" and known.get("class") == "button primary")
    assert following != f"/inbox/{first['id']}"
    assert DENY in (await read_words(browser, following)).buttons, "it can be decided, too"
    assert "/inbox" in links
    assert re.search(r"Approved and recorded\. Next request \(\d+\+?\) the most urgent one: tier 1, .* Back to list", page.text), page.text
    assert "Withdraw approval No more credentials are issued, and issued credentials are revoked" in page.text


async def test_after_an_approval_the_page_says_what_the_job_still_waits_for(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 1)
    served.record_request(request["job_id"], number=2, tier=2, resource="orders-db", title="Orders", action="admin")
    browser = await logged_in("lead")
    onward = (await submit_decision(browser, request, "approve")).headers["location"]
    served.record_answer(request, "lead")
    told = (await read_words(browser, onward)).text
    assert "Approved and recorded. The job still waits for: admin on orders-db , tier 2 (security)." in told


BOUND = {"refund-order": {"calls": 3, "arguments": {"amount": {"maximum": 100}}, "other_arguments": "any"}}


async def test_access_through_tools_can_be_approved_for_fewer_calls(served: Served, logged_in: LogIn) -> None:
    access = [{"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Pay back", "tools": BOUND}]
    request = served.record_request((await served.launch(spec(access=access)))["id"], tools=BOUND)
    browser = await logged_in("lead")
    page = await read_words(browser, f"/inbox/{request['id']}")
    for words in (
        "The job may call these tools within these bounds",
        "refund-order:calls=3",
        "refund-order:amount<=100",
        "write on Refunds through refund-order for 5 min",
    ):
        assert words in page.text, words
    wrong = await submit_decision(browser, request, "approve", tools="drop-order", stated="drop-order")
    assert (wrong.status_code, "was not requested; requested: refund-order" in words_of(wrong)) == (422, True)
    sent = await submit_decision(
        browser,
        request,
        "approve",
        tools="refund-order:amount<=50\r\nrefund-order:calls=2\r\n",
        stated="refund-order:amount<=50 refund-order:calls=2",
    )
    assert sent.status_code == 303, words_of(sent)
    (signed,) = await decisions(served, request["job_id"])
    assert signed["statement"]["tools"] == {"refund-order": {"calls": 2, "arguments": {"amount": {"maximum": 50}}}}


async def test_a_denial_has_a_reason(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    sent = await submit_decision(await logged_in("lead"), request_, "deny", reason="not this one", ttl="1m")
    assert sent.status_code == 303
    (signed,) = await decisions(served, request_["job_id"])
    # A denial denies the requested access; limits in the form are ignored.
    assert (signed["statement"]["decision"], signed["statement"]["ttl"]) == ("deny", 300)


@pytest.mark.parametrize(
    "tier, decision, fields, field, told",
    [
        (1, "deny", {"reason": "  "}, "deny-reason", "Enter a reason."),
        (2, "approve", {"reason": ""}, "reason", "Enter a reason."),
        (1, "approve", {"reason": "x" * 1001}, "reason", "Shorten the reason to 1,000 characters; it has 1,001."),
        (1, "approve", {"reason": "a\0b"}, "reason", "cannot be signed"),
        (1, "approve", {"ttl": "10m"}, "ttl", "You cannot approve a longer duration than requested."),
        (1, "approve", {"ttl": "soon"}, "ttl", "write a duration like 30s"),
        (1, "approve", {"action": "admin"}, "action", "Choose write or a lesser action."),
        (1, "approve", {"action": "fly"}, "action", "Choose write or a lesser action."),
    ],
)
async def test_errors_appear_beside_their_fields_and_input_is_kept(
    served: Served, logged_in: LogIn, tier: int, decision: str, fields: dict[str, str], field: str, told: str
) -> None:
    request = await launch_request(served, tier)
    sent = await submit_decision(await logged_in("security"), request, decision, **{"reason": "typed <b>before</b>", **fields})
    assert sent.status_code == 422
    page = Words(sent.text)
    assert told in page.text
    assert "Not submitted" in page.text
    invalid = [known for _, known in page.tags if known.get("aria-invalid") == "true"]
    assert [known["id"] for known in invalid] == [field]
    assert any(known.get("href") == f"#{field}" for tag, known in page.tags if tag == "a"), "the summary links to the field"
    assert all(any(other.get("id") == name for _, other in page.tags) for name in invalid[0]["aria-describedby"].split())
    if not field.endswith("reason"):
        assert "typed <b>before</b>" in page.text
    assert await decisions(served, request["job_id"]) == []


async def test_a_tampered_form_decides_nothing(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    browser = await logged_in("lead")
    path = f"/inbox/{request_['id']}/answer"
    known = (await read_words(browser, f"/inbox/{request_['id']}")).forms[path]
    for wrong in ({**known, "csrf": "forged", "decision": "approve"}, {"decision": "approve", "digest": request_["digest"]}):
        refused = await browser.send(path, wrong)
        assert refused.status_code == 403
        assert "belongs to an earlier login, or another site sent it" in words_of(refused)
    elsewhere = await browser.send(path, {**known, "decision": "approve"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status_code == 403
    odd = await browser.send(path, {**known, "decision": "approve-all"})
    assert (odd.status_code, "must be approve, deny, withdraw or break_glass" in words_of(odd)) == (422, True)
    assert await decisions(served, request_["job_id"]) == []


@pytest.mark.parametrize("ended", ["expired", "revoked"])
async def test_an_ended_login_is_sent_to_the_login_and_decides_nothing(
    site: Site, served: Served, logged_in: LogIn, admin: httpx.AsyncClient, request_: dict[str, Any], ended: str
) -> None:
    browser = await logged_in("lead")
    path = f"/inbox/{request_['id']}/answer"
    known = (await read_words(browser, f"/inbox/{request_['id']}")).forms[path]
    if ended == "expired":
        site.clock.forward(days=2)
    else:
        # The console does not ask Vault about a login with each request, but Vault signs nothing for one that it has ended.
        (await admin.post("auth/token/revoke", json={"token": await site.token_of(browser)})).raise_for_status()
    sent = await browser.send(path, {**known, "decision": "approve"})
    assert sent.status_code == 303
    assert sent.headers["location"].startswith("/login")
    assert await decisions(served, request_["job_id"]) == []


async def test_a_decided_request_says_who_decided_and_when(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    browser = await logged_in("lead")
    path = f"/inbox/{request_['id']}/answer"
    known = (await read_words(browser, f"/inbox/{request_['id']}")).forms[path]
    served.record_answer(request_, "chief")
    late = await browser.send(path, {**known, "decision": "approve", "reason": "me too"})
    assert late.status_code == 409
    assert "The request is approved, not pending: chief decided it at 20" in words_of(late)
    assert "Not submitted" in words_of(late)
    assert await decisions(served, request_["job_id"]) == []


async def test_a_form_that_lacks_what_a_higher_tier_needs_says_that_the_request_escalated(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 1)
    browser = await logged_in("lead")
    path = f"/inbox/{request['id']}/answer"
    known = (await read_words(browser, f"/inbox/{request['id']}")).forms[path]
    now = datetime.now(UTC)
    served.store.ledger.append(
        [samples.approval_opening(request["job_id"], tier=3, escalated=True, at=now, respond_by=now + timedelta(minutes=5))]
    )
    late = await browser.send(path, {**known, "decision": "approve"})
    assert (late.status_code, "Needs one of the groups: chiefs" in words_of(late)) == (403, True)
    assert "Enter the job name" not in words_of(late)


async def test_nobody_decides_twice(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 1, quorum=2)
    browser = await logged_in("lead")
    path = f"/inbox/{request['id']}/answer"
    known = (await read_words(browser, f"/inbox/{request['id']}")).forms[path]
    served.record_answer(request, "lead", verdict="pending")
    again = await browser.send(path, {**known, "decision": "approve"})
    assert (again.status_code, "You have answered this request already" in words_of(again)) == (409, True)
    assert "You already decided this request, or a delegate did for you." in (await read_words(browser, f"/inbox/{request['id']}")).text


async def test_a_changed_request_shows_the_changes_and_asks_again(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    browser = await logged_in("security")
    path = f"/inbox/{request_['id']}/answer"
    known = (await read_words(browser, f"/inbox/{request_['id']}")).forms[path]
    digest = record_again(served, request_, tier=2, policies=["export-at-tier-2"])
    stale = await browser.send(path, {**known, "decision": "approve", "reason": "as shown"})
    assert stale.status_code == 412
    page = Words(stale.text)
    for words in (
        "This request changed since you opened it",
        "tier 1 2",
        "policies write-at-tier-1 export-at-tier-2",
        f"digest {request_['digest']} {digest}",
    ):
        assert words in page.text, words
    assert "as shown" in page.text
    assert await decisions(served, request_["job_id"]) == []
    # The page has a new form: submitting it again decides the current request.
    sent = await browser.send(path, {**page.forms[path], "decision": "approve", "reason": "as it is now"})
    assert sent.status_code == 303
    (signed,) = await decisions(served, request_["job_id"])
    assert signed["statement"]["digest"] == digest


@pytest.mark.parametrize("shown_before", ["", "[1, 2]", '{"tier": {"<b>": 1}}', "{" * 5000])
async def test_the_forms_copy_of_the_facts_is_only_used_for_the_comparison(
    served: Served, logged_in: LogIn, request_: dict[str, Any], shown_before: str
) -> None:
    sent = await submit_decision(await logged_in("lead"), request_, "approve", digest=OTHER_DIGEST, shown=shown_before)
    assert sent.status_code == 412
    assert "<b>" not in sent.text
    assert await decisions(served, request_["job_id"]) == []


async def test_deciding_on_ones_own_job_is_refused_and_recorded(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    sent = await submit_decision(await logged_in("ops"), request_, "approve", reason="mine")
    assert (sent.status_code, "People cannot decide on a job that they launched" in words_of(sent)) == (403, True)
    assert await decisions(served, request_["job_id"]) == []
    assert any("people cannot decide on a job that they launched" in why for why in rejection_reasons(served, request_))


async def test_the_wrong_group_is_told_which_groups_can_decide(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 2)
    sent = await submit_decision(await logged_in("lead"), request, "approve", reason="please")
    assert (sent.status_code, "Needs one of the groups: chiefs, security" in words_of(sent)) == (403, True)
    assert await decisions(served, request["job_id"]) == []


async def test_a_missing_workflow_is_reported(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    await served.temporal.get_workflow_handle(request_["job_id"]).terminate()
    sent = await submit_decision(await logged_in("lead"), request_, "approve", reason="still there?")
    assert (sent.status_code, "The job is no longer running" in words_of(sent)) == (409, True)
    assert "still there?" in sent.text


async def test_without_temporal_the_input_is_kept_and_can_be_submitted_again(
    site: Site, served: Served, logged_in: LogIn, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await logged_in("lead")
    with reserve_port() as port, monkeypatch.context() as patched:
        away = await TemporalGateway.connect(site.console.deps.settings.model_copy(update={"temporal_address": f"127.0.0.1:{port}"}), None)
        patched.setattr("console.services.console.Console.gateway", away)
        sent = await submit_decision(browser, request_, "approve", reason="hold on")
    assert sent.status_code == 503
    assert "hold on" in sent.text
    assert "Not submitted" in words_of(sent)
    page = Words(sent.text)
    path = f"/inbox/{request_['id']}/answer"
    assert (await browser.send(path, {**page.forms[path], "decision": "approve"})).status_code == 303


async def test_a_decision_is_shown_as_submitted_and_then_as_recorded(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    browser = await logged_in("lead")
    onward = (await submit_decision(browser, request_, "approve")).headers["location"]
    assert "Submitted. Verifying…" in (await read_words(browser, onward)).text
    served.record_answer(request_, "lead")
    assert "Approved and recorded." in (await read_words(browser, onward)).text


async def test_a_decision_after_an_escalation_is_not_taken_for_the_one_before(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 1, quorum=2)
    served.record_answer(request, "chief", verdict="pending")
    later = datetime.now(UTC)
    served.store.ledger.append([samples.approval_opening(request["job_id"], tier=2, at=later, respond_by=later + HOUR, escalated=True)])
    browser = await logged_in("chief")
    for page in (f"/inbox/{request['id']}", f"/jobs/{request['job_id']}"):
        assert "does not count at this tier" in (await read_words(browser, page)).text
    onward = (await submit_decision(browser, request, "approve", reason="looked again")).headers["location"]
    assert "Submitted. Verifying…" in (await read_words(browser, onward)).text
    chief, now = served.people["chief"].id, datetime.now(UTC)
    again = samples.approval_decision("approved", request["job_id"], person="chief", person_id=chief, tier=2, at=now)
    served.store.ledger.append([again.model_copy(update={"id": f"{again.id}/2"})])
    assert "Approved and recorded." in (await read_words(browser, onward)).text


@pytest.mark.parametrize("decision,said", [("approve", "Your decision was rejected"), ("withdraw", "Your withdrawal was rejected")])
async def test_a_decision_or_withdrawal_that_a_worker_rejected_shows_why(
    served: Served, logged_in: LogIn, request_: dict[str, Any], decision: str, said: str
) -> None:
    if decision == "withdraw":
        served.record_answer(request_, "lead")
    browser = await logged_in("lead")
    onward = (await submit_decision(browser, request_, decision, reason="a mistake")).headers["location"]
    assert "submitted. Verifying…" in (await read_words(browser, onward)).text.replace("Submitted", "submitted")
    person, why = served.people["lead"].id, "lead is in no group that approves requests"
    facts = {"request": request_["id"], "person": person, "why": why, "received": DIGEST}
    served.store.ledger.append(
        [build_event(EventType.APPROVAL_REJECTED, request_["job_id"], at=datetime.now(UTC), about="worker", **facts)]
    )
    assert f"{said}: {why}" in (await read_words(browser, onward)).text


async def test_a_rejected_decision_on_another_request_of_the_job_is_not_shown_as_one_on_this(
    served: Served, logged_in: LogIn, request_: dict[str, Any]
) -> None:
    other = served.record_request(request_["job_id"], number=2)
    facts = {"request": other["id"], "person": served.people["lead"].id, "why": "the job has ended", "received": DIGEST}
    event = build_event(EventType.APPROVAL_REJECTED, request_["job_id"], at=datetime.now(UTC), about="worker", **facts)
    served.store.ledger.append([event])
    browser = await logged_in("lead")
    onward = (await submit_decision(browser, request_, "approve")).headers["location"]
    assert "Submitted. Verifying…" in (await read_words(browser, onward)).text


async def test_tier_three_needs_the_job_name_and_a_fresh_login_and_keeps_the_draft(site: Site, served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 3, quorum=2)
    browser = await logged_in("chief")
    wrong = await submit_decision(browser, request, "approve", reason="checked the books", confirm="refund")
    assert (wrong.status_code, "Enter the job name exactly: refund-triage" in words_of(wrong)) == (422, True)
    site.clock.forward(minutes=6)
    old = await submit_decision(browser, request, "approve", reason="checked the books", confirm="refund-triage", ttl="2m", stated="2m")
    assert old.status_code == 303
    assert old.headers["location"] == f"/login/fresh?next=%2Finbox%2F{request['id']}"
    assert await decisions(served, request["job_id"]) == []
    back = await log_in_anew(browser, old.headers["location"], site.passwords["chief"])
    assert back.headers["location"] == f"/inbox/{request['id']}"
    page = await read_words(browser, back.headers["location"])
    assert "Draft restored, not submitted." in page.text
    assert "checked the books" in page.text
    assert any(known.get("value") == "2m" and "selected" in known for tag, known in page.tags if tag == "option")
    assert await decisions(served, request["job_id"]) == []
    sent = await submit_decision(browser, request, "approve", reason="checked the books", confirm="refund-triage", ttl="2m")
    assert sent.status_code == 303
    assert len(await decisions(served, request["job_id"])) == 1
    assert "Draft restored" not in (await read_words(browser, f"/inbox/{request['id']}")).text


async def test_denying_at_tier_three_needs_neither_the_job_name_nor_a_fresh_login(site: Site, served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 3)
    browser = await logged_in("chief")
    site.clock.forward(minutes=6)
    assert (await submit_decision(browser, request, "deny", reason="no")).status_code == 303
    assert len(await decisions(served, request["job_id"])) == 1


async def test_a_draft_of_another_session_or_version_is_ignored(site: Site, served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 3)
    chief, chief2 = await logged_in("chief"), await logged_in("chief2")
    site.clock.forward(minutes=6)
    await submit_decision(chief, request, "approve", reason="planted", confirm="refund-triage")
    path, draft, host = f"/inbox/{request['id']}", site.console.cookies.draft, httpx.URL(site.address).host
    # A newer version of the console may have sealed a draft that has more fields.
    key = (await site.console.sessions.session_of(chief2.cookie)).key.csrf
    longer = base64.urlsafe_b64encode(zlib.compress(json.dumps(["planted"] * 99).encode())).decode()
    seal = hmac.new(key.encode(), f"draft/{request['id']}/{longer}".encode(), "sha256").hexdigest()
    for value in (chief.http.cookies[draft], f"{seal}.{longer}", "0.x", "."):
        chief2.http.cookies.set(draft, value, path=path, domain=host)
        assert f"{draft}={value}" in chief2.http.build_request("GET", path).headers["cookie"]
        assert "planted" not in (await read_words(chief2, path)).text
        chief2.http.cookies.delete(draft, path=path, domain=host)


async def test_break_glass_is_for_its_group_and_states_its_consequences(site: Site, served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 1)
    assert ("decision", "break_glass") not in (await read_words(await logged_in("lead"), f"/inbox/{request['id']}")).buttons
    browser = await logged_in("oncall")
    page = await read_words(browser, f"/inbox/{request['id']}")
    assert text_of((await browser.open(f"/inbox/{request['id']}")).text, "thumb") == "Break glass…"
    for words in ("you bypass tier 1 (owner).", "does not override policy", "is reviewed afterwards"):
        assert words in page.text
    assert "You can decide this by break-glass only, in an emergency." in page.text
    link, below = [known["href"] for tag, known in page.tags if tag == "a" and known.get("href", "").endswith("#glass-more")]
    assert link == below, "the bar at the bottom of a phone leads to the form, too"
    opened = await read_words(browser, link)
    folds = [{tag: "open" in known for tag, known in seen.tags if known.get("id") == "glass-more"} for seen in (page, opened)]
    assert folds == [{"details": False}, {"details": True}], "the link opens the fold, without JavaScript too"
    unconfirmed = await submit_decision(browser, request, "break_glass", reason="the shop is down")
    assert unconfirmed.status_code == 422
    site.clock.forward(minutes=6)
    old = await submit_decision(browser, request, "break_glass", reason="the shop is down", confirm="refund-triage")
    assert old.headers["location"].startswith("/login/fresh")
    await log_in_anew(browser, old.headers["location"], site.passwords["oncall"])
    assert await decisions(served, request["job_id"]) == []
    # Keyboards of phones capitalise, and append a space.
    sent = await submit_decision(browser, request, "break_glass", reason="the shop is down", confirm="Refund-triage ")
    found = await decisions(served, request["job_id"])
    assert (sent.status_code, [one["statement"]["decision"] for one in found]) == (303, ["break_glass"])
    lead = await submit_decision(await logged_in("lead"), request, "break_glass", reason="me", confirm="refund-triage")
    assert (lead.status_code, "Needs one of the groups: break-glass" in words_of(lead)) == (403, True)


async def test_break_glass_after_an_escalation_names_each_tier_that_it_bypasses(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, 1)
    later = datetime.now(UTC)
    served.store.ledger.append([samples.approval_opening(request["job_id"], tier=2, at=later, respond_by=later + HOUR, escalated=True)])
    page = await read_words(await logged_in("oncall"), f"/inbox/{request['id']}")
    assert "you bypass tier 1 (owner) and tier 2 (security)." in page.text
    assert "is reviewed afterwards by another approver of tier 2 (security) or above" in page.text
    served.end(request["job_id"])


async def test_vault_authorizes_nothing_for_people_who_may_not_approve(
    site: Site, served: Served, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    async def authorize(visitor: PageUser, accessor: str) -> bool:
        opened.append(f"{accessor} by {visitor.caller.person.name}")
        return True

    # The browser tests check what Vault does then. Here only the call matters.
    monkeypatch.setattr(PageUser, "authorize", authorize)
    request = await launch_request(served, 2)
    served.store.ledger.append(
        [
            build_event(
                EventType.LOCK_OPENED,
                request["job_id"],
                at=datetime.now(UTC),
                about=request["id"],
                request=request["id"],
                accessor="waiting",
                expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat(),
                groups=["security"],
                approvals=1,
            )
        ]
    )
    for name, decision in (("ops", "approve"), ("lead", "approve"), ("security", "deny"), ("chief", "break_glass")):
        await submit_decision(await logged_in(name), request, decision, reason="x", confirm="refund-triage")
    # An approver, but for a person who has delegated to nobody: it would not count.
    absent = served.people["chief"].id
    refused = await submit_decision(await logged_in("security"), request, "approve", reason="x", absent=absent, stated=absent)
    assert (refused.status_code, opened) == (403, []), words_of(refused)
    await submit_decision(await logged_in("security"), request, "approve", reason="x")
    assert opened == ["waiting by security"]


async def test_an_approval_can_be_withdrawn(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    served.record_answer(request_, "lead")
    browser = await logged_in("lead")
    page = await read_words(browser, f"/inbox/{request_['id']}")
    assert "No more credentials are issued, and issued credentials are revoked" in page.text
    silent = await submit_decision(browser, request_, "withdraw")
    assert (silent.status_code, "Enter a reason." in words_of(silent)) == (422, True)
    sent = await submit_decision(browser, request_, "withdraw", reason="a mistake")
    assert sent.headers["location"].endswith("?done=taken")
    (signed,) = await decisions(served, request_["job_id"])
    assert (signed["statement"]["decision"], signed["statement"]["reason"]) == ("withdraw", "a mistake")


@pytest.mark.parametrize("call", [None, {"tool": "refund-order", "arguments": {"order_id": 7}}])
async def test_a_lesser_action_can_be_approved_but_not_for_a_single_call(
    served: Served, logged_in: LogIn, call: dict[str, Any] | None
) -> None:
    request = served.record_request((await served.launch())["id"], call=call)
    page = await (await logged_in("lead")).open(f"/inbox/{request['id']}")
    assert ('name="action"' in page.text) is (call is None)
    lesser = served.people["lead"].decision(request, {"action": "read"})
    answer = await served.post(f"/requests/{request['id']}/decisions", "lead", lesser, headers={"If-Match": request["digest"]})
    refused = (answer.status_code, "the call needs write: allow that, or deny it" in answer.text)
    assert refused == ((202, False) if call is None else (422, True)), answer.text


async def test_the_approval_of_one_call_can_be_withdrawn_and_the_page_says_that_no_call_is_undone(served: Served, logged_in: LogIn) -> None:
    call = {"tool": "refund-order", "arguments": {"order_id": 7, "amount": 12.5}}
    request = served.record_request((await served.launch())["id"], call=call)
    served.record_answer(request, "lead")
    served.issue(request["job_id"])
    # The call's target did not answer, so its credential was revoked at once. The same call may be made again, under the same approval.
    served.store.ledger.append([samples.credential_confirmation(request["job_id"], at=datetime.now(UTC))])
    page = await read_words(await logged_in("lead"), f"/inbox/{request['id']}")
    assert "If the call was made already, this does not undo it." in page.text
    withdrawn = await served.post(f"/requests/{request['id']}/withdraw", "chief", {"reason": "x"})
    assert (withdrawn.status_code, withdrawn.json()["state"]) == (200, "withdrawn")


async def test_the_page_shows_who_withdrew_an_approval_and_why(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    served.record_answer(request_, "lead")
    withdrawal = {"request": request_["id"], "person": served.people["lead"].id, "name": "lead", "reason": "the ticket was a fake"}
    served.store.ledger.append(
        [
            build_event(
                EventType.APPROVAL_WITHDRAWN,
                request_["job_id"],
                at=datetime.now(UTC),
                about=request_["id"],
                signed=None,
                verdict="withdrawn",
                **withdrawal,
            )
        ]
    )
    page = await read_words(await logged_in("chief"), f"/inbox/{request_['id']}")
    assert re.search(r"Withdrawn by lead, \d+ s ago ?: “the ticket was a fake”", page.text), page.text


async def test_a_claim_is_visible_to_others_until_it_is_released(served: Served, logged_in: LogIn, request_: dict[str, Any]) -> None:
    lead, chief = await logged_in("lead"), await logged_in("chief")
    path = f"/inbox/{request_['id']}"

    async def claim(browser: Browser) -> httpx.Response:
        return await browser.send(f"{path}/claim", (await read_words(browser, path)).forms[f"{path}/claim"])

    assert (await claim(lead)).headers["location"] == f"{path}?done=claimed"
    assert "lead is reviewing it" in (await read_words(chief, path)).text
    taken = await claim(chief)
    assert (taken.status_code, "laimed by lead until" in words_of(taken)) == (409, True)
    assert "Claimed. Other approvers see your claim" in (await read_words(lead, f"{path}?done=claimed")).text
    assert (await claim(lead)).headers["location"] == f"{path}?done=released"
    assert "Claimed. Other approvers see your claim" not in (await read_words(lead, f"{path}?done=claimed")).text
    kinds = [
        entry.data["until"] is None
        for entry in served.store.ledger.entries(job=request_["job_id"]).items
        if entry.type == "approval.claimed"
    ]
    assert kinds == [False, True]


async def test_a_break_glass_review_is_signed_and_closes_the_review(
    site: Site, served: Served, logged_in: LogIn, request_: dict[str, Any]
) -> None:
    people = {name: await logged_in(name) for name in ("lead", "chief", "oncall", "ops")}
    before = [await count_reviews(served, browser) for browser in people.values()]
    break_glass(served, request_)
    browser = await logged_in("lead")
    inbox = await read_words(browser, "/inbox?show=reviews")
    assert ("oncall used break-glass" in inbox.text, "Bypassed tier 1 (owner)." in inbox.text) == (True, True)
    assert f": {request_['action']} on {request_['resource']} for" in inbox.text
    counted = [await count_reviews(served, browser) for browser in people.values()]
    # The person who used break-glass and the launcher cannot answer; for the others, the number includes the review.
    assert [now - then for now, then in zip(counted, before, strict=True)] == [1, 1, 0, 0]
    for path in ("/inbox/" + request_["id"], "/jobs/" + request_["job_id"], f"/ledger?job={request_['job_id']}"):
        assert re.search(r"(bypassed|to bypass) tier 1 \(owner\)", (await read_words(browser, path)).text), path
    path = f"/inbox/{request_['id']}"
    known = (await read_words(browser, path)).forms[f"{path}/review"]
    assert (await browser.send(f"{path}/review", {**known, "reason": "it was"})).status_code == 422
    other = await browser.send(f"{path}/review", {**known, "digest": OTHER_DIGEST, "verdict": "justified", "reason": "it was down"})
    assert (other.status_code, "This request changed since you opened it." in words_of(other)) == (412, True)
    lead = served.people["lead"]
    statement = build_review_statement(
        {**request_, "digest": OTHER_DIGEST}, "justified", reason="it was down", person=lead.id, now=datetime.now(UTC)
    )
    stale = await served.post(f"/requests/{request_['id']}/review", "lead", lead.sign(statement))
    assert (stale.status_code, "digest is not the request's" in stale.json()["detail"]) == (412, True)
    sent = await browser.send(f"{path}/review", {**known, "verdict": "justified", "reason": "it was down"})
    assert sent.headers["location"] == f"{path}?done=reviewed"
    (told,) = [entry.data for entry in served.store.ledger.entries(job=request_["job_id"]).items if entry.type == "review.answered"]
    assert (told["verdict"], told["reason"], told["person"]) == ("justified", "it was down", served.people["lead"].id)
    assert is_signed_by(site, served.people["lead"].id, told["signed"])
    again = await browser.send(f"{path}/review", {**known, "verdict": "unjustified", "reason": "was it?"})
    assert (again.status_code, "lead has already answered this review: justified" in words_of(again).replace("Lead", "lead")) == (409, True)


async def test_the_top_tier_reviews_break_glass_that_bypassed_a_tier_which_is_gone(
    site: Site, served: Served, request_: dict[str, Any], tmp_path: Path
) -> None:
    break_glass(served, request_, tier=3, name="chief")
    folder, path = copytree(SHOP, tmp_path / "shop"), f"/inbox/{request_['id']}"
    tiers = (folder / "approvals.yaml").read_text()
    (folder / "approvals.yaml").write_text("".join(line for line in tiers.splitlines(True) if not line.startswith("  3:")))
    deps = replace(site.console.deps, config=ConfigFolder(folder))
    async with serve_variant(site, person="lead", deps=deps) as lead:
        assert f"{path}/review" not in (await read_words(lead, path)).forms
    async with serve_variant(site, person="security", deps=deps) as security:
        assert "oncall used break-glass" in (await read_words(security, "/inbox?show=reviews")).text
        known = (await read_words(security, path)).forms[f"{path}/review"]
        sent = await security.send(f"{path}/review", {**known, "verdict": "justified", "reason": "it was down"})
    assert sent.headers["location"] == f"{path}?done=reviewed"


async def count_reviews(served: Served, browser: Browser) -> int:
    """Return how many reviews the person can answer. Fails unless the number beside "Approvals" is that of them and of the waiting requests."""
    shown = text_of((await browser.open("/inbox")).text, "waiting-count")
    me = (await served.console.sessions.session_of(browser.cookie)).person
    tier = Caller(person=me, tiers=served.console.deps.config.current().tiers, expires=0).tier
    reviews = served.store.reviews.count_answerable(me.id, tier, up_to=MAX_COUNT) if tier else 0
    both = reviews + (served.store.inbox.count(InboxFilter(person=me.id, tier=tier, mine=True)) if tier else 0)
    assert shown == ("99+" if both >= MAX_COUNT else str(both or ""))
    return reviews


async def test_a_decision_after_another_persons_does_not_claim_that_its_form_is_still_there(
    served: Served, logged_in: LogIn, request_: dict[str, Any]
) -> None:
    browser = await logged_in("lead")
    path = f"/inbox/{request_['id']}/answer"
    known = (await read_words(browser, f"/inbox/{request_['id']}")).forms[path]
    served.record_answer(request_, "chief")
    late = await browser.send(path, {**known, "decision": "deny", "reason": "the amount is wrong"})
    page = Words(late.text)
    assert (late.status_code, page.buttons & {DENY}) == (409, set())
    assert "Not submitted" in page.text
    assert "Your input is still in the form" not in page.text
