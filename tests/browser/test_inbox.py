"""The Approvals page in Chromium over the whole stack: decisions count, pages update themselves, and typed text is never lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product
from secrets import token_hex
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.rig import COLOURS, Foresee, Launch, Look, Open, check_axe, check_text_boxes, log_in, wait_for_state
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

ASK_CHIEFS = """@id("chiefs-look-at-it")
forbid (principal, action, resource)
when { context.approved_tier < 3 && principal.labels.contains("ask=chiefs") };
"""
FOCUS_HIDDEN = """async () => {
  for (const frame of [1, 2]) await new Promise(requestAnimationFrame);
  const it = document.activeElement;
  if (!it || it === document.body) return null;
  const box = it.getBoundingClientRect();
  const parts = [0.05, 0.3, 0.5, 0.7, 0.95];
  const points = parts.flatMap((x) => parts.map((y) => [box.left + box.width * x, box.top + box.height * y]));
  const seen = points.some(([x, y]) => { const top = document.elementFromPoint(x, y); return top && (it.contains(top) || top.contains(it)); });
  return seen ? "" : `${it.tagName} ${it.id} ${it.textContent.trim().slice(0, 40)}`;
}"""
"""Empty if a part of the focused element can be seen, else its name; null if the focus has left the page."""
Waiting = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def waiting(launched: Launch) -> Waiting:
    """`request = await waiting(name="payer")`: a pending request for write on refunds-db."""

    async def of(**more: Any) -> dict[str, Any]:
        job = await launched(spec("true", access("refunds-db", "write", reason="Write the refund"), **more), "awaiting_approval")
        (request,) = job["requests"]
        return dict(request)

    return of


@pytest.fixture
async def asked_of_chiefs(shop: Shop, waiting: Waiting) -> AsyncIterator[Waiting]:
    """As `waiting`, with a policy that requires tier 3, where two people must approve."""
    file = shop.config / "policies" / "chiefs.cedar"
    file.write_text(ASK_CHIEFS)

    async def of(**more: Any) -> dict[str, Any]:
        request = await waiting(labels={"ask": "chiefs"}, **more)
        assert request["tier"] == 3
        return request

    yield of
    file.unlink()


def unique_name(name: str) -> str:
    """Return a job name that only this test uses, so that its filtered list shows nothing else."""
    return f"{name}-{token_hex(4)}"


async def fetch_request(human: Human, request: dict[str, Any]) -> dict[str, Any]:
    """Return a request from the API."""
    answer = await asyncio.to_thread(human.api.get, f"requests/{request['id']}")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


async def sign(page: Page, decision: str = "approve") -> None:
    """Open the form of a decision and submit it, in two presses."""
    form = page.locator("#sign" if decision == "approve" else "#deny-form")
    if not await form.is_visible():
        await page.locator(f"[data-go={decision}]:visible").first.click()
    await page.locator(f"#{decision}").click()


async def check_themes(page: Page) -> None:
    """Fail if axe finds a problem in a page, in either theme. A theme changes nothing but colours."""
    await page.emulate_media(color_scheme="dark")
    await check_axe(page)
    await page.emulate_media(color_scheme="light")
    await check_axe(page, COLOURS)


@pytest.mark.parametrize("back_as", ["lead", "security"])
async def test_a_typed_reason_outlives_the_end_of_the_login_for_the_same_person_only(
    person: Open, lead: Human, whole: Stack, waiting: Waiting, back_as: str
) -> None:
    request = await waiting()
    page = await person("lead")
    await page.goto(f"/inbox/{request['id']}")
    await page.locator("[data-go=deny]:visible").first.click()
    await page.locator("#deny-form textarea").fill("The photos show another product")
    await page.context.clear_cookies()
    await page.locator("#deny").click()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    await log_in(page, back_as, whole.users[back_as].password)
    form = page.locator("#deny-form")
    if back_as == "security":
        await page.locator("[data-go=deny]:visible").first.click()
        await expect(form.locator("textarea")).to_have_value("")
        return
    await expect(form.locator("textarea")).to_have_value("The photos show another product")
    assert (await fetch_request(lead, request))["state"] == "pending"
    await page.locator("#deny").click()
    await expect(page.get_by_role("status").first).to_contain_text("Denied and recorded.")
    assert (await fetch_request(lead, request))["state"] == "denied"
    assert await page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize("other", ["lead", "security"])
async def test_an_open_page_follows_another_login_of_its_browser(visitor: Open, whole: Stack, waiting: Waiting, other: str) -> None:
    request = await waiting()
    # Use a session that no other test uses, because it is logged out below.
    page = await visitor()
    await page.goto("/login")
    await log_in(page, "lead", whole.users["lead"].password)
    await page.goto(f"/inbox/{request['id']}")
    await page.locator("[data-go=deny]:visible").first.click()
    await page.locator("#deny-form textarea").fill("The photos show another product")
    async with page.expect_navigation():
        await log_in_beside(page, other, whole.users[other].password)
    await expect(page.locator("#person-menu summary")).to_have_text(other)
    form = page.locator("#deny-form")
    if other == "lead":
        await expect(form.locator("textarea")).to_have_value("The photos show another product")
        await page.locator("#deny").click()
        await expect(page.get_by_role("status").first).to_contain_text("Denied and recorded.")
        return
    await expect(form.locator("textarea")).to_have_value("")


async def test_a_form_of_an_earlier_login_is_refused_and_filled_in_again(visitor: Open, whole: Stack, foresee: Foresee, axe: Look) -> None:
    page = await visitor()
    foresee(page, "status of 403")
    await page.goto("/login")
    await log_in(page, "security", whole.users["security"].password)
    # This page is not live, so it does not notice the other login.
    await page.goto("/delegations")
    await page.get_by_label("Login name").fill("chief2")
    await page.get_by_label("Reason").fill("On leave until the fair is over")
    await log_in_beside(page, "security", whole.users["security"].password)
    await page.get_by_role("button", name="Delegate", exact=True).click()
    await expect(page.get_by_role("heading", name="Not submitted")).to_be_visible()
    await axe(page)
    await page.get_by_role("link", name="Reopen the page").click()
    await expect(page.get_by_label("Login name")).to_have_value("chief2")
    await expect(page.get_by_label("Reason")).to_have_value("On leave until the fair is over")
    await page.get_by_role("button", name="Delegate", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("Delegation added.")
    await page.get_by_role("button", name="End").first.click()


async def log_in_beside(page: Page, name: str, password: str) -> None:
    """Log out and in again in another tab of a page's browser."""
    tab = await page.context.new_page()
    await tab.goto("/sessions")
    await tab.locator("#person-menu summary").click()
    await tab.get_by_role("button", name="Log out", exact=True).first.click()
    await log_in(tab, name, password)
    await tab.close()


