"""Notifications through Apprise to a real receiver: who gets which text, once; how people learn that it is settled; and which services are
never contacted.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from console.outbox import dispatcher, senders, subscription_worker
from console.outbox.dispatcher import Dispatcher
from justenough.adapters.outbound import apprise_sender
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.notifications import Notice
from justenough.domain.ledger.events import Event, EventType, build_event
from tests.adapters.store import event_samples
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, job_id, later, part_id
from tests.console.outbox_rig import OTHERS, PEOPLE, SECRET, OutboxRig
from tests.support.webhook_receiver import HANG, Receiver

pytestmark = pytest.mark.servers

ASKING = ["approval.opened", "approval.escalated", "review.opened", "revocation.overdue", "credential.overdue"]
SAID = Notice(title="A title", body="A body")


@pytest.fixture
async def chat() -> AsyncIterator[Receiver]:
    async with Receiver().listen() as found:
        yield found


@pytest.fixture
async def mail() -> AsyncIterator[Receiver]:
    async with Receiver().listen() as found:
        yield found


def apprise_url(receiver: Receiver, token: str = "t0k3n") -> str:
    return f"json://127.0.0.1:{receiver.port}/{token}"


def people(name: str = "leads", **more: Any) -> dict[str, Any]:
    return {"name": name, "on": ASKING, "to": [PEOPLE], "tiers": [1], "allow_private": True, **more}


async def start_notifications(rig: OutboxRig, *entries: dict[str, Any]) -> Dispatcher:
    rig.configure(notify=list(entries))
    found = rig.add_dispatcher()
    await rig.deliver(found)
    return found


def titles(receiver: Receiver) -> list[str]:
    return [message["title"] for message in receiver.events]


def request_events(tier: int = 1, job: str = JOB) -> list[Any]:
    return [
        samples.submission(job),
        samples.access_request(job),
        samples.access_decision("needs_approval", job, tier=tier),
        samples.approval_opening(job, tier=tier),
    ]


def review_event() -> Event:
    request = part_id(JOB, "r")
    data = {
        "request": request,
        "person": "e-chief",
        "name": "chief",
        "tiers": [1],
        "tier_names": ["owner"],
        "groups": ["g"],
        "reason": "It burns",
    }
    return build_event(EventType.REVIEW_OPENED, JOB, at=NOW, about=request, **data)


async def test_people_who_must_decide_are_notified_once_and_then_of_the_end(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(console)
    await rig.deliver(console)
    (got,) = chat.requests
    assert got.path == "/t0k3n"
    assert got.json["title"] == "Approval needed (tier 1): write on Orders database"
    assert "refund-triage by agent refund-agent 1.4, launched by ops, requests write" in got.json["message"]
    assert "“Write the refund”" in got.json["message"]
    assert rig.deps.store.outbox.unsettled_notices("leads", JOB)[0].target == f"{PEOPLE}#chat"
    rig.record(samples.approval_decision("approved"))
    await rig.deliver(console)
    rig.record(samples.job_end("succeeded"))
    await rig.deliver(console)
    assert titles(chat)[1:] == ["Settled: write on Orders database for refund-triage"]
    assert chat.events[1]["message"] == "lead approved the request: “Looks right”. No action needed."
    assert rig.deps.store.outbox.unsettled_notices("leads", JOB) == ()


async def test_only_the_current_tier_is_notified_and_an_escalation_notifies_the_next_and_releases_the_one_before(
    rig: OutboxRig, chat: Receiver, mail: Receiver
) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    await rig.write_secret(OTHERS, chat=apprise_url(mail))
    console = await start_notifications(rig, people(), people("chiefs", to=[OTHERS], tiers=[2, 3]))
    rig.record(*request_events())
    await rig.deliver(console)
    assert (len(chat.requests), len(mail.requests)) == (1, 0)
    rig.record(samples.approval_opening(tier=2, escalated=True))
    await rig.deliver(console)
    assert titles(mail) == ["Approval needed (tier 2): write on Orders database"]
    assert "escalated to tier 2" in chat.events[1]["message"]
    rig.record(samples.approval_decision("denied", person="chief", decision="deny"))
    await rig.deliver(console)
    assert (len(chat.requests), len(mail.requests)) == (2, 2)
    assert "denied the request" in mail.events[1]["message"]


async def test_people_of_both_tiers_are_notified_of_each_tier_and_of_the_end_once(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people(tiers=[1, 2]))
    rig.record(*request_events())
    await rig.deliver(console)
    rig.record(samples.approval_opening(tier=2, escalated=True))
    await rig.deliver(console)
    rig.record(samples.approval_decision("approved"))
    await rig.deliver(console)
    assert [title.split(":")[0] for title in titles(chat)] == ["Approval needed (tier 1)", "Approval needed (tier 2)", "Settled"]


@pytest.mark.parametrize("tiers", [[1], [1, 2]])
async def test_people_learn_that_a_request_was_approved_as_it_escalated(rig: OutboxRig, chat: Receiver, tiers: list[int]) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people(tiers=tiers))
    rig.record(*request_events(), samples.approval_decision("pending", person="chief"))
    await rig.deliver(console)
    rig.record(samples.approval_opening(tier=2, escalated=True, verdict="approved", granted_ttl=300, granted_action="write"))
    await rig.deliver(console)
    assert [title.split(":")[0] for title in titles(chat)] == ["Approval needed (tier 1)", "Settled"]
    assert chat.events[1]["message"] == (
        "Not decided in time; escalated to tier 2, for which the approvals so far are enough. No action needed."
    )
    assert rig.deps.store.outbox.unsettled_notices("leads", JOB) == ()


async def test_nobody_is_notified_of_a_request_that_was_answered_meanwhile(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(*request_events(), samples.approval_decision("approved"))
    await rig.deliver(console)
    assert (chat.requests, rig.progress_of("leads").delivered) == ([], 0)


async def test_a_job_that_ends_releases_those_who_were_asked(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(console)
    rig.record(samples.job_end("killed"))
    await rig.deliver(console)
    assert "The job has ended: killed." in chat.events[1]["message"]


async def test_only_the_failed_one_of_several_services_is_tried_again(rig: OutboxRig, chat: Receiver, mail: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat), mail=apprise_url(mail))
    mail.answer = lambda number: 500 if number == 0 else 204
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(console)
    assert rig.progress_of("leads").pending == 1
    rig.clock.advance(7)
    await rig.deliver(console)
    assert (len(chat.requests), len(mail.requests)) == (1, 2)
    mail.answer = lambda number: 500 if number == 2 else 204
    rig.record(samples.approval_decision("approved"))
    await rig.deliver(console)
    rig.clock.advance(7)
    await rig.deliver(console)
    assert (len(chat.requests), len(mail.requests)) == (2, 4)
    assert rig.progress_of("leads").pending == 0


async def test_another_console_that_takes_over_notifies_nobody_twice(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    first = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(first)
    second = rig.add_dispatcher()
    rig.clock.advance(dispatcher.LEASE_TTL_S + 1)
    await rig.deliver(second)
    await rig.deliver(first)
    rig.record(samples.approval_decision("approved"))
    await rig.deliver(first)
    await rig.deliver(second)
    assert len(chat.requests) == 2


async def test_a_revocation_that_stays_overdue_is_reported_once_and_so_is_its_end(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(
        samples.submission(),
        event_samples.issuance(),
        samples.job_end("failed"),
        event_samples.revocation_start(),
        event_samples.overdue_revocation(),
        event_samples.overdue_revocation(attempt=2),
    )
    await rig.deliver(console)
    assert titles(chat) == [f"Revocation overdue: {JOB}"]
    rig.record(event_samples.revocation_proof())
    await rig.deliver(console)
    assert chat.events[1]["message"] == "No access of the job is active any more. No action needed."


async def test_a_credential_whose_revocation_is_overdue_while_its_job_runs_is_reported_and_so_is_its_end(
    rig: OutboxRig, chat: Receiver
) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    failed: dict[str, Any] = {"by": "person", "failures": ["Vault is sealed"], "attempt": 1}
    rig.record(samples.submission(), samples.issuance(), samples.credential_event(EventType.CREDENTIAL_OVERDUE, **failed))
    await rig.deliver(console)
    assert titles(chat) == [f"Credential revocation overdue: {JOB}"]
    rig.record(samples.credential_confirmation(at=later(1)))
    await rig.deliver(console)
    assert titles(chat)[1:] == [f"Settled: credential of {part_id(JOB, 'c')}"]


async def test_a_person_who_catches_up_with_a_revocation_that_was_overdue_twice_is_released_once(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(samples.submission(), event_samples.issuance(), samples.job_end("failed"), event_samples.overdue_revocation(at=later(1)))
    rig.record(
        event_samples.revocation_proof(at=later(2)),
        event_samples.issuance(number=2, at=later(3)),
        event_samples.overdue_revocation(at=later(4), attempt=2),
    )
    await rig.deliver(console)
    rig.record(event_samples.revocation_proof(at=later(5), about="sweep"))
    await rig.deliver(console)
    await rig.deliver(console)
    # When the first proof was to be sent, the revocation was overdue again.
    assert [title.split(":")[0] for title in titles(chat)] == ["Revocation overdue", "Settled"]


async def test_nobody_is_told_late_that_a_revocation_is_confirmed_that_is_overdue_again(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    chat.answer = lambda number: 500 if number == 1 else 204
    console = await start_notifications(rig, people())
    rig.record(samples.submission(), event_samples.issuance(), samples.job_end("failed"), event_samples.overdue_revocation(at=later(1)))
    await rig.deliver(console)
    rig.record(event_samples.revocation_proof(at=later(2)))
    await rig.deliver(console)
    assert [title.split(":")[0] for title in titles(chat)] == ["Revocation overdue", "Settled"], "the control: its first attempt failed"
    rig.record(event_samples.issuance(number=2, at=later(3)), event_samples.overdue_revocation(at=later(4), attempt=2))
    await rig.deliver(console)
    rig.clock.advance(7)
    await rig.deliver(console)
    assert (len(chat.requests), rig.progress_of("leads").pending) == (2, 0)
    rig.record(event_samples.revocation_proof(at=later(5), about="sweep"))
    await rig.deliver(console)
    assert chat.events[2]["message"] == "No access of the job is active any more. No action needed."


async def test_a_subscription_is_no_longer_failing_once_its_secret_can_be_read_again(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE)
    console = await start_notifications(rig, people())
    rig.record(samples.submission(), samples.job_end("failed"))
    await rig.deliver(console)
    assert "no field contains an Apprise URL" in (rig.progress_of("leads").why or "")
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    for seconds in (subscription_worker.NOT_READY_RETRY_S, subscription_worker.SAVE_POSITION_INTERVAL_S):
        rig.clock.advance(seconds)
        await rig.deliver(console)
    standing = rig.progress_of("leads")
    # Nobody had to be notified of the job's end.
    assert (standing.behind, standing.why, chat.requests) == (0, None, [])


async def test_events_that_need_no_person_move_the_position_without_a_delivery(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(
        *(fact for number in range(1, 21) for fact in (samples.submission(job_id(number)), samples.job_end("failed", job_id(number))))
    )
    await rig.deliver(console)
    assert rig.progress_of("leads").behind == 40
    rig.clock.advance(subscription_worker.SAVE_POSITION_INTERVAL_S)
    await rig.deliver(console)
    standing = rig.progress_of("leads")
    assert (standing.behind, standing.delivered, chat.requests) == (0, 0, [])


async def test_the_people_whose_approval_was_bypassed_are_asked_for_the_review(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(console)
    rig.record(samples.approval_decision("approved", person="chief", decision="break_glass"), review_event())
    await rig.deliver(console)
    assert [title.split(":")[0] for title in titles(chat)] == ["Approval needed (tier 1)", "Settled", "Review needed"]
    assert "chief used break-glass to bypass tier 1 (owner): " in chat.requests[-1].json["message"]


async def test_a_recipient_that_was_removed_does_not_hold_up_the_others(rig: OutboxRig, chat: Receiver, mail: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat), mail=apprise_url(mail))
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(console)
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    rig.clock.advance(senders.URLS_TTL_S)
    rig.record(samples.approval_decision("approved"))
    await rig.deliver(console)
    assert (len(chat.requests), len(mail.requests)) == (2, 1)
    assert rig.deps.store.outbox.unsettled_notices("leads", JOB) == ()


async def test_a_notification_that_takes_over_a_webhooks_name_drops_the_deliveries_that_notify_nobody(
    rig: OutboxRig, chat: Receiver, mail: Receiver
) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    mail.answer = lambda _: 500
    webhook = {"name": "leads", "url": mail.url, "events": ["job.submitted", "approval.opened"], "signing_secret": SECRET}
    rig.configure(webhooks=[{**webhook, "allow_private": True}])
    console = rig.add_dispatcher()
    await rig.deliver(console)
    rig.record(*request_events())
    await rig.deliver(console)
    assert (rig.progress_of("leads").kind, rig.progress_of("leads").pending) == ("webhook", 2)

    rig.configure(notify=[people()])
    rig.clock.advance(10)
    await rig.deliver(console)
    after = rig.progress_of("leads")
    assert (after.kind, after.pending, after.dead, after.why) == ("notify", 0, 0, None)
    assert len(titles(chat)) == 1


async def test_no_message_is_lost_while_a_secret_cannot_be_read(rig: OutboxRig, chat: Receiver) -> None:
    console = await start_notifications(rig, people(to=["kv/data/je/notify/nobody"]))
    rig.record(*request_events())
    await rig.deliver(console)
    assert "kv/data/je/notify/nobody" in (rig.progress_of("leads").why or "")
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    rig.configure(notify=[people()])
    await rig.deliver(console)
    assert len(chat.requests) == 1


async def test_notification_urls_are_stored_only_in_vault(
    rig: OutboxRig, chat: Receiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    await rig.write_secret(PEOPLE, chat=apprise_url(chat, "canary-of-the-chat"), broken="slack://canary-of-the-chat")
    chat.answer = lambda _: 500
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(console)
    assert len(chat.requests) == 1, "the control: it was sent there"
    assert "canary-of-the-chat" in chat.requests[0].path
    written = rig.folder.parent / "store.db"
    kept = b"".join(file.read_bytes() for file in written.parent.glob("store.db*"))
    assert b"canary-of-the-chat" not in kept
    assert b"approval.opened" in kept, "the control: what is kept can be found"
    assert "canary-of-the-chat" not in caplog.text + "".join(capsys.readouterr())


UNSUPPORTED = "is not a supported service (docs/reference/events.md)"
FILE = "the URL refers to a file, which is not allowed"


@pytest.mark.parametrize(
    "url, why",
    [
        ("file:///tmp/x", f"file:// {UNSUPPORTED}"),
        ("dbus://", f"dbus:// {UNSUPPORTED}"),
        ("syslog://", f"syslog:// {UNSUPPORTED}"),
        ("exec://id", f"exec:// {UNSUPPORTED}"),
        ("mqtt://127.0.0.1/x", f"mqtt:// {UNSUPPORTED}"),
        ("apprises://127.0.0.1/token", f"apprises:// {UNSUPPORTED}"),
        ("gnome://", f"gnome:// {UNSUPPORTED}"),
        ("rsyslog://127.0.0.1", f"rsyslog:// {UNSUPPORTED}"),
        ("https://hooks.slack.com/services/T/B/canary", f"https:// {UNSUPPORTED}"),
        ("canary-without-a-scheme", f"the URL's scheme {UNSUPPORTED}"),
        ("", f"the URL's scheme {UNSUPPORTED}"),
        ("workflows://host:443/w/s?template=/etc/passwd", FILE),
        ("workflows://host:443/w/s?a=b;template=/etc/passwd", FILE),
        ("workflows://host:443/w/s?%74empl%61te=/etc/passwd", FILE),
        ("workflows://host:443/w/s?a=b&+template=/etc/passwd", FILE),
        ("workflows://host:443/w/s?a=b? template =/etc/passwd", FILE),
        ("mailtos://u:canary@example.com?PgpKey=/etc/passwd", FILE),
        ("mailtos://u:canary@example.com?pgp=sign&pgpprv=/etc/passwd", FILE),
        ("mailtos://u:canary@example.com?pgppub=http://169.254.169.254/latest", FILE),
        ("mailtos://u:canary@example.com?wkd=yes", FILE),
        ("jsons://", "Apprise cannot parse the URL"),
        ("slack://canary", "Apprise cannot parse the URL"),
        # Apprise would send it to ntfy.sh.
        ("ntfys://canary", "the URL names no host; write ntfys://HOST/…"),
    ],
)
async def test_a_url_of_a_service_that_is_not_supported_is_refused(url: str, why: str) -> None:
    outcome = apprise_sender.send(Secret(url), SAID, private=True)
    assert (outcome.fault, outcome.why) == ("refused", why)


@pytest.mark.parametrize(
    "url, why",
    [
        ("json://{}", "is not encrypted"),
        ("jsons://{}", "private network"),
        ("ntfys://{}/topic", "private network"),
    ],
)
async def test_a_service_in_a_private_network_must_be_allowed(chat: Receiver, url: str, why: str) -> None:
    outcome = apprise_sender.send(Secret(url.format(f"127.0.0.1:{chat.port}")), SAID, private=False)
    assert (outcome.fault, why in outcome.why, chat.requests) == ("refused", True, [])
    assert apprise_sender.send(Secret("json://169.254.169.254/x"), SAID, private=True).fault == "refused"


async def test_a_service_whose_host_is_unknown_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    outcome = apprise_sender.send(Secret("jsons://gone.example/canary"), SAID, private=False)
    assert (outcome.fault, outcome.why) == ("away", "its host cannot be resolved")


async def test_a_public_service_must_show_a_valid_certificate_whatever_its_url_says_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fail(self: Any, **_: object) -> None:
        asked.extend(self)
        raise ValueError("canary")

    monkeypatch.setattr("apprise.Apprise.notify", fail)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))])
    outcome = apprise_sender.send(Secret("ntfys://ntfy.example/topic?verify=no&redirect=yes"), SAID, private=False)
    assert (outcome.fault, outcome.why) == ("away", "Apprise failed (ValueError)")
    assert [(service.verify_certificate, service.redirects) for service in asked] == [(True, False)]


async def test_a_redirect_of_a_service_is_not_followed_and_counts_as_rejected_whatever_its_url_says(
    rig: OutboxRig, chat: Receiver, mail: Receiver
) -> None:
    chat.answer = lambda _: (302, {"location": mail.url})
    await rig.write_secret(PEOPLE, chat=f"{apprise_url(chat)}?redirect=yes&optional=yes&retry=3")
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    await rig.deliver(console)
    assert (len(chat.requests), mail.requests) == (1, [])
    assert rig.progress_of("leads").pending == 1


async def test_a_service_that_does_not_answer_is_tried_again_later(rig: OutboxRig, chat: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "SEND_TIMEOUT_S", 0.5)
    chat.answer = lambda _: HANG
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(*request_events())
    async with asyncio.timeout(180):
        await rig.deliver(console)
    (waiting,) = rig.store.outbox.deliveries("leads", state=None, limit=9, cursor=None).items
    assert (waiting.state, waiting.why) == ("pending", "no answer in 0.5 s")


async def test_each_of_many_requests_is_notified(rig: OutboxRig, chat: Receiver) -> None:
    await rig.write_secret(PEOPLE, chat=apprise_url(chat))
    console = await start_notifications(rig, people())
    rig.record(*(fact for number in range(1, 6) for fact in request_events(job=job_id(number))))
    await rig.deliver(console)
    assert len(chat.requests) == 5
    assert {message["message"].rpartition(" ")[2] for message in chat.events} == {part_id(job_id(number), "r") for number in range(1, 6)}


@pytest.mark.parametrize(
    "url",
    [
        f"zulip://bot@localhost.localdomain/{'a' * 32}",
        "mailtos://user:password@example.com?smtp=127.0.0.1&to=a@example.com",
        "workflows://127.0.0.1:443/workflow/signature",
        "gotifys://127.0.0.1/token",
        "mmosts://127.0.0.1/3ccdd113474722377935511fc85d3dd4",
        "rockets://user:password@127.0.0.1/#channel",
        "nctalks://user:password@127.0.0.1/room",
        "forms://127.0.0.1",
        "xmls://127.0.0.1",
    ],
)
def test_the_host_is_checked_wherever_the_url_names_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1" if "localdomain" in host else host, *rest, **more)
    )
    outcome = apprise_sender.send(Secret(url), SAID, private=False)
    assert (outcome.fault, "private network" in outcome.why) == ("refused", True), outcome


def test_the_documentation_names_every_supported_service() -> None:
    text = (
        (Path(__file__).parents[3] / "docs" / "reference" / "events.md")
        .read_text()
        .partition("**Supported services.**")[2]
        .partition("Parameters")[0]
    )
    assert set(re.findall(r"`([a-z0-9]+)`", text)) - {"s"} == apprise_sender.HOSTED_SCHEMES | apprise_sender.SELF_HOSTED_SCHEMES
    assert {f"{plain}s" for plain in apprise_sender.PLAINTEXT_SCHEMES} <= apprise_sender.SELF_HOSTED_SCHEMES
    assert not apprise_sender.HOSTED_SCHEMES & apprise_sender.SELF_HOSTED_SCHEMES
