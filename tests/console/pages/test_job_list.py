"""The list of jobs: filters in the address, paging; nobody sees jobs that they may not read."""

from __future__ import annotations

import csv
import io
import re

import pytest

from console.pages.jobs.job_list import COLUMNS, PAGE_SIZE
from console.services.visibility import MAX_PAGES_READ
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import EventType
from tests.adapters.store.event_samples import (
    access_request,
    credential_confirmation,
    credential_event,
    issuance,
    job_end,
    job_start,
    revocation_proof,
)
from tests.console.pages.conftest import LogIn
from tests.console.pages.page_text import tags_of, text_of
from tests.console.pages.plain_browser import Browser, Site
from tests.console.pages.recorded_jobs import EVIL, SHOWN, now, record_order

pytestmark = pytest.mark.servers

LINK = re.compile(r'data-open href="/jobs/(?P<job>j-[^"]+)"')


def jobs_on(page: str) -> list[str]:
    return [found["job"] for found in LINK.finditer(page)]


async def person_of(site: Site, who: Browser) -> str:
    return (await site.console.sessions.session_of(who.cookie)).person.id


async def test_jobs_are_newest_first_and_a_launcher_sees_only_their_own(site: Site, logged_in: LogIn) -> None:
    lead, ops, mallory = [await logged_in(name) for name in ("lead", "ops", "mallory")]
    first, second = [record_order(site.store, await person_of(site, ops)) for _ in range(2)]
    assert jobs_on((await lead.open("/jobs")).text)[:2] == [second, first]
    assert jobs_on((await ops.open("/jobs")).text)[:2] == [second, first]
    seen = jobs_on((await mallory.open("/jobs")).text)
    assert not {first, second} & set(seen)