async def test_an_approval_needs_two_presses_counts_and_the_page_shows_it(person: Open, lead: Human, waiting: Waiting, axe: Look) -> None:
    request = await waiting(task="Pay 449.50 EUR out for order 100063")
    page = await person("lead")
    await page.goto(f"/inbox/{request['id']}")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Pay 449.50 EUR out for order 100063")
    await axe(page)
    await page.get_by_role("link", name="Approve write, 5 min").first.click()
    await expect(page.locator("#sign")).to_contain_text("lead approves write on Refunds for 5 min for the job")
    await expect(page.locator("#sign")).to_contain_text("Pay 449.50 EUR out for order 100063")
    await axe(page)
    assert (await fetch_request(lead, request))["approvals"] == []
    await page.get_by_role("button", name="Sign and approve").click()
    await expect(page.get_by_role("status").first).to_contain_text("Approved and recorded.")
    await expect(page.get_by_role("link", name="Back to list")).to_be_visible()
    await axe(page)
    found = await fetch_request(lead, request)
    assert (found["state"], [item["approver"] for item in found["approvals"]]) == ("approved", ["lead"])


async def test_an_approver_can_approve_with_limits(person: Open, lead: Human, waiting: Waiting, fits: Look) -> None:
    request = await waiting()
    page = await person("lead", width=360)
    await page.goto(f"/inbox/{request['id']}")
    await check_themes(page)
    await fits(page)
    await page.locator("#thumb").get_by_role("link", name="Approve").click()
    await check_themes(page)
    await fits(page)
    await page.get_by_text("Approve with limits").click()
    await page.get_by_label("Duration").select_option("1m")
    await expect(page.locator("#sign .signs")).to_contain_text("write on Refunds for 1 min for the job")
    await check_themes(page)
    await sign(page)
    await expect(page.get_by_role("status").first).to_contain_text("Approved and recorded.")
    found = await fetch_request(lead, request)
    assert (found["state"], found["granted_ttl"]) == ("approved", 60)


