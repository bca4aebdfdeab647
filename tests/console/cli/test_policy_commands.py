"""Policies from the command line: checked, explained and tested without any server; past decisions replayed through the API."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.console.cli.conftest import ROOT, Cli, write_spec
from tests.support.canned_server import serve_canned_answers
from tests.support.people import Human

SHOP = ROOT / "examples" / "shop"
EXAMPLES = ROOT / "examples" / "policies"
EXPORT = SHOP / "jobs" / "export-customers.yaml"
READ = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look an order up"}
WRITE = {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Write a refund"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shop's folder, to be changed."""
    shutil.copytree(SHOP, tmp_path / "config")
    return tmp_path / "config"


def edit_file(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_policy_check_of_the_shop_has_no_findings(alone: Cli) -> None:
    found = alone.json("policy", "check", SHOP)

    assert found["findings"] == []
    assert found["policies"] == sorted(found["policies"])


def test_a_policy_check_reports_its_findings_and_exits_with_1(alone: Cli, folder: Path) -> None:
    edit_file(folder, "policies/reads.cedar", "resource.sensitivity == 3 && context.approved_tier >= 2", "resource.sensitivity == 4")

    found = alone.json("policy", "check", folder, code=1)
    shown = alone.run("policy", "check", folder).stdout

    assert [(one["kind"], one["where"]) for one in found["findings"]] == [
        ("unreachable", "policies/reads.cedar:11:1"),
        ("never-allowed", "customers-db:read"),
    ]
    assert "customers-db:read" in shown


def test_an_error_in_a_policy_is_reported_with_file_line_and_column(alone: Cli, folder: Path) -> None:
    edit_file(folder, "policies/writes.cedar", "context.approved_tier >= 1", "context.approved_teir >= 1")

    for words in (("check", folder), ("test", folder), ("explain", EXPORT, "--config", folder), ("replay", folder)):
        done = alone.run("policy", *words)
        assert (done.exit_code, done.stdout) == (2, "")
        assert re.search(r"policies/writes\.cedar:\d+:\d+: .*approved_teir", done.stderr)


def test_an_error_of_a_policy_in_a_decision_is_shown_with_the_decision(alone: Cli, folder: Path) -> None:
    edit_file(folder, "policies/writes.cedar", "context.approved_tier >= 1", "context.approved_tier * 9223372036854775807 >= 1")

    explained = alone.run("policy", "explain", "refunds-db:write", "--config", folder)
    tested = alone.run("policy", "test", folder)

    assert re.search(r"^   error: .*write-at-tier-1.*overflow", explained.stdout, re.MULTILINE), explained.stdout
    assert (tested.exit_code, bool(re.search(r"^   error     .*overflow", tested.stdout, re.MULTILINE))) == (1, True), tested.stdout


def test_explain_names_the_deciding_policies_their_place_and_what_would_change_the_decision(alone: Cli) -> None:
    found = alone.json("policy", "explain", EXPORT, "--config", SHOP)
    shown = alone.run("policy", "explain", EXPORT, "--config", SHOP).stdout

    read, write = found["requests"]
    assert (read["outcome"], read["tier"], read["policies"][0]["place"]) == ("needs_approval", 2, "policies/reads.cedar:11:1")
    assert (write["outcome"], [one["id"] for one in write["policies"]]) == ("denied", ["no-export-after-restricted"])
    assert {one["value"] for one in write["changes"]} == {
        *("without no-export-after-restricted", "before request 1 (customers-db read)", "confidential"),
    }
    assert "tier 2, security (1 of security) is enough" in shown
    assert "no tier is enough" in shown
    assert (
        "    A job that has touched restricted data never gets an external resource, because reading sends data out, too; issuing counts as touching.\n"
        in shown
    )
    assert "after request 2 (export-api write): denied (no-restricted-after-export)" in shown
    assert alone.run("policy", "explain", EXPORT, "--config", SHOP, "-o", "name").stdout.split() == [
        "customers-db:read",
        "export-api:write",
    ]


def test_explain_uses_the_given_person_and_parameters(alone: Cli, folder: Path) -> None:
    extra = (
        '\n@id("night") permit(principal, action == Action::"admin", resource)\nwhen { principal.requester_groups.contains("night") };\n'
    )
    with (folder / "policies" / "writes.cedar").open("a") as file:
        file.write(extra)
    job = SHOP / "jobs" / "refund-triage.yaml"

    one = alone.json("policy", "explain", job, "--config", folder, "--param", "ticket=4712")
    other = alone.json("policy", "explain", job, "--config", folder, "--group", "night")

    assert one["requester_groups"] == ["ops"]
    assert {"fact": "requester_groups", "value": "with night"}.items() <= one["requests"][2]["changes"][0].items()
    assert (one["requests"][2]["tier"], other["requests"][2]["outcome"]) == (2, "allowed")
    assert alone.run("policy", "explain", job, "--config", folder, "--param", "colour=red").exit_code == 2


def test_problems_of_a_spec_with_the_catalog_are_reported_with_the_explanation(alone: Cli) -> None:
    text = EXPORT.read_text().replace("environment: prod", "environment: staging")
    done = alone.run("policy", "explain", "-", "--config", SHOP, stdin=text)

    assert done.exit_code == 0
    assert "The job would be refused: environment: customers-db is in environment 'prod', not in 'staging'" in done.stdout
    assert "environment prod: tier 2" in done.stdout


def test_a_spec_that_requests_something_unknown_is_refused_by_its_path(alone: Cli, tmp_path: Path) -> None:
    path = write_spec(tmp_path, ["true"], access=[{**READ, "resource": "order-db"}], data_scope={"tenant": "acme"})
    done = alone.run("policy", "explain", path, "--config", SHOP)

    assert done.exit_code == 2
    assert "access[0].resource: unknown resource 'order-db'; did you mean 'orders-db'?" in done.stderr


def test_the_shops_policy_tests_pass(alone: Cli) -> None:
    found = alone.json("policy", "test", SHOP)

    assert (found["failed"], found["passed"]) == (0, len(found["cases"]))
    assert alone.run("policy", "test", SHOP).stdout.splitlines() == [f"{found['passed']} passed, 0 failed"]


def test_the_example_policies_are_valid_and_their_tests_show_each_rule_allowing_and_refusing(alone: Cli) -> None:
    checked = alone.json("policy", "check", EXAMPLES)
    tested = alone.json("policy", "test", EXAMPLES)

    assert (checked["findings"], tested["failed"]) == ([], 0)
    forbids = {
        name for path in (EXAMPLES / "policies").glob("*.cedar") for name in re.findall(r'@id\("([^"]+)"\)\nforbid', path.read_text())
    }
    refusing = {name for case in tested["cases"] if case["got"]["outcome"] == "denied" for name in case["got"]["by"]}
    assert forbids == refusing
    # Each file of rules has a table of its own, which also shows what they let through.
    files = {path.stem for path in (EXAMPLES / "policies").glob("*.cedar")} - {"base"}
    assert files == {path.stem for path in (EXAMPLES / "policies" / "tests").glob("*.yaml")}
    for name in files:
        outcomes = {case["got"]["outcome"] == "denied" for case in tested["cases"] if case["table"].endswith(f"/{name}.yaml")}
        assert outcomes == {True, False}, name


@pytest.mark.parametrize("name", [path.stem for path in (EXAMPLES / "policies").glob("*.cedar") if path.stem != "base"])
def test_without_the_rules_of_an_example_its_policy_tests_fail(alone: Cli, tmp_path: Path, name: str) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "config")
    (tmp_path / "config" / "policies" / f"{name}.cedar").unlink()

    told = alone.json("policy", "test", tmp_path / "config", code=1)

    missed = {case["table"] for case in told["cases"] if not case["passed"]}
    assert f"policies/tests/{name}.yaml" in missed


