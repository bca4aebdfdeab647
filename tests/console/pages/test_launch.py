"""Launching from a page: from a template with its files or from a pasted spec, previewed first, signed by the person, launched once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from html import unescape
from pathlib import Path
from re import search
from shutil import copytree
from typing import Any

import httpx
import pytest
import yaml
from temporalio.client import Client

from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.job_templates import list_templates, load_template, pack_template
from justenough.domain.core.errors import NotFound, Problem
from justenough.domain.core.ids import first_job_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs import bundle
from justenough.services.verify_order import verify_order
from tests.console.pages.conftest import LogIn
from tests.console.pages.page_text import tags_of, text_of
from tests.console.pages.plain_browser import Browser, Site, hidden_fields
from tests.console.pages.recorded_jobs import EVIL, now, post_fields, record_order
from tests.console.pages.site_variants import serve_variant
from tests.console.served_console import SHOP, SPEC

pytestmark = pytest.mark.servers

TRIAGE = "/jobs/new?template=refund-triage.yaml"
PASTE = "/jobs/new?paste=yes"


async def person_of(site: Site, who: Browser) -> str:
    return (await site.console.sessions.session_of(who.cookie)).person.id


def fields(page: str) -> dict[str, str]:
    """Return the hidden fields of the launch form."""
    return hidden_fields(page, "/jobs/new")


async def preview_job(who: Browser, place: str, **values: str) -> httpx.Response:
    """Fill in a form and open the policy preview."""
    form = fields((await who.open(place)).text)
    return await who.send("/jobs/new", {**form, **values, "do": "try"})


async def launch_job(who: Browser, page: str, **values: str) -> httpx.Response:
    """Submit the form of a page with a policy preview."""
    return await who.send("/jobs/new", {**fields(page), **values, "do": "launch"})


def job_at(answer: httpx.Response, *, done: str = "launched") -> str:
    """Return the job to which the answer to a launch redirects."""
    assert answer.status_code == 303
    job, _, query = answer.headers["location"].removeprefix("/jobs/").partition("?")
    assert query == f"done={done}"
    return str(job)


async def test_templates_are_listed_with_the_access_they_request(logged_in: LogIn) -> None:
    page = text_of((await (await logged_in("ops")).open("/jobs/new")).text, "main")
    assert (
        "refund-triage refund-triage.yaml · prod Refund ticket 4711 Requests read on orders-db, write on refunds-db, admin on orders-db"
        in page
    )
    assert "shop/jobs" in page


async def test_a_template_is_previewed_and_launched_with_its_files_signed_by_the_person(
    site: Site, logged_in: LogIn, temporal: Client
) -> None:
    ops = await logged_in("ops")
    given = {"param.ticket": "4712", "param.witness": "none", "reason": "The customer\r\nwaits", "parent": ""}
    page = (await preview_job(ops, TRIAGE, **given)).text
    told = text_of(page, "says")
    assert "read on orders-db 10m allowed – read-up-to-confidential" in told
    assert ("Refund ticket 4712" in told, "4711" in text_of(page)) == (True, False), "the task that will be signed"
    assert "write on refunds-db 5m needs approval tier 1 (owner)" in told
    before = site.store.jobs.list(requester_id=await person_of(site, ops)).items
    job = job_at(await launch_job(ops, page, **given))
    assert job not in [one.id for one in before], "a preview launches nothing"
    view, order = site.store.jobs.get(job), site.store.jobs.order(job)
    assert view
    assert order
    assert (view.requester, view.params, view.order_reason) == ("ops", {"ticket": "4712"}, "The customer\nwaits")
    assert order.spec == yaml.safe_load((SHOP / "jobs" / "refund-triage.yaml").read_text())
    # Verify the order as the worker does before it issues anything.
    verified = verify_order(site.console.deps, order, now=now())
    assert not isinstance(verified, Rejection), verified
    assert order.order.statement["person"] == await person_of(site, ops)
    content = site.store.bundles.get(str(order.bundle))
    assert content
    assert bundle.bundle_digest(content) == order.bundle
    assert "triage.py" in [name for name, *_ in tar_members(content)]
    handle = temporal.get_workflow_handle(job)
    history = await handle.fetch_history()
    begun = history.events[0].workflow_execution_started_event_attributes
    (told_temporal,) = await temporal.data_converter.decode(begun.input.payloads)
    assert told_temporal["order"] == order.order.model_dump(mode="json")
    await handle.terminate()


async def test_the_preview_of_an_agent_lists_its_tools_with_what_they_need(logged_in: LogIn) -> None:
    page = (await preview_job(await logged_in("ops"), "/jobs/new?template=support-agent.yaml", reason="", parent="")).text
    told = text_of(page, "says")
    assert "refund-order write on refunds-db needs approval tier 1 (owner)" in told
    assert "requests no access" not in told


def tar_members(content: bytes) -> list[tuple[str, int]]:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as files:
        return [(item.name, item.size) for item in files.getmembers()]


async def test_a_pasted_spec_is_launched(site: Site, logged_in: LogIn, temporal: Client) -> None:
    ops = await logged_in("ops")
    text = yaml.safe_dump(SPEC)
    page = (await preview_job(ops, PASTE, spec=text, reason="pasted")).text
    assert "read on orders-db" in text_of(page, "says")
    job = job_at(await launch_job(ops, page, spec=text, reason="pasted"))
    order = site.store.jobs.order(job)
    assert order
    assert (order.spec, order.bundle) == (SPEC, None)
    await temporal.get_workflow_handle(job).terminate()


async def test_the_same_form_sent_twice_launches_once_even_at_the_same_time(site: Site, logged_in: LogIn, temporal: Client) -> None:
    ops = await logged_in("ops")
    text = yaml.safe_dump(SPEC)
    page = (await preview_job(ops, PASTE, spec=text)).text
    answers = await asyncio.gather(*(launch_job(ops, page, spec=text) for _ in range(4)))
    (job,) = {answer.headers["location"].partition("?")[0].removeprefix("/jobs/") for answer in answers}
    assert sorted(answer.headers["location"].partition("?")[2] for answer in answers) == [*(["done=again"] * 3), "done=launched"]
    # The statement's time is in whole seconds, so a later one has a different signature.
    began = int(time.time())
    while int(time.time()) == began:  # noqa: ASYNC110 - the clock tells nobody
        await asyncio.sleep(0.01)
    again = await launch_job(ops, page, spec=text)
    assert job_at(again, done="again") == job
    assert "Nothing was launched twice." in text_of((await ops.open(again.headers["location"])).text)
    assert [one.id for one in site.store.jobs.list(requester_id=await person_of(site, ops), name=SPEC["name"]).items].count(job) == 1
    assert len(site.store.ledger.entries(job=job).items) == 1
    other = yaml.safe_dump({**SPEC, "task": "Something else"})
    seen = fields((await ops.send("/jobs/new", {**fields(page), "spec": other, "do": "try"})).text)["seen"]
    refused = await ops.send("/jobs/new", {**fields(page), "spec": other, "seen": seen, "do": "launch"})
    assert refused.status_code == 409
    assert "with other content" in text_of(refused.text)
    assert job in text_of(refused.text)
    await temporal.get_workflow_handle(job).terminate()


async def test_a_preview_that_is_sent_again_after_its_job_was_launched_launches_no_second_job(
    site: Site, logged_in: LogIn, temporal: Client
) -> None:
    """A browser sends the preview's form again if somebody goes back, for example because the console restarted and did not answer."""
    ops, text = await logged_in("ops"), yaml.safe_dump(SPEC)
    preview = {**fields((await ops.open(PASTE)).text), "spec": text, "do": "try"}
    page, previewed = (await ops.send("/jobs/new", preview)).text, now()
    job = job_at(await launch_job(ops, page, spec=text))
    assert job >= first_job_id(site.console.deps.settings.installation, since=previewed), "it is listed at the time of its launch"
    assert job_at(await launch_job(ops, (await ops.send("/jobs/new", preview)).text, spec=text), done="again") == job
    await temporal.get_workflow_handle(job).terminate()


