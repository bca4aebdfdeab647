"""The ledger pages: entries, search, an export that verifies offline, and a verification that detects forged entries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from typer.testing import CliRunner, Result

from console.cli.root_group import build_program
from console.services.background_reads import WHOLE_LEDGER
from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.ledger.hash_chain import LedgerReport
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.adapters.store.test_ledger_writer import tamper
from tests.console.pages.plain_browser import Browser
from tests.console.pages.recorded_console import HOSTILE, Desk, load_page, serve_desk, submit_form

pytestmark = pytest.mark.servers


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, small_config: Path) -> AsyncIterator[Desk]:
    async with serve_desk(settings, passwords, own_store, config=small_config) as opened:
        yield opened


def record_life(records: Desk, *, requester: str = "e-ops") -> str:
    """Record a job from its order to its verified revocation; return its id."""
    job = records.record_job(requester=requester)
    at = datetime.now(UTC)
    records.store.ledger.append(
        [
            samples.access_request(job, at=at),
            samples.access_decision("allowed", job, at=at),
            samples.job_start(job, at=at),
            samples.issuance(job, at=at),
            samples.revocation_start(job, at=at),
            samples.credential_confirmation(job, at=at),
            samples.revocation_proof(job, at=at),
        ]
    )
    return job


def entry_links(links: list[str]) -> list[str]:
    return list(dict.fromkeys(link for link in links if link.startswith("/ledger/entry")))


async def test_entries_are_shown_newest_first_as_sentences_with_the_raw_entry(records: Desk) -> None:
    lead, job = await records.log_in(), record_life(records)
    page = await load_page(lead, "/ledger")
    told = ["revocation.confirmed", "credential.confirmed", "revocation.started", "credential.issued", "access.decided", "job.submitted"]
    text = page.text.partition("Filter")[2]
    places = [text.index(kind) for kind in told]
    assert places == sorted(places)
    assert "write on orders-db until" in page.text
    newest = records.store.ledger.entries(job=job, limit=1000).items[-1]
    assert newest.hash in page.text
    assert newest.prev in page.text
    assert f"e-{newest.position}" in page.values("id")


@pytest.mark.parametrize(
    "query,types",
    [
        ("type=credential", {"credential.issued", "credential.confirmed"}),
        ("type=access.decided", {"access.decided"}),
        ("type=approval", set()),
        ("since=2999-01-01", set()),
        ("until=2000-01-01T00:00", set()),
        ("type=revocation&since=2000-01-01&until=2999-01-01", {"revocation.started", "revocation.confirmed"}),
    ],
)
async def test_filters_narrow_the_list(records: Desk, query: str, types: set[str]) -> None:
    lead, job = await records.log_in(), record_life(records)
    record_life(records)
    page = await load_page(lead, f"/ledger?job={job}&{query}")
    listed = entry_links(page.links)
    assert len(listed) == len(types)
    assert {link.partition("%2F")[2].partition("%2F")[0] for link in listed} == types
    assert all(job in link for link in listed)


async def test_an_invalid_filter_shows_the_error_beside_its_field(records: Desk) -> None:
    lead = await records.log_in()
    page = await load_page(lead, "/ledger?since=yesterday&until=2026-13-01&type=gone", status=422)
    assert page.text.count("must be a date or time like 2026-01-31") == 2
    assert "unknown type 'gone'" in page.text
    beyond = urlencode({"since": "0001-01-01T00:00+14:00", "until": "9999-12-31T23:59-14:00"})
    assert (await load_page(lead, f"/ledger?{beyond}", status=422)).text.count("must be a date or time like 2026-01-31") == 2
    assert {"e-since", "e-until"} <= set(page.values("aria-describedby"))
    assert "cursor" in (await load_page(lead, "/ledger?cursor=zzz", status=422)).text


async def test_older_entries_are_on_the_next_page(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.pages.ledger.PAGE_SIZE", 3)
    lead, job = await records.log_in(), record_life(records)
    found: list[str] = []
    path = f"/ledger?job={job}"
    while path:
        page = await load_page(lead, path)
        found += entry_links(page.links)
        path = next((f"/ledger{link}" for link in page.links if "cursor=" in link), "")
    assert len(found) == len(set(found)) == 8


async def test_an_id_opens_the_named_item(records: Desk) -> None:
    lead, job = await records.log_in(), record_life(records)
    entry = records.store.ledger.entries(job=job, types=[EventType.CREDENTIAL_ISSUED]).items[0]
    for text, place in (
        (job, f"/jobs/{job}"),
        (part_id(job, "c"), f"/credentials/{part_id(job, 'c')}"),
        (part_id(job, "r"), f"/inbox/{part_id(job, 'r')}"),
        (str(entry.position), f"/ledger/entry?id={entry.id.replace('/', '%2F')}"),
        (entry.id, f"/ledger/entry?id={entry.id.replace('/', '%2F')}"),
    ):
        answer = await lead.open("/ledger", params={"q": text})
        assert (answer.status_code, answer.headers.get("location")) == (303, place), text
    other = record_life(records)
    page = await load_page(lead, "/ledger?q=j-dev-")
    assert {f"/jobs/{job}", f"/jobs/{other}"} <= set(page.links)
    assert "No results." in (await load_page(lead, "/ledger?q=nowhere")).text


async def test_one_entry_is_shown_in_full_with_its_neighbours(records: Desk) -> None:
    lead, job = await records.log_in(), record_life(records)
    before, entry, after = records.store.ledger.entries(job=job).items[2:5]
    page = await load_page(lead, f"/ledger/entry?id={entry.id}")
    assert {entry.hash, entry.prev} <= set(page.text.split())
    neighbours = [link for link in page.links if link.startswith("/ledger/entry")]
    assert [link.partition("id=")[2].replace("%2F", "/") for link in neighbours] == [before.id, after.id]
    await load_page(lead, "/ledger/entry?id=gone", status=404)


async def test_a_launcher_sees_entries_of_their_own_jobs_only_and_no_more(records: Desk) -> None:
    ops, mallory = await records.log_in("ops"), await records.log_in("mallory")
    own, others = record_life(records, requester=await records.id_of(ops)), record_life(records)
    records.store.ledger.append([samples.replace_data(samples.job_refusal("x", job="-"), why="of no job")])
    page = await load_page(ops, "/ledger")
    assert len(entry_links(page.links)) == 8
    assert all(own in link for link in entry_links(page.links))
    assert page.forms == ["/logout"]
    assert not [link for link in page.links if "export" in link or "verify" in link]
    entry = records.store.ledger.entries(job=others).items[0].id
    await load_page(ops, f"/ledger/entry?id={entry}", status=404)
    assert "No results." in (await load_page(ops, f"/ledger?q={others}")).text
    assert entry_links((await load_page(mallory, "/ledger")).links) == []
    for path in ("/ledger/export", "/ledger/verify"):
        assert "Needs one of the groups: auditors" in (await load_page(ops, path, status=403)).text
    answer = await submit_form(ops, "/ledger", "/ledger/verify")
    assert answer.status_code == 403
    assert records.console.background_reads.verification.get(WHOLE_LEDGER) is None
    assert (await (await records.log_in("outsider")).open("/ledger")).status_code == 403


async def test_an_export_verifies_offline_and_an_altered_one_does_not(records: Desk, tmp_path: Path) -> None:
    auditor = await records.log_in("auditor")
    for _ in range(3):
        record_life(records)
    answer = await auditor.open("/ledger/export")
    assert answer.headers["content-disposition"].startswith('attachment; filename="ledger-dev-')
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    lines = answer.text.splitlines()
    exported = [json.loads(line) for line in lines]
    assert all(entry.pop("text").startswith("justenough.ledger.v1\n") for entry in exported)
    assert exported == [one.model_dump(mode="json") for one in records.store.ledger.entries(limit=1000).items]
    copy = tmp_path / "copy.jsonl"
    copy.write_text(answer.text)
    done = verify_offline(copy)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "sound: 24 entries in 3 chains")
    forged = json.loads(lines[4])
    forged["data"]["worker"] = "another"
    copy.write_text("\n".join([*lines[:4], json.dumps(forged), *lines[5:]]))
    assert has_fault(verify_offline(copy), "edited")
    copy.write_text("\n".join([*lines[:3], *lines[4:]]))
    assert has_fault(verify_offline(copy), "missing")
    copy.write_text("no entry\n")
    assert "line 1: is not a ledger entry" in verify_offline(copy).stderr


def verify_offline(copy: Path) -> Result:
    words = ["ledger", "verify", "--offline", str(copy)]
    return CliRunner().invoke(build_program(), words, prog_name="justenough")


def has_fault(done: Result, fault: str) -> bool:
    assert done.exit_code == 1, done.stderr
    return fault in done.stdout


async def test_an_export_respects_the_filters_and_covers_all_pages(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.pages.ledger.EXPORT_PAGE_SIZE", 3)
    auditor, job = await records.log_in("auditor"), record_life(records)
    record_life(records)
    whole = (await auditor.open("/ledger/export")).text.splitlines()
    assert len(whole) == 16
    one = (await auditor.open(f"/ledger/export?job={job}")).text.splitlines()
    assert {json.loads(line)["job"] for line in one} == {job}
    assert [json.loads(line)["seq"] for line in one] == list(range(1, 9))
    some = (await auditor.open("/ledger/export?type=credential")).text.splitlines()
    assert {json.loads(line)["type"] for line in some} == {"credential.issued", "credential.confirmed"}
    assert (await auditor.open("/ledger/export?since=never")).status_code == 422


async def run_verification(records: Desk, who: Browser) -> LedgerReport:
    """Start a verification with the page's form and wait for its result."""
    answer = await submit_form(who, "/ledger/verify", "/ledger/verify")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ledger/verify")
    work = records.console.background_reads.verification.get(WHOLE_LEDGER)
    assert work is not None
    return work.outcome if work.outcome is not None else await records.console.background_reads.verification.result(WHOLE_LEDGER, by="test")


