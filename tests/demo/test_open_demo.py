"""A demo that leaves its servers running (DEMO_OPEN=1), with believable data: what it leaves behind, and the pictures of docs/images made from it."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from console.cli.demo.demo_shop import DemoShop
from tests.browser.rig import OPEN_FOLDS, Pages, check_axe, check_fits, check_looks, launch_chromium, shoot
from tests.demo.demo_program import ROOT, find_command, run_demo
from tests.support.detached_stacks import stop_at_exit
from tests.support.people import ENDED, Human, log_in
from tests.support.wait import until
from worker.stack.control import find_running_stack
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack, read_stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

CLOSED = '@id("closed-for-today") forbid (principal, action, resource);\n'
PICTURES = (
    # name, person, what the demo's guide says of the page, width and height, what is to be seen on it
    ("now", "lead", "the dashboard", (1280, 1180), "1 overdue revocation"),
    ("inbox", "lead", "requests that wait for lead", (1280, 900), "3 requests · refund-triage · Refunds: write"),
    ("card", "security", "a payout", (1280, 860), "Vault control group"),
    ("card-phone", "lead", "the claimed request", (390, 844), "Changed since the last approved run"),
    ("jobs", "lead", "every job", (1280, 1180), "Jobs, newest first"),
    ("job", "lead", "an agent that was denied", (1280, 1180), "Succeeded."),
)
"""The pictures of docs/images, in the light theme."""
PAGES = (
    # person, path. The demo's guide names the other pages: requests, jobs, resources and so on.
    ("ops", "/now"),
    ("ops", "/jobs/new"),
    ("ops", "/jobs/new?paste=yes"),
    ("lead", "/now?environment=prod"),
    ("lead", "/inbox?show=answers"),
    ("lead", "/credentials?show=all"),
    ("lead", "/ledger"),
    ("lead", "/ledger?q=nowhere"),
    ("lead", "/ledger/verify"),
    ("lead", "/catalog"),
    ("lead", "/catalog/policies"),
    ("lead", "/catalog/explain?how=template&template=jobs/export-customers.yaml"),
    ("lead", "/models"),
    ("lead", "/docs"),
    ("lead", "/docs/glossary"),
    ("lead", "/sessions"),
    ("lead", "/search?q=orders"),
    ("lead", "/search?q=ordesr-db"),
    ("lead", "/operations/workers"),
    ("lead", "/operations/settings"),
)


@dataclass(frozen=True)
class OpenDemo:
    """A demo that failed and was run again on the servers that it had left, and the stack that it has left then."""

    home: Path
    failed: subprocess.CompletedProcess[str]
    done: subprocess.CompletedProcess[str]
    stack: Stack


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenDemo]:
    """Run the demo with a policy that forbids everything, and again without it."""
    home = tmp_path_factory.mktemp("open-demo") / "home"
    # The workers of this stack are stopped with jobs that run, and need not wait for them.
    settings = {"DEMO_OPEN": "1", "JUSTENOUGH_DRAIN": "1"}
    with stop_at_exit(home):
        closed = DemoShop(home / "demo-shop").create() / "policies" / "closed.cedar"
        closed.write_text(CLOSED)
        failed = run_demo(home, **settings)
        before = digests_in_force(home)
        closed.unlink()
        until(lambda: digests_in_force(home) - before, "the worker decides without that policy")
        done = run_demo(home, **settings)
        stack = read_stack(StackPaths(home))
        assert stack is not None, done.stdout + done.stderr
        yield OpenDemo(home, failed, done, stack)


@pytest.fixture
def auditor(demo: OpenDemo) -> Iterator[Human]:
    """Log the auditor in, who may read everything."""
    with log_in(demo.stack, "auditor") as person:
        yield person


@pytest.fixture
async def pages(demo: OpenDemo) -> AsyncIterator[Pages]:
    """Open pages of the demo's console. Fails at the end of the test if a page did something forbidden."""
    async with launch_chromium() as browser:
        opened = Pages(browser, str(demo.stack.console), {name: user.password for name, user in demo.stack.users.items()})
        yield opened
        problems = await opened.close()
        assert not problems, "pages did what none may:\n" + "\n".join(problems)