def test_explain_uses_the_given_time(alone: Cli, tmp_path: Path) -> None:
    write = {"resource": "orders", "action": "write", "ttl": "5m", "reason": "Mend an order"}
    file = write_spec(tmp_path, ["true"], access=[write], agent={"name": "refund-agent", "version": "1.4"})

    noon = alone.json("policy", "explain", file, "--config", EXAMPLES, "--at", "2026-01-30T12:00")
    night = alone.json("policy", "explain", file, "--config", EXAMPLES, "--at", "2026-01-30T18:00+00:00")
    shown = alone.run("policy", "explain", file, "--config", EXAMPLES, "--at", "2026-01-30T18:00").stdout

    assert (noon["hour"], noon["weekday"], noon["requests"][0]["outcome"]) == (12, 5, "needs_approval")
    assert [one["id"] for one in night["requests"][0]["policies"]] == ["office-hours"]
    assert {"fact": "hour", "value": "17", "outcome": "needs_approval"}.items() <= night["requests"][0]["changes"][-1].items()
    assert "at 18:00 UTC on a Friday" in shown
    refused = alone.run("policy", "explain", file, "--config", EXAMPLES, "--at", "tomorrow")
    assert (refused.exit_code, "--at: 'tomorrow' is not a date or time" in refused.stderr) == (2, True)


