"""Any request to the API, --debug, the page of a job, the state of an installation, and completion: on the whole stack."""

from __future__ import annotations

import json
import re
import shutil
import webbrowser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.console.cli.conftest import Cli, complete, write_spec
from tests.support.canned_server import serve_canned_answers
from tests.support.people import Human
from tests.support.shop import Shop
from tests.support.wait import until
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

WRITE = {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Write a refund"}


@pytest.fixture(scope="module")
def job(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that has ended."""
    spec = write_spec(tmp_path_factory.mktemp("api"), ["true"], name="asked-by-api")
    return str(cli.json("job", "run", spec, "--wait")["id"])


def test_the_api_command_takes_a_method_and_a_path(cli: Cli, job: str) -> None:
    assert json.loads(cli.run("api", "GET", f"/jobs/{job}").stdout)["id"] == job
    found = json.loads(cli.run("api", "get", "/api/v1/jobs?limit=1", "-f", "name=asked-by-api").stdout)
    assert [item["id"] for item in found["items"]] == [job]
    assert json.loads(cli.run("api", "GET", "/jobs?name=asked-by-api", "--all").stdout)["next"] is None
    assert json.loads(cli.run("api", "POST", f"/jobs/{job}/prove").stdout)["job"] == job
    assert cli.run("api", "GET", f"/jobs/{job}", "-o", "name").stdout == f"{job}\n"


@pytest.mark.parametrize(
    "body,said",
    [
        ("[1, NaN]", "is not JSON"),
        ('"\\ud800"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (f'"{"x" * 300_000}"', "is larger than 262,144 bytes"),
    ],
    ids=("nan", "surrogate", "deep", "large"),
)
def test_a_body_that_cannot_be_sent_is_a_usage_error(cli: Cli, tmp_path: Path, body: str, said: str) -> None:
    file = tmp_path / "body.json"
    file.write_text(body)

    done = cli.run("api", "POST", "/jobs", "--input", file)

    assert (done.exit_code, done.stdout) == (2, "")
    assert f"error: --input: {file} {said}" in done.stderr


def test_all_pages_of_a_jobs_output_are_one_list(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_canned_answers() as console:
        seen = console.requests

        def answer_to(path: str) -> tuple[int, bytes]:
            """Continue after a chunk, as the console does; end a client that asks for the same page again and again."""
            after = int(parse_qs(urlsplit(path).query).get("after", ["-1"])[0])
            if len(seen) > 10:
                return 404, b"{}"
            return 200, json.dumps({"items": [{"seq": after + 1}], "next": str(after + 1) if after < 1 else None}).encode()

        monkeypatch.setattr(console, "answer_to", answer_to)
        done = cli.run("api", "GET", "/jobs/j-dev-x/logs", "--all", "--console-url", console.address)

    assert done.exit_code == 0, done.stderr
    assert [item["seq"] for item in json.loads(done.stdout)["items"]] == [0, 1, 2]


def test_all_pages_of_what_is_no_list_are_a_usage_error(cli: Cli) -> None:
    done = cli.run("api", "GET", "/whoami", "--all")

    assert (done.exit_code, done.stderr) == (2, "error: /whoami is not a list; leave out --all-pages\n")


def test_a_body_comes_from_fields_or_a_file(cli: Cli) -> None:
    spec = {"name": "x", "task": "t", "environment": "prod", "run": {"command": ["true"]}}
    done = cli.run("api", "POST", "/jobs", "--input", "-", stdin=json.dumps({"spec": spec, "dry_run": True}))

    assert json.loads(done.stdout)["requests"] == []
    refused = cli.run("api", "POST", "/jobs", "-f", "spec=x")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "spec" in refused.stderr


@pytest.mark.parametrize(
    "arguments,code,message",
    [
        (("PUT", "/jobs"), 2, "METHOD: PUT is not one of GET, POST, DELETE"),
        (("GET", "jobs"), 2, "PATH: jobs does not begin with /; give a path like /jobs"),
        (("POST", "/sweep", "--all"), 2, "--all-pages works only with GET"),
        (("GET", "/jobs?limit=1", "--all"), 2, "--all-pages gets every page; leave out limit"),
        (("GET", "/jobs", "-f", "state"), 2, "--field: 'state' must have the form name=value"),
        (("GET", "/jobs/j-dev-none"), 5, "there is no job j-dev-none that you may read"),
        (("POST", "/jobs", "--input", "/nowhere"), 2, "cannot read /nowhere: No such file or directory"),
    ],
)
def test_a_bad_request_is_one_sentence(cli: Cli, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = cli.run("api", *arguments)

    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.splitlines()[0] == f"error: {message}"


def test_debug_prints_each_request_with_its_id_and_no_secret(cli: Cli, whole: Stack, job: str) -> None:
    done = cli.run("job", "show", job, "--debug", "-o", "name")

    assert done.stdout == f"{job}\n"
    pattern = rf"debug: GET {re.escape(str(whole.console))}/api/v1/jobs/{job} 200, \d+ ms, request id ([0-9a-f]{{32}})"
    assert re.search(pattern, done.stderr)
    login = json.loads(cli.login_file("ops").read_text())
    assert login["token"] not in done.stderr
    assert "Bearer" not in done.stderr


def test_a_launch_names_its_page_and_web_opens_pages(
    cli: Cli, ops: Human, whole: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_browser(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_browser)
    spec = write_spec(tmp_path, ["true"], access=[{**WRITE, "resource": "orders-db", "action": "read"}], data_scope={"tenant": "acme"})

    launched = cli.run("job", "run", spec, "-o", "name")
    name = launched.stdout.strip()
    assert launched.stderr == f"Page: {whole.console}/jobs/{name}\n"
    assert cli.run("job", "run", spec, "-q", "-o", "name").stderr == ""
    assert opened == []
    request = until(lambda: ops.job(name)["requests"], "its request is recorded")[0]["id"]
    for arguments in (("job", "show", name), ("request", "show", request), ("catalog", "show", "orders-db:read")):
        done = cli.run(*arguments, "--web")
        assert (done.exit_code, done.stdout) == (0, "")
    again = cli.run("job", "run", spec, "--web", "-o", "name").stdout.strip()
    paths = [f"jobs/{name}", f"inbox/{request}", "resources/orders-db", f"jobs/{again}"]
    assert opened == [f"{whole.console}/{path}" for path in paths]


def test_without_a_browser_the_address_is_named(cli: Cli, whole: Stack, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)

    done = cli.run("job", "show", job, "--web", "-q")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"error: no browser could be opened; the page is {whole.console}/jobs/{job}\n"


def test_status_can_check_any_installation_by_its_address(alone: Cli, whole: Stack) -> None:
    done = alone.run("status", "--console-url", whole.console)

    assert done.exit_code == 0, done.stderr
    assert f"OK   console: {whole.console}" in done.stdout
    assert "OK   installation's vault: answers in " in done.stdout
    none = alone.run("status", "--console-url", "http://127.0.0.1:9")
    assert none.exit_code == 1
    assert none.stdout.startswith("FAIL console: the console at http://127.0.0.1:9 does not answer")


def test_job_watch_names_the_groups_that_can_decide_and_the_command_to_approve(
    cli: Cli, ops: Human, lead: Human, shop: Shop, tmp_path: Path
) -> None:
    name = cli.json("job", "run", write_spec(tmp_path, ["true"], access=[WRITE], data_scope={"tenant": "acme"}))["id"]
    ops.until(name, "awaiting_approval")
    request = ops.job(name)["requests"][0]["id"]

    done = cli.run("job", "watch", name, "--timeout", "1s")

    assert done.exit_code == 7
    opened = next(line for line in done.stderr.splitlines() if " approval.opened " in line)
    assert opened.endswith(f"  (support-leads can decide: justenough request approve {request})")
    assert "\nApprovers:  support-leads; those of higher tiers can decide, too\n" in cli.run("request", "show", request).stdout.replace(
        "Approvers: ", "Approvers:  "
    )
    cli.run("job", "cancel", name, "--wait")
    over = cli.run("job", "watch", name)
    opened = next(line for line in over.stderr.splitlines() if " approval.opened " in line)
    assert "can decide" not in opened


def test_values_are_completed_from_the_console_and_from_this_machine(cli: Cli, job: str) -> None:
    assert job in complete(cli, f"justenough --profile ops job show {job[:12]}")
    assert complete(cli, "justenough --profile ops job show asked-by") == ["asked-by-api"]
    assert complete(cli, "justenough job list --state suc") == ["succeeded"]
    assert complete(cli, "justenough credential list --state ac") == ["active"]
    assert complete(cli, "justenough --profile ops job list --resource orders") == ["orders-db"]
    assert "lead" in complete(cli, "justenough --profile le")
    assert complete(cli, "justenough --profile ops schedule pause ni") == ["nightly-reconcile"]
    made = cli.run("delegation", "create", "--to", "security", "--for", "1h", "--reason", "away", "-o", "name", who="lead").stdout.strip()
    assert made in complete(cli, "justenough --profile lead delegation end ")
    cli.run("delegation", "end", made, who="lead")


def test_a_second_press_of_tab_does_not_ask_the_console_again(fresh: Cli, cli: Cli, whole: Stack) -> None:
    cache, line = fresh.logins / "justenough" / "completion.cache", "justenough --profile ops job show "
    shutil.copytree(cli.logins, fresh.logins, dirs_exist_ok=True)
    assert "@last" in complete(fresh, line)
    kept = json.loads(cache.read_text())

    # The cache is still fresh, however slow this machine is.
    cache.write_text(json.dumps({**kept, "at": kept["at"] + 600, "items": [{"id": "j-kept", "name": "kept", "state": "running"}]}))

    assert complete(fresh, line) == ["@last", "j-kept", "kept"]
    cache.write_text(json.dumps({**kept, "at": kept["at"] - 600, "items": [{"id": "j-kept", "name": "kept", "state": "running"}]}))
    assert "j-kept" not in complete(fresh, line)


def test_completion_offers_nothing_if_no_console_answers(alone: Cli) -> None:
    assert complete(alone, "justenough job show j-") == []
    assert complete(alone, "justenough --prof") == ["--profile"]