async def test_a_form_that_is_sent_again_leads_to_its_job_even_if_its_order_would_be_refused_now(
    site: Site, logged_in: LogIn, temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, text = await logged_in("ops"), yaml.safe_dump(SPEC)
    page = (await preview_job(ops, PASTE, spec=text)).text
    find_job, job = site.store.idempotency.find_job, job_at(await launch_job(ops, page, spec=text))

    def submit_beside(person: str, key: str) -> str | None:
        """Find no job the first time, as if both forms were sent at the same moment."""
        monkeypatch.setattr(site.store.idempotency, "find_job", find_job)
        return None

    monkeypatch.setattr(site.console.quotas, "_settings", site.console.deps.settings.model_copy(update={"quota_open_jobs": 1}))
    monkeypatch.setattr(site.store.idempotency, "find_job", submit_beside)
    assert job_at(await launch_job(ops, page, spec=text), done="again") == job
    problem = (Problem("access[0].resource", "is no longer in the catalog"),)
    monkeypatch.setattr("console.services.submit_job.problems_in_spec", lambda *_: problem)
    assert job_at(await launch_job(ops, page, spec=text), done="again") == job
    other = await preview_job(ops, PASTE, spec=text)
    assert other.status_code == 422
    await temporal.get_workflow_handle(job).terminate()


async def test_only_the_previewed_order_is_launched(site: Site, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    page = (await preview_job(ops, TRIAGE, **{"param.ticket": "4712", "param.witness": "none"})).text
    before = site.store.jobs.list(requester_id=await person_of(site, ops)).items
    for changed in ({"param.ticket": "4713"}, {"reason": "another"}, {"seen": ""}, {"seen": "sha256:" + "0" * 64}, {"key": "\0"}):
        answer = await launch_job(ops, page, **{"param.ticket": "4712", "param.witness": "none", **changed})
        assert answer.status_code == 200
        assert "Nothing was launched" in text_of(answer.text)
        assert "read on orders-db" in text_of(answer.text, "says")
    assert site.store.jobs.list(requester_id=await person_of(site, ops)).items == before


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "spec: is empty: paste a job spec"),
        ("name: [", "line 1"),
        ("- a", "must be a mapping"),
        (yaml.safe_dump({**SPEC, "nmae": 1}), "nmae: unknown key"),
        (yaml.safe_dump({**SPEC, "run": {"command": ["python"], "workdir": "."}}), "run.workdir: a pasted spec has no files"),
        (
            yaml.safe_dump({**SPEC, "environment": "moon", "access": [{**SPEC["access"][0], "resource": "nowhere", "ttl": "99h"}]}),
            "access[0].ttl",
        ),
        (yaml.safe_dump({**SPEC, "access": [{**SPEC["access"][0], "resource": "nowhere"}]}), "access[0].resource"),
        (f"name: {EVIL!r}", "name"),
    ],
)
async def test_every_problem_of_a_spec_is_shown_by_path_and_the_text_is_kept(logged_in: LogIn, text: str, says: str) -> None:
    answer = await preview_job(await logged_in("ops"), PASTE, spec=text)
    assert answer.status_code == 422
    assert says in text_of(answer.text, "problems")
    assert "Not launched." in text_of(answer.text, "problems")
    kept = search(r'name="spec"[^>]*>\n(.*?)</textarea>', answer.text.replace("\r", ""), flags=16)
    assert kept
    assert unescape(kept[1]) == text
    assert 'aria-invalid="true"' in answer.text
    assert tags_of(answer.text).count("script") == 1