async def test_what_is_signed_follows_the_chosen_action(person: Open, waiting: Waiting) -> None:
    request = await waiting()
    page = await person("lead", width=390)
    await page.goto(f"/inbox/{request['id']}")
    thumb, signs = page.locator("#thumb"), page.locator("#sign .signs")
    await thumb.get_by_role("link", name="Approve").click()
    await page.get_by_text("Approve with limits").click()
    await page.get_by_label("Action").select_option("read")
    await expect(signs).to_contain_text("read on Refunds for 5 min for the job")
    await page.get_by_role("link", name="Back").click()
    await expect(thumb).to_contain_text("Approve read, 5 min")
    await thumb.get_by_role("link", name="Approve").click()
    await page.get_by_label("Action").select_option("")
    await expect(signs).to_contain_text("write on Refunds for 5 min for the job")


async def test_without_scripts_limits_are_stated_before_they_are_signed(person: Open, lead: Human, waiting: Waiting, axe: Look) -> None:
    request = await waiting()
    page = await person("lead", width=390, javascript=False)
    await page.goto(f"/inbox/{request['id']}")
    await page.locator("#thumb").get_by_role("link", name="Approve").click()
    await page.get_by_text("Approve with limits").click()
    await page.get_by_label("Duration").select_option("1m")
    await sign(page)
    await expect(page.locator("#sign .signs")).to_contain_text("write on Refunds for 1 min for the job")
    await expect(page.get_by_role("status")).to_contain_text("You set limits.")
    await axe(page)
    assert (await fetch_request(lead, request))["approvals"] == []
    await sign(page)
    await expect(page.get_by_role("status").first).to_contain_text(re.compile("Approved and recorded|Submitted"))
    assert (await fetch_request(lead, request))["approvals"][0]["ttl"] == 60


async def test_the_first_screen_of_a_phone_answers_what_an_approver_asks(person: Open, launched: Launch, security: Human) -> None:
    paid = access("payouts-db", "write", reason="Pay {amount} EUR back to the buyer of order {order}")
    pay_out = {
        **spec("true", paid),
        "name": unique_name("pay"),
        "task": "Pay {amount} EUR out for order {order}",
        "data_scope": {"tenant": "acme"},
    }
    pay_out["agent"] = {"name": "refund-agent", "version": "1.4"}
    first = await launched({**pay_out, "params": {"amount": "19.90", "order": "100001"}}, "awaiting_approval")
    await asyncio.to_thread(security.answer, first["requests"][0], "approve")
    await asyncio.to_thread(wait_for_state, security, first["id"], "succeeded")
    second = await launched({**pay_out, "params": {"amount": "449.50", "order": "100063"}}, "awaiting_approval", reason="Ticket 4733")
    page = await person("security", width=390)
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.goto(f"/inbox/{second['requests'][0]['id']}")
    bar = await page.locator("#thumb").bounding_box()
    assert bar
    for words in (
        "Pay 449.50 EUR out for order 100063",
        "write on Payouts to customers' accounts for 5 min",
        "agent refund-agent 1.4 · tenant acme · launched by ops",
        "Pay 449.50 EUR back to the buyer of order 100063",
        "Ticket 4733",
        "Pay 19.90 449.50 EUR out for order 100001 100063",
        "Vault control group",
        "Needs 1 approval from security",
        "Escalates to tier 3 (chiefs)",
    ):
        # The smallest element that has the words.
        box = await page.locator(".ask").get_by_text(words).last.bounding_box()
        assert box, words
        assert box["y"] + box["height"] <= bar["y"], f"{words} is behind the bar, or below it"
    sizes = await page.evaluate(
        "['h1', '.lead', '.quote'].map((name) => parseFloat(getComputedStyle(document.querySelector(name)).fontSize))"
    )
    assert sizes == sorted(sizes, reverse=True), "the task is the largest"


