"""Right-sizing from the command line: a spec that asked for too much becomes one that asks for enough; the catalog's review."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.jobs.spec import read_spec
from tests.console.cli.conftest import ROOT, Cli, write_spec
from tests.support.canned_server import serve_canned_answers
from tests.support.people import Human

SHOP = ROOT / "examples" / "shop"
READ = {"resource": "orders-db", "action": "read", "ttl": "30m", "reason": "Look up {ticket}", "deliver": {"env": {"PGUSER": "username"}}}
WRITE = {"resource": "refunds-db", "action": "write", "ttl": "10m", "reason": "Write a refund", "optional": True}
MEND = {"resource": "orders-db", "action": "write", "ttl": "15m", "reason": "Mend it", "deliver": {"env": {"MEND_USER": "username"}}}
CHECK = 'test -n "$PGUSER" && echo "ticket {ticket}"'


@pytest.fixture(scope="module")
def wide(cli: Cli, ops: Human, lead: Human, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three runs of a job that asks for half an hour and uses seconds, for a write that is never granted, and for one that is narrowed."""
    scope = {"data_scope": {"tenant": "acme"}, "params": {"ticket": "4711"}}
    path = write_spec(tmp_path_factory.mktemp("wide"), ["bash", "-c", CHECK], access=[READ, WRITE, MEND], name="too-wide", **scope)
    jobs = [ops.launch(read_spec(path.read_text())) for _ in range(3)]
    for job in jobs:
        (_, write, mend) = ops.until(job, "awaiting_approval")["requests"]
        assert lead.answer(write, "deny").is_success
        assert lead.answer(mend, action="read").is_success
    assert {ops.until(job)["state"] for job in jobs} == {"succeeded"}
    return jobs


@pytest.mark.servers
def test_job_tighten_prints_a_reduced_spec_that_the_job_can_run_with(cli: Cli, wide: list[str], tmp_path: Path) -> None:
    done = cli.run("job", "tighten", "too-wide")
    assert done.exit_code == 0, done.stderr
    path = tmp_path / "tight.yaml"
    path.write_text(done.stdout)

    assert read_spec(done.stdout)["access"] == [{**READ, "ttl": "1m"}, {**MEND, "action": "read", "ttl": "1m"}]
    assert "  action: read  # was write: granted 3 times, each time read at most" in done.stdout
    assert "  ttl: 1m  # was 30m: used 6 times, " in done.stdout
    assert "# dropped: never issued in 3 runs (requested 3 times, refused 3 times)\n# - resource: refunds-db\n" in done.stdout
    assert f"too-wide: 3 past runs analysed, of which 3 started their process; the newest run is {max(wide)}." in done.stderr
    assert "refunds-db:write  3 requests in 3 runs: 0 granted, 0 issued, use not observable; ttl requested 10m; not needed" in done.stderr
    assert "(p50), " in done.stderr
    assert "; sufficient: ttl 1m\n" in done.stderr

    dry = cli.json("job", "run", path, "--dry-run")
    assert [(one["resource"], one["ttl"], one["outcome"]) for one in dry["requests"]] == [("orders-db", 60, "allowed")] * 2
    ran = cli.json("job", "run", path, "--param", "ticket=4712", "--wait")
    assert (ran["state"], cli.run("job", "logs", ran["id"]).stdout) == ("succeeded", "ticket 4712\n")


@pytest.mark.servers
def test_the_figures_are_reported_as_json_and_for_all_names(cli: Cli, auditor: Human, wide: list[str]) -> None:
    found = cli.json("job", "tighten", "too-wide", "--runs", "1000", who="auditor")
    names = cli.run("job", "tighten", "too-wide", "-o", "name", who="auditor")
    listed = auditor.api.get("sizing", params={"limit": 100}).raise_for_status().json()["items"]
    one = next(item for item in listed if item["name"] == "too-wide")

    assert (found["enough"], found["used"], found["spec"]["access"][0]["reason"]) == (True, None, "Look up {ticket}")
    assert found["asked"] - found["granted"] == 3
    assert found["granted"] == found["issued"] >= 3
    assert "orders-db:read" in names.stdout.split()
    assert {name: one[name] for name in ("asked", "granted", "issued", "used")} == {
        name: found[name] for name in ("asked", "granted", "issued", "used")
    }


@pytest.mark.servers
def test_for_a_job_with_files_the_folder_to_save_the_spec_in_is_named(cli: Cli, wide: list[str]) -> None:
    found = cli.json("job", "tighten", "too-wide")
    found["spec"]["run"]["workdir"] = "programs"
    with serve_canned_answers() as console:
        console.set_response(200, found)
        done = cli.run("job", "tighten", "too-wide", "--console-url", console.address)

    assert done.exit_code == 0
    assert done.stderr.endswith("The job's files are in the folder 'programs' beside its spec: save this spec there too.\n")


