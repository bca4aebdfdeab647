"""A request's page offers only decisions that policy, Vault's control group and people's rights would not refuse, and says why not and who can."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from console.auth.vault_directory import ConsoleVault
from console.concurrency.caches import ThreadCache
from console.services.deciders import group_members
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.vault import Vault, VaultDenied
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.ids import new_job_id
from tests.adapters.store import event_samples as samples
from tests.console.pages.conftest import LogIn
from tests.console.pages.inbox_requests import Words, decisions, read_words, spec, submit_decision, words_of
from tests.console.pages.plain_browser import Browser, Site
from tests.console.pages.site_variants import serve_variant
from tests.console.served_console import SHOP, Served

APPROVE, DENY, BREAK_GLASS = (("decision", kind) for kind in ("approve", "deny", "break_glass"))
CUSTOMERS: dict[str, Any] = {"resource": "customers-db", "title": "Customers", "action": "read", "ttl": 300, "sensitivity": "restricted"}
PAYOUTS: dict[str, Any] = {"resource": "payouts-db", "title": "Payouts", "action": "write", "ttl": 300}
FREEZE = '@id("freeze")\nforbid (principal, action == Action::"{action}", resource == Resource::"refunds-db");\n'


async def launch_request(served: Served, *, tier: int = 1, name: str = "refund-triage", **asked: Any) -> dict[str, Any]:
    access = {name: asked.get(name, default) for name, default in (("resource", "refunds-db"), ("action", "write"))}
    job = await served.launch(spec(name=name, access=[{**access, "ttl": "5m", "reason": "Write the refund"}]))
    return served.record_request(job["id"], tier=tier, **asked)


@asynccontextmanager
async def with_policy(site: Site, tmp_path: Path, text: str) -> AsyncIterator[Browser]:
    """An approver's browser at a console with one more policy."""
    folder = copytree(SHOP, tmp_path / "shop")
    (folder / "policies" / "freeze.cedar").write_text(text)
    async with serve_variant(site, deps=replace(site.console.deps, config=ConfigFolder(folder))) as lead:
        yield lead


def offered_actions(page: Words) -> list[str]:
    """What the page offers to grant, besides what was requested."""
    values = [known.get("value", "") for tag, known in page.tags if tag == "option"]
    return [value for value in values if value in {"read", "write", "admin"}]


async def test_an_approval_that_policy_denies_by_now_is_not_offered_but_a_denial_is(site: Site, served: Served, tmp_path: Path) -> None:
    request = await launch_request(served)
    async with with_policy(site, tmp_path, FREEZE.format(action="write") + FREEZE.replace("freeze", "thaw").format(action="read")) as lead:
        page = await read_words(lead, f"/inbox/{request['id']}")
        sent = await submit_decision(lead, request, "approve")
    assert APPROVE not in page.buttons
    assert DENY in page.buttons
    assert "Approving it as requested would be refused: policy denies write for 5m (freeze). You can deny it." in page.text
    assert offered_actions(page) == []
    assert (sent.status_code, "The decision is not valid: policy denies write for 5m (freeze)" in words_of(sent)) == (403, True)
    assert await decisions(served, request["job_id"]) == []


async def test_a_lesser_action_is_offered_if_policy_denies_only_the_requested_one(site: Site, served: Served, tmp_path: Path) -> None:
    request = await launch_request(served)
    async with with_policy(site, tmp_path, FREEZE.format(action="write")) as lead:
        page = await read_words(lead, f"/inbox/{request['id']}")
    assert APPROVE in page.buttons
    assert "You can approve a lesser action, or deny it." in page.text
    assert offered_actions(page) == ["read"]


async def test_a_lesser_action_that_policy_denies_is_not_offered(site: Site, served: Served, tmp_path: Path, logged_in: LogIn) -> None:
    request = await launch_request(served)
    assert offered_actions(await read_words(await logged_in("lead"), f"/inbox/{request['id']}")) == ["read"]
    async with with_policy(site, tmp_path, FREEZE.format(action="read")) as lead:
        page = await read_words(lead, f"/inbox/{request['id']}")
    assert APPROVE in page.buttons
    assert "would be refused" not in page.text
    assert offered_actions(page) == []


async def test_an_approval_is_not_offered_if_policy_denies_what_an_earlier_approval_narrowed_it_to(
    site: Site, served: Served, tmp_path: Path
) -> None:
    request = await launch_request(served, quorum=2)
    served.record_answer(request | {"action": "read"}, "chief", verdict="waiting")
    async with with_policy(site, tmp_path, FREEZE.format(action="read")) as lead:
        page = await read_words(lead, f"/inbox/{request['id']}")
    assert APPROVE not in page.buttons
    assert "Approving it as requested would be refused: policy denies read for 5m (freeze). You can deny it." in page.text