async def test_the_focus_is_never_hidden_behind_a_bar(person: Open, waiting: Waiting) -> None:
    request = await waiting()
    page = await person("lead")
    for width, path in product((320, 390), (f"/inbox/{request['id']}", f"/inbox/{request['id']}#sign", "/inbox")):
        await page.set_viewport_size({"width": width, "height": 640})
        await page.goto(path)
        hidden, reached = [], 0
        for _ in range(60):
            await page.keyboard.press("Tab")
            told = await page.evaluate(FOCUS_HIDDEN)
            if told is None:
                break
            reached += 1
            hidden += [told] if told else []
        assert hidden == [], (path, width)
        assert reached > 4


async def test_no_text_is_squeezed_if_a_run_differs_from_the_last_approved_one(person: Open, lead: Human, launched: Launch) -> None:
    write = access("refunds-db", "write")
    first = await launched({**spec("true", write), "name": "differing"}, "awaiting_approval")
    await asyncio.to_thread(lead.answer, first["requests"][0], "approve")
    await asyncio.to_thread(wait_for_state, lead, first["id"], "succeeded")
    second = await launched({**spec("echo a longer command than before", write), "name": "differing"}, "awaiting_approval")
    page = await person("lead", width=360)
    await page.goto(f"/inbox/{second['requests'][0]['id']}")
    await expect(page.locator(".changes ins").first).to_contain_text("a longer command than before")
    await check_text_boxes(page)


async def test_a_denial_needs_a_reason_and_ends_the_job(person: Open, lead: Human, waiting: Waiting, foresee: Foresee, axe: Look) -> None:
    request = await waiting()
    page = await person("lead")
    foresee(page, "status of 422")
    await page.goto(f"/inbox/{request['id']}")
    reason = page.get_by_label("Reason for denying")
    await sign(page, "deny")
    await expect(page.locator("#deny-reason:user-invalid")).to_be_focused()
    await reason.fill("   ")
    await sign(page, "deny")
    await expect(page.get_by_role("alert")).to_contain_text("Not submitted")
    await expect(page.locator("#deny-reason-error")).to_contain_text("Enter a reason.")
    await expect(reason).to_be_focused()
    await axe(page)
    await page.get_by_role("alert").get_by_role("link", name="Enter a reason.").click()
    await expect(reason).to_be_focused()
    assert (await fetch_request(lead, request))["state"] == "pending"
    await reason.fill("Not this customer")
    await sign(page, "deny")
    await expect(page.get_by_role("status").first).to_contain_text("Denied and recorded.")
    found = await fetch_request(lead, request)
    assert (found["state"], found["approvals"][0]["reason"]) == ("denied", "Not this customer")


