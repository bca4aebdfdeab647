"""Catalog, policies and policy simulator: available actions, current decisions, and the same output as on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from typer.testing import CliRunner

from console.cli.root_group import build_program
from console.presentation import policy_text
from console.services.background_reads import WHOLE_CATALOG
from justenough.adapters.configuration.settings import Settings
from justenough.domain.catalog.mcp_tool_list import build_tool_list
from tests.adapters.store.event_samples import access_decision, access_request, credential_confirmation, issuance
from tests.console.pages.recorded_console import HOSTILE, Desk, RenderedPage, load_page, serve_desk, submit_form
from tests.console.served_console import SHOP

pytestmark = pytest.mark.servers

AT = "2026-01-28T12:00"


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    """A console with a copy of the shop's folder, which the test may change."""
    shutil.copytree(SHOP, tmp_path / "config")
    async with serve_desk(settings, passwords, own_store, config=tmp_path / "config") as opened:
        yield opened


def folder(records: Desk) -> Path:
    return records.console.deps.settings.config


def edit_file(records: Desk, file: str, old: str, new: str) -> None:
    """Edit a file of the folder; the console reads it at once."""
    path = folder(records) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    records.console.deps.config._next_check_at = 0


def explain_by_cli(records: Desk, spec: Path, *more: str) -> dict[str, Any]:
    """Return the command line's explanation of a spec, launched at the same time."""
    words = ["policy", "explain", str(spec), "--config", str(folder(records)), "--at", AT, "-o", "json", *more]
    done = CliRunner().invoke(build_program(), words, prog_name="justenough")
    assert done.exit_code == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def check_same(page: RenderedPage, explanation: dict[str, Any]) -> None:
    """Fail unless a page contains everything that the command line prints, in the same order."""
    text = page.text.partition(" Result ")[2]
    place = 0
    parts = [policy_text.circumstances(explanation), *explanation["problems"]]
    for one in explanation["requests"]:
        parts += [f"{one['number']}. {one['action']} on {one['resource']}", one["outcome"].replace("_", " ")]
        parts += [each["id"] for each in one["policies"]] + list(policy_text.tiers(one))
        for change in one["changes"]:
            parts += [policy_text.change_text(change), change["outcome"].replace("_", " "), ", ".join(change["policies"])]
    for part in [*parts, explanation["policy_digest"]]:
        assert part in text[place:], part
        place = text.index(part, place) + len(part)


async def test_each_action_shows_the_current_policy_decision(records: Desk) -> None:
    page = await load_page(await records.log_in("ops"), "/catalog")
    catalog = records.console.deps.config.current().catalog
    for name, resource in catalog.resources.items():
        assert name in page.values("id")
        assert resource.title in page.text
        assert {"now": "revocable immediately", "on_expiry": "cannot be revoked early", "never": "cannot be revoked"}[
            next(iter(resource.actions.values())).revocable.value
        ] in page.text
    assert "tier 2, security: 1 of security" in page.text
    assert "Vault control group" in page.text
    assert page.text.count("the job gets its own schema there, which is dropped with everything in it") == 2
    assert "leaves the organisation" in page.text
    assert "Depends on the environment, the sensitivity of data it has touched" in page.text
    ids = records.console.deps.config.current().policies.ids
    assert {link.partition("#")[2] for link in page.links if link.startswith("/catalog/policies#")} <= set(ids)


async def test_each_tool_shows_what_it_does_and_what_access_it_needs(records: Desk) -> None:
    page = await load_page(await records.log_in("ops"), "/catalog")
    for name, tool in records.console.deps.config.current().catalog.tools.items():
        assert f"{name} {tool.description}" in page.text
        assert f"#{tool.uses.resource}" in page.links
    assert "write on refunds-db sql" in page.text


async def test_only_those_who_read_everything_see_usage(records: Desk) -> None:
    job, at = records.record_job(data_scope={"tenant": "acme"}), datetime.now(UTC)
    records.store.ledger.append(
        [access_request(job, at=at), access_decision("allowed", job, at=at), issuance(job, at=at), credential_confirmation(job, at=at)]
    )
    lead, launcher = await records.log_in(), await records.log_in("ops")
    assert (await submit_form(launcher, "/ledger", "/catalog/use")).status_code == 403
    assert "granted" not in (await load_page(lead, "/catalog")).text
    assert (await submit_form(lead, "/catalog", "/catalog/use")).headers["location"] == "/catalog"
    await records.console.background_reads.uses.result(WHOLE_CATALOG, by="lead")
    page = await load_page(lead, "/catalog")
    assert "1 of 1 granted" in page.text
    assert "unused" in page.text
    assert "granted" not in (await load_page(launcher, "/catalog")).text
    assert (await (await records.log_in("outsider")).open("/catalog")).status_code == 403