def digests_in_force(home: Path) -> set[str]:
    """Return the digests of the configurations by which the workers of a home's stack decide."""
    stack = read_stack(StackPaths(home))
    assert stack is not None
    report = httpx.get(f"{stack.console}/readyz", timeout=60, trust_env=False).json()
    return {worker["config_digest"] for worker in report["workers"]}


def items(person: Human, path: str, **query: str) -> list[dict[str, Any]]:
    """Return a list of the API."""
    found: list[dict[str, Any]] = person.api.get(path, params={"limit": 1000, **query}).raise_for_status().json()["items"]
    return found


def path_of(demo: OpenDemo, what: str) -> str:
    """Return the path of the page that the demo's guide describes with these words."""
    found = re.search(rf"{re.escape(what)}.*\n +http://[^/]+(/\S+)$", demo.done.stdout, re.MULTILINE)
    assert found, demo.done.stdout + demo.done.stderr
    return found[1]


def test_a_failed_demo_leaves_its_servers_and_launches_nothing_more(demo: OpenDemo) -> None:
    assert demo.failed.returncode == 1, demo.failed.stdout + demo.failed.stderr
    assert "demo failed: request approve" in demo.failed.stdout
    assert "What there is to see" not in demo.failed.stdout
    assert_open(demo.failed, demo.stack)


def test_the_next_demo_proves_every_credential_dead_on_the_same_servers(demo: OpenDemo) -> None:
    assert demo.done.returncode == 0, demo.done.stdout + demo.done.stderr
    assert f"Using the servers that are running in {demo.home}" in demo.done.stdout
    assert_open(demo.done, demo.stack)
    for text in (
        "11 credentials, all verified as revoked",
        'once, with exactly {"amount": ',
        "Its remaining database users: none",
        "No job ever saw model-api:read",
        "waits in Vault (accessor ",
        "Writing one: permission denied for table refunds",
        "The ledger is intact: ",
    ):
        assert text in demo.done.stdout
    assert re.search(r"^export-customers +export-api:write +denied +no-export-after-restricted ", demo.done.stdout, re.MULTILINE)
    assert demo.done.stdout.count("Its login worked while the job ran. Now: FATAL:") == 7


def test_the_jobs_of_the_open_demo_have_every_outcome_and_several_launchers(auditor: Human) -> None:
    jobs = items(auditor, "jobs")
    assert len(jobs) >= 55
    states = Counter(job["state"] for job in jobs)
    assert set(states) == {*ENDED, "awaiting_approval", "running", "revoking"}
    assert states["succeeded"] > states["failed"] >= 5
    assert {job["requester"] for job in jobs} == {"ops", "lead", "oncall", "trigger:ticket-created", "schedule:nightly-reconcile"}
    assert len({job["name"] for job in jobs}) >= 20
    ended = {job["revocation"]["state"] for job in jobs if job["state"] in ENDED}
    assert ended == {"none", "confirmed", "residual"}


def test_the_requests_of_the_open_demo_have_every_outcome_and_wait_at_every_tier(auditor: Human) -> None:
    requests = items(auditor, "requests", state="all")
    assert {request["state"] for request in requests} == {"pending", "allowed", "approved", "denied", "expired", "withdrawn"}
    pending = [request for request in requests if request["state"] == "pending"]
    assert {request["current_tier"] for request in pending} == {1, 2, 3}
    assert [request["claim"]["by"] for request in pending if request["claim"]] == ["lead"]
    escalated = [request for request in pending if request["current_tier"] > request["tier"]]
    assert {request["tier"] for request in escalated} >= {1}
    half = [request for request in escalated if request["approvals"]]
    assert [(request["current_tier"], request["quorum"], len(request["approvals"])) for request in half] == [(3, 2, 1)]
    shortened = [request for request in requests if request["granted_ttl"] and request["granted_ttl"] < request["ttl"]]
    assert {request["job_name"] for request in shortened} >= {"refund-import"}
    reviews = items(auditor, "reviews", all="true")
    assert Counter((review["open"], review["verdict"]) for review in reviews) == {(True, None): 1, (False, "unjustified"): 1}


