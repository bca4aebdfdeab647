"""Several decisions at once: only of one kind, each signed separately, each result shown."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.console.pages.conftest import LogIn
from tests.console.pages.inbox_requests import OTHER_DIGEST, Words, decisions, read_words, spec, words_of
from tests.console.pages.plain_browser import Browser
from tests.console.served_console import Served


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker records decisions here, so do not wait for one."""
    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)


async def launch_requests(served: Served, name: str, *tiers: int) -> list[dict[str, Any]]:
    return [
        served.record_request(
            (await served.launch(spec(name=name, task=f"Refund for {name}")))["id"], tier=tier, policies=["write-at-tier-1"]
        )
        for tier in tiers
    ]


async def submit_batch(browser: Browser, requests: list[dict[str, Any]], decision: str, **fields: str) -> httpx.Response:
    csrf = (await read_words(browser, "/inbox")).forms["/logout"]["csrf"]
    picks = [f"{request['id']} {request.get('shown', request['digest'])}" for request in requests]
    body = {"csrf": csrf, "decision": decision, "pick": picks, **fields}
    return await browser.http.post("/inbox/batch", data=body, headers={"Sec-Fetch-Site": "same-origin"})


async def decision_counts(served: Served, requests: list[dict[str, Any]]) -> list[int]:
    return [len(await decisions(served, request["job_id"])) for request in requests]


async def test_requests_of_one_kind_are_grouped_with_none_selected(served: Served, logged_in: LogIn) -> None:
    both = await launch_requests(served, "alike", 1, 1)
    page = await read_words(await logged_in("lead"), "/inbox?job=alike")
    assert "2 requests · alike · Refunds: write" in page.text
    boxes = [known for tag, known in page.tags if tag == "input" and known.get("name") == "pick"]
    assert [box["value"] for box in boxes] == [f"{request['id']} {request['digest']}" for request in both]
    assert not any("checked" in box for box in boxes)


async def test_each_selected_request_is_signed_separately(served: Served, logged_in: LogIn) -> None:
    both = await launch_requests(served, "pair", 1, 1)
    page = await submit_batch(await logged_in("lead"), both, "approve", reason="the usual")
    assert (page.status_code, "2 of 2 approved" in words_of(page)) == (200, True)
    (one,), (other,) = [await decisions(served, request["job_id"]) for request in both]
    assert one["signature"] != other["signature"]
    assert [signed["statement"]["request"] for signed in (one, other)] == [request["id"] for request in both]
    assert {signed["statement"]["reason"] for signed in (one, other)} == {"the usual"}


async def test_a_failure_does_not_affect_the_others(served: Served, logged_in: LogIn) -> None:
    stale, done, good, gone = await launch_requests(served, "mixed", 1, 1, 1, 1)
    served.record_answer(done, "chief")
    await served.temporal.get_workflow_handle(gone["job_id"]).terminate()
    page = words_of(await submit_batch(await logged_in("lead"), [{**stale, "shown": OTHER_DIGEST}, done, good, gone], "approve"))
    assert "1 of 4 approved" in page
    for why in (
        "this request changed since you opened it",
        "the request is approved, not pending: chief decided it at",
        "the job is no longer running",
    ):
        assert why in page
    assert "submitted, verifying" in page
    assert await decision_counts(served, [stale, done, good]) == [0, 0, 1]