async def test_filters_are_in_the_address_and_narrow_together(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    runs = record_order(site.store, "e-1", name="narrowed", requester_name="zelda", environment="dev")
    over = record_order(site.store, "e-1", name="narrowed", requester_name="zelda", environment="prod", parent=runs)
    site.store.ledger.append([job_start(runs), job_end("failed", over, at=now())])
    for query, left in (
        ("name=narrowed", [over, runs]),
        ("requester=zelda&state=running", [runs]),
        ("requester=zelda&environment=prod", [over]),
        (f"parent={runs}", [over]),
        ("name=narrowed&state=denied", []),
        # A form with empty fields sends this query.
        ("name=narrowed&state=failed&environment=&requester=&parent=&revocation=", [over]),
    ):
        answer = await lead.open(f"/jobs?{query}")
        assert (answer.status_code, jobs_on(answer.text)) == (200, left), query
    nothing = text_of((await lead.open("/jobs?name=narrowed&state=denied")).text, "rows")
    assert nothing.startswith("No jobs match these filters.")


async def test_the_list_counts_the_active_credentials_of_running_jobs(site: Site, logged_in: LogIn) -> None:
    lead, holds, bare, over = await logged_in("lead"), *(record_order(site.store, "e-1", name="holders") for _ in range(3))
    site.store.ledger.append([job_start(job) for job in (holds, bare, over)])
    site.store.ledger.append([issuance(holds, number=number, at=now()) for number in (1, 2, 3)])
    site.store.ledger.append([credential_confirmation(holds, number=3, at=now()), job_end(job=over, at=now())])
    rows = text_of((await lead.open("/jobs?name=holders&columns=access")).text, "rows")
    # The newest job comes first.
    assert re.findall(r"no access issued|running –|running \d+ active", rows) == ["no access issued", "running –", "running 2 active"]


async def test_the_list_is_filtered_by_unverified_revocation(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-2", name="unclean")
    site.store.ledger.append([job_start(job), issuance(job), job_end("failed", job, at=now())])
    assert job in jobs_on((await lead.open("/jobs?revocation=pending")).text)
    assert job not in jobs_on((await lead.open("/jobs?revocation=overdue")).text)


async def test_the_list_is_filtered_by_access_that_cannot_be_revoked(site: Site, logged_in: LogIn) -> None:
    lead, kept, clean = await logged_in("lead"), record_order(site.store, "e-2", name="kept"), record_order(site.store, "e-2", name="clean")
    left = credential_event(EventType.CREDENTIAL_RESIDUAL, kept, at=now(), until=None, why="its owner must change it")
    site.store.ledger.append(
        [job_start(kept), issuance(kept, revocable="never"), left, revocation_proof(kept, at=now()), job_end(job=kept, at=now())]
    )
    site.store.ledger.append([job_start(clean), job_end(job=clean, at=now())])
    page = (await lead.open("/jobs?revocation=residual")).text
    assert (kept in jobs_on(page), clean in jobs_on(page)) == (True, False)
    assert "still valid in part" in text_of(page, "main")
    job = text_of((await lead.open(f"/jobs/{kept}")).text, "main")
    assert "1 credential cannot be revoked early; valid until its owner changes it." in job
    assert "revoked (verified)" not in job


@pytest.mark.parametrize("query", ["state=gone", "revocation=none", "cursor=nonsense", f"name={'a' * 300}"])
async def test_an_invalid_filter_shows_an_error_page(logged_in: LogIn, query: str) -> None:
    answer = await (await logged_in("lead")).open(f"/jobs?{query}")
    assert answer.status_code == 422
    text = text_of(answer.text, "main")
    assert query.partition("=")[0] in text
    assert not re.search(r"literal|enum|must be ''", text), text
    assert 'class="button" href="/now">Dashboard</a>' in answer.text


async def test_each_page_continues_after_the_previous_one(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    wanted = [record_order(site.store, "e-3", name="paged") for _ in range(PAGE_SIZE + 3)]
    # Every console that starts asks Temporal for each pending job, and later tests start many consoles.
    site.store.ledger.append([job_end(job=job, at=now()) for job in wanted])
    first = (await lead.open("/jobs?name=paged")).text
    onward = re.search(r'rel="next" href="(\?[^"]+)"', first)
    assert onward
    second = (await lead.open("/jobs" + onward[1].replace("&amp;", "&"))).text
    assert jobs_on(first) + jobs_on(second) == wanted[::-1]
    (turned,) = re.findall(r'href="(\?[^"]+)">Oldest first', first)
    oldest = (await lead.open("/jobs" + turned.replace("&amp;", "&"))).text
    onward = re.search(r'rel="next" href="(\?[^"]+)"', oldest)
    assert onward
    assert jobs_on(oldest) + jobs_on((await lead.open("/jobs" + onward[1].replace("&amp;", "&"))).text) == wanted
    assert "oldest first · Newest first" in text_of(oldest, "rows")
    exported = csv.DictReader(io.StringIO((await lead.open("/jobs/export?name=paged&order=oldest")).text))
    assert [row["id"] for row in exported] == wanted
    assert len(first) < 100_000


async def test_untrusted_text_of_jobs_is_shown_as_text(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    record_order(site.store, "e-4", name="evil", task=EVIL, requester_name=EVIL)
    page = (await lead.open("/jobs", params={"name": "evil"})).text
    assert page.count(SHOWN) >= 2
    assert tags_of(page).count("script") == 1


async def test_every_state_is_a_filter_and_rows_update_live(logged_in: LogIn) -> None:
    page = (await (await logged_in("lead")).open("/jobs")).text
    for state in JobState:
        assert f'href="?state={state.value}"' in page
    assert 'id="rows" data-region' in page
    assert "topics=job%2Capproval%2Crevocation" in page


async def test_a_person_without_a_role_sees_no_list(logged_in: LogIn) -> None:
    assert (await (await logged_in("outsider")).open("/jobs")).status_code == 403


async def test_jobs_are_found_by_agent_label_resource_and_age(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    agent = {"name": "traits-agent", "version": "2", "model": "scripted", "owner": "billing"}
    job = record_order(site.store, "e-5", name="traits", labels={"team": "traits"}, agent=agent)
    site.store.ledger.append([access_request(job, resource="payouts-db")])
    old = record_order(site.store, "e-5", name="traits")
    for query in (
        "agent=traits-agent",
        "label=team%3Dtraits",
        "name=traits&resource=payouts-db",
        "name=traits&agent=traits-agent&since=1h",
    ):
        assert jobs_on((await lead.open(f"/jobs?{query}")).text) == [job], query
    assert jobs_on((await lead.open("/jobs?name=traits")).text) == [old, job]
    for query, message in (("label=team", "must have the form key=value"), ("since=yesterday-ish", "yesterday-ish")):
        answer = await lead.open(f"/jobs?{query}")
        assert (answer.status_code, message in answer.text) == (200, True), query
        assert 'aria-invalid="true"' in answer.text
        assert (await lead.open(f"/jobs/export?{query}")).status_code == 422


async def test_the_page_says_how_many_jobs_match(site: Site, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = await logged_in("lead")
    for _ in range(3):
        record_order(site.store, "e-5", name="counted")
    assert "3 in all" in text_of((await lead.open("/jobs?name=counted")).text, "rows")
    monkeypatch.setattr("console.pages.jobs.job_list.MAX_COUNTED", 2)
    assert "2+ in all" in text_of((await lead.open("/jobs?name=counted")).text, "rows")


async def test_columns_are_chosen_in_the_address(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    record_order(site.store, "e-5", name="columns")
    page = (await lead.open("/jobs?name=columns&columns=agent,access")).text
    assert [text for text in ("Access", "Agent", "Environment", "Duration") if f'scope="col">{text}<' in page] == ["Access", "Agent"]
    assert 'data-label="Agent">refund-agent' in page
    every = (await lead.open(f"/jobs?name=columns&columns={','.join(COLUMNS)}")).text
    assert re.findall(r'<td data-label="([^"]+)"', every) == ["State", *COLUMNS.values()]
    form = (await lead.open("/jobs?name=columns&column=duration&column=nonsense")).text
    assert [text for text in ("Access", "Agent", "Environment", "Duration") if f'scope="col">{text}<' in form] == ["Duration"]


async def test_a_page_without_matches_does_not_say_that_no_job_matches_if_more_jobs_follow(
    site: Site, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = await logged_in("lead")
    wanted = record_order(site.store, "e-5", name="far-back", labels={"team": "far-back"})
    for _ in range(MAX_PAGES_READ):
        record_order(site.store, "e-5", name="far-back", labels={})
    monkeypatch.setattr("console.pages.jobs.job_list.PAGE_SIZE", 1)
    page = (await lead.open("/jobs?name=far-back&label=team%3Dfar-back")).text
    assert jobs_on(page) == []
    assert text_of(page, "rows") == "No jobs on this page match these filters. The next page may have some. Clear filters Next page"
    onward = re.search(r'rel="next" href="(\?[^"]+)"', page)
    assert onward
    assert jobs_on((await lead.open("/jobs" + onward[1].replace("&amp;", "&"))).text) == [wanted]


async def test_chosen_columns_stay_when_the_list_is_filtered_or_turned(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    record_order(site.store, "e-5", name="kept-columns")
    # The form for columns sends this query.
    page = (await lead.open("/jobs?name=kept-columns&column=access&column=agent")).text
    for link in (r'href="(\?[^"]+)">Oldest first', r'href="(\?[^"]*state=pending[^"]*)"'):
        (onward,) = re.findall(link, page)
        assert jobs_on(followed := (await lead.open("/jobs" + onward.replace("&amp;", "&"))).text), link
        assert [text for text in ("Access", "Agent", "Duration") if f'scope="col">{text}<' in followed] == ["Access", "Agent"], link
    assert '<input type="hidden" name="columns" value="access,agent">' in page


async def test_the_list_is_exported_with_its_filters_and_without_formulas(site: Site, logged_in: LogIn) -> None:
    lead, mallory = await logged_in("lead"), await logged_in("mallory")
    jobs = [record_order(site.store, "e-5", name="exported", task="=HYPERLINK(1)") for _ in range(2)]
    answer = await lead.open("/jobs/export?name=exported&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="jobs-dev-' in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["id"], row["task"]) for row in rows] == [(job, "'=HYPERLINK(1)") for job in reversed(jobs)]
    assert [job["id"] for job in (await lead.open("/jobs/export?name=exported&format=json")).json()] == jobs[::-1]
    assert (await mallory.open("/jobs/export?name=exported&format=json")).json() == []
    assert list(csv.DictReader(io.StringIO((await mallory.open("/jobs/export?name=exported")).text))) == []
    assert (await lead.open("/jobs/export?format=xlsx")).status_code == 422


async def test_credentials_are_exported_with_their_filters(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-5", name="exported-credentials")
    site.store.ledger.append([issuance(job, at=now())])
    (row,) = csv.DictReader(io.StringIO((await lead.open(f"/credentials/export?job={job}&format=csv")).text))
    assert (row["job_id"], row["resource"], row["action"]) == (job, "orders-db", "write")
    assert (await lead.open(f"/credentials/export?job={job}&format=json&action=read")).json() == []