def test_the_ledger_of_the_open_demo_records_tools_models_delegations_and_a_paused_schedule(auditor: Human) -> None:
    for kind in ("tool.called", "model.used", "delegation.made", "approval.expired", "approval.escalated", "schedule.paused"):
        assert items(auditor, "ledger", type=kind), kind
    assert [item["paused"] for item in items(auditor, "schedules")] == [False, True]
    assert [(item["name"], item["state"]) for item in items(auditor, "webhooks")] == [("status-page", "failing")]


@pytest.mark.screenshots
async def test_the_pictures_of_the_documentation_can_be_made_from_the_open_demos_pages(
    demo: OpenDemo, pages: Pages, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("JUSTENOUGH_SCREENSHOTS") or tmp_path)
    for name, person, what, (width, height), text in PICTURES:
        page = await pages.person(person, width=width, scale=2)
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(path_of(demo, what))
        await assert_ready(page, text)
        assert (await shoot(page, folder, name)).stat().st_size > 50_000


async def test_every_page_of_the_open_demo_fits_and_is_accessible_at_every_width_in_both_themes(
    demo: OpenDemo, pages: Pages, auditor: Human
) -> None:
    guide = re.findall(r"^(\w+) .*\n +http://[^/]+(/\S+)$", demo.done.stdout.partition("What there is to see")[2], re.MULTILINE)
    (overdue,), failed = items(auditor, "jobs", revocation="overdue"), items(auditor, "jobs", state="failed")[0]
    found = [
        ("lead", f"/credentials/{auditor.job(overdue['id'])['credentials'][0]['id']}"),
        ("lead", f"/jobs/{failed['id']}"),
        ("lead", f"/jobs/{overdue['id']}/kill"),
    ]
    assert len(guide) >= 20
    for person in ("ops", "lead", "security", "auditor"):
        page = await pages.person(person)
        for path in dict.fromkeys(path for who, path in (*guide, *PAGES, *found) if who == person):
            await check_looks(page, path, before=OPEN_FOLDS)


async def assert_ready(page: Page, text: str) -> None:
    """Fail unless a page shows a text, is live, fits its window and is accessible."""
    await expect(page.locator("main")).to_contain_text(text)
    await expect(page.locator("[data-alive]")).to_contain_text("Live")
    await check_fits(page)
    await check_axe(page)


def test_the_open_demos_overdue_revocation_is_confirmed_once_the_printed_session_is_ended(demo: OpenDemo, auditor: Human) -> None:
    (overdue,) = items(auditor, "jobs", revocation="overdue")
    assert (overdue["name"], overdue["state"]) == ("year-report", "revoking")
    assert path_of(demo, "the overdue revocation") == f"/jobs/{overdue['id']}"
    subprocess.run(["bash", "-c", find_command(demo.done, "verified within a minute")], check=True)
    until(lambda: auditor.job(overdue["id"])["state"] == "succeeded", "its access is confirmed revoked")
    assert items(auditor, "jobs", revocation="overdue") == []


def test_the_printed_command_stops_the_open_demos_servers(demo: OpenDemo) -> None:
    stopped = subprocess.run(["bash", "-c", find_command(demo.done, "Stop")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stderr
    assert find_running_stack(StackPaths(demo.home)) is None


def assert_open(done: subprocess.CompletedProcess[str], stack: Stack) -> None:
    """Fail unless the printed servers answer and the printed users can log in."""
    summary = done.stdout.partition("The servers are still running")[2]
    console, vault = (re.search(rf"^{name} +(http\S+)$", summary, re.MULTILINE) for name in ("console", "Vault"))
    assert console
    assert vault
    assert httpx.get(f"{console[1]}/livez", trust_env=False).status_code == 200
    users = dict(re.findall(r"^(\w+) +([0-9a-f]{32}) ", summary, re.MULTILINE))
    assert set(users) == set(stack.users)
    for name, password in users.items():
        answer = httpx.post(f"{vault[1]}/v1/auth/people/login/{name}", json={"password": password}, trust_env=False)
        assert answer.status_code == 200