async def test_break_glass_that_policy_denies_is_not_offered(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, **CUSTOMERS)
    page = await read_words(await logged_in("oncall"), f"/inbox/{request['id']}")
    assert BREAK_GLASS not in page.buttons
    assert "Break-glass would be refused: policy denies read for 5m by break-glass (no-breaking-glass-for-restricted)" in page.text


async def test_break_glass_is_not_offered_to_people_whom_vault_would_not_count(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served, tier=2, **PAYOUTS)
    page = await read_words(await logged_in("oncall"), f"/inbox/{request['id']}")
    assert BREAK_GLASS not in page.buttons
    assert "Vault's control group counts only authorizations by members of security, chiefs" in page.text


async def test_a_decision_for_an_absent_person_who_may_not_decide_is_not_offered(served: Served, logged_in: LogIn) -> None:
    lead, security = await logged_in("lead"), await logged_in("security")
    known = (await read_words(lead, "/delegations")).forms["/delegations"]
    sent = await lead.send("/delegations", {**known, "name": "security", "days": "1", "reason": "on leave"})
    assert sent.headers["location"] == "/delegations?done=named"
    try:
        above, fitting = [await launch_request(served, tier=tier) for tier in (2, 1)]
        page = await read_words(security, f"/inbox/{above['id']}")
        assert "Not on behalf of lead: this person may not decide at tier 2." in page.text
        assert "for lead, who is away" not in page.text
        assert "for lead, who is away" in (await read_words(security, f"/inbox/{fitting['id']}")).text
    finally:
        mine = [
            one
            for one in served.store.delegations.current_of(served.people["lead"].id, now=datetime.now(UTC))
            if one.delegate == "security"
        ]
        for one in mine:
            forms = (await read_words(lead, "/delegations")).forms
            await lead.send(f"/delegations/{one.id}/end", forms[f"/delegations/{one.id}/end"])


async def test_a_request_that_a_delegate_decided_for_somebody_no_longer_waits_for_them(served: Served, logged_in: LogIn) -> None:
    request, other = [await launch_request(served, name="decided-by-a-delegate", quorum=2) for _ in range(2)]
    for each, absent in ((request, "lead"), (other, "chief")):
        served.record_answer(each, "security", verdict="pending", absent=absent)
    lead, path = await logged_in("lead"), "/inbox?show=mine&job=decided-by-a-delegate"
    mine = (await lead.open(path)).text
    assert (request["id"] in mine, other["id"] in mine) == (False, True)
    page = await read_words(lead, f"/inbox/{request['id']}")
    assert "You already decided this request, or a delegate did for you." in page.text
    assert not {APPROVE, DENY} & page.buttons


async def test_the_launcher_of_a_job_is_told_who_can_decide(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served)
    page = await read_words(await logged_in("ops"), f"/inbox/{request['id']}")
    assert "You cannot decide this request: people cannot decide on a job that they launched." in page.text
    assert "support-leads" in page.text


async def test_the_others_who_can_decide_are_named(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served)
    path = f"/inbox/{request['id']}"
    assert (
        "Can decide: support-leads (lead), security (security), chiefs (chief, chief2)."
        in (await read_words(await logged_in("ops"), path)).text
    )
    lead = await read_words(await logged_in("lead"), path)
    assert "Can also decide: security (security), chiefs (chief, chief2)." in lead.text, "without the person who reads it"
    above = await launch_request(served, tier=2, name="above-the-lead")
    page = await read_words(await logged_in("lead"), "/inbox?show=others&job=above-the-lead")
    assert f"line-{above['id']}" in {known.get("id") for _, known in page.tags}
    assert "View only. Can decide: security (security), chiefs (chief, chief2)." in page.text


