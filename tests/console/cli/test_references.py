"""A job by its name, the beginning of its id or @last; and the filters of the lists. On the whole stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from console.cli.client.api import ConsoleApiClient
from console.cli.client.references import MAX_FETCHED, IdKind, id_beginning_with
from tests.activities.broker.remote_job import launch_puppet
from tests.console.cli.conftest import Cli, run_on_terminal, write_spec
from tests.support.people import Human

pytestmark = pytest.mark.servers

ADMIN = {"resource": "orders-db", "action": "admin", "ttl": "5m", "reason": "Repair an order"}
READ = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look an order up"}
WRITE = {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Write a refund"}


@pytest.fixture(scope="module")
def jobs(cli: Cli, ops: Human, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two jobs of one name: the first waits for two approvals, the second has ended."""
    folder = tmp_path_factory.mktemp("named")
    shared: dict[str, Any] = {"name": "named-job", "agent": {"name": "named-agent"}, "data_scope": {"tenant": "acme"}}
    first = cli.json("job", "run", write_spec(folder, ["true"], access=[WRITE, ADMIN], labels={"team": "blue"}, **shared))
    ops.until(first["id"], "awaiting_approval")
    second = cli.json("job", "run", write_spec(folder, ["echo", "second"], access=[READ], labels={"team": "red"}, **shared), "--wait")
    return [ops.job(first["id"]), second]


def test_a_job_name_refers_to_its_latest_job_and_the_beginning_of_an_id_to_the_only_match(cli: Cli, jobs: list[dict[str, Any]]) -> None:
    first, second = (job["id"] for job in jobs)
    by_name = cli.run("job", "show", "named-job", "-o", "name")

    assert by_name.stdout == f"{second}\n"
    assert by_name.stderr == f"named-job is {second} (named-job, succeeded).\n"
    assert cli.run("job", "logs", "named-job", "-q").stdout == "second\n"
    # The id's time and a part of what is random; and the same without what all ids share.
    for beginning in (first[:20], first.removeprefix("j-dev-")[:14].upper()):
        assert cli.run("job", "show", beginning, "-o", "name").stdout == f"{first}\n"


def test_a_name_may_begin_like_an_id(cli: Cli, tmp_path: Path) -> None:
    launched = cli.json("job", "run", write_spec(tmp_path, ["true"], name="j-cleanup"), "--wait")["id"]
    assert cli.run("job", "show", "j-cleanup", "-o", "name").stdout == f"{launched}\n"


def test_the_reference_last_means_the_job_that_the_caller_launched_last(cli: Cli, jobs: list[dict[str, Any]], tmp_path: Path) -> None:
    launched = cli.json("job", "run", write_spec(tmp_path, ["true"], name="the-last"), "--wait")["id"]

    assert cli.run("job", "show", "@last", "-o", "name").stdout == f"{launched}\n"
    assert cli.run("credential", "prove", "@last", "-o", "name").stdout == f"{launched}\n"
    nobody = cli.run("job", "show", "@last", who="chief")
    assert (nobody.exit_code, nobody.stderr) == (5, "error: @last: you have not launched a job yet\n")


def test_an_ambiguous_beginning_of_an_id_is_refused_with_the_matching_ids(cli: Cli, jobs: list[dict[str, Any]]) -> None:
    done = cli.run("job", "kill", "j-dev-0", "--no-wait")

    assert done.exit_code == 2
    assert done.stderr.startswith("error: several jobs begin with j-dev-0: j-dev-0")
    assert done.stderr.endswith("; give more of the id\n")


@pytest.mark.parametrize("text", ["j-dev-zzzz", "no-such-job", "%2e"])
def test_a_text_that_refers_to_no_job_is_reported_as_not_found(cli: Cli, text: str) -> None:
    done = cli.run("job", "show", text)

    assert (done.exit_code, done.stdout) == (5, "")
    assert f"there is no job {text}" in done.stderr
    assert done.stderr.endswith("\nList them: justenough job list\n")


@pytest.mark.parametrize("text", [".", ".."])
@pytest.mark.parametrize("command", [("job", "show"), ("job", "kill"), ("request", "show"), ("credential", "revoke"), ("schedule", "show")])
def test_a_dot_is_no_id_and_names_no_other_path_of_the_api(cli: Cli, command: tuple[str, ...], text: str) -> None:
    done = cli.run(*command, text)

    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error: {text} is not an id; give the id of an existing item" in done.stderr