async def test_an_intact_ledger_is_shown_as_intact_with_the_limits_of_the_check(records: Desk) -> None:
    auditor = await records.log_in("auditor")
    record_life(records)
    assert "Not verified since the console started" in (await load_page(auditor, "/ledger/verify")).text
    await run_verification(records, auditor)
    page = await load_page(auditor, "/ledger/verify")
    assert "Intact." in page.text
    assert "started by auditor" in page.text
    assert "Only a checkpoint that was kept elsewhere shows that" in page.text
    assert str(records.store.ledger.head().hash) in page.text
    assert "No checkpoint is signed yet." in page.text
    note = "justenough/dev/ledger\n16\nAAAA\n\n\u2014 justenough/dev/ledger BBBB\n"
    data = {"entries": 16, "root": "ab", "frontier": ["ab"], "checkpoint": note}
    records.store.ledger.append([build_event(EventType.LEDGER_CHECKPOINTED, "-", at=datetime.now(UTC), about="16", **data)])
    assert "justenough/dev/ledger 16 AAAA" in (await load_page(auditor, "/ledger/verify")).text
    assert "Intact, verified" in (await load_page(auditor, "/ledger")).text


async def test_a_forged_entry_is_found_from_the_page(records: Desk) -> None:
    lead, job = await records.log_in(), record_life(records)
    tamper(records.database, f"UPDATE ledger SET data = replace(data, 'bubblewrap', 'off') WHERE job = '{job}' AND seq = 4")
    await run_verification(records, lead)
    page = await load_page(lead, "/ledger/verify")
    assert "1 problem." in page.text
    assert "edited" in page.text
    assert f"/ledger?job={job}" in page.links
    assert "Damaged" in (await load_page(lead, "/ledger")).text