async def test_each_page_that_names_a_tier_names_its_people(served: Served, logged_in: LogIn) -> None:
    request = await launch_request(served)
    auditor, ops = await logged_in("auditor"), await logged_in("ops")
    everybody = "support-leads (lead), security (security), chiefs (chief, chief2)"
    needs = f"tier 1 (owner): {everybody}"
    for path, words in (
        ("/catalog/policies", "support-leads (lead), or any tier above"),
        ("/catalog/policies", "chiefs (chief, chief2)"),
        ("/operations/settings", "chiefs (chief, chief2)"),
        ("/catalog", f"tier 1, owner: 1 of {everybody}"),
        ("/resources/refunds-db", needs),
        (f"/jobs/by-name/{request['job_name']}", f"needs {needs}"),
        (f"/jobs/{request['job_id']}", f"Needs 1 approval from {needs}"),
    ):
        assert words in (await read_words(auditor, path)).text, (path, words)
    assert "chiefs (chief, chief2), or" not in (await read_words(auditor, "/catalog/policies")).text, "there is no tier above"
    form = (await read_words(ops, "/jobs/new?paste=1")).forms["/jobs/new"]
    access = [{"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Write the refund"}]
    shown = await ops.send("/jobs/new", {**form, "spec": json.dumps(spec(access=access)), "reason": "", "do": "try"})
    assert needs in words_of(shown)
    served.end(request["job_id"])


async def test_the_first_of_many_members_are_named_and_the_others_counted(
    site: Site, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ConsoleVault, "_read_members", lambda *_: tuple(Person(id=f"e-{number}", name=f"p{number:02}") for number in range(12))
    )
    monkeypatch.setattr(site.console.deps.vault, "_member_cache", ThreadCache())
    page = await read_words(await logged_in("auditor"), "/catalog/policies")
    assert "support-leads (p00, p01, p02, p03, p04, p05, p06, p07 and 4 more), or any tier above" in page.text


async def test_a_group_whose_only_member_launched_the_job_has_nobody_else_who_can_decide(served: Served, logged_in: LogIn) -> None:
    now, job = datetime.now(UTC), new_job_id("dev", now=datetime.now(UTC))
    launched = samples.submission(job, at=now, requester=served.people["lead"].id, requester_name="lead")
    served.store.ledger.append([launched])
    served.record_request(job)
    page = await read_words(await logged_in("auditor"), f"/jobs/{job}")
    assert "from tier 1 (owner): support-leads (nobody else), security (security), chiefs (chief, chief2)" in page.text
    served.end(job)


def test_somebody_with_the_login_name_of_a_person_who_cannot_decide_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConsoleVault, "_read_members", lambda *_: (Person(id="e-1", name="ada"), Person(id="e-2", name="ada")))
    monkeypatch.setattr(site.console.deps.vault, "_member_cache", ThreadCache())
    (leads,) = group_members(site.console.deps, ["support-leads"], without={"e-1"})
    assert (leads.names, leads.nobody_else) == (("ada",), False)


async def test_people_who_had_the_console_order_a_job_or_launched_its_ancestor_are_not_named_as_deciders(
    served: Served, logged_in: LogIn
) -> None:
    now, (parent, job) = datetime.now(UTC), (new_job_id("dev", now=datetime.now(UTC)) for _ in range(2))
    statement = {"type": "order", "person": "e-console", "asked_by": served.people["security"].id, "parent": parent}
    launched = {"requester": "e-console", "requester_name": "schedule:nightly", "order": {**samples.SIGNED, "statement": statement}}
    served.store.ledger.append(
        [
            samples.submission(parent, at=now, requester=served.people["lead"].id, requester_name="lead"),
            samples.submission(job, at=now, parent=parent, **launched),
        ]
    )
    request, auditor = served.record_request(job), await logged_in("auditor")
    named = "support-leads (nobody else), security (nobody else), chiefs (chief, chief2)"
    assert f"Can decide: {named}." in (await read_words(auditor, f"/inbox/{request['id']}")).text
    assert f"from tier 1 (owner): {named}" in (await read_words(auditor, f"/jobs/{job}")).text
    served.end(job)
    orphan = new_job_id("dev", now=now)
    served.store.ledger.append([samples.submission(orphan, at=now, parent=new_job_id("dev", now=now), requester="e-1")])
    request = served.record_request(orphan)
    page = (await read_words(await logged_in("lead"), f"/inbox/{request['id']}")).text
    assert "You cannot decide this request: there is no job" in page
    served.end(orphan)


async def test_without_the_right_to_read_members_the_groups_are_named(
    site: Site, served: Served, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Vault.read_data

    def refuse_groups(vault: Vault, method: str, path: str, *args: Any) -> dict[str, Any]:
        if path.startswith("identity/group/name/"):
            raise VaultDenied("permission denied")
        return read(vault, method, path, *args)

    # An older version ran `vault setup` in this installation.
    monkeypatch.setattr(Vault, "read_data", refuse_groups)
    monkeypatch.setattr(site.console.deps.vault, "_member_cache", ThreadCache())
    request = await launch_request(served)
    assert "Can decide: support-leads, security, chiefs." in (await read_words(await logged_in("ops"), f"/inbox/{request['id']}")).text
