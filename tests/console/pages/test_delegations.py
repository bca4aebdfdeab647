"""Delegations, added and ended from a page, and a decision on behalf of an absent person."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from justenough.domain.approvals.statements import SignedStatement, why_signature_invalid
from justenough.domain.core.rfc3339 import parse_rfc3339
from justenough.domain.ledger.events import EventType
from tests.console.pages.conftest import LogIn
from tests.console.pages.inbox_requests import Words, decisions, read_words, spec, submit_decision, words_of
from tests.console.pages.plain_browser import Browser, Site
from tests.console.pages.site_variants import serve_variant
from tests.console.served_console import Served


async def delegate(browser: Browser, **fields: str) -> httpx.Response:
    known = (await read_words(browser, "/delegations")).forms["/delegations"]
    return await browser.send("/delegations", {**known, "days": "1", "reason": "on leave", **fields})


async def end_all(browser: Browser) -> None:
    for path, fields in (await read_words(browser, "/delegations")).forms.items():
        if path.endswith("/end"):
            assert (await browser.send(path, fields)).headers["location"] == "/delegations?done=ended"


async def test_a_delegation_is_signed_used_for_a_decision_and_ended(
    site: Site, served: Served, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)
    chief, chief2 = await logged_in("chief"), await logged_in("chief2")
    assert (await delegate(chief, name="chief2")).headers["location"] == "/delegations?done=named"
    mine = [
        one for one in served.store.delegations.current_of(served.people["chief"].id, now=datetime.now(UTC)) if one.delegate == "chief2"
    ]
    assert mine[0].reason == "on leave"
    assert abs(mine[0].until - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
    told = served.store.ledger.entries(types=(EventType.DELEGATION_MADE,)).items[-1].data
    assert why_signature_invalid(SignedStatement(**told["signed"]), site.console.deps.vault.public_keys(served.people["chief"].id)) is None
    assert parse_rfc3339(told["signed"]["statement"]["expires_at"]) == mine[0].until
    assert "chief until" in (await read_words(chief2, "/delegations")).text

    request = served.record_request((await served.launch(spec()))["id"], tier=2)
    assert "for chief, who is away until" in (await read_words(chief2, f"/inbox/{request['id']}")).text
    absent = served.people["chief"].id
    sent = await submit_decision(chief2, request, "approve", reason="for him", absent=absent, stated=absent)
    assert sent.status_code == 303, words_of(sent)
    (signed,) = await decisions(served, request["job_id"])
    assert signed["statement"]["on_behalf_of"] == served.people["chief"].id

    await end_all(chief)
    assert "You have no delegates." in (await read_words(chief, "/delegations")).text
    other = served.record_request((await served.launch(spec()))["id"], tier=2)
    late = await submit_decision(chief2, other, "approve", reason="for him", absent=absent, stated=absent)
    assert late.status_code == 403
    assert await decisions(served, other["job_id"]) == []


async def test_only_the_person_who_delegated_can_end_a_delegation_and_only_once(served: Served, logged_in: LogIn) -> None:
    chief, chief2 = await logged_in("chief"), await logged_in("chief2")
    await delegate(chief, name="chief2", reason="once more")
    forms = (await read_words(chief, "/delegations")).forms
    path, fields = next((path, fields) for path, fields in forms.items() if path.endswith("/end"))
    theirs = (await read_words(chief2, "/delegations")).forms["/delegations"]
    assert (await chief2.send(path, theirs)).status_code == 403
    await end_all(chief)
    again = await chief.send(path, fields)
    assert (again.status_code, "this delegation has already been ended" in words_of(again).replace("This", "this")) == (409, True)


@pytest.mark.parametrize(
    "fields, status, told",
    [
        ({"name": ""}, 422, "Enter a login name."),
        ({"name": "chief2", "days": "400"}, 422, "Choose a duration."),
        ({"name": "chief2", "reason": " "}, 422, "Enter a reason."),
        ({"name": "chief2", "reason": "a\0b"}, 422, "Remove the characters that cannot be signed (NUL or lone surrogates)."),
        ({"name": "nobody-of-this-name"}, 404, "there is no approver nobody-of-this-name"),
        ({"name": "chief"}, 422, "is yourself"),
        ({"name": "lead"}, 422, "lead may not decide at your tier 3"),
    ],
)
async def test_an_impossible_delegation_shows_the_error_beside_its_field(
    served: Served, logged_in: LogIn, fields: dict[str, str], status: int, told: str
) -> None:
    before = served.store.ledger.head()
    refused = await delegate(await logged_in("chief"), **fields)
    assert (refused.status_code, told in words_of(refused)) == (status, True), words_of(refused)
    assert any(known.get("aria-invalid") == "true" for _, known in Words(refused.text).tags)
    assert served.store.ledger.head() == before


async def test_only_approvers_can_delegate(logged_in: LogIn) -> None:
    browser = await logged_in("ops")
    assert (await browser.open("/delegations")).status_code == 403
    csrf = (await read_words(browser, "/inbox")).forms["/logout"]["csrf"]
    assert (await browser.send("/delegations", {"csrf": csrf, "name": "lead", "days": "1", "reason": "x"})).status_code == 403


async def test_a_form_that_is_sent_twice_delegates_once(served: Served, logged_in: LogIn) -> None:
    chief = await logged_in("chief")
    await end_all(chief)
    page = await read_words(chief, "/delegations")
    fields = {**page.forms["/delegations"], "name": "chief2", "days": "1", "reason": "pressed twice"}
    assert (await chief.send("/delegations", fields)).status_code == 303
    head, signed_at = served.store.ledger.head(), datetime.now(UTC)
    # A statement's times are whole seconds: one second later it would be a different statement.
    while datetime.now(UTC) - signed_at < timedelta(seconds=1):  # noqa: ASYNC110 - time itself tells nobody
        await asyncio.sleep(0.05)
    again = await chief.send("/delegations", fields)
    assert (again.status_code, again.headers["location"]) == (303, "/delegations?done=named")
    assert served.store.ledger.head() == head
    await end_all(chief)


async def test_a_page_dates_what_it_signs_by_the_consoles_time(site: Site, served: Served) -> None:
    """A worker rejects what seems to be signed in the future, and this machine's clock may be ahead of Vault's."""
    ahead = timedelta(seconds=90)
    deps = replace(site.console.deps, now=lambda: datetime.now(UTC) + ahead)
    async with serve_variant(site, person="chief2", deps=deps) as chief2:
        # For other tests, it ends in 90 seconds. None lets chief act for chief2.
        sent = await delegate(chief2, name="chief", reason="by another clock")
        assert sent.headers["location"] == "/delegations?done=named"
        statement = served.store.ledger.entries(types=(EventType.DELEGATION_MADE,)).items[-1].data["signed"]["statement"]
        await end_all(chief2)
    assert abs(parse_rfc3339(statement["issued_at"]) - datetime.now(UTC) - ahead) < timedelta(seconds=60)
