"""A reason that the running program wrote is shown as that, and never as what a person signed, wherever a page shows one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.console.pages.conftest import LogIn
from tests.console.pages.inbox_requests import spec
from tests.console.pages.page_text import text_of
from tests.console.served_console import Served

CLAIM = "The CFO approved this by phone"
SIGNED = "Pay out what the ticket says"
MARK = re.compile(r"written by the program, unverified|that \S+ signed|from the (?:signed|job's) spec")


async def ask(served: Served, name: str, **reasons: Any) -> tuple[str, str]:
    """A job with one pending request; return the ids of both."""
    job = str((await served.launch(spec(name=name)))["id"])
    return job, str(served.record_request(job, **reasons)["id"])


def mark_of(page: str, reason: str) -> str:
    """The words about its source that stand closest to a reason."""
    text = text_of(page)
    at = text.index(reason)
    marks = [(min(abs(found.start() - at), abs(at + len(reason) - found.start())), found[0]) for found in MARK.finditer(text)]
    return min(marks)[1]


@pytest.mark.parametrize("place", ["/inbox/{request}", "/jobs/{job}", "/inbox?job={name}", "/ledger?job={job}"])
async def test_the_programs_reason_is_marked_and_shown_next_to_the_signed_one(served: Served, logged_in: LogIn, place: str) -> None:
    name = f"claims-{len(place)}"
    job, request = await ask(served, name, reason=CLAIM, reason_by="program", signed_reason=SIGNED)
    page = (await (await logged_in("lead")).open(place.format(job=job, request=request, name=name))).text
    assert mark_of(page, CLAIM) == "written by the program, unverified"
    if place in {"/inbox/{request}", "/jobs/{job}"}:
        assert mark_of(page, SIGNED) == "that ops signed"
        assert re.search(rf'class="foreign">\s*<figure class="quote">[^/]*{CLAIM}', re.sub(r"</(figcaption|blockquote)>", "", page))


async def test_a_reason_of_the_spec_is_shown_as_signed(served: Served, logged_in: LogIn) -> None:
    _, request = await ask(served, "signed-reason", reason=SIGNED, reason_by="order", signed_reason=SIGNED)
    browser = await logged_in("lead")
    page = (await browser.open(f"/inbox/{request}")).text
    assert mark_of(page, SIGNED) == "that ops signed"
    assert "written by the program" not in text_of(page)
    assert "unverified" not in text_of((await browser.open("/inbox?job=signed-reason")).text)


async def test_a_reason_that_was_recorded_without_its_source_is_not_shown_as_signed(served: Served, logged_in: LogIn) -> None:
    _, request = await ask(served, "older", reason=CLAIM, reason_by=None, signed_reason=None)
    text = text_of((await (await logged_in("lead")).open(f"/inbox/{request}")).text)
    assert "Reason (its source was not recorded)" in text


async def test_reasons_that_a_parent_job_may_have_written_are_framed_as_untrusted(served: Served, logged_in: LogIn) -> None:
    parent = (await served.launch(spec(name="parent")))["id"]
    served.issue(parent)
    child = (await served.launch(spec(name="child"), parent=parent))["id"]
    request = served.record_request(child, reason=CLAIM, reason_by="program", signed_reason=SIGNED)["id"]
    page = (await (await logged_in("lead")).open(f"/inbox/{request}")).text
    assert f"the parent job's program or agent may have written it) {SIGNED}" in text_of(page)
    assert mark_of(page, CLAIM) == "written by the program, unverified"
    for reason in (SIGNED, CLAIM):
        assert re.search(rf'class="foreign">\s*<figure class="quote">[^/]*{reason}', re.sub(r"</(figcaption|blockquote)>", "", page))
