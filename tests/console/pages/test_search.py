"""The search box in the header and the page of its results."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from console.pages.rendering import NAV
from console.pages.search import HEADINGS, PLACES
from justenough.adapters.configuration.settings import Settings
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.conftest import LogIn
from tests.console.pages.plain_browser import Browser
from tests.console.pages.recorded_console import HOSTILE, Desk, RenderedPage, load_page, serve_desk

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


async def search(records: Desk, browser: Browser, text: str, *, status: int = 200) -> RenderedPage:
    while not records.store.search.index().is_complete:
        pass
    answer = await browser.open("/search", params={"q": text})
    assert answer.status_code == status, answer.text[:500]
    assert "\u202e" not in answer.text
    return RenderedPage(answer.text)


async def place_of(records: Desk, browser: Browser, text: str) -> str:
    while not records.store.search.index().is_complete:
        pass
    answer = await browser.open("/search", params={"q": text})
    return str(answer.headers["location"])


async def test_the_box_is_in_the_header_of_every_page(records: Desk) -> None:
    lead = await records.log_in()
    for path in (*(path for path, _ in NAV), "/sessions", "/search"):
        page = await load_page(lead, path)
        assert (
            next(attributes["action"] for tag, attributes in page.tags if tag == "form" and attributes.get("role") == "search") == "/search"
        )
    assert "nothing-like-it" in (await load_page(lead, "/search?q=nothing-like-it")).values("value")


async def test_the_only_hit_is_opened(records: Desk) -> None:
    lead = await records.log_in()
    job = records.record_job(name="solitary-task", agent=None)
    user = f"XX0bDqLP-token-{job}-orders-read-acm"
    records.store.ledger.append([samples.access_request(job), samples.issuance(job, user="v-token-xyz-987654")])
    for text, place in (
        (user, f"/jobs/{job}"),
        (f" {job[:-2]} ", f"/jobs/{job}"),
        (job.removeprefix("j-dev-").upper(), f"/jobs/{job}"),
        (part_id(job, "r"), f"/inbox/{part_id(job, 'r')}"),
        (part_id(job, "c"), f"/credentials/{part_id(job, 'c')}"),
        ("v-token-xyz-98", f"/credentials/{part_id(job, 'c')}"),
    ):
        assert await place_of(records, lead, text) == place, text


async def test_results_are_grouped_and_limited_to_what_the_user_may_read(records: Desk) -> None:
    lead, ops = await records.log_in(), await records.log_in("ops")
    theirs = records.record_job(name="parcel-tracer", requester="e-else")
    mine = records.record_job(name="parcel-counter", requester=await records.id_of(ops))
    page = await search(records, lead, "parcel")
    assert page.text.index("Jobs by name") < page.text.index("parcel-counter") < page.text.rindex(mine)
    assert {f"/jobs/{mine}", f"/jobs/{theirs}"} <= set(page.links)
    own = await search(records, ops, "parcel")
    assert f"/jobs/{mine}" in own.links
    assert "tracer" not in own.text
    assert theirs not in own.text


async def test_results_show_their_states_their_access_and_what_matched(records: Desk) -> None:
    lead = await records.log_in()
    plain = records.record_job(name="plain-task", labels={"team": "penguins"})
    other = records.record_job(name="other-task", reason="for the penguins", labels={})
    records.store.ledger.append(
        [
            samples.access_request(job, resource="payouts-db", title="Payouts to customers")
            for job in (other, records.record_job(name="third-task"))
        ]
    )
    records.store.ledger.append([samples.access_request(plain), samples.access_decision("allowed", plain, tier=0), samples.issuance(plain)])
    page = await search(records, lead, "penguins")
    assert re.search(rf"plain-task pending .*{plain} found in: label team=penguins", page.text)
    assert re.search(rf"other-task pending .*{other} found in: a reason, or who decided", page.text)
    assert (await search(records, lead, "payouts customers")).text.count("found in: requested payouts-db, Payouts to customers") == 2
    both = records.record_job(name="fourth-task", task="Count refunds")
    for number, (resource, title) in enumerate((("orders-db", "Orders"), ("refunds-db", "Refunds")), start=1):
        records.store.ledger.append([samples.access_request(both, number=number, resource=resource, title=title)])
    assert re.search(rf"{both} found in: requested refunds-db, Refunds(?! and)", (await search(records, lead, "refunds-db")).text)
    assert "found in" not in (await search(records, lead, "j-dev-")).text, "what is found by its id needs no explanation"
    records.store.ledger.append([samples.access_request(plain, number=2), samples.issuance(plain, number=2, action="read")])
    for kind, hits in (
        ("r", ("write on orders-db allowed by policy plain-task", "write on orders-db pending plain-task")),
        ("c", ("write on orders-db active plain-task", "read on orders-db active plain-task")),
    ):
        found = await search(records, lead, part_id(plain, kind).removesuffix("1"))
        assert [hit in found.text for hit in hits] == [True, True], found.text


async def test_an_exact_resource_comes_first(logged_in: LogIn) -> None:
    page = await load_page(await logged_in("lead"), "/search?q=customers-db")
    found = [link for link in page.links if link.startswith("/resources/")]
    assert (len(found) > 1, found[0]) == (True, "/resources/customers-db")


async def test_a_search_without_result_suggests_names_and_says_what_can_be_found(records: Desk) -> None:
    lead = await records.log_in()
    records.record_job(name="refund-triage")
    page = await search(records, lead, "refnd-triage")
    assert "No results that you may read." in page.text
    assert "/search?q=refund-triage" in page.links
    assert "a database user" in page.text
    assert "Type or paste" in (await search(records, lead, "")).text


async def test_typed_and_found_text_is_shown_as_text(records: Desk) -> None:
    lead = await records.log_in()
    records.record_job(name="evil", task=HOSTILE)
    records.record_job(name="evil", task=HOSTILE)
    assert "<script>alert(1)" in (await search(records, lead, HOSTILE)).text
    assert "<script>alert(1)" in (await search(records, lead, "evil")).text
    await search(records, lead, "x" * 401, status=422)


def test_every_kind_of_search_result_has_a_heading_and_a_page() -> None:
    assert set(HEADINGS) == set(PLACES)
