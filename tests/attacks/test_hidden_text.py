"""A launcher who hides text from its approvers: blanks, variation selectors, piled-up marks, letters of other scripts. Each is shown as an escape.

Real servers: the command line and the pages as an approver opens them, and the notice that the approver gets.
"""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from justenough.domain.integrations.notifications import NoticeContext, build_notice
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView, RequestView
from tests.console.cli.conftest import Cli
from tests.console.pages.plain_browser import Browser
from tests.support.people import Human
from tests.support.plain_http import NO_TLS
from tests.support.shop import access, spec
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

HIDDEN = {
    "fillers": ("read\u3164nothing\u2800or\u17b4all", r"read\u3164nothing\u2800or\u17b4all"),
    "blanks": ("acme\u1680corp\xa0ltd", r"acme\u1680corp\xa0ltd"),
    "selectors": ("pay\ufe01ment\U000e0101s", r"pay\ufe01ment\U000e0101s"),
    "marks": ("z" + "\u0302" * 60, "ẑ" + r"\u0302" * 59),
    "scripts": ("tenant=\u0430cme", r"tenant=\u0430cme"),
}
RAW = frozenset("\u3164\u2800\u17b4\u1680\xa0\ufe01\U000e0101\u0302\u0430")
TEXT = " / ".join(raw for raw, _ in HIDDEN.values())
SHOWN = [shown for _, shown in HIDDEN.values()]


@pytest.fixture(scope="module")
def request_view(ops: Human) -> dict[str, Any]:
    """Launch a job whose texts hide something; return its pending request."""
    item = access("refunds-db", "write", reason=TEXT)
    agent = {"name": "helper", "version": "1", "model": "m-\u0430cme"}
    order = spec("true", item, name="hidden-text", task=TEXT, agent=agent)
    found: dict[str, Any] = ops.until(ops.launch(order, reason=TEXT), "awaiting_approval")["requests"][0]
    return found


@pytest.fixture(scope="module")
def approver(whole: Stack) -> Iterator[Cli]:
    """Yield the command line with the approver logged in."""
    with tempfile.TemporaryDirectory(prefix="je-cli-") as folder:
        found = Cli(home=whole.home, config=whole.config, logins=Path(folder))
        done = found.run("login", "--user", "lead", "--password-stdin", who="lead", stdin=whole.users["lead"].password)
        assert done.exit_code == 0, done.stderr
        yield found


def assert_shown(text: str) -> None:
    """Fail unless a text shows each escape and nothing that is hidden."""
    hidden = re.search(f".{{0,60}}[{''.join(RAW)}]", text)
    assert hidden is None, ascii(hidden[0])
    for shown in SHOWN:
        assert shown in text, text


def shown_part(page: str) -> str:
    """Return a page without its hidden fields, which keep texts as they are, and without the template's own blanks."""
    return html.unescape(re.sub(r'<input type="hidden"[^>]*>|&nbsp;', "", page))


@pytest.mark.parametrize("name", ["hidden\u3164text", "\u0430cme", "acme\xa0", "acme\ufe0f"])
def test_names_of_jobs_and_tenants_are_plain_ascii(ops: Human, name: str) -> None:
    for changes in ({"name": name}, {"data_scope": {"tenant": name}}):
        assert ops.api.post("jobs", json=ops.order(spec("true", **changes))).status_code == 422


def test_the_command_line_shows_an_approver_what_is_hidden(approver: Cli, request_view: dict[str, Any]) -> None:
    done = approver.run("request", "show", request_view["id"], who="lead")
    assert done.exit_code == 0, done.stderr
    assert_shown(done.stdout)
    listed = approver.run("request", "list", "--wide", who="lead")
    assert not RAW & set(listed.stdout), ascii(listed.stdout)
    job = approver.run("job", "show", request_view["job_id"], who="lead")
    assert_shown(job.stdout)
    assert approver.json("request", "show", request_view["id"], who="lead")["reason"] == TEXT


async def test_the_pages_show_an_approver_what_is_hidden(whole: Stack, request_view: dict[str, Any]) -> None:
    assert whole.console is not None
    async with httpx.AsyncClient(base_url=whole.console, timeout=60, trust_env=False, verify=NO_TLS) as http:
        browser = Browser(http)
        await browser.log_in("lead", whole.users["lead"].password)
        for path in (f"/inbox/{request_view['id']}", f"/jobs/{request_view['job_id']}"):
            answer = await browser.open(path)
            assert answer.status_code == 200, answer.text
            assert_shown(shown_part(answer.text))
        answer = await browser.open("/inbox?job=hidden-text")
        assert not RAW & set(shown_part(answer.text)), ascii(answer.text)


def test_a_notification_shows_an_approver_what_is_hidden(request_view: dict[str, Any]) -> None:
    fields = {name: value for name, value in request_view.items() if name in RequestView.model_fields}
    respond_by = (datetime.now(UTC) + timedelta(minutes=15)).isoformat()
    data = {"request": request_view["id"], "tier": 1, "respond_by": respond_by, "quorum": 1}
    opened = EntryView(
        position=1,
        job=request_view["job_id"],
        seq=1,
        id="x",
        type=EventType.APPROVAL_OPENED,
        at=datetime.now(UTC),
        data=data,
        prev="",
        hash="",
    )
    # Notices are cut: one hidden text each.
    for raw, shown in HIDDEN.values():
        notice = build_notice(opened, NoticeContext(request=RequestView.model_validate({**fields, "task": raw}), top=3))
        assert not RAW & set(notice.body.splitlines()[1]), ascii(notice.body)
        assert shown.replace("\\", "⧵")[:200] in notice.body