def test_a_request_and_a_credential_have_short_ids_that_end_in_their_number(cli: Cli, jobs: list[dict[str, Any]]) -> None:
    second = jobs[0]["requests"][1]["id"]
    short = f"r-dev-{second.split('-')[2][:12]}-2"

    assert cli.json("request", "show", short)["id"] == second
    several = cli.run("request", "approve", short.removesuffix("-2"), "--reason", "x", who="lead")
    assert (several.exit_code, several.stdout) == (2, "")
    assert "several requests begin with" in several.stderr
    assert cli.run("request", "show", "r-dev-zzzz-1").exit_code == 5
    assert cli.run("credential", "revoke", "c-dev-zzzz-1").exit_code == 5


def test_a_short_id_finds_the_first_credential_of_a_job_with_more_than_a_page_of_them(cli: Cli, ops: Human) -> None:
    with launch_puppet(ops, READ) as job:
        for _ in range(MAX_FETCHED):
            granted = job.request_access("orders-db", ttl="5m").json["credential_id"]
            assert job.call("POST", f"/v1/access/{granted}/release").status == 200
        first = f"c{job.job[1:]}-1"
        revoked = cli.run("credential", "revoke", f"{first[:16]}-1", "-o", "name")
    assert (revoked.exit_code, revoked.stdout) == (0, f"{first}\n")


ULID = "01kb3zq0aav9s3x2n7m4p8r6t5"


