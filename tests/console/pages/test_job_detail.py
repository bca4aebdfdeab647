"""One job's page: its state, decisions with their policies and output; and stopping it, verified in Temporal, store and ledger."""

from __future__ import annotations

from html import unescape
from re import findall
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from justenough.domain.ledger.events import EventType, build_event
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.conftest import LogIn
from tests.console.pages.page_text import tags_of, text_of
from tests.console.pages.plain_browser import Browser, Site
from tests.console.pages.recorded_jobs import EVIL, SHOWN, ago, now, post_fields, record_order
from tests.support.claims import claim_job

pytestmark = pytest.mark.servers

UNKNOWN = "j-dev-01arz3ndektsv4rrffq69g5fav"
QUEUE = "nobody-works-here"


async def person_of(site: Site, who: Browser) -> str:
    return (await site.console.sessions.session_of(who.cookie)).person.id


async def start_job(site: Site, who: Browser, temporal: Client, **changes: Any) -> tuple[str, WorkflowHandle[Any, Any]]:
    """Start a person's job whose workflow waits for a worker."""
    job = record_order(site.store, await person_of(site, who), **changes)
    site.store.ledger.append([samples.job_start(job, at=now()), samples.issuance(job, at=now())])
    return job, await temporal.start_workflow("Job", id=job, task_queue=QUEUE)


async def history_events(handle: WorkflowHandle[Any, Any], what: str) -> list[Any]:
    history = await handle.fetch_history()
    return [item for item in history.events if item.HasField(what)]  # type: ignore[arg-type] # the field's name is a parameter here


def stop_requests(site: Site, job: str) -> list[tuple[str, str]]:
    entries = site.store.ledger.entries(job=job, types=[EventType.STOP_REQUESTED]).items
    return [(entry.data["how"], entry.data["name"]) for entry in entries]