async def test_concurrent_requests_share_one_verification_and_other_pages_still_respond(
    records: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead, auditor = await records.log_in(), await records.log_in("auditor")
    record_life(records)
    real, loop, go_on, begun = records.store.ledger.verify, asyncio.get_running_loop(), asyncio.Event(), []

    def held() -> LedgerReport:
        begun.append(1)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=60)
        return real()

    monkeypatch.setattr(records.store.ledger, "verify", held)
    for who in (lead, auditor):
        assert (await submit_form(who, "/ledger/verify", "/ledger/verify")).status_code == 303
        page = await load_page(who, "/ledger/verify")
        assert "Verifying every chain" in page.text
        assert "Started by lead" in page.text
        assert page.forms == ["/logout"]
    assert "Verifying every chain…" in (await load_page(auditor, "/ledger")).text
    go_on.set()
    assert (await records.console.background_reads.verification.result(WHOLE_LEDGER, by="auditor")).sound
    assert begun == [1]


async def test_a_failed_verification_says_so_and_can_be_repeated(records: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = await records.log_in()

    def failing() -> LedgerReport:
        message = "/secret/path of ours"
        raise RuntimeError(message)

    monkeypatch.setattr(records.store.ledger, "verify", failing)
    assert (await submit_form(lead, "/ledger/verify", "/ledger/verify")).status_code == 303
    with pytest.raises(Exception, match="console's log"):
        await records.console.background_reads.verification.result(WHOLE_LEDGER, by="lead")
    page = await load_page(lead, "/ledger/verify")
    assert "The verification could not be completed" in page.text
    assert "secret" not in page.text
    assert "/ledger/verify" in page.forms


async def test_untrusted_text_is_shown_as_text(records: Desk) -> None:
    lead, at = await records.log_in(), datetime.now(UTC)
    job = records.record_job(name=HOSTILE, task=HOSTILE, reason=HOSTILE, requester_name=HOSTILE)
    records.store.ledger.append(
        [
            samples.access_request(job, at=at, reason=HOSTILE, title=HOSTILE),
            samples.replace_data(samples.job_refusal("x", job=job, at=at + timedelta(seconds=1)), why=HOSTILE),
        ]
    )
    entry = records.store.ledger.entries(job=job).items[0].id
    for path in ("/ledger", f"/ledger/entry?id={entry}", "/ledger?q=%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AE"):
        page = await load_page(lead, path)
        assert "<script>alert(1)" in page.text
        assert "\\u202e" in page.text


async def test_a_page_of_large_entries_is_no_larger_than_a_hundred_kilobytes(records: Desk) -> None:
    lead = await records.log_in()
    for _ in range(45):
        records.store.ledger.append([samples.submission(records.record_job(), spec={"name": "x", "run": {"command": ['"' * 8000]}})])
    for number in range(45):
        records.record_job(task="<" * 900, reason='"' * 900, name=f"large-{number}")
    answer = await lead.open("/ledger")
    assert len(answer.content) < 100_000