@pytest.mark.parametrize(
    "kind, text",
    [
        *(("request", text) for text in ("r--1", "r-dev--1", "r-dev-1", "r-", "-1", "1")),
        ("credential", "c--1.2"),
        ("job", "j-"),
        ("job", "j-dev-"),
    ],
)
def test_a_reference_without_a_part_of_a_jobs_id_does_not_mean_the_only_job(kind: IdKind, text: str) -> None:
    class OneJob(ConsoleApiClient):
        def __init__(self) -> None: ...

        def get(self, path: str, **query: Any) -> dict[str, Any]:
            ids = {"/jobs": f"j-dev-{ULID}", "/requests": f"r-dev-{ULID}-1", "/credentials": f"c-dev-{ULID}-1"}
            return {"installation": "dev"} if path == "/whoami" else {"items": [{"id": ids[path]}]}

    assert id_beginning_with(OneJob(), kind, text) == text
    assert id_beginning_with(OneJob(), "request", f"{ULID[:3]}-1") == f"r-dev-{ULID}-1"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (
            ("job", "show", f"r-dev-{ULID}-1"),
            f"r-dev-{ULID}-1 is the id of a request, not of a job; see justenough request show r-dev-{ULID}-1",
        ),
        (("job", "show", "r-dev-01kb3zq0-1"), "is the id of a request, not of a job; see justenough request show r-dev-01kb3zq0-1"),
        (("job", "logs", f"c-dev-{ULID}-1.2"), f"is the id of a credential, not of a job; see justenough job show j-dev-{ULID}"),
        (("request", "show", f"j-dev-{ULID}"), f"is the id of a job, not of a request; see justenough job show j-dev-{ULID}"),
        (("request", "deny", f"c-dev-{ULID}-1", "--reason", "x"), "is the id of a credential, not of a request"),
        (("credential", "revoke", f"r-dev-{ULID}-1"), "is the id of a request, not of a credential"),
        (("credential", "prove", f"r-dev-{ULID}-1"), "is the id of a request, not of a job"),
    ],
)
def test_an_id_of_another_kind_is_refused_with_the_command_for_it(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = cli.run(*arguments)

    assert (done.exit_code, done.stdout) == (5, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    "options,found",
    [
        (["--name", "named-job"], [1, 0]),
        (["--name", "Named-job"], []),
        (["--agent", "named-agent", "--since", "1h"], [1, 0]),
        (["--agent", "nobody"], []),
        (["--label", "team=red"], [1]),
        (["--label", "team=red", "--label", "team=blue"], [0]),
        (["--name", "named-job", "--resource", "refunds-db"], [0]),
        (["--name", "named-job", "--since", "1h", "--person", "ops", "--all"], [1, 0]),
        (["--name", "named-job", "--since", "2030-01-01"], []),
    ],
    ids=str,
)
def test_jobs_can_be_filtered_by_each_option(cli: Cli, jobs: list[dict[str, Any]], options: list[str], found: list[int]) -> None:
    assert [item["id"] for item in cli.json("job", "list", *options)["items"]] == [jobs[number]["id"] for number in found]


@pytest.mark.parametrize(
    "options,where", [(["--label", "team"], "--label"), (["--since", "soon"], "--since"), (["--state", "odd"], "--state")]
)
def test_an_invalid_filter_is_refused_by_its_option(cli: Cli, options: list[str], where: str) -> None:
    done = cli.run("job", "list", *options)

    assert (done.exit_code, done.stdout) == (2, "")
    assert where in done.stderr


def test_requests_and_ledger_are_filtered_by_resource_and_person(cli: Cli, jobs: list[dict[str, Any]]) -> None:
    job = jobs[0]["id"]

    assert [item["resource"] for item in cli.json("request", "list", "--job", job, "--resource", "orders-db")["items"]] == ["orders-db"]
    entries = cli.json("ledger", "list", "--job", job, "--resource", "refunds-db", who="auditor")["items"]
    assert {entry["data"]["resource"] for entry in entries} == {"refunds-db"}
    launches = cli.json("ledger", "list", "--job", job, "--person", "ops", who="auditor")["items"]
    assert [entry["type"] for entry in launches] == ["job.submitted"]
    assert cli.json("ledger", "list", "--job", job, "--person", "lead", who="auditor")["items"] == []


def test_pending_requests_are_shown_by_deadline_with_their_job_age_and_time_left(cli: Cli, jobs: list[dict[str, Any]]) -> None:
    header, *rows = cli.run("request", "list", "--job", jobs[0]["id"], "--columns", "job,resource,age,time-left,tier").stdout.splitlines()

    assert header.split() == ["JOB", "RESOURCE", "AGE", "TIME", "LEFT", "TIER"]
    # Tier 1 has 15 minutes, a higher one more.
    assert [row.split()[:2] for row in rows] == [["named-job", "refunds-db"], ["named-job", "orders-db"]]
    assert all(row.split()[3][-1] in "sm" or "h" in row.split()[3] for row in rows)


@pytest.mark.parametrize(
    "command", [("job", "list"), ("request", "list", "--all"), ("credential", "list"), ("ledger", "list")], ids=" ".join
)
@pytest.mark.parametrize("columns", [80, 120])
def test_every_list_fits_the_terminal(cli: Cli, jobs: list[dict[str, Any]], command: tuple[str, ...], columns: int) -> None:
    arguments = (*command, "--limit", "20")
    with run_on_terminal(cli, *arguments, who="auditor", whole=True, columns=columns, NO_COLOR="1") as (process, terminal):
        shown = terminal.read_until(b"\0")
        assert process.wait(60) == 0

    lines = [line for line in shown.replace("\r", "").splitlines() if not line.startswith("More results: ")]
    header, *rows = lines
    assert header.split()[0] in {"ID", "POSITION", "AT"}
    assert max(map(len, lines)) <= columns
    # One line for each: none is folded.
    assert not [row for row in rows if row.startswith("  ")]


def test_with_wide_a_terminal_gets_a_list_whole(cli: Cli, jobs: list[dict[str, Any]]) -> None:
    arguments = ("job", "list", "--oldest", "--limit", "2", "--quiet")
    with run_on_terminal(cli, *arguments, "--wide", who="auditor", whole=True, columns=60, NO_COLOR="1") as (process, terminal):
        shown = terminal.read_until(b"\0")
        assert process.wait(60) == 0

    assert shown.replace("\r", "").splitlines() == cli.run(*arguments, who="auditor").stdout.splitlines()


def test_the_option_all_prints_every_page_as_one_list(cli: Cli, jobs: list[dict[str, Any]]) -> None:
    page = cli.json("job", "list", "--limit", "1")
    every = cli.json("job", "list", "--limit", "1", "--all")

    assert (len(page["items"]), page["next"] is None) == (1, False)
    assert every["next"] is None
    assert {job["id"] for job in jobs} <= {item["id"] for item in every["items"]}