async def test_every_policy_is_shown_with_id_text_and_explanation(records: Desk) -> None:
    page = await load_page(await records.log_in("ops"), "/catalog/policies")
    current = records.console.deps.config.current()
    assert set(current.policies.ids) <= set(page.values("id"))
    assert "forbid ( principal, action, resource )" in page.text
    assert "issuing counts as touching" in page.text
    assert current.policies.digest in page.text
    for said in (
        "support-leads (lead), or any tier above",
        "2 by different people",
        "4 h, then it expires",
        "Members of auditors and all approvers can see everything.",
    ):
        assert said in page.text
    assert "policies/tests/chaining.yaml 5 passed" in page.text.replace("\xa0", " ")


async def test_a_failing_policy_test_is_shown(records: Desk) -> None:
    edit_file(records, "policies/tests/chaining.yaml", "expect: tier 2", "expect: denied")
    (folder(records) / "policies/tests/broken.yaml").write_text("cases: 3\n")
    (folder(records) / "policies/tests/folder.yaml").mkdir()
    page = await load_page(await records.log_in(), "/catalog/policies")
    assert "1 of 5 failed" in page.text
    assert "policies/tests/broken.yaml cannot run" in page.text.replace("\xa0", " ")
    assert "cannot be read: Is a directory" in page.text


async def test_a_broken_folder_raises_an_alarm_and_the_policies_in_force_stay_visible(records: Desk) -> None:
    lead, ops = await records.log_in(), await records.log_in("ops")
    edit_file(records, "policies/writes.cedar", "context.approved_tier >= 1", "context.approved_teir >= 1")
    for path in ("/catalog", "/catalog/policies"):
        page = await load_page(lead, path)
        assert "The configuration has errors" in page.text
        assert "approved_teir" in page.text
        assert "approved_teir" not in (await load_page(ops, path)).text
    assert "write-at-tier-1" in (await load_page(lead, "/catalog/policies")).values("id")


@pytest.mark.parametrize("name", ["export-customers", "refund-triage", "pay-out", "hello"])
async def test_a_job_of_the_folder_is_explained_as_the_command_line_does(records: Desk, name: str) -> None:
    query = urlencode({"how": "template", "template": f"jobs/{name}.yaml", "at": AT})
    page = await load_page(await records.log_in("ops"), f"/catalog/explain?{query}")
    check_same(page, explain_by_cli(records, folder(records) / "jobs" / f"{name}.yaml"))


async def test_fields_and_a_pasted_spec_are_explained_as_the_command_line_does(records: Desk, tmp_path: Path) -> None:
    spec = {
        "name": "job",
        "task": "Policy simulation",
        "environment": "prod",
        "data_scope": {"tenant": "acme"},
        "agent": {"name": "bot", "version": "2"},
        "run": {"command": ["true"]},
        "access": [{"resource": "customers-db", "action": "read", "ttl": "5m", "reason": "Policy simulation"}],
    }
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps(spec))
    told = explain_by_cli(records, file, "--group", "ops", "--break-glass")
    same = {"groups": "ops", "at": AT, "break_glass": "yes"}
    fields = {"how": "fields", "access": "customers-db:read", "agent": "bot", "version": "2", "ttl": "5m", **same}
    ops = await records.log_in("ops")
    check_same(await load_page(ops, f"/catalog/explain?{urlencode(fields)}"), told)
    before = records.store.ledger.head()
    answer = await submit_form(ops, "/catalog/explain", "/catalog/explain", spec=file.read_text(), **same)
    assert answer.status_code == 200
    check_same(RenderedPage(answer.text), told)
    assert records.store.ledger.head() == before


async def test_the_phase_changes_the_decision(records: Desk) -> None:
    edit_file(records, "policies/writes.cedar", "context.approved_tier >= 1", 'context.approved_tier >= 1 && context.phase == "start"')
    lead, fields = await records.log_in(), {"how": "fields", "access": "refunds-db:write"}
    page = await load_page(lead, f"/catalog/explain?{urlencode({**fields, 'phase': 'start'})}")
    assert "write on refunds-db for 10m needs approval tier 1" in page.text
    assert "Can decide: support-leads (lead), security (security), chiefs (chief, chief2)" in page.text
    page = await load_page(lead, f"/catalog/explain?{urlencode({**fields, 'phase': 'renewal'})}")
    assert "write on refunds-db for 10m denied" in page.text


