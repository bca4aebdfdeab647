"""Reading the Approvals page: the order of pending requests, and what a request's page shows in whose words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from justenough.domain.core.ids import new_job_id
from tests.adapters.store import event_samples as samples
from tests.console.pages.conftest import LogIn
from tests.console.pages.inbox_requests import Words, break_glass, read_words, record_review, spec
from tests.console.pages.page_text import text_of
from tests.console.pages.plain_browser import Site
from tests.console.pages.recorded_jobs import record_order
from tests.console.served_console import Served

HOSTILE = "<script>alert('x')</script> \u202egnp.exe\u200b"


async def launch_job(served: Served, name: str, **changes: Any) -> str:
    """Launch a job with this name; return its id."""
    order = {key: changes.pop(key) for key in ("reason", "params", "bundle") if key in changes}
    return str((await served.launch(spec(name=name, **changes), **order))["id"])


async def test_requests_are_sorted_by_deadline_and_others_follow_with_the_reason(served: Served, logged_in: LogIn) -> None:
    late, soon, above = [await launch_job(served, "clocks") for _ in range(3)]
    served.record_request(late, minutes=15)
    served.record_request(soon, minutes=5, resource="orders-db", title="Orders")
    served.record_request(above, tier=2, minutes=1)
    page = await read_words(await logged_in("lead"), "/inbox?job=clocks")
    places = [
        page.text.index(word)
        for word in (
            "Waiting for you",
            "on Orders",
            "on Refunds",
            "Waiting for other approvers",
            "View only. Can decide: security (security), chiefs (chief, chief2).",
        )
    ]
    assert places == sorted(places)
    assert "Escalates to tier 2 (security) in " in page.text


async def test_filters_are_in_the_address_and_hide_other_requests(served: Served, logged_in: LogIn) -> None:
    served.record_request(await launch_job(served, "filtered"))
    served.record_request(await launch_job(served, "filtered"), resource="orders-db", title="Orders")
    browser = await logged_in("lead")
    assert "on Orders" not in (await read_words(browser, "/inbox?job=filtered&resource=refunds-db")).text
    assert "No requests waiting for you match these filters" in (await read_words(browser, "/inbox?job=filtered&tier=2")).text
    assert (await browser.open("/inbox?tier=9")).status_code == 422
    for cursor in ("nonsense", "0001-01-01T00:00%2B14:00~r-dev-x-1"):
        assert (await browser.open(f"/inbox?show=mine&cursor={cursor}")).status_code == 422


async def test_many_pending_requests_are_paged_without_repeats_or_gaps(served: Served, logged_in: LogIn) -> None:
    one = await launch_job(served, "many")
    names = [served.record_request(one, number=number, minutes=number)["id"] for number in range(1, 34)]
    browser = await logged_in("lead")
    first = await browser.open("/inbox?show=mine&job=many")
    assert len(first.content) < 100_000
    onward = next(known["href"] for tag, known in Words(first.text).tags if tag == "a" and known.get("rel") == "next")
    second = await browser.open(f"/inbox{onward}")
    seen = [
        known["id"].removeprefix("line-")
        for page in (first, second)
        for tag, known in Words(page.text).tags
        if tag == "article" and known.get("id", "").startswith("line-")
    ]
    assert seen == names


async def test_a_request_page_says_who_requests_what_for_how_long_and_what_a_timeout_does(served: Served, logged_in: LogIn) -> None:
    request = served.record_request(await launch_job(served, "sentence", params={"ticket": "4712"}, reason="She called twice"))
    page = await read_words(await logged_in("lead"), f"/inbox/{request['id']}")
    for words in (
        "write on Refunds for 5 min confidential",
        "job sentence · agent refund-agent 1.4 · tenant acme · launched by ops",
        "Escalates to tier 2 (security)",
        "Needs 1 approval",
        "Can be revoked immediately",
        "She called twice",
        "A write changes what customers see, so the owner of the resource approves it first.",
        'permit ( principal, action == Action::"write", resource ) when { !resource.external && context.approved_tier >= 1 };',
        "print('4712')",
        "cpu 10m, memory 1GiB, processes 256, file size 1GiB, open files 4096",
        "lead approves write on Refunds for 5 min for the job",
        "lead denies write on Refunds for 5 min for the job",
        request["digest"],
    ):
        assert words in page.text, words
    assert {("decision", "approve"), ("decision", "deny")} <= page.buttons


async def test_a_timeout_at_the_top_tier_denies_and_a_quorum_of_two_is_shown(served: Served, logged_in: LogIn) -> None:
    request = served.record_request(await launch_job(served, "top"), tier=3, quorum=2, policies=["double-lock"])
    page = await read_words(await logged_in("chief"), f"/inbox/{request['id']}")
    assert "if nobody decides." in page.text
    assert "Needs 2 approvals by different people from chiefs (tier 3). Expires" in page.text
    assert "The catalog puts this action behind a Vault control group" in page.text
    served.record_answer(request, "chief2", verdict="pending")
    page = await read_words(await logged_in("chief"), f"/inbox/{request['id']}")
    assert "chief2" in page.text


async def test_untrusted_text_is_escaped_and_labelled_with_its_author(served: Served, logged_in: LogIn) -> None:
    hostile = spec(name="hostile", task=HOSTILE, agent={"name": "evil", "version": "1", "model": HOSTILE})
    hostile["run"] = {"command": ["python", HOSTILE], "env": {"X": HOSTILE}}
    request = served.record_request((await served.launch(hostile, reason=HOSTILE))["id"], reason=HOSTILE, title=HOSTILE)
    browser = await logged_in("lead")
    for path in (f"/inbox/{request['id']}", "/inbox?job=hostile"):
        raw = (await browser.open(path)).text
        assert "<script>alert" not in raw
        assert "\u202e" not in raw
        assert "\u200b" not in raw
        assert r"\u202egnp.exe\u200b" in raw
        assert [known for tag, known in Words(raw).tags if tag == "script"] == [
            known for tag, known in Words(raw).tags if known.get("type") == "module"
        ]
    page = await read_words(browser, f"/inbox/{request['id']}")
    assert "Reason (from the spec that ops signed)" in page.text


async def test_a_tool_call_request_shows_the_tool_and_every_argument_as_untrusted(served: Served, logged_in: LogIn) -> None:
    call = {"tool": "refund-order", "arguments": {"order_id": 7, "amount": 12.5, "reason": f"{HOSTILE} {'y' * 3000} the end"}}
    request = served.record_request(await launch_job(served, "calls"), call=call)
    browser = await logged_in("lead")
    raw = (await browser.open(f"/inbox/{request['id']}")).text
    assert "<script>alert" not in raw
    assert "\u202e" not in raw
    page = await read_words(browser, f"/inbox/{request['id']}")
    for words in (
        "write on Refunds for one call of refund-order",
        '"amount": 12.5',
        '"order_id": 7',
        "y the end",
        "with exactly these arguments",
    ):
        assert words in page.text, words
    assert "from the spec that ops signed" not in page.text.partition("Task")[0]


@pytest.mark.parametrize(
    "revocable, told",
    [
        ("never", "Cannot be revoked: once issued, it stays valid until its owner changes it."),
        ("on_expiry", "Cannot be revoked early: once issued, it stays valid until it expires."),
        ("now", ""),
    ],
)
async def test_the_first_screen_and_the_signing_sentence_say_how_long_irrevocable_access_lasts(
    served: Served, logged_in: LogIn, revocable: str, told: str
) -> None:
    request = served.record_request(await launch_job(served, "lasting"), revocable=revocable)
    page = (await (await logged_in("lead")).open(f"/inbox/{request['id']}")).text
    for part in ("facts", "sign"):
        shown = text_of(page, part)
        assert told in shown, part
        assert bool(told) == ("Cannot be revoked" in shown), part


@pytest.mark.parametrize(
    "within, said, unsaid",
    [
        ({"arguments": {}}, "The spec sets no limits on the arguments.", "limits such calls to"),
        ({"arguments": {}, "calls": 3}, 'limits such calls to: { "calls": 3 }', "no limits"),
        ({"arguments": {"amount": {"max": 50}}}, 'limits such calls to: { "arguments": { "amount"', "no limits"),
        (None, "with exactly these arguments", "limits"),
    ],
)
async def test_a_tool_call_request_shows_the_specs_limits_or_that_there_are_none(
    served: Served, logged_in: LogIn, within: dict[str, object] | None, said: str, unsaid: str
) -> None:
    call = {"tool": "refund-order", "arguments": {"order_id": 7}, **({"within": within} if within else {})}
    request = served.record_request(await launch_job(served, "bounded-call"), call=call)
    page = text_of((await (await logged_in("lead")).open(f"/inbox/{request['id']}")).text, "facts")
    assert said in page
    assert unsaid not in page


async def test_a_call_with_another_argument_than_the_last_approved_one_shows_the_difference(served: Served, logged_in: LogIn) -> None:
    first = served.record_request(await launch_job(served, "amounts"), call={"tool": "refund-order", "arguments": {"amount": 12}})
    served.record_answer(first, "lead")
    second = served.record_request(await launch_job(served, "amounts"), call={"tool": "refund-order", "arguments": {"amount": 5000}})
    page = await read_words(await logged_in("lead"), f"/inbox/{second['id']}")
    assert "argument amount 12 5000" in page.text
    assert "one call of refund-order, write for 5 min" in page.text.partition("Last decision: 1 approved, 0 not")[2]
    approved = await read_words(await logged_in("lead"), f"/inbox/{first['id']}")
    assert "one call of refund-order, write for 5 min" in approved.text.partition("Decisions")[2]


async def test_a_long_word_is_cut(served: Served, logged_in: LogIn) -> None:
    request = served.record_request(await launch_job(served, "long", reason="y" * 1000), reason="z" * 1000)
    raw = (await (await logged_in("lead")).open("/inbox?job=long")).text
    assert "z" * 250 not in raw
    assert len((await (await logged_in("lead")).open(f"/inbox/{request['id']}")).content) < 100_000


async def test_differences_from_the_last_approved_run_are_shown_old_and_new(served: Served, logged_in: LogIn) -> None:
    first = served.record_request(await launch_job(served, "differs"))
    served.record_answer(first, "lead")
    second = served.record_request(await launch_job(served, "differs", run={"command": ["python", "-c", "print('more')"]}), ttl=600)
    page = await read_words(await logged_in("lead"), f"/inbox/{second['id']}")
    assert "command" in page.text
    for words in ("print(", "ttl 5m 10m", "Last decision"):
        assert words in page.text, words
    earlier = page.text[page.text.index("Last decision") :]
    assert "approved lead write for 5 min" in earlier


async def test_a_text_that_is_too_long_says_so_and_hides_no_difference(served: Served, logged_in: LogIn) -> None:
    script = "pass  # nothing to see\n" * 200
    first = served.record_request(await launch_job(served, "endless", run={"command": ["python", "-c", script]}))
    served.record_answer(first, "lead")
    run = {"command": ["python", "-c", f"{script}steal()"], "env": {"LONG": "z" * 400}}
    second = served.record_request(await launch_job(served, "endless", run=run))
    page = await read_words(await logged_in("lead"), f"/inbox/{second['id']}")
    assert "2,807 more characters are not shown here" in page.text
    assert "100 more characters are not shown here" in page.text
    assert page.text.count("steal()") == 1, "what differs is shown though it comes last"
    assert any(known.get("href") == f"/jobs/{second['job_id']}/spec" for tag, known in page.tags if tag == "a")


async def test_an_identical_run_shows_no_differences(served: Served, logged_in: LogIn) -> None:
    first = served.record_request(await launch_job(served, "same"))
    served.record_answer(first, "lead")
    second = served.record_request(await launch_job(served, "same"))
    page = await read_words(await logged_in("lead"), f"/inbox/{second['id']}")
    assert "No changes since the last run of same" in page.text
    # An earlier run is not compared with a later one.
    assert (
        "no earlier run of same has an approval from a person for refunds-db"
        in (await read_words(await logged_in("lead"), f"/inbox/{first['id']}")).text
    )


async def test_the_id_that_a_launcher_chose_hides_no_earlier_run(served: Served, logged_in: LogIn) -> None:
    first = served.record_request(await launch_job(served, "backdated"))
    served.record_answer(first, "lead")
    old = await served.launch(spec(name="backdated"), id=new_job_id("dev", now=datetime.now(UTC) - timedelta(days=400)))
    second = served.record_request(old["id"], ttl=600)
    page = await read_words(await logged_in("lead"), f"/inbox/{second['id']}")
    assert "ttl 5m 10m" in page.text
    # The first request's page does not treat the second run as an earlier one, either.
    assert "has an approval from a person for" in (await read_words(await logged_in("lead"), f"/inbox/{first['id']}")).text


async def test_wider_bounds_on_tools_are_a_difference_from_the_last_approved_run(served: Served, logged_in: LogIn) -> None:
    narrow, wide = ({"refund-order": {"arguments": {"amount": {"maximum": most}}}} for most in (50, 5000))
    first = served.record_request(await launch_job(served, "bounds"), tools=narrow)
    served.record_answer(first, "lead")
    second = served.record_request(await launch_job(served, "bounds"), tools=wide)
    page = await read_words(await logged_in("lead"), f"/inbox/{second['id']}")
    assert "No changes since the last run of bounds" not in page.text
    assert "tools refund-order:amount<=50 refund-order:amount<=5000" in page.text


async def test_a_break_glass_is_named_as_such_and_is_no_approved_run_once_judged_unjustified(served: Served, logged_in: LogIn) -> None:
    first = served.record_request(await launch_job(served, "shattered"), call={"tool": "refund-order", "arguments": {"amount": 12}})
    break_glass(served, first, at=datetime.now(UTC) + timedelta(minutes=-3))
    second = served.record_request(await launch_job(served, "shattered"), call={"tool": "refund-order", "arguments": {"amount": 50}})
    lead = await logged_in("lead")
    pages = [(await lead.open(f"/inbox/{one['id']}")).text for one in (first, second)]
    assert "approved by break-glass bypassed tier 1 (owner), not reviewed yet" in text_of(pages[0], "status")
    assert "at tier 1" not in text_of(pages[0], "status")
    assert ("Tool call to approve" in pages[0], "Tool call to approve" in pages[1]) == (False, True)
    compared, earlier = text_of(pages[1], "facts"), text_of(pages[1], "earlier")
    assert "Changed since the last approved run (approved 3 min ago, break-glass by oncall, not reviewed yet)" in compared
    assert "Last decision: 0 approved, 1 by break-glass, 0 not" in earlier
    assert "3 min ago approved by break-glass break-glass by oncall, not reviewed yet" in earlier
    assert "approved by break-glass" in text_of((await lead.open(f"/jobs/{first['job_id']}")).text, "requests")
    record_review(served, first, "unjustified")
    pages = [text_of((await lead.open(f"/inbox/{one['id']}")).text, "main") for one in (first, second)]
    assert "bypassed tier 1 (owner), reviewed by lead: unjustified" in pages[0]
    assert "has an approval from a person for refunds-db that still counts" in pages[1]
    assert "break-glass by oncall, reviewed by lead: unjustified" in pages[1]


async def test_who_can_answer_no_review_is_not_told_that_none_is_open(served: Served, logged_in: LogIn) -> None:
    break_glass(served, served.record_request(await launch_job(served, "glass")))
    page = await read_words(await logged_in("auditor"), "/inbox?show=reviews")
    assert "No break-glass reviews wait for you." in page.text


async def test_previous_decisions_show_when_they_were_made(served: Served, logged_in: LogIn) -> None:
    first, second, third = [served.record_request(await launch_job(served, "timed")) for _ in range(3)]
    answered = datetime.now(UTC) - timedelta(minutes=7)
    for request, verdict, decision in ((first, "approved", "approve"), (second, "denied", "deny")):
        served.store.ledger.append([samples.approval_decision(verdict, request["job_id"], decision=decision, at=answered)])
    page = (await (await logged_in("lead")).open(f"/inbox/{third['id']}")).text
    earlier = text_of(page, "earlier")
    assert ("7 min ago approved lead" in earlier, "7 min ago denied lead" in earlier) == (True, True), earlier
    assert "(approved 7 min ago, lead)" in text_of(page, "facts")


async def test_access_that_policy_alone_allowed_is_not_compared_but_another_approved_action_is(served: Served, logged_in: LogIn) -> None:
    first = served.record_request(await launch_job(served, "alone"), action="read", policies=["reads"], tier=0)
    allowed = samples.access_decision("allowed", first["job_id"], policies=["reads"], tier=0, phase="runtime")
    served.store.ledger.append([allowed])
    second = served.record_request(await launch_job(served, "alone"), action="read")
    lead = await logged_in("lead")
    page = await read_words(lead, f"/inbox/{second['id']}")
    assert "no earlier run of alone has an approval from a person for refunds-db that still counts." in page.text
    assert "Access that policy alone allowed is not compared." in page.text
    served.record_answer(second, "lead")
    third = served.record_request(await launch_job(served, "alone"))
    page = await read_words(lead, f"/inbox/{third['id']}")
    assert "action read write" in page.text
    assert "None yet about write on refunds-db in earlier runs of alone." in page.text


async def test_a_launcher_learns_nothing_of_other_peoples_jobs_with_the_same_name(site: Site, served: Served, logged_in: LogIn) -> None:
    first = served.record_request(await launch_job(served, "borrowed", run={"command": ["python", "-c", "print('not for mallory')"]}))
    served.record_answer(first, "lead")
    mallory = await logged_in("mallory")
    me = (await site.console.sessions.session_of(mallory.cookie)).person.id
    own = served.record_request(record_order(site.store, me, name="borrowed", spec=spec(name="borrowed")))
    page = await read_words(mallory, f"/inbox/{own['id']}")
    assert "no earlier run of borrowed that you launched has an approval from a person for refunds-db" in page.text
    assert "None yet about write on refunds-db in earlier runs of borrowed." in page.text
    for secret in ("not for mallory", first["id"]):
        assert secret not in page.text
    assert "not for mallory" in (await read_words(await logged_in("lead"), f"/inbox/{own['id']}")).text


async def test_a_nul_character_in_an_address_is_rejected(logged_in: LogIn) -> None:
    browser = await logged_in("lead")
    for path in ("/jobs/j-dev-%00", "/jobs?name=a%00b", "/inbox/r-%00", "/credentials/c%00", "/ledger?job=%00"):
        answer = await browser.open(path)
        assert (answer.status_code, "must not contain a NUL character" in answer.text) == (422, True), path


async def test_the_jobs_active_access_is_shown(served: Served, logged_in: LogIn) -> None:
    name = await launch_job(served, "holding")
    request = served.record_request(name)
    served.issue(name)
    page = await read_words(await logged_in("lead"), f"/inbox/{request['id']}")
    assert "active write on refunds-db" in page.text


async def test_a_child_job_shows_its_ancestors_and_its_reason_as_untrusted(served: Served, logged_in: LogIn) -> None:
    parent = await launch_job(served, "ancestor")
    served.issue(parent)
    child = (await served.launch(spec(name="descendant"), parent=parent, reason="the agent says so"))["id"]
    page = await read_words(await logged_in("lead"), f"/inbox/{served.record_request(child)['id']}")
    assert "Launch reason (untrusted: the parent job's program or agent may have written it) the agent says so" in page.text
    assert f"Launched by {parent} (ancestor, by ops)" in page.text
    assert "touched refunds-db" in page.text


async def test_reading_the_approvals_pages_records_nothing(served: Served, logged_in: LogIn) -> None:
    request = served.record_request(await launch_job(served, "looked"))
    browser = await logged_in("lead")
    before = served.store.ledger.head()
    for path in ("/inbox", f"/inbox/{request['id']}", f"/inbox/{request['id']}?done=sent", "/delegations"):
        await read_words(browser, path)
    for path, leads_to in ((f"/inbox/{request['id']}/answer", f"/inbox/{request['id']}"), ("/inbox/batch", "/inbox")):
        assert (await browser.open(path)).headers["location"] == leads_to
    assert (await browser.open(f"/inbox/{request['id']}/claim")).status_code == 405
    assert served.store.ledger.head() == before


async def test_a_launcher_sees_their_own_requests_and_why_they_cannot_decide_them(served: Served, logged_in: LogIn) -> None:
    request = served.record_request(await launch_job(served, "owned"))
    browser = await logged_in("ops")
    assert "people cannot decide on a job that they launched" in (await read_words(browser, "/inbox?job=owned")).text
    page = await read_words(browser, f"/inbox/{request['id']}")
    assert "people cannot decide on a job that they launched" in page.text
    assert ("decision", "approve") not in page.buttons


async def test_a_launcher_cannot_see_other_peoples_requests(served: Served, logged_in: LogIn) -> None:
    request = served.record_request(await launch_job(served, "foreign"))
    browser = await logged_in("mallory")
    assert (await browser.open(f"/inbox/{request['id']}")).status_code == 404
    assert "foreign" not in (await read_words(browser, "/inbox")).text


async def test_an_auditor_can_read_but_has_no_buttons(served: Served, logged_in: LogIn) -> None:
    request = served.record_request(await launch_job(served, "audited"))
    page = await read_words(await logged_in("auditor"), f"/inbox/{request['id']}")
    assert "View only. Can decide: support-leads (lead), security (security), chiefs (chief, chief2)." in page.text
    assert not page.buttons


async def test_an_unknown_request_shows_a_not_found_page(logged_in: LogIn) -> None:
    browser = await logged_in("lead")
    missing = await browser.open(f"/inbox/r{new_job_id('dev', now=datetime.now(UTC))[1:]}-1")
    assert missing.status_code == 404
    assert "It may not exist, or you may not have access." in missing.text