@pytest.mark.parametrize(
    "tiers, decision, fields, told",
    [
        ((1, 2), "approve", {"reason": "all"}, "can be decided together"),
        ((3, 3), "approve", {"reason": "all"}, "Requests at tier 3 and above must be decided one at a time"),
        ((3, 3), "deny", {"reason": "all"}, "Requests at tier 3 and above must be decided one at a time"),
        ((1, 1), "deny", {}, "Enter a reason."),
        ((2, 2), "approve", {}, "Enter a reason."),
        ((1, 1), "break_glass", {"reason": "all"}, "Press Approve selected or Deny selected"),
        ((1, 1), "withdraw", {"reason": "all"}, "Press Approve selected or Deny selected"),
        ((), "approve", {}, "Select at least one request."),
        ((1, 1, 1), "approve", {}, "Select at most 2 requests."),
    ],
)
async def test_requests_that_cannot_be_decided_together_are_not_decided(
    served: Served,
    logged_in: LogIn,
    monkeypatch: pytest.MonkeyPatch,
    tiers: tuple[int, ...],
    decision: str,
    fields: dict[str, str],
    told: str,
) -> None:
    monkeypatch.setattr("console.pages.inbox.batch.MAX_REQUESTS", 2)
    requests = await launch_requests(served, "refused", *tiers)
    page = await submit_batch(await logged_in("chief"), requests, decision, **fields)
    assert (page.status_code, told in words_of(page)) == (422, True), words_of(page)
    assert await decision_counts(served, requests) == [0] * len(requests)


async def test_a_batch_that_was_not_submitted_stays_on_the_page_with_what_was_entered(served: Served, logged_in: LogIn) -> None:
    one, other = await launch_requests(served, "staying", 1, 1)
    browser = await logged_in("lead")
    known = (await read_words(browser, "/inbox?job=staying")).forms["/inbox/batch?job=staying"]

    async def submit(**fields: Any) -> Words:
        body = {**known, **fields}
        answer = await browser.http.post("/inbox/batch?job=staying", data=body, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 422
        return Words(answer.text)

    nothing = await submit(decision="approve", reason="the usual")
    assert "Select at least one request." in nothing.text
    assert "the usual" in nothing.text
    assert any(f"pick-group-{one['id']}" == known.get("id") for _, known in nothing.tags)
    assert f"#pick-group-{one['id']}" in [known.get("href") for tag, known in nothing.tags if tag == "a"]
    tabs = [known["href"] for tag, known in nothing.tags if tag == "a" and "show=" in known.get("href", "")]
    assert all(href.startswith("/inbox?") for href in tabs), "links do not lead to the form's own address"
    unreasoned = await submit(decision="deny", pick=[f"{other['id']} {other['digest']}"])
    ticked = [known["id"] for tag, known in unreasoned.tags if known.get("name") == "pick" and "checked" in known]
    assert ticked == [f"pick-{other['id']}"]
    assert [known["id"] for _, known in unreasoned.tags if known.get("aria-invalid") == "true"] == [f"reason-{one['id']}"]
    assert await decision_counts(served, [one, other]) == [0, 0]


async def test_another_job_name_or_resource_is_another_kind(served: Served, logged_in: LogIn) -> None:
    requests = [*await launch_requests(served, "one-name", 1), *await launch_requests(served, "other-name", 1)]
    assert (await submit_batch(await logged_in("lead"), requests, "approve")).status_code == 422
    assert await decision_counts(served, requests) == [0, 0]


async def test_an_unknown_request_stops_the_batch(served: Served, logged_in: LogIn) -> None:
    (request,) = await launch_requests(served, "known", 1)
    unknown = {**request, "id": request["id"][:-1] + "9"}
    page = await submit_batch(await logged_in("lead"), [request, unknown], "approve")
    assert (page.status_code, f"There is no request {unknown['id']}" in words_of(page)) == (422, True)
    assert await decision_counts(served, [request]) == [0]


async def test_selecting_a_request_of_ones_own_job_does_not_decide_it(served: Served, logged_in: LogIn) -> None:
    both = await launch_requests(served, "own", 1, 1)
    page = words_of(await submit_batch(await logged_in("ops"), both, "approve"))
    assert "0 of 2 approved" in page
    assert "people cannot decide on a job that they launched" in page
    assert await decision_counts(served, both) == [0, 0]


async def test_selecting_an_unreadable_request_reveals_nothing(served: Served, logged_in: LogIn) -> None:
    requests = await launch_requests(served, "unseen-name", 1)
    page = words_of(await submit_batch(await logged_in("mallory"), requests, "approve"))
    assert f"There is no request {requests[0]['id']}" in page
    for secret in ("unseen-name", requests[0]["task"]):
        assert secret not in page
    assert await decision_counts(served, requests) == [0]