def test_a_failed_policy_test_is_reported_with_expected_and_actual_result_and_exit_code_1(alone: Cli, folder: Path) -> None:
    edit_file(
        folder,
        "policies/writes.cedar",
        "!resource.external && context.approved_tier >= 1",
        "!resource.external && context.approved_tier >= 2",
    )

    done = alone.run("policy", "test", folder)
    names = alone.run("policy", "test", folder, "-o", "name").stdout.split()

    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "policies/tests/chaining.yaml:specs[2].expect[1]  jobs/refund-triage.yaml"
    at = done.stdout.splitlines().index("policies/tests/tiers.yaml:cases[1]  orders-db:write")
    assert [line.split() for line in done.stdout.splitlines()[at + 1 : at + 4]] == [
        ["request", "orders-db:write"],
        ["expected", "tier", "1", "by", "write-at-tier-1"],
        ["got", "tier", "2", "by", "write-at-tier-1"],
    ]
    assert done.stdout.splitlines()[-1] == f"{36 - len(names)} passed, {len(names)} failed"
    assert [case["passed"] for case in alone.json("policy", "test", folder, code=1)["cases"]].count(False) == len(names)


def test_every_problem_of_every_policy_test_file_is_reported_at_once(alone: Cli, folder: Path) -> None:
    tests = folder / "policies" / "tests"
    (tests / "a.yaml").write_text("cases: [{ask: 'orders-db:read', expect: maybe}]")
    (tests / "b.yaml").write_text("cases: [{ask: 'order-db:read', expect: allowed}]\nspecs: [{spec: jobs/none.yaml, expect: []}]")
    (tests / "c.yaml").write_text("cases: [")
    (tests / "d.yaml").write_text("specs: [{spec: jobs/list.yaml, expect: []}]")
    (folder / "jobs" / "list.yaml").write_text("- a list")

    done = alone.run("policy", "test", folder)

    assert (done.exit_code, done.stdout) == (2, "")
    for told in (
        "policies/tests/a.yaml:cases[0].expect: must be one of",
        "policies/tests/b.yaml:cases[0].ask: unknown resource 'order-db'",
        "policies/tests/b.yaml:specs[0]: ",
        "policies/tests/d.yaml:specs[0]: jobs/list.yaml: must be a mapping",
        "policies/tests/c.yaml: line 1, column 9",
    ):
        assert told in done.stderr, told


def test_policy_test_fails_for_a_folder_without_tests(alone: Cli, folder: Path) -> None:
    shutil.rmtree(folder / "policies" / "tests")
    done = alone.run("policy", "test", folder)

    assert done.exit_code == 2
    assert "contains no test tables" in done.stderr


def test_policy_tests_are_not_part_of_the_policy_digest(alone: Cli, folder: Path) -> None:
    before = alone.json("policy", "check", folder)["digest"]
    shutil.rmtree(folder / "policies" / "tests")

    assert alone.json("policy", "check", folder)["digest"] == before