async def test_a_job_shows_its_state_requests_decisions_and_credentials(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9", at=ago(minutes=5))
    begun = ago(minutes=5)
    site.store.ledger.append(
        [
            samples.access_request(job, at=begun),
            samples.access_decision("needs_approval", job, tier=1, at=begun),
            samples.approval_opening(job, at=begun),
        ]
    )
    site.store.ledger.append(
        [
            samples.approval_decision("approved", job, at=ago(minutes=4)),
            samples.job_start(job, at=ago(minutes=3)),
            samples.issuance(job, at=ago(minutes=3)),
        ]
    )
    page = (await lead.open(f"/jobs/{job}")).text
    assert "Running. 1 active credential: write on orders-db." in text_of(page, "top")
    assert "refund-agent 1.4 · model scripted · owner support" in text_of(page, "top")
    assert "tenant=acme" in text_of(page, "top")
    assert "approved lead, tier 1 (owner), 4 min ago, for 5m" in text_of(page, "requests")
    assert "Looks right" in text_of(page, "requests")
    assert part_id(job, "c") in text_of(page, "credentials")
    assert "ticket=4711" in text_of(page, "order")
    assert "sha256:" + "b" * 64 in text_of(page, "order")
    assert '"command"' in text_of(page, "spec")
    assert "access.requested" in text_of(page, "ledger")
    assert f'href="/ledger?job={job}"' in page
    for row in ("Queued", "Running", "request write orders-db", "credential write orders-db"):
        assert row in text_of(page, "timeline")
    assert 'class="now-line"' in page
    assert len(page) < 100_000


async def test_the_timeline_of_a_job_that_lasted_for_days_says_on_which_day_it_ended(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    submitted, ended = ago(days=3), ago(days=1)
    job = record_order(site.store, "e-9", at=submitted)
    site.store.ledger.append([samples.job_start(job, at=submitted), samples.job_end(job=job, at=ended)])
    page = text_of((await lead.open(f"/jobs/{job}")).text, "timeline")
    assert f"{submitted:%Y-%m-%d} UTC, from {submitted:%H:%M:%S} to {ended:%Y-%m-%d %H:%M:%S}" in page


async def test_the_deciding_policys_text_is_shown_and_whether_it_has_changed(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    policies = site.console.deps.config.current().policies
    rule = next(rule for rule in policies.rules if rule.id == "read-up-to-confidential")
    job = record_order(site.store, "e-9")
    same = samples.access_decision("allowed", job, policies=[rule.id], policy_digest=policies.digest)
    old = samples.access_decision("allowed", job, number=2, policies=[rule.id, "was-removed"])
    site.store.ledger.append([samples.access_request(job), same, samples.access_request(job, number=2), old])
    page = (await lead.open(f"/jobs/{job}")).text
    told = text_of(page, "policies")
    assert " ".join(rule.text.split()) in told
    assert told.count(rule.id) == 2, "its heading and its own text, once for both"
    assert f"which were made by {'sha256:' + 'd' * 12}…" in told
    assert "was-removed No policy with this name is in force." in told
    assert "changed since" not in text_of(page, part_id(job, "r"))
    assert "The policies have changed since then." in text_of(page, part_id(job, "r", 2))


async def test_a_job_with_hundreds_of_requests_and_much_output_is_still_a_light_page(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9", spec={"name": "<&>" * 20_000})
    issued = [
        (
            samples.access_request(job, number=number),
            samples.access_decision("allowed", job, number=number),
            samples.issuance(job, number=number, at=now()),
        )
        for number in range(1, 301)
    ]
    # At once: the console shares this thread, and closes connections that it does not hear from.
    site.store.ledger.append(
        [
            *(event for events in issued for event in events),
            samples.access_request(job, number=301),
            samples.access_decision("needs_approval", job, number=301, tier=1),
            samples.approval_opening(job, number=301),
        ]
    )
    site.store.logs.append(job, 1, "<&'\">" * 10_000, now())
    page = (await lead.open(f"/jobs/{job}")).text
    assert len(page.encode()) < 100_000
    # Pending requests come first.
    assert page.index(part_id(job, "r", 301) + "-t") < page.index(part_id(job, "r", 1) + "-t")
    assert findall(r"and \d+ more in the ledger", text_of(page, "timeline"))
    assert f'href="/credentials?job={job}"' in page
    assert (await lead.open(f"/jobs/{job}/spec")).json() == {"name": "<&>" * 20_000}


async def test_an_ended_job_shows_its_result_and_that_its_access_is_revoked(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9", at=ago(seconds=60))
    site.store.ledger.append(
        [
            samples.job_start(job, at=ago(seconds=50)),
            samples.issuance(job, at=ago(seconds=50)),
            samples.revocation_start(job, at=ago(seconds=5)),
        ]
    )
    site.store.ledger.append(
        [
            samples.credential_confirmation(job, at=ago(seconds=4)),
            samples.revocation_proof(job, at=ago(seconds=4)),
            samples.job_end(job=job, at=ago(seconds=3)),
        ]
    )
    page = (await lead.open(f"/jobs/{job}")).text
    assert "Succeeded. Its credential is revoked (verified)." in text_of(page, "top")
    assert "no access left" in text_of(page, "top")
    assert "Revoking" in text_of(page, "timeline")
    assert "its lease is gone, its login is gone" in text_of(page, "credentials")
    assert 'class="now-line"' not in page
    assert "log=" not in page.partition("data-stream=")[2].partition('"')[0]
    assert "Run again" not in page, "who approves launches nothing"
    ops = await logged_in("ops")
    own = record_order(site.store, (await site.console.sessions.session_of(ops.cookie)).person.id, at=ago(seconds=60))
    again = f'href="/jobs/new?paste=1&amp;from={own}"'
    assert again in (await ops.open(f"/jobs/{own}")).text
    site.store.ledger.append([samples.job_end(job=own, at=ago(seconds=3))])
    ended = (await ops.open(f"/jobs/{own}")).text
    assert again in ended
    with_files = {"name": "refund-triage", "run": {"command": ["true"], "workdir": "programs"}}
    others = [
        record_order(site.store, await person_of(site, ops), name=name, spec={**with_files, "name": name}, reason="Ticket 4733")
        for name in ("refund-triage", "own-files")
    ]
    site.store.ledger.append([samples.job_end("killed", job=one, at=now()) for one in others])
    of_template, of_files = [(await ops.open(f"/jobs/{one}")).text for one in others]
    assert (again_link := f"/jobs/new?template=refund-triage.yaml&amp;from={others[0]}") in of_template
    assert "justenough job run FILE" in of_files
    assert "Ticket 4733" in text_of((await ops.open(again_link.replace("&amp;", "&"))).text), "the launch reason is kept"
    assert 'id="order" data-region' in ended, "what is known only later appears by itself"


async def test_a_stopped_job_says_who_stopped_it_and_why(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9", at=ago(seconds=60))
    asked = build_event(
        EventType.STOP_REQUESTED,
        job,
        at=ago(seconds=5),
        about="kill/e-lead",
        how="kill",
        person="e-lead",
        name="lead",
        reason=f"Stop {EVIL}",
    )
    site.store.ledger.append([asked, samples.job_end("killed", job=job, at=ago(seconds=3))])
    page = (await lead.open(f"/jobs/{job}")).text
    assert "Killed. No credentials issued. Kill requested by lead, " in text_of(page, "top")
    assert f"“Stop {SHOWN}”" in page


LOCK = "lock in db:5432/shop: session 4711 of backup (application nightly) holds locks on what is left of the job, in a transaction since 2026-01-31T09:20:00Z"


async def test_the_banner_of_a_stop_goes_once_the_job_has_ended(site: Site, logged_in: LogIn) -> None:
    lead, job = await logged_in("lead"), record_order(site.store, "e-9")
    site.store.ledger.append([samples.job_start(job, at=now())])
    running = (await lead.open(f"/jobs/{job}?done=kill")).text
    assert "Kill requested: its access is revoked first" in text_of(running, "done")
    assert "Cancel: end the process, then revoke. Kill: revoke first, then kill." in text_of(running, "top")
    site.store.ledger.append([samples.job_end("killed", job, at=now())])
    for done, kept in (("kill", ""), ("cancel", ""), ("gone", ""), ("launched", ""), ("again", "already submitted")):
        ended = (await lead.open(f"/jobs/{job}?done={done}")).text
        assert kept in text_of(ended, "done"), done
        assert bool(text_of(ended, "done")) == bool(kept), done
        assert "Cancel: end the process" not in ended


async def test_overdue_access_comes_first(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9")
    site.store.ledger.append(
        [
            samples.job_start(job),
            samples.issuance(job),
            samples.revocation_start(job),
            samples.overdue_revocation(job),
            samples.job_end("failed", job, at=now()),
        ]
    )
    told = text_of((await lead.open(f"/jobs/{job}")).text, "top")
    assert "Revocation overdue: this access may still work" in told
    assert "leases: the target does not answer" in told
    assert "pg_terminate_backend" not in told

    site.store.ledger.append([samples.replace_data(samples.overdue_revocation(job, at=now(), attempt=2), failures=[LOCK])])
    page = (await lead.open(f"/jobs/{job}")).text
    top = text_of(page, "top")
    assert (
        "In db:5432/shop, session 4711 of backup (application nightly) holds the lock. If nobody needs it, connect as a superuser:" in top
    )
    assert top.index("holds the lock") < top.index("psql -h db -p 5432 -d shop -U SUPERUSER") < top.index("SELECT pg_catalog.pg_terminate")
    for path in (f"/jobs/{job}", f"/credentials/{part_id(job, 'c')}", "/now"):
        blocks = findall(r"<pre[^>]*>(SELECT pg_catalog[^<]*)</pre>", (await lead.open(path)).text)
        (statement,) = [unescape(block) for block in blocks if "pid = 4711" in block]
        assert statement.endswith("+ interval '1s';"), "it can be copied as it is"


async def test_people_cannot_see_jobs_that_they_may_not_read(site: Site, logged_in: LogIn) -> None:
    ops, mallory = await logged_in("ops"), await logged_in("mallory")
    job = record_order(site.store, await person_of(site, ops))
    site.store.logs.append(job, 1, "of ops alone\n", now())
    for path in ("", "/output", "/cancel", "/kill"):
        answers = [await mallory.open(f"/jobs/{one}{path}") for one in (job, UNKNOWN)]
        assert [answer.status_code for answer in answers] == [404, 404], path
        # A hidden job gets the same response as an unknown one.
        assert answers[0].text.replace(job, "").partition("<h1>")[2] == answers[1].text.replace(UNKNOWN, "").partition("<h1>")[2]
    for path in ("cancel", "kill", "prove"):
        answer = await post_fields(mallory, f"/jobs/{job}/{path}")
        assert answer.status_code == 404, path
    assert stop_requests(site, job) == []
    assert (await ops.open(f"/jobs/{job}")).status_code == 200
    assert (await ops.open(f"/jobs/{UNKNOWN}/kill")).status_code == 404


async def test_untrusted_text_is_only_text_and_hides_nothing(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    agent = {"name": EVIL, "version": EVIL, "model": EVIL, "owner": EVIL}
    told: dict[str, Any] = {
        "task": EVIL,
        "reason": EVIL,
        "requester_name": EVIL,
        "labels": {"a": EVIL},
        "params": {"b": EVIL},
        "data_scope": {"c": EVIL},
    }
    job = record_order(site.store, "e-9", agent=agent, spec={"name": EVIL}, **told)
    site.store.ledger.append(
        [
            samples.access_request(job, reason=EVIL, title=EVIL, resource=EVIL),
            samples.access_decision("needs_approval", job, tier=1),
            samples.approval_opening(job),
        ]
    )
    site.store.ledger.append(
        [
            samples.replace_data(samples.approval_decision("approved", job), name=EVIL, reason=EVIL),
            samples.job_start(job),
            samples.issuance(job, resource=EVIL),
        ]
    )
    why = samples.replace_data(samples.credential_confirmation(job), how=EVIL)
    site.store.ledger.append(
        [
            samples.replace_data(samples.overdue_revocation(job), failures=[EVIL]),
            why,
            samples.replace_data(samples.job_end("failed", job), reason=EVIL),
        ]
    )
    child = record_order(site.store, "e-9", parent=job, name=EVIL)
    site.store.logs.append(job, 1, EVIL, now())
    for path in (f"/jobs/{job}", f"/jobs/{child}"):
        page = (await lead.open(path)).text
        assert SHOWN in page
        assert "\u202e" not in page
        assert tags_of(page).count("script") == 1


async def test_the_end_of_the_output_is_shown_and_all_of_it_can_be_downloaded(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9")
    texts = [f"{number} {'x' * 900}\n" for number in range(100)]
    for seq, text in enumerate(texts, 1):
        site.store.logs.append(job, seq, text, now())
    page = (await lead.open(f"/jobs/{job}")).text
    assert 'data-log="100"' in page
    assert "99 xxx" in page
    assert "\n0 xxx" not in page
    assert "The last part of the job's output" in text_of(page, "output")
    assert f"job={job}&amp;log=100" in page
    whole = await lead.open(f"/jobs/{job}/output")
    assert whole.text == "".join(texts)
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"] == f'attachment; filename="{job}.txt"'
    assert (whole.headers["cache-control"], whole.headers["x-content-type-options"]) == ("no-store", "nosniff")


async def test_a_failed_job_shows_the_last_lines_of_its_output_beside_its_result(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    failed, succeeded, silent = [record_order(site.store, "e-9") for _ in range(3)]
    output = "".join(f"line {number}\n\n" for number in range(1, 8)) + f"{EVIL} {'y' * 300}\n\n"
    for job in (failed, succeeded):
        site.store.logs.append(job, 1, output, now())
    site.store.ledger.append(
        [samples.job_end("failed", failed), samples.job_end("succeeded", succeeded), samples.job_end("failed", silent)]
    )
    page = (await lead.open(f"/jobs/{failed}")).text
    top = text_of(page, "top")
    assert "Last lines of the output (untrusted)" in top
    assert ("line 3" in top, "line 4" in top, "line 7" in top) == (False, True, True)
    assert SHOWN in page.partition('id="timeline"')[0]
    assert "y" * 200 not in top
    assert 'href="#output">Whole output' in page
    assert "Last lines" not in (await lead.open(f"/jobs/{succeeded}")).text
    assert "Last lines" not in (await lead.open(f"/jobs/{silent}")).text


async def test_ancestors_and_readable_children_are_shown(site: Site, logged_in: LogIn) -> None:
    lead, ops = await logged_in("lead"), await logged_in("ops")
    person = await person_of(site, ops)
    parent = record_order(site.store, person, name="the-parent")
    job = record_order(site.store, person, name="the-middle", parent=parent)
    mine, other = (
        record_order(site.store, person, name="my-child", parent=job),
        record_order(site.store, "e-9", name="no-child-of-mine", parent=job),
    )
    seen = (await lead.open(f"/jobs/{job}")).text
    assert f"/jobs/{parent}" in seen
    assert {f"/jobs/{mine}", f"/jobs/{other}"} <= set(seen.split('"'))
    seen = (await ops.open(f"/jobs/{job}")).text
    assert f"/jobs/{mine}" in seen
    assert other not in seen


async def test_temporals_page_is_linked_if_its_address_is_configured(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9")
    assert "Open in Temporal" not in (await lead.open(f"/jobs/{job}")).text
    site.console.deps.settings.__dict__["temporal_ui_url"] = "https://temporal.example/ui/"
    try:
        page = (await lead.open(f"/jobs/{job}")).text
    finally:
        site.console.deps.settings.__dict__["temporal_ui_url"] = None
    assert f'href="https://temporal.example/ui/namespaces/default/workflows/{job}"' in page


async def test_the_kill_page_names_the_access_it_revokes_and_opening_it_changes_nothing(
    site: Site, logged_in: LogIn, temporal: Client
) -> None:
    ops = await logged_in("ops")
    job, handle = await start_job(site, ops, temporal)
    page = (await ops.open(f"/jobs/{job}/kill")).text
    assert "Access is revoked immediately, then the process is killed." in text_of(page)
    assert "write on orders-db" in text_of(page)
    assert await history_events(handle, "workflow_execution_signaled_event_attributes") == []
    assert (await ops.submit(f"/jobs/{job}/kill", f"/jobs/{job}/kill", reason="x" * 1001)).status_code == 422
    sent = await ops.submit(f"/jobs/{job}/kill", f"/jobs/{job}/kill", reason=EVIL)
    assert (sent.status_code, sent.headers["location"]) == (303, f"/jobs/{job}?done=kill")
    signals = await history_events(handle, "workflow_execution_signaled_event_attributes")
    assert [item.workflow_execution_signaled_event_attributes.signal_name for item in signals] == ["kill"]
    assert stop_requests(site, job) == [("kill", "ops")]
    shown = (await ops.open(sent.headers["location"])).text
    assert "Kill requested" in text_of(shown)
    assert "ops requested to kill the job: " in text_of(shown, "ledger")
    assert SHOWN in shown
    await handle.terminate()


async def test_a_reason_may_be_as_long_as_its_field_accepts_with_line_breaks(site: Site, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    job = record_order(site.store, await person_of(site, ops), name="broken-lines")
    typed = "x\n" * 500
    # Browsers send a line break as two characters, but the field's maxlength counts it as one.
    sent = await ops.submit(f"/jobs/{job}/kill", f"/jobs/{job}/kill", reason=typed.replace("\n", "\r\n"))
    assert sent.status_code == 303
    (entry,) = site.store.ledger.entries(job=job, types=(EventType.STOP_REQUESTED,)).items
    assert entry.data["reason"] == typed.strip()


async def test_a_cancel_reaches_the_workflow(site: Site, logged_in: LogIn, temporal: Client) -> None:
    ops = await logged_in("ops")
    job, handle = await start_job(site, ops, temporal)
    sent = await ops.submit(f"/jobs/{job}/cancel", f"/jobs/{job}/cancel")
    assert (sent.status_code, sent.headers["location"]) == (303, f"/jobs/{job}?done=cancel")
    assert len(await history_events(handle, "workflow_execution_cancel_requested_event_attributes")) == 1
    assert stop_requests(site, job) == [("cancel", "ops")]
    await handle.terminate()


async def test_a_kill_without_a_workflow_stops_issuing_and_says_so(site: Site, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    job = record_order(site.store, await person_of(site, ops))
    page = (await ops.open(f"/jobs/{job}/kill")).text
    assert ("Back to the job" in page, "Keep running" in page) == (True, False), "a job that does not run cannot keep running"
    sent = await ops.submit(f"/jobs/{job}/kill", f"/jobs/{job}/kill")
    assert sent.headers["location"] == f"/jobs/{job}?done=gone"
    assert "The job's workflow could not be reached." in text_of((await ops.open(sent.headers["location"])).text)
    assert claim_job(site.store, job, run="late", owner="a worker that slept", now=now()) is False


async def test_an_ended_job_cannot_be_stopped_and_shows_its_result(site: Site, logged_in: LogIn, temporal: Client) -> None:
    ops = await logged_in("ops")
    job, handle = await start_job(site, ops, temporal)
    form = await ops.open(f"/jobs/{job}/cancel")
    site.store.ledger.append(
        [
            samples.credential_confirmation(job, at=now()),
            samples.revocation_proof(job, at=now()),
            samples.job_end("failed", job, at=now(), exit_code=3),
        ]
    )
    for how in ("cancel", "kill"):
        answer = await post_fields(ops, f"/jobs/{job}/{how}")
        assert answer.status_code == 409
        told = text_of(answer.text, "main")
        assert "This job has already ended" in told
        assert "failed Failed." in told
        assert "Nothing was changed." in told
    assert form.status_code == 200
    assert stop_requests(site, job) == []
    assert await history_events(handle, "workflow_execution_cancel_requested_event_attributes") == []
    page = (await ops.open(f"/jobs/{job}")).text
    assert f"/jobs/{job}/kill" not in page
    await handle.terminate()


async def test_people_who_may_not_stop_jobs_get_no_buttons_and_are_refused(site: Site, logged_in: LogIn, temporal: Client) -> None:
    ops, auditor, lead = await logged_in("ops"), await logged_in("auditor"), await logged_in("lead")
    job, handle = await start_job(site, ops, temporal)
    page = (await auditor.open(f"/jobs/{job}")).text
    for how in ("cancel", "kill"):
        assert f"/jobs/{job}/{how}" not in page
        assert f"/jobs/{job}/{how}" in (await lead.open(f"/jobs/{job}")).text
        assert (await auditor.open(f"/jobs/{job}/{how}")).status_code == 403
        answer = await post_fields(auditor, f"/jobs/{job}/{how}")
        assert answer.status_code == 403
        assert "Only the job's launcher may do this, or a member of: break-glass, chiefs, security" in text_of(answer.text)
    assert stop_requests(site, job) == []
    await handle.terminate()


async def test_a_form_without_the_csrf_token_stops_nothing(site: Site, logged_in: LogIn, temporal: Client) -> None:
    ops = await logged_in("ops")
    job, handle = await start_job(site, ops, temporal)
    for how in ("cancel", "kill", "prove"):
        answer = await ops.send(f"/jobs/{job}/{how}", {"csrf": "somebody else's"})
        assert answer.status_code == 403
        elsewhere = await post_fields(ops, f"/jobs/{job}/{how}", csrf="")
        assert elsewhere.status_code == 403
    assert stop_requests(site, job) == []
    assert await history_events(handle, "workflow_execution_signaled_event_attributes") == []
    await handle.terminate()


async def test_text_in_the_address_is_not_shown(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-9")
    assert "your order was sent" not in (await lead.open(f"/jobs/{job}?done=your+order+was+sent")).text
    assert (await lead.open(f"/jobs/{job}/nonsense")).status_code == 404