async def test_two_chiefs_reach_the_quorum_and_see_each_others_decision_without_reloading(
    person: Open, chief: Human, asked_of_chiefs: Waiting, foresee: Foresee, axe: Look
) -> None:
    request = await asked_of_chiefs()
    one, other = await person("chief", anew=True), await person("chief2", anew=True, dark=True)
    foresee(one, "status of 422")
    for page in (one, other):
        await page.goto(f"/inbox/{request['id']}")
        await expect(page.locator("#facts")).to_contain_text("Needs 2 approvals by different people")
        await page.get_by_role("link", name="Approve write").first.click()
    await axe(other)
    await one.get_by_label("Reason (required)").fill("The books are right")
    await one.get_by_label("Type the job").fill("tes")
    await sign(one)
    await expect(one.locator("#confirm-error")).to_contain_text("Enter the job name exactly: test")
    assert (await fetch_request(chief, request))["approvals"] == []
    await one.get_by_label("Type the job").fill("test")
    await sign(one)
    await expect(one.get_by_role("status").first).to_contain_text("Approved and recorded.")
    # The other page was not reloaded: its event stream updated it.
    await expect(other.locator("#facts")).to_contain_text("chief approved; needs 1 more approval")
    await expect(other.locator("#sign")).to_be_visible()
    await other.get_by_label("Reason (required)").fill("So they are")
    await other.get_by_label("Type the job").fill("test")
    await sign(other)
    await expect(other.get_by_role("status").first).to_contain_text("Approved and recorded.")
    await expect(one.locator("#status")).to_contain_text("approved", use_inner_text=True)
    found = await fetch_request(chief, request)
    assert (found["state"], [item["approver"] for item in found["approvals"]]) == ("approved", ["chief", "chief2"])


async def test_an_update_does_not_overwrite_typed_text(person: Open, chief: Human, waiting: Waiting, foresee: Foresee) -> None:
    request = await waiting()
    page = await person("lead")
    foresee(page, "status of 409")
    await page.goto(f"/inbox/{request['id']}")
    await page.get_by_role("link", name="Approve write").first.click()
    await page.get_by_label("Reason", exact=True).fill("I was about to")
    answer = await asyncio.to_thread(chief.answer, request, "deny")
    assert answer.status_code == 200, answer.text
    await expect(page.locator("#status")).to_contain_text("chief")
    await expect(page.locator("#thumb")).to_be_empty()
    await expect(page.locator("#answer")).to_contain_text("This page changed while you were typing.")
    await expect(page.get_by_label("Reason", exact=True)).to_have_value("I was about to")
    await sign(page)
    await expect(page.get_by_role("alert")).to_contain_text("chief decided it at")


async def test_the_queue_adds_new_requests_and_removes_decided_ones_automatically(
    person: Open, lead: Human, chief: Human, waiting: Waiting, axe: Look
) -> None:
    name = unique_name("queued")
    page = await person("lead")
    await page.goto(f"/inbox?job={name}")
    await expect(page.locator("#mine")).to_contain_text("No requests waiting for you match these filters.")
    request = await waiting(name=name)
    line = page.locator(f"#line-{request['id']}")
    await expect(line).to_contain_text("write on Refunds for 5 min")
    await expect(page).to_have_title(re.compile(r"^\(\d+\+?\) Approvals"))
    await expect(page.locator("#waiting-count")).to_have_text(re.compile(r"^\d+\+?$"))
    await expect(page.locator("[data-alive]")).to_contain_text("Live")
    await axe(page)
    assert (await asyncio.to_thread(chief.answer, request)).status_code == 200
    await expect(line).to_have_count(0)
    # An empty section of the list is filled automatically, too.
    await page.goto("/inbox?show=answers")
    above = await waiting(name=name)
    assert (await asyncio.to_thread(lead.answer, above)).status_code == 200
    await expect(page.locator("#answers")).to_contain_text(f"{name}: write on refunds-db")


