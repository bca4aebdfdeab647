"""Real pages in a real Chromium over the session's whole stack. Everything is asynchronous, on the session's one event loop.

A test of a page reads like this (its arguments' types are in tests.browser.rig):

    async def test_lead_approves(person: Open, launched: Launch, axe: Look) -> None:
        job = await launched(spec("true", access("refunds-db", "write")), "awaiting_approval")
        page = await person("lead", dark=True, width=360)
        await page.goto("/inbox")
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_role("status")).to_contain_text("approved")
        await axe(page)

Wait with `expect(...)`, never with a pause: it looks again until it holds, for up to 30 s. Whatever a page does that none of ours may (an error in its
console, an uncaught exception, what its CSP refused, a request to another origin) fails the test at its end; `foresee(page, pattern)` says beforehand
what is meant to be so. The stack is the one that other tests of the session use, so look for your own job by its id. For what pages cannot do there are
the people as API clients: the fixtures `ops`, `lead`, `security`, `chief`, `chief2`, `auditor`, `oncall`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, StorageState

from tests.browser.rig import (
    Foresee,
    Launch,
    Look,
    Open,
    Pages,
    check_axe,
    check_fits,
    launch_chromium,
    wait_for_state,
)
from tests.support.people import ENDED, Human
from worker.stack.stack_file import Stack


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests. Fails with install instructions if there is none."""
    async with launch_chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def sessions() -> dict[str, StorageState]:
    """The cookies of those who are logged in, by name. One login serves all tests."""
    return {}


@pytest.fixture
async def pages(browser: Browser, whole: Stack, sessions: dict[str, StorageState]) -> AsyncIterator[Pages]:
    """Opens pages. Fails at the end of the test if a page did something forbidden."""
    opened = Pages(browser, str(whole.console), {name: user.password for name, user in whole.users.items()}, sessions)
    yield opened
    problems = await opened.close()
    assert not problems, "pages did what none may:\n" + "\n".join(problems)


@pytest.fixture
def person(pages: Pages) -> Open:
    """`await person("lead")`: a page, logged in, in its own context. `goto` comes next. Options: dark=True, width=360, javascript=False, scale=2,
    also=[origin], and anew=True for a login from the last minutes."""
    return pages.person


@pytest.fixture
def visitor(pages: Pages) -> Open:
    """`await visitor()`: a blank page without a login. Takes the same options as `person`."""
    return pages.visitor


@pytest.fixture
def foresee(pages: Pages) -> Foresee:
    """`foresee(page, "status of 409")`: a matching message in the page's console is not a failure."""
    return pages.foresee


@pytest.fixture
def axe() -> Look:
    """`await axe(page)`: fails if axe finds a serious or critical problem; names the rule and the element."""
    return check_axe


@pytest.fixture
def fits() -> Look:
    """`await fits(page)`: fails if the page is wider than its window."""
    return check_fits


@pytest.fixture
async def launched(ops: Human) -> AsyncIterator[Launch]:
    """`job = await launched(spec(...), "running")`: launches a job as ops and waits for the state (without one: until it is accepted). Kills it at the end of the test."""
    jobs: list[str] = []

    async def of(spec: dict[str, Any], *states: str, **order: Any) -> dict[str, Any]:
        job = await asyncio.to_thread(ops.launch, spec, **order)
        jobs.append(job)
        return await asyncio.to_thread(wait_for_state, ops, job, *states) if states else await asyncio.to_thread(ops.job, job)

    yield of
    for job in jobs:
        if (await asyncio.to_thread(ops.job, job))["state"] not in ENDED:
            await asyncio.to_thread(ops.api.post, f"jobs/{job}/kill")