@pytest.mark.servers
def test_too_few_past_runs_are_reported_and_the_spec_is_printed_anyway(cli: Cli, wide: list[str]) -> None:
    done = cli.run("job", "tighten", "too-wide", "--since", "2999-01-01")

    assert done.exit_code == 0
    assert "Fewer than 3 past runs: too few to rely on these figures." in done.stderr
    assert "No access to remove or reduce." in done.stderr
    assert cli.run("job", "tighten", "too-wide", "--since", "2999-01-01", "--quiet").stderr == ""
    assert read_spec(done.stdout)["name"] == "too-wide"


@pytest.mark.servers
def test_a_job_name_without_a_run_exits_with_5_and_names_the_command_that_lists_names(cli: Cli) -> None:
    done = cli.run("job", "tighten", "never-ran")

    assert (done.exit_code, done.stdout) == (5, "")
    assert "no run of a job named never-ran that you may read; `justenough job list` lists the names" in done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shop's folder with a resource that nobody ever asked for, a date that has passed and one that is not there."""
    shutil.copytree(SHOP, tmp_path / "config")
    path = tmp_path / "config" / "catalog.yaml"
    text = path.read_text()
    spare = text[text.index("  customers-db:\n") : text.index("  # The job's own space")].replace("customers-", "spare-")
    spare = spare.replace("    sensitivity:", "    review: {by: 2020-01-31}\n    sensitivity:")
    text = text.replace("  customers-db:\n", spare + "  customers-db:\n", 1)
    undated = '"database/creds/orders-read-{tenant}"}\n        review: {owner: chiefs}'
    path.write_text(text.replace('"database/creds/orders-read-{tenant}"}', undated, 1))
    return tmp_path / "config"


@pytest.mark.servers
def test_a_review_finds_what_nobody_uses_and_what_is_due(cli: Cli, wide: list[str], folder: Path) -> None:
    found = cli.json("catalog", "review", folder, who="auditor")["items"]
    shown = cli.run("catalog", "review", folder, who="auditor").stdout

    def about(name: str) -> dict[str, dict[str, Any]]:
        return {one["kind"]: one for one in found if one["id"] == name}

    spare, orders = about("spare-db:read"), about("orders-db:read")
    assert set(spare) == {"unused", "overdue"}
    assert (spare["unused"]["owner"], spare["unused"]["last_issued"]) == ("security", None)
    assert "undated" in orders
    assert "unused" not in orders
    assert (orders["undated"]["owner"], orders["undated"]["last_issued"] is None) == ("chiefs", False)
    assert all(one["why"] and one["todo"] for one in found)
    assert "Remove it from the catalog" in shown


@pytest.mark.servers
def test_a_review_fails_on_findings_only_with_the_option_for_it(cli: Cli, folder: Path) -> None:
    assert cli.run("catalog", "review", folder, who="auditor").exit_code == 0
    assert cli.run("catalog", "review", folder, "--exit-code", who="auditor").exit_code == 1


@pytest.mark.servers
def test_a_review_needs_someone_who_reads_every_job(cli: Cli) -> None:
    done = cli.run("catalog", "review", SHOP)

    assert done.exit_code == 6
    assert "needs one of the groups: auditors, " in done.stderr


def test_a_check_warns_of_actions_without_a_review_date_and_exits_with_0(alone: Cli, folder: Path) -> None:
    found = alone.json("catalog", "check", folder)
    shown = alone.run("catalog", "check", folder)

    assert [one["where"] for one in found["warnings"]] == ["resources.orders-db.actions.read.review"]
    assert "warning: resources.orders-db.actions.read.review: no review date; add `review: {by: YYYY-MM-DD}`" in shown.stdout
    assert alone.json("catalog", "check", SHOP)["warnings"] == []


def test_a_check_warns_of_user_names_that_hide_the_jobs_id(alone: Cli, tmp_path: Path) -> None:
    config = shutil.copytree(SHOP, tmp_path / "shop")
    catalog = config / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace(".DisplayName", "(.DisplayName | truncate 8)"))
    (warning,) = alone.json("catalog", "check", config)["warnings"]
    assert warning["where"] == "provision database/config/shop"
    assert "changes .DisplayName, which has the job's id (truncate 8), so no search by job id finds users of" in warning["message"]


@pytest.mark.parametrize("since", ["yesterday", "9999999d", ""])
def test_an_invalid_time_for_right_sizing_is_refused(alone: Cli, since: str) -> None:
    for words in (("job", "tighten", "x"), ("catalog", "review", SHOP)):
        done = alone.run(*words, "--since", since)
        assert (done.exit_code, done.stdout) == (2, ""), (words, done.stderr)
        assert "--since" in done.stderr