@pytest.mark.servers
def test_a_replay_gives_the_same_decisions_with_the_same_policies_and_others_with_changed_ones(
    cli: Cli, ops: Human, folder: Path, tmp_path: Path
) -> None:
    path = write_spec(tmp_path, ["true"], access=[READ, {**WRITE, "optional": True}], data_scope={"tenant": "acme"})
    job = cli.json("job", "run", path)["id"]
    waiting = ops.until(job, "awaiting_approval")["requests"]
    cli.run("job", "cancel", job)
    ops.until(job)

    def of_job(found: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [(one["resource"], one["phase"], one["verdict"], one["lacks"], one["moved"]) for one in found["items"] if one["job"] == job]

    same = cli.json("policy", "replay", cli.config, "--since", "1h", who="auditor")
    assert of_job(same) == []
    assert same["decisions"] >= 2

    edit_file(folder, "policies/reads.cedar", "resource.sensitivity <= 2", "resource.sensitivity <= 2 && context.approved_tier >= 1")
    edit_file(folder, "policies/writes.cedar", "!resource.external && context.approved_tier >= 1", "!resource.external")
    other = cli.json("policy", "replay", folder, "--since", "1h", who="auditor")
    assert of_job(other) == [("orders-db", "start", "tighter", [], []), ("refunds-db", "start", "looser", [], [])]
    assert {one["id"] for one in waiting} <= set(cli.run("policy", "replay", folder, "-o", "name", who="auditor").stdout.split())

    done = cli.run("policy", "replay", folder, who="auditor")
    assert done.exit_code == 0
    assert re.search(r"\d looser, [\d,]+ tighter, ", done.stdout.splitlines()[-1])
    assert re.search(r"[\d,]+ decisions? of [\d,]+ requests? replayed in ", done.stderr)


@pytest.mark.servers
def test_a_replay_reads_the_order_of_a_job_that_was_submitted_before_its_period(cli: Cli, ops: Human, tmp_path: Path) -> None:
    path = write_spec(tmp_path, ["true"], access=[READ, {**READ, "resource": "refunds-db"}], data_scope={"tenant": "acme"})
    job = cli.json("job", "run", path, "--wait")["id"]
    told = [entry["data"] for entry in ops.ledger(job) if entry["type"] == "access.decided"]
    facts = [(one["phase"], one["facts"]["resource"], one["facts"]["requester_groups"], one["facts"]["held"]) for one in told]
    assert facts == [
        (phase, resource, ["ops"], held)
        for phase in ("start", "issue")
        for resource, held in (("orders-db", []), ("refunds-db", ["orders-db:read"]))
    ]
    decided = next(entry["at"] for entry in ops.ledger(job) if entry["type"] == "access.decided" and entry["data"]["phase"] == "issue")

    found = cli.json("policy", "replay", cli.config, "--since", decided, who="auditor")

    assert found["decisions"] >= 2
    assert [one for one in found["items"] if one["job"] == job] == []


@pytest.mark.servers
def test_a_launcher_replays_their_own_jobs_and_nobody_replays_without_a_login(cli: Cli, alone: Cli) -> None:
    assert cli.run("policy", "replay", cli.config, "--since", "1m").exit_code == 0
    assert alone.run("policy", "replay", SHOP).exit_code != 0


@pytest.mark.servers
def test_a_replay_says_which_facts_older_entries_lack(cli: Cli, folder: Path) -> None:
    with (folder / "policies" / "limits.cedar").open("a") as file:
        file.write('\n@id("no-night") forbid(principal, action, resource)\nwhen { principal.requester_groups.contains("night") };\n')
    at, job = "2026-01-31T09:30:00+00:00", "j-dev-01kg9b4zv0e8r2m6x3c5n7p9qa"
    run = {"name": "old", "task": "-", "environment": "prod", "run": {"command": ["true"]}, "access": []}
    asked = {"request": "r-1", "resource": "orders-db", "action": "read", "ttl": 300, "reason": "-", "sensitivity": "confidential"}
    said = {"request": "r-1", "phase": "start", "outcome": "allowed", "tier": 0, "policies": ["x"], "policy_digest": "sha256:x"}
    told = [
        ("job.submitted", {"spec": run, "params": {}, "name": "old", "requester": "e"}),
        ("access.requested", asked),
        ("access.decided", said),
    ]
    items = [{"position": n, "job": job, "at": at, "type": kind, "data": data} for n, (kind, data) in enumerate(told)]
    with serve_canned_answers() as console:
        console.set_response(200, {"items": items, "next": None}, "application/json")
        done = cli.run("policy", "replay", folder, "--console-url", console.address)

    assert done.exit_code == 0
    assert done.stdout.splitlines()[-2:] == [
        "0 looser, 0 tighter, 0 same, 1 unknown",
        "1 decision recorded without requester_groups, which the policies now use",
    ]
    assert all("type=access.decided" in heard.path for heard in console.requests if "/ledger" in heard.path)


@pytest.mark.parametrize("text", ["yesterday", "0d", "2026-13-01"])
def test_an_invalid_time_for_a_replay_is_refused(alone: Cli, text: str) -> None:
    done = alone.run("policy", "replay", SHOP, "--since", text)

    assert done.exit_code == 2
    assert "--since" in done.stderr


def test_every_output_is_json_of_a_stable_shape(alone: Cli) -> None:
    shapes = {
        ("check", str(SHOP)): {"folder", "digest", "policies", "findings"},
        ("test", str(SHOP)): {"folder", "policy_digest", "passed", "failed", "cases"},
        ("explain", str(EXPORT), "--config", str(SHOP)): {
            *("name", "environment", "requester", "requester_groups", "hour", "weekday", "policy_digest", "problems", "beyond", "requests"),
        },
    }
    for words, keys in shapes.items():
        assert json.loads(alone.run("policy", *words, "-o", "json").stdout).keys() == keys


def test_explain_says_who_can_decide_one_access_without_a_spec(alone: Cli) -> None:
    found = alone.json("policy", "explain", "refunds-db:write", "--config", SHOP)
    done = alone.run("policy", "explain", "refunds-db:write", "--config", SHOP)

    (request,) = found["requests"]
    assert (request["outcome"], request["tier"], request["ttl"], found["problems"]) == ("needs_approval", 1, 600, [])
    assert "1. write on refunds-db for 10m: tier 1\n" in done.stdout
    assert "   can decide: support-leads (tier 1), or security (tier 2), or chiefs (tier 3)\n" in done.stdout
    assert done.stderr == "Names of the people who can approve: justenough catalog show refunds-db\n"
    allowed = alone.run("policy", "explain", "orders-db:read", "--config", SHOP, "--ttl", "5m")
    assert "1. read on orders-db for 5m: allowed\n" in allowed.stdout
    assert ("can decide" in allowed.stdout, allowed.stderr) == (False, "")
    staging = alone.run("policy", "explain", "refunds-db:write", "--config", SHOP, "--environment", "staging", "--group", "ops")
    assert "The job would be refused: environment: refunds-db is in environment 'prod', not in 'staging'" in staging.stdout
    assert alone.run("policy", "explain", "refunds-db:write", "--config", SHOP, "-o", "name").stdout == "refunds-db:write\n"


@pytest.mark.parametrize(
    "words, said",
    [
        (("refunds-db:admin",), "no job can request admin on refunds-db: the catalog has only read and write"),
        (("refunds-db:reed",), "no job can request reed on refunds-db: the catalog has only read and write"),
        (("refund-db:write",), "unknown resource 'refund-db'; did you mean 'refunds-db'?"),
        (("refunds-db",), "Run: justenough policy explain refunds-db:read or refunds-db:write"),
        (("write", "refunds-db"), "Run: justenough policy explain refunds-db:write"),
        (("refunds-db", "write"), "Run: justenough policy explain refunds-db:write"),
        (("refunds-db:write", "--ttl", "soon"), "error: --ttl: write a duration like 30s"),
        (("refunds-db:write", "--param", "a=b"), "error: --param needs a SPEC"),
        ((str(EXPORT), "--ttl", "5m"), "error: --ttl and --environment need RESOURCE:ACTION; a SPEC has its own"),
    ],
)
def test_explain_says_how_to_ask_if_it_does_not_understand(alone: Cli, words: tuple[str, ...], said: str) -> None:
    done = alone.run("policy", "explain", *words, "--config", SHOP)

    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_explain_takes_an_access_that_only_gateways_use_as_one_of_the_running_job(alone: Cli) -> None:
    (request,) = alone.json("policy", "explain", "model-api:read", "--config", SHOP)["requests"]
    assert (request["outcome"], request["policies"][0]["id"]) == ("allowed", "read-up-to-confidential")
    assert "would be refused" not in alone.run("policy", "explain", "model-api:read", "--config", SHOP).stdout


def test_a_file_named_like_an_access_is_read(alone: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refunds-db:write").write_text(EXPORT.read_text())

    assert alone.json("policy", "explain", "refunds-db:write", "--config", SHOP)["name"] == "export-customers"