async def test_two_requests_of_one_kind_are_decided_at_once(
    person: Open, lead: Human, waiting: Waiting, axe: Look, fits: Look, foresee: Foresee
) -> None:
    name = unique_name("paired")
    both = [await waiting(name=name), await waiting(name=name)]
    page = await person("lead", width=360)
    await page.goto(f"/inbox?job={name}")
    await axe(page)
    await fits(page)
    foresee(page, "status of 422")
    await page.get_by_role("button", name="Approve selected").click()
    await expect(page.get_by_role("alert")).to_contain_text("Select at least one request.")
    await axe(page)
    for request in both:
        await page.locator(f"#pick-{request['id']}").check()
    await expect(page.get_by_role("button", name="Deny selected (2)")).to_be_visible()
    await page.get_by_label("Reason (for all selected)").fill("As every month")
    await page.get_by_role("button", name="Approve selected").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("2 of 2 approved")
    await axe(page)
    assert [(await fetch_request(lead, request))["state"] for request in both] == ["approved", "approved"]


async def test_approving_a_request_with_a_control_group_also_authorizes_it_in_vault(
    person: Open, launched: Launch, security: Human
) -> None:
    job = await launched(spec("true", access("payouts-db", "write", reason="Pay it out")), "awaiting_approval")
    (request,) = job["requests"]
    page = await person("security")
    await page.goto(f"/inbox/{request['id']}")
    await expect(page.locator("#facts")).to_contain_text("Vault control group")
    await page.get_by_role("link", name="Approve write").first.click()
    await page.get_by_label("Ticket checked").check()
    await page.get_by_label("Reason (required)").fill("The order is there")
    await sign(page)
    await expect(page.get_by_role("status").first).to_contain_text("Approved and recorded.")
    assert (await fetch_request(security, request))["approvals"][0]["reason"] == "Ticket checked. The order is there"
    ended = await asyncio.to_thread(wait_for_state, security, job["id"])
    assert (ended["state"], ended["requests"][0]["state"]) == ("succeeded", "approved")
    assert [item["action"] for item in ended["credentials"]] == ["write"]


async def test_on_a_phone_without_scripts_the_decision_is_within_reach_of_the_thumb(
    person: Open, lead: Human, waiting: Waiting, fits: Look
) -> None:
    request = await waiting()
    page = await person("lead", width=360, javascript=False, dark=True)
    await page.goto(f"/inbox/{request['id']}")
    thumb = page.locator("#thumb").get_by_role("link", name="Approve write, 5 min")
    for dark in (True, False):
        await page.emulate_media(color_scheme="dark" if dark else "light")
        await fits(page)
        box = await thumb.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= 900, "it is in view before anybody scrolls"
    await thumb.click()
    await sign(page)
    await expect(page.get_by_role("status").first).to_contain_text(re.compile("Approved and recorded|Submitted"))
    assert (await fetch_request(lead, request))["approvals"][0]["approver"] == "lead"


async def test_the_keyboard_moves_through_the_queue_and_submits_nothing(person: Open, lead: Human, waiting: Waiting) -> None:
    name = unique_name("keyed")
    request = await waiting(name=name)
    page = await person("lead")
    await page.goto(f"/inbox?job={name}")
    await page.keyboard.press("j")
    await expect(page.locator(f"#line-{request['id']}")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/inbox/{request['id']}$"))
    await page.keyboard.press("a")
    await expect(page.locator("#sign")).to_be_focused()
    await page.keyboard.press("d")
    await expect(page.locator("#deny-form")).to_be_focused()
    await expect(page.locator("#sign")).to_be_hidden()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    assert (await fetch_request(lead, request))["state"] == "pending"


async def test_a_delegation_is_added_on_an_accessible_page(person: Open, axe: Look, fits: Look) -> None:
    page = await person("chief", width=360, dark=True)
    await page.goto("/delegations")
    await axe(page)
    await fits(page)
    await page.get_by_label("Login name").fill("chief2")
    await page.get_by_label("Reason").fill("On leave")
    await page.get_by_role("button", name="Delegate", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("Delegation added.")
    await page.get_by_role("button", name="End").first.click()
    await expect(page.get_by_role("status")).to_contain_text("Delegation ended.")