@pytest.mark.parametrize(
    "query,field,said",
    [
        ({"how": "fields"}, "f-access-error", "choose an action on a resource"),
        ({"how": "fields", "access": "orders-db:read", "ttl": "soon"}, "e-ttl", "write a duration like 30s"),
        ({"how": "fields", "access": "orders-db:read", "agent": "NO NAME"}, "e-agent", "pattern"),
        ({"how": "fields", "access": "orders-db:read", "scope": "acme"}, "e-scope", "'acme' must be name=value"),
        ({"how": "fields", "access": "orders-db:read", "at": "soon"}, "fields-at-error", "must be a date or time"),
        ({"how": "fields", "access": "orders-db:read", "at": "0001-01-01T00:00+14:00"}, "fields-at-error", "must be a date or time"),
        ({"how": "template", "template": "../../../etc/passwd"}, "f-template-error", "choose a configured job"),
        ({"how": "template", "template": "jobs/hello.yaml", "params": "x=1"}, "t-params-error", "declares no such parameter"),
    ],
)
async def test_errors_appear_beside_their_fields(records: Desk, query: dict[str, str], field: str, said: str) -> None:
    page = await load_page(await records.log_in("ops"), f"/catalog/explain?{urlencode(query)}", status=422)
    assert field in page.values("id")
    assert field in page.values("aria-describedby")
    assert said in page.text
    assert " Result " not in page.text


@pytest.mark.parametrize(
    "field, value, known", [("how", "guess", "'fields', 'template' or 'spec'"), ("phase", "end", "'runtime' or 'renewal'")]
)
async def test_a_choice_that_the_form_does_not_offer_is_refused_with_those_that_it_offers(
    records: Desk, field: str, value: str, known: str
) -> None:
    query = urlencode({"how": "fields", "access": "orders-db:read", field: value})
    page = await load_page(await records.log_in("ops"), f"/catalog/explain?{query}", status=422)
    assert (field in page.text, known in page.text) == (True, True)


async def test_a_bad_spec_shows_every_problem_by_path_and_keeps_the_text(records: Desk) -> None:
    ops = await records.log_in("ops")
    bad = "name: NO\ntask: x\nenvironment: prod\nextra: 1\nrun: {command: [a]}\naccess: [{resource: a, action: own, ttl: 1m, reason: r}]\n"
    answer = await submit_form(ops, "/catalog/explain", "/catalog/explain", spec=bad)
    assert answer.status_code == 422
    page = RenderedPage(answer.text)
    for path in ("name", "extra", "access[0].action"):
        assert f"{path} :" in page.text or f"{path}:" in page.text
    assert "NO\ntask: x" in answer.text
    answer = await submit_form(ops, "/catalog/explain", "/catalog/explain", spec="a: [")
    assert (answer.status_code, "line 1, column" in answer.text) == (422, True)
    unknown = "name: a\ntask: x\nenvironment: prod\nrun: {command: [a]}\naccess: [{resource: order-db, action: read, ttl: 1m, reason: r}]\n"
    answer = await submit_form(ops, "/catalog/explain", "/catalog/explain", spec=unknown)
    assert "access[0].resource: unknown resource" in RenderedPage(answer.text).text
    assert (await ops.send("/catalog/explain", {"spec": unknown})).status_code == 403


async def test_untrusted_text_is_shown_as_text(records: Desk) -> None:
    ops = await records.log_in("ops")
    for query in ({"how": HOSTILE}, {"how": "fields", "access": HOSTILE, "agent": HOSTILE[:60], "scope": HOSTILE}):
        answer = await ops.open(
            "/catalog/explain", params={name: value[:10] if name == "how" else value[:80] for name, value in query.items()}
        )
        RenderedPage(answer.text)
        assert "<script>alert" not in answer.text
    answer = await submit_form(ops, "/catalog/explain", "/catalog/explain", spec=f"a: '{HOSTILE}'")
    RenderedPage(answer.text)
    assert "<script>alert" not in answer.text


async def test_mcp_tools_are_shown_with_their_server_and_blocked_servers_with_the_reason(records: Desk) -> None:
    listed = build_tool_list("tools", [{"name": "get_issue", "description": HOSTILE, "inputSchema": {"type": "object"}}])
    hub: dict[str, Any] = {"uses": {"resource": "orders-db", "action": "read"}, "mcp": {"url": "https://hub.example/mcp"}}
    gate = {**hub, "mcp": {**hub["mcp"], "tools": listed.digest}}
    (folder(records) / "tools").mkdir()
    (folder(records) / "tools" / "gate.json").write_text(listed.text)
    edit_file(records, "catalog.yaml", "\ntools:\n", f"\ntools:\n  hub: {json.dumps(hub)}\n  gate: {json.dumps(gate)}\n")
    page = await load_page(await records.log_in(), "/catalog")
    assert "mcp (gate)" in page.text
    assert "hub is blocked: the tools of hub have not been reviewed" in page.text
    assert "justenough catalog tools hub" in page.text