async def test_a_parameters_error_appears_beside_its_field(logged_in: LogIn) -> None:
    answer = await preview_job(await logged_in("ops"), TRIAGE, **{"param.ticket": "--evil", "param.witness": "none"})
    assert answer.status_code == 422
    assert "without a leading dash" in text_of(answer.text, "e-ticket")
    assert 'value="--evil" maxlength="256" autocomplete="off" aria-invalid="true" aria-describedby="e-ticket"' in answer.text


async def test_a_job_that_would_be_denied_cannot_be_launched(logged_in: LogIn) -> None:
    text = yaml.safe_dump(
        {**SPEC, "access": [{"resource": "customers-db", "action": "read", "ttl": "5m", "reason": "x"}], "data_scope": {"tenant": "acme"}}
    )
    forbidden = yaml.safe_dump(
        {
            **SPEC,
            "access": [
                {"resource": "customers-db", "action": "read", "ttl": "5m", "reason": "x"},
                {"resource": "export-api", "action": "write", "ttl": "5m", "reason": "x"},
            ],
        }
    )
    ops = await logged_in("ops")
    assert (await preview_job(ops, PASTE, spec=text)).status_code == 200
    page = (await preview_job(ops, PASTE, spec=forbidden)).text
    assert "denied –" in text_of(page, "says")
    assert "this job would not start" in text_of(page, "says")
    assert 'value="launch"' not in page


