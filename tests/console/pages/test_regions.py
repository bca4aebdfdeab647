"""A refresh gets the regions that differ from what the browser shows, and no others."""

from __future__ import annotations

import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.auth.csrf import is_masked_token, mask
from console.pages.live_stream import min_refresh_interval_s, next_refresh
from console.pages.regions import AUTO_REFRESH_HEADER, KNOWN_REGIONS_HEADER, changed_regions, find_regions, with_digests
from tests.adapters.store import event_samples as samples
from tests.console.pages.conftest import LogIn
from tests.console.pages.plain_browser import Site
from tests.console.pages.recorded_jobs import now, record_order

PAGE = """<!doctype html><title>A &amp; B</title>
<section class="card" id="one" data-region aria-label="One"><section><p>a</p></section> <time data-tick="ago">1 s ago</time></section>
<p>between</p><div id="two" data-region><div>b</div><form><input name="csrf" value="x.y"></form></div>
"""


def digests(html: str) -> dict[str, str]:
    return {region.id: region.digest for region in find_regions(html)}


def test_regions_end_with_their_own_element() -> None:
    one, two = find_regions(PAGE)
    assert PAGE[one.start : one.end].endswith("</time></section>")
    assert PAGE[two.start : two.end].endswith("</form></div>")


def test_each_region_gets_its_digest() -> None:
    marked = with_digests(PAGE)
    for name, digest in digests(PAGE).items():
        assert re.search(rf'id="{name}" data-region="{digest}"', marked)
    assert digests(marked) == digests(PAGE)


@pytest.mark.parametrize(
    "before, after, changed",
    [("1 s ago", "2 s ago", set()), ("x.y", "z.w", set()), ("<p>a</p>", "<p>c</p>", {"one"}), ("<div>b", "<div>c", {"two"})],
)
def test_relative_times_and_tokens_do_not_count_as_a_change(before: str, after: str, changed: set[str]) -> None:
    known = ",".join(f"{name}={digest}" for name, digest in digests(PAGE).items())
    answer = changed_regions(PAGE.replace(before, after), known)
    assert set(digests(answer)) == changed
    assert "<title>A &amp; B</title>" in answer
    assert "between" not in answer


@pytest.mark.parametrize("known", ["", "nonsense", "one=", "=,=", "one=x,two=y"])
def test_a_browser_without_known_regions_gets_every_region(known: str) -> None:
    assert set(digests(changed_regions(PAGE, known))) == {"one", "two"}


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_masked_token_is_recognised_and_looks_different_each_time(token: str) -> None:
    one, other = mask(token), mask(token)
    assert is_masked_token(one, token)
    assert not is_masked_token(one, token + "x")
    assert len(token) < 4 or one != other


@pytest.mark.parametrize("shown", ["", ".", "token", "00.", ".00", "zz.zz", "0000.00", "é.é"])
def test_a_text_that_is_not_a_masked_token_is_rejected(shown: str) -> None:
    assert not is_masked_token(shown, "token")


@pytest.mark.parametrize("pages, seconds", [(1, 1 / 30), (15, 0.5), (1_000, 33 + 1 / 3)])
def test_the_more_pages_are_open_the_less_often_each_refreshes(pages: int, seconds: float) -> None:
    assert min_refresh_interval_s(pages) == pytest.approx(seconds)


@pytest.mark.servers
async def test_a_refresh_of_an_unchanged_page_sends_no_region(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-5", name="refreshed")
    path = "/jobs?name=refreshed"
    page = (await lead.open(path)).text
    known = ",".join(f"{name}={digest}" for name, digest in digests(page).items())
    headers = {AUTO_REFRESH_HEADER: "1", KNOWN_REGIONS_HEADER: known}
    same = await lead.open(path, headers=headers)
    assert digests(same.text) == {}
    assert len(same.text) < 200
    site.store.ledger.append([samples.job_end("failed", job, at=now())])
    changed = await lead.open(path, headers=headers)
    assert digests(changed.text)
    assert len(changed.text) < len(page)


@pytest.mark.servers
async def test_pages_are_compressed_for_browsers_that_can_unpack_them(logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    packed = await lead.open("/now", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.num_bytes_downloaded * 3 < len(packed.text)
    plain: httpx.Response = await lead.open("/now", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_pages_that_change_at_once_are_refreshed_one_after_another() -> None:
    interval = min_refresh_interval_s(1000)
    due = sorted(next_refresh(100.0, after=0.0, pages=1000) for _ in range(1000))
    assert 100 <= due[0] < due[-1] <= 100 + interval
    busiest = max(sum(first <= other < first + 1 for other in due) for first in due)
    assert busiest <= 3 * 1000 / interval, "in the busiest second"


def test_a_page_that_was_just_refreshed_waits_for_the_rest_of_its_interval() -> None:
    assert next_refresh(100.0, after=99.0, pages=1000) == pytest.approx(99 + min_refresh_interval_s(1000))
    assert next_refresh(100.0, after=0.0, pages=1) <= 100 + min_refresh_interval_s(1)
