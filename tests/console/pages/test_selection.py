"""Several rows of a list at once: what is asked first, what becomes of each, and what nobody may do this way."""

from __future__ import annotations

import re

import httpx
import pytest

from console.services.background_reads import SingleFlight
from justenough.domain.contracts.workflow_messages import Finding, ProofReport
from justenough.domain.core.errors import RetryLater
from justenough.domain.ledger.events import EventType
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import part_id
from tests.console.pages.conftest import LogIn
from tests.console.pages.page_text import text_of
from tests.console.pages.plain_browser import Browser, Site, hidden_fields
from tests.console.pages.recorded_jobs import now, record_order

pytestmark = pytest.mark.servers


async def post(who: Browser, path: str, *picks: str, confirm: str = "yes", **fields: str) -> httpx.Response:
    csrf = hidden_fields((await who.open("/sessions")).text)["csrf"]
    body = {"csrf": csrf, "pick": list(picks), "confirm": confirm, **fields}
    return await who.http.post(path, data=body, headers={"Sec-Fetch-Site": "same-origin"})


async def person_of(site: Site, who: Browser) -> str:
    return (await site.console.sessions.session_of(who.cookie)).person.id


def stops(site: Site, job: str) -> list[str]:
    return [entry.data["how"] for entry in site.store.ledger.entries(job=job, types=(EventType.STOP_REQUESTED,)).items]


async def test_selected_jobs_are_killed_after_a_confirmation_that_names_each(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    one, other, over = (record_order(site.store, "e-5", name=name) for name in ("kill-one", "kill-other", "kill-none"))
    site.store.ledger.append([samples.job_end(job=over, at=now())])
    page = (await lead.open("/jobs")).text
    assert all(f'name="pick" value="{job}"' in page for job in (one, other, over))
    asked = await post(lead, "/jobs/selected/kill", one, other, over, confirm="")
    assert asked.status_code == 200
    assert "Kill 2 jobs?" in text_of(asked.text, "main")
    assert "nothing: it has already ended" in text_of(asked.text, "main")
    assert stops(site, one) == stops(site, other) == []
    assert 'name="reason"' in asked.text
    done = await post(lead, "/jobs/selected/kill", one, other, over, reason="the vendor was hacked")
    assert "2 of 3 requested" in text_of(done.text, "main")
    assert (stops(site, one), stops(site, other), stops(site, over)) == (["kill"], ["kill"], [])
    assert "lead requested to kill the job: the vendor was hacked" in (await lead.open(f"/jobs/{other}")).text


async def test_a_failure_with_one_job_does_not_affect_the_others(site: Site, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, active, unknown = jobs = [record_order(site.store, "e-5", name=name) for name in ("clean", "active", "unknown")]
    residual = Finding(what="kv", alive=True, residual=True)

    async def prove(job: str) -> ProofReport:
        if job == unknown:
            raise RetryLater("no worker answered in time")
        found = (Finding(what="lease", alive=True), Finding(what="target", alive=False), residual) if job == active else ()
        return ProofReport(job=job, dead=job == clean, findings=found, failures=("Redis does not answer",) if found else ())

    monkeypatch.setattr(site.console.background_reads, "proofs", SingleFlight(prove, now=now, max_outcomes=3))
    lead = await logged_in("lead")
    asked = await post(lead, "/jobs/selected/prove", *jobs, confirm="")
    assert "Verify 3 jobs?" in text_of(asked.text, "main")
    assert [cell[1] for cell in re.findall(r'data-label="(What happens)">([^<]*)<', asked.text)] == ["verify"] * 3
    done = text_of((await post(lead, "/jobs/selected/prove", *jobs)).text, "main")
    assert "2 of 3 checked" in done
    for said in (
        "no active access found",
        "1 of 3 checks found active access; 1 check could not be completed",
        "no worker answered in time",
    ):
        assert said in done, said


async def test_a_launcher_acts_on_their_own_jobs_and_learns_of_no_others(site: Site, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    own, foreign = record_order(site.store, await person_of(site, ops), name="own"), record_order(site.store, "e-5", name="foreign")
    answer = await post(ops, "/jobs/selected/cancel", own, foreign)
    assert (answer.status_code, "foreign" in answer.text) == (404, False)
    assert stops(site, own) == []
    assert "1 of 1 requested" in text_of((await post(ops, "/jobs/selected/kill", own)).text, "main")


async def test_an_auditor_who_selects_a_job_cannot_stop_it(site: Site, logged_in: LogIn) -> None:
    job = record_order(site.store, "e-5", name="watched")
    page = await post(await logged_in("auditor"), "/jobs/selected/kill", job)
    assert "0 of 1 requested" in text_of(page.text, "main")
    assert "only the job's launcher may do this" in text_of(page.text, "main")
    assert stops(site, job) == []


async def test_selected_credentials_are_revoked_and_dead_ones_are_not_offered(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-5", name="two-credentials")
    site.store.ledger.append([samples.job_start(job), samples.issuance(job, at=now()), samples.issuance(job, number=2, at=now())])
    site.store.ledger.append([samples.credential_confirmation(job, number=2, at=now())])
    alive, dead = part_id(job, "c", 1), part_id(job, "c", 2)
    page = (await lead.open(f"/credentials?show=all&job={job}")).text
    assert f'name="pick" value="{alive}"' in page
    assert f'name="pick" value="{dead}"' not in page
    done = text_of((await post(lead, "/credentials/selected/revoke", alive, dead)).text, "main")
    assert "1 of 2 requested" in done
    assert "there is nothing left to revoke" in done
    asked = site.store.ledger.entries(job=job, types=(EventType.REVOCATION_REQUESTED,)).items
    assert [entry.data["credential"] for entry in asked] == [alive]


async def test_credentials_that_cannot_be_revoked_are_not_offered_and_say_what_happens_to_them(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-5", name="three-kinds")
    kinds = [samples.issuance(job, number=number, at=now(), revocable=kind) for number, kind in enumerate(("now", "never", "on_expiry"), 1)]
    site.store.ledger.append([samples.job_start(job), *kinds])
    names = [part_id(job, "c", number) for number in (1, 2, 3)]
    page = (await lead.open(f"/credentials?job={job}")).text
    assert [f'name="pick" value="{name}"' in page for name in names] == [True, False, False]
    asked = text_of((await post(lead, "/credentials/selected/revoke", *names, confirm="")).text, "main")
    assert "Revoke 1 credential?" in asked
    for words in (
        "revoke",
        "nothing: it cannot be revoked, and stays valid until its owner changes it",
        "nothing: it cannot be revoked early",
    ):
        assert words in asked, words


@pytest.mark.parametrize("count, message", [(0, "select at least one job in the list"), (101, "select at most 100 jobs")])
async def test_too_few_or_too_many_rows_are_refused(logged_in: LogIn, count: int, message: str) -> None:
    page = await post(await logged_in("lead"), "/jobs/selected/kill", *(f"j-dev-{number:026d}" for number in range(count)))
    assert (page.status_code, message in page.text) == (422, True)


async def test_an_action_that_does_not_exist_is_refused(logged_in: LogIn) -> None:
    assert (await post(await logged_in("lead"), "/credentials/selected/kill", "c-1")).status_code == 422