async def test_another_persons_parent_job_is_refused(site: Site, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    theirs = record_order(site.store, "e-9")
    answer = await preview_job(ops, PASTE, spec=yaml.safe_dump(SPEC), parent=theirs)
    assert answer.status_code == 422
    assert "parent:" in text_of(answer.text, "problems")


async def test_only_launchers_get_the_form_and_a_key_is_its_persons_own(site: Site, logged_in: LogIn, temporal: Client) -> None:
    ops, lead, mallory = [await logged_in(name) for name in ("ops", "lead", "mallory")]
    for path in ("/jobs/new", TRIAGE, PASTE):
        assert (await lead.open(path)).status_code == 403
    answer = await post_fields(lead, "/jobs/new", spec=yaml.safe_dump(SPEC), do="launch")
    assert answer.status_code == 403
    text = yaml.safe_dump(SPEC)
    page = (await preview_job(ops, PASTE, spec=text)).text
    jobs = [job_at(await launch_job(who, page, spec=text, csrf=fields((await who.open(PASTE)).text)["csrf"])) for who in (ops, mallory)]
    assert jobs[0] != jobs[1]
    for job in jobs:
        await temporal.get_workflow_handle(job).terminate()


async def test_a_form_without_a_session_launches_nothing(site: Site, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    page = (await preview_job(ops, PASTE, spec=yaml.safe_dump(SPEC))).text
    answer = await launch_job(ops, page, spec=yaml.safe_dump(SPEC), csrf="forged")
    assert answer.status_code == 403
    assert site.store.idempotency.find_job(await person_of(site, ops), fields(page)["key"]) is None


@pytest.mark.parametrize("name", ["../catalog.yaml", "/etc/passwd", "programs", "none.yaml", "..%2Fcatalog.yaml"])
async def test_only_listed_templates_can_be_chosen(logged_in: LogIn, name: str) -> None:
    answer = await (await logged_in("ops")).open("/jobs/new", params={"template": name})
    assert answer.status_code == 404
    assert "There is no template" in text_of(answer.text)


def test_a_broken_template_says_why_and_does_not_affect_others(tmp_path: Any, site: Site) -> None:
    catalog = site.console.deps.config.current().catalog
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "good.yaml").write_text(yaml.safe_dump(SPEC))
    (jobs / "bad.yaml").write_text("name: [")
    (jobs / "strange.yaml").write_text(yaml.safe_dump({**SPEC, "environment": "moon"}))
    (jobs / "folder.yaml").mkdir()
    (jobs / "notes.txt").write_text("no job")
    found = list_templates(tmp_path, catalog)
    assert [(one.file, bool(one.problems)) for one in found] == [("bad.yaml", True), ("good.yaml", False), ("strange.yaml", True)]
    assert pack_template(tmp_path, found[1]) is None
    with pytest.raises(NotFound):
        load_template(tmp_path, "folder.yaml", catalog)
    assert list_templates(tmp_path / "nowhere", catalog) == ()
    # The changed file is read again.
    (jobs / "bad.yaml").write_text(yaml.safe_dump(SPEC))
    assert not list_templates(tmp_path, catalog)[0].problems


async def test_a_broken_template_cannot_be_launched(site: Site, tmp_path: Path) -> None:
    folder = copytree(SHOP, tmp_path / "shop")
    deps = site.console.deps
    settings = deps.settings.model_copy(update={"config": folder})
    async with serve_variant(site, person="ops", deps=replace(deps, settings=settings, config=ConfigFolder(folder))) as ops:
        form = fields((await ops.open(TRIAGE)).text)
        (folder / "jobs" / "refund-triage.yaml").write_text("name: [")
        answer = await ops.send("/jobs/new", {**form, "do": "launch"})
        assert (answer.status_code, "line 1, column" in text_of(answer.text, "problems")) == (422, True)


async def test_each_form_has_a_key_of_its_own(logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    keys = [fields((await ops.open(PASTE)).text)["key"] for _ in range(2)]
    assert len(set(keys)) == 2
