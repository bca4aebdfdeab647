"""Jobs from the command line: launched from a file, waited for, shown, stopped; the exit code shows how they ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from console.cli.client import api
from tests.console.cli.conftest import ROOT, Cli, run_on_terminal, write_spec
from tests.support.canned_server import serve_canned_answers
from tests.support.child_process import run_child
from tests.support.people import Human
from tests.support.terminal_signals import interruptible_command
from tests.support.wait import until

pytestmark = pytest.mark.servers

READ = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look an order up", "deliver": {"env": {"PGUSER": "username"}}}
WRITE = {**READ, "resource": "refunds-db", "action": "write", "reason": "Write a refund", "deliver": {"env": {"REFUNDS_USER": "username"}}}
SCOPED = {"data_scope": {"tenant": "acme"}}
SLEEP = ["sleep", "60"]


def test_run_prints_the_job_as_soon_as_it_is_accepted(cli: Cli, ops: Human, tmp_path: Path) -> None:
    accepted = cli.json("job", "run", write_spec(tmp_path, SLEEP))

    assert ops.job(accepted["id"])["state"] in {"pending", "running"}
    assert accepted["state"] == "pending"
    cli.run("job", "kill", accepted["id"], "--wait")


@pytest.mark.parametrize("timeout, is_warned", [("5m", True), ("20m", False)])
def test_run_warns_of_a_timeout_before_which_approvers_need_not_answer(cli: Cli, tmp_path: Path, timeout: str, *, is_warned: bool) -> None:
    access = {key: value for key, value in WRITE.items() if key != "deliver"} | {"at": "request"}
    spec = write_spec(tmp_path, ["true"], access=[access], run={"timeout": timeout}, **SCOPED)
    done = cli.run("job", "run", spec)
    assert done.exit_code == 0, done.stderr
    assert ("Warning: write on refunds-db: people at tier 1 have 15m to decide, but the job times out after 5m" in done.stderr) is is_warned


def test_a_command_for_a_job_that_succeeds_exits_with_0_and_the_credential_is_dead(cli: Cli, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, ["true"], access=[READ], **SCOPED), "--wait")

    assert (job["state"], job["revocation"]["state"]) == ("succeeded", "confirmed")
    assert [credential["state"] for credential in job["credentials"]] == ["confirmed"]


@pytest.mark.parametrize("command,timeout,state", [(["false"], "2m", "failed"), (SLEEP, "1s", "timed_out")])
def test_a_command_for_a_job_that_fails_exits_with_3(cli: Cli, tmp_path: Path, command: list[str], timeout: str, state: str) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, command, run={"command": command, "timeout": timeout}), "--wait", code=3)

    assert job["state"] == state


def test_the_working_directory_is_sent_with_the_job_and_its_output_is_printed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "hello.txt").write_text("from a bundle\n")
    path = write_spec(tmp_path, ["cat", "{name}.txt"], run={"command": ["cat", "{name}.txt"], "workdir": "files"}, params={"name": "none"})

    job = cli.json("job", "run", path, "--param", "name=hello", "--reason", "to see", "--wait")
    logs = cli.run("job", "logs", job["id"])

    assert logs.stdout == "from a bundle\n"
    assert (job["order_reason"], job["params"]) == ("to see", {"name": "hello"})


def test_a_spec_can_be_read_from_stdin(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("job", "run", "-", "--wait", "-o", "name", stdin=write_spec(tmp_path, ["true"]).read_text())

    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("j-dev-")


def test_watching_prints_events_on_stderr_and_the_job_on_stdout(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("job", "run", write_spec(tmp_path, ["true"], access=[READ], **SCOPED), "--watch", "-o", "json")

    told = [line.split()[1] for line in done.stderr.splitlines() if not line.startswith("Page: ")]
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert told[0] == "job.submitted"
    assert told.index("credential.issued") < told.index("credential.confirmed") < told.index("job.ended")
    assert "\x1b" not in done.stderr


def test_a_terminal_shows_what_happens_and_a_strangers_text_cannot_write_over_it(cli: Cli, tmp_path: Path) -> None:
    arguments = ("job", "run", write_spec(tmp_path, ["true"]), "--watch", "--reason", "\x1b]0;mine\x07")
    with run_on_terminal(cli, *arguments) as (process, terminal):
        shown = terminal.read_until(b"job.ended ")
        shown += terminal.read_until(b"never")
        process.wait(30)

    assert process.returncode == 0
    assert "launched by ops: \\x1b]0;mine\\x07" in shown
    assert "\x1b]0;mine" not in shown


def test_watching_a_job_that_has_ended_prints_all_of_its_events_at_once(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, ["false"]), "--wait", code=3)["id"]

    done = cli.run("job", "watch", job)

    assert done.exit_code == 3
    assert [line.split()[1] for line in done.stderr.splitlines()] == [entry["type"] for entry in ops.ledger(job)]


def test_with_quiet_nothing_is_printed_on_stderr(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("job", "run", write_spec(tmp_path, ["true"]), "--watch", "--quiet", "-o", "name")

    assert (done.exit_code, done.stderr) == (0, "")


def test_a_wait_that_times_out_exits_with_7_and_the_job_goes_on(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, SLEEP), "--wait", "--timeout", "1s", code=7)

    assert ops.until(job["id"], "running")
    assert cli.run("job", "cancel", job["id"], "--wait").exit_code == 0
    assert ops.job(job["id"])["state"] == "cancelled"


def test_ctrl_c_ends_the_wait_with_exit_code_130_but_not_the_job(cli: Cli, ops: Human, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "console.cli", "--profile", "ops", "job", "run", str(write_spec(tmp_path, SLEEP)), "--watch"]
    with run_child(
        interruptible_command(program), cwd=ROOT, env=cli.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        started = next(line for line in process.stderr if "job.started" in line)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)

    job = ops.api.get("jobs", params={"limit": 1}).json()["items"][0]
    assert started
    assert process.returncode == 130
    assert f"justenough job cancel {job['id']}" in told
    assert "Traceback" not in told
    assert job["state"] == "running"
    cli.run("job", "kill", job["id"])


@pytest.mark.parametrize("command", [("kill",), ("cancel", "--wait")], ids=" ".join)
def test_ctrl_c_does_not_say_that_a_stopped_job_continues(cli: Cli, command: tuple[str, ...]) -> None:
    job = {"id": "j-dev-x", "name": "n", "state": "running", "revocation": {"state": "none"}}
    with serve_canned_answers() as console:
        console.routes = {"/jobs/j-dev-x": (200, job), f"/{command[0]}": (202, job)}
        program = [sys.executable, "-m", "console.cli", "--profile", "ops", "job", *command, "j-dev-x", "--console-url", console.address]
        with run_child(interruptible_command(program), cwd=ROOT, env=cli.env(), stderr=subprocess.PIPE, text=True) as process:
            until(lambda: any("/events" in one.path for one in console.requests), "the command waits")
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)

    assert process.returncode == 130
    assert told.splitlines()[-1] == (
        "Stopped waiting; j-dev-x is still being stopped. Check its revocation: justenough credential prove j-dev-x"
    )


def test_a_kill_prints_the_killed_job_and_a_second_kill_is_a_conflict(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, SLEEP))["id"]
    ops.until(job, "running")

    killed = cli.json("job", "kill", job, "--reason", "it loops")
    again = cli.run("job", "kill", job)

    assert killed["state"] == "killed"
    assert [entry["data"]["reason"] for entry in ops.ledger(job) if entry["type"] == "stop.requested"] == ["it loops"]
    assert again.exit_code == 8
    assert "has already ended: killed" in again.stderr


def test_a_dry_run_prints_each_decision_and_stores_nothing(cli: Cli, ops: Human, tmp_path: Path) -> None:
    before = [job["id"] for job in ops.api.get("jobs").json()["items"]]

    found = cli.json("job", "run", write_spec(tmp_path, ["true"], access=[READ, WRITE], **SCOPED), "--dry-run")

    assert [(item["action"], item["outcome"], item["tier"]) for item in found["requests"]] == [
        ("read", "allowed", 0),
        ("write", "needs_approval", 1),
    ]
    assert [job["id"] for job in ops.api.get("jobs").json()["items"]] == before


@pytest.mark.parametrize("optional,code", [(False, 6), (True, 0)])
def test_a_dry_run_exits_with_6_if_a_required_request_would_be_denied(cli: Cli, tmp_path: Path, optional: bool, code: int) -> None:
    customers = {**READ, "resource": "customers-db", "deliver": {}}
    export = {**READ, "resource": "export-api", "action": "write", "deliver": {}, "optional": optional}

    found = cli.json("job", "run", write_spec(tmp_path, ["true"], access=[customers, export], **SCOPED), "--dry-run", code=code)

    assert found["requests"][1]["outcome"] == "denied"
    shown = cli.run("job", "run", tmp_path / "job.yaml", "--dry-run").stdout
    assert f"{WAY_OUT} (no-export-after-restricted)" in shown


WAY_OUT = "A job that has touched restricted data never gets an external resource, because reading sends data out, too; issuing counts as touching"


def test_a_denial_by_policy_is_shown_with_the_sentence_above_the_policy(cli: Cli, tmp_path: Path) -> None:
    customers = {**READ, "resource": "customers-db", "deliver": {}}
    export = {**READ, "resource": "export-api", "action": "write", "deliver": {}}
    path = write_spec(tmp_path, ["true"], access=[customers, export], **SCOPED)
    why = f"{WAY_OUT} (no-export-after-restricted)"

    watched = cli.run("job", "run", path, "--watch")
    job = next(iter(re.findall(r"j-dev-[0-9a-z]{26}", watched.stdout)))
    request = cli.json("job", "show", job)["requests"][1]["id"]

    assert watched.exit_code == 6
    assert f"{request} denied at start: {why}\n" in watched.stderr
    assert f"Policy denied write on export-api: {why}\n" in cli.run("job", "show", job).stdout
    assert f"{request} denied at start: {why}\n" in cli.run("job", "timeline", job, "--entries").stdout
    assert why in cli.run("request", "show", request).stdout
    assert cli.json("request", "show", request)["policy_reasons"].keys() == {"no-export-after-restricted"}


def test_a_dry_run_lists_the_tools_of_an_agent_or_says_that_nothing_is_requested(cli: Cli, tmp_path: Path) -> None:
    agent = cli.run("job", "run", ROOT / "examples" / "shop" / "jobs" / "support-agent.yaml", "--dry-run")
    nothing = cli.run("job", "run", write_spec(tmp_path, ["true"]), "--dry-run")

    assert "The agent may call these tools while it runs; each call needs the access shown next to it:\n" in agent.stderr
    assert re.search(r"^refund-order +refunds-db +write +needs approval +1 +named$", agent.stdout, re.MULTILINE), agent.stdout
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert nothing.stderr.endswith("The spec is valid and requests no access.\n")


def test_no_order_is_signed_for_files_that_the_console_did_not_store(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "program.py").write_text("print(1)\n")
    with serve_canned_answers() as console:
        console.routes = {"/whoami": (200, {"installation": "dev"}), "/bundles": (200, {"digest": f"sha256:{'0' * 64}"})}
        done = cli.run("job", "run", write_spec(tmp_path, ["true"], run={"workdir": "files"}), "--console-url", console.address)

    assert [one.path.rpartition("/")[2] for one in console.requests] == ["whoami", "bundles"]
    assert done.exit_code == 1
    assert "the console did not store exactly the files that this command sent, so no job was launched" in done.stderr


def test_the_same_idempotency_key_returns_the_same_job(cli: Cli, tmp_path: Path) -> None:
    path, key = write_spec(tmp_path, ["true"]), f"key-{time.time_ns()}"

    first = cli.json("job", "run", path, "--idempotency-key", key)
    again = cli.run("job", "run", path, "--idempotency-key", key, "-o", "name")
    other = cli.run("job", "run", path, "--idempotency-key", key, "--reason", "another")

    assert again.stdout == f"{first['id']}\n"
    assert f"it launched {first['id']}" in again.stderr
    assert other.exit_code == 8


def test_an_order_whose_answer_was_lost_is_named(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "RETRY_DELAY_S", 0.01)
    with serve_canned_answers() as console:
        console.routes = {"/whoami": (200, {"installation": "dev"}), "/jobs": (503, {"detail": "the store does not answer"})}
        done = cli.run("job", "run", write_spec(tmp_path, ["true"]), "--console-url", console.address)
    (sent,) = {json.loads(request.body)["id"] for request in console.requests if request.method == "POST"}

    assert done.exit_code == 1
    assert f"justenough job show {sent}" in done.stderr


def test_every_problem_of_a_spec_is_reported_by_its_path_before_anything_is_sent(alone: Cli, tmp_path: Path) -> None:
    path = write_spec(tmp_path, ["true"], access=[{**READ, "ttl": "soon"}], name="No Name", colour="red")

    done = alone.run("job", "run", path)

    assert (done.exit_code, done.stdout) == (2, "")
    assert {line.strip().partition(":")[0] for line in done.stderr.splitlines()[1:]} == {"name", "access[0].ttl", "colour"}


def test_every_problem_of_a_spec_that_only_the_catalog_reveals_is_reported_by_its_path(cli: Cli, ops: Human, tmp_path: Path) -> None:
    access = [{**READ, "resource": "orders-bd"}, {**READ, "ttl": "23h", "deliver": {}}]
    before = [job["id"] for job in ops.api.get("jobs").json()["items"]]

    done = cli.run("job", "run", write_spec(tmp_path, ["true"], access=access, **SCOPED))

    assert done.exit_code == 2
    assert {line.strip().partition(":")[0] for line in done.stderr.splitlines()[1:]} == {"access[0].resource", "access[1].ttl"}
    assert [job["id"] for job in ops.api.get("jobs").json()["items"]] == before


def test_problems_that_only_the_catalog_reveals_are_reported_even_if_the_spec_is_invalid(cli: Cli, tmp_path: Path) -> None:
    path = write_spec(tmp_path, ["true"], access=[{**READ, "resource": "orders-bd"}], colour="red", **SCOPED)

    done = cli.run("job", "run", path)

    assert done.exit_code == 2
    assert {line.strip().partition(":")[0] for line in done.stderr.splitlines()[1:]} == {"access[0].resource", "colour"}


def test_an_empty_id_is_a_usage_error(cli: Cli) -> None:
    done = cli.run("job", "show", "")

    assert (done.exit_code, done.stderr) == (2, "error: the id is empty; give the id of an existing item\n")


def test_an_option_that_the_console_refuses_is_named_as_the_user_typed_it(cli: Cli) -> None:
    done = cli.run("credential", "list", "--action", "bogus")

    assert done.exit_code == 2
    assert "\n  --action: " in done.stderr


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("--param", "ticket"), "'ticket' must have the form name=value"),
        (("--param", "a=1", "--param", "a=2"), "a is set twice; set it once"),
        (("--param", "a={x}"), "params.a"),
        (("--timeout", "1m"), "only with --wait or --watch"),
        (("--wait", "--timeout", "soon"), "--timeout: write a duration like"),
        (("--idempotency-key", "two words"), "--idempotency-key"),
        (("--reason", "x" * 1001), "--reason is longer than 1,000 characters; shorten it"),
    ],
)
def test_an_invalid_option_of_job_run_is_a_usage_error(alone: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = alone.run("job", "run", write_spec(tmp_path, ["true"], params={"a": "0"}), *arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_missing_file_is_a_usage_error(alone: Cli, tmp_path: Path) -> None:
    done = alone.run("job", "run", tmp_path / "none.yaml")

    assert done.exit_code == 2
    assert f"cannot read {tmp_path / 'none.yaml'}: No such file" in done.stderr


def test_output_cannot_be_followed_as_yaml(cli: Cli) -> None:
    done = cli.run("job", "logs", "j-dev-01kb3zq0aa0000000000000000", "--follow", "-o", "yaml")

    assert done.exit_code == 2
    assert done.stderr == "error: --follow has no YAML output; use -o table or -o json (one object per line)\n"


@pytest.mark.parametrize(
    "content,message",
    [
        (b"\x00\xff\xfe" * 100, "not UTF-8"),
        (b"name: x\n" + b"#" * 1024 * 1024, "at most"),
        (b"a: &a [x]\nb: [*a, *a]\n", "anchors"),
        (b"- a list\n", "must be a mapping"),
    ],
)
def test_a_file_that_is_not_a_spec_is_refused_in_a_sentence(alone: Cli, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "job.yaml").write_bytes(content)

    done = alone.run("job", "run", tmp_path / "job.yaml")

    assert done.exit_code == 2
    assert message in done.stderr


def test_job_show_prints_exactly_what_the_api_returns(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, ["true"], access=[READ], **SCOPED), "--wait")["id"]

    assert cli.json("job", "show", job) == ops.job(job)
    shown = cli.run("job", "show", job).stdout
    assert "State:       succeeded" in shown
    assert "read-up-to-confidential" in shown


def test_lists_are_paged_and_continue_with_their_cursor(cli: Cli, tmp_path: Path) -> None:
    for _ in range(2):
        cli.json("job", "run", write_spec(tmp_path, ["true"]), "--wait")

    first = cli.json("job", "list", "--limit", "1")
    second = cli.json("job", "list", "--limit", "1", "--cursor", first["next"])
    table = cli.run("job", "list", "--limit", "1")
    oldest = cli.json("job", "list", "--oldest", "--limit", "2")["items"]

    assert oldest[0]["id"] <= second["items"][0]["id"] < first["items"][0]["id"]
    assert oldest[0]["id"] < oldest[1]["id"]
    assert {len(first["items"]), len(second["items"])} == {1}
    assert first["items"][0]["id"] != second["items"][0]["id"]
    assert table.stdout.splitlines()[0].split() == ["ID", "NAME", "STATE", "REVOCATION", "ENVIRONMENT", "REQUESTER", "CREATED", "TASK"]
    assert f"--cursor {first['next']}" in table.stderr


def test_a_list_can_be_filtered_by_state(cli: Cli, tmp_path: Path) -> None:
    failed = cli.json("job", "run", write_spec(tmp_path, ["false"]), "--wait", code=3)["id"]

    found = cli.json("job", "list", "--state", "failed", "--requester", "ops", "--environment", "prod")["items"]

    assert failed in [job["id"] for job in found]
    assert {job["state"] for job in found} == {"failed"}
    assert cli.run("job", "list", "--state", "nonsense").exit_code == 2


def test_logs_are_followed_until_the_job_has_ended(cli: Cli, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, ["sh", "-c", "echo one; sleep 1; echo two"]))["id"]

    text = cli.run("job", "logs", job, "--follow")
    lines = cli.run("job", "logs", job, "-f", "-o", "json").stdout.splitlines()

    assert text.stdout == "one\ntwo\n"
    assert "".join(json.loads(line)["text"] for line in lines) == "one\ntwo\n"
    assert "".join(item["text"] for item in cli.json("job", "logs", job)["items"]) == "one\ntwo\n"


def test_the_timeline_shows_the_jobs_ledger_entries_as_sentences(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, ["true"], access=[READ], **SCOPED), "--wait")["id"]

    table = cli.run("job", "timeline", job).stdout.splitlines()

    assert [line.split()[2] for line in table[1:]] == [entry["type"] for entry in ops.ledger(job)]
    assert any("launched by ops" in line for line in table)
    assert any("read on orders-db until 20" in line for line in table)


@pytest.mark.parametrize("command", ["show", "watch", "logs", "timeline", "cancel", "kill"])
@pytest.mark.parametrize("job", ["j-dev-00000000000000000000000000", "../../whoami"])
def test_an_unknown_job_is_reported_as_not_found(cli: Cli, command: str, job: str) -> None:
    done = cli.run("job", command, job)

    assert (done.exit_code, done.stdout) == (5, "")
    assert "error: there is no" in done.stderr


def test_a_person_who_may_not_launch_is_told_which_group_may(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("job", "run", write_spec(tmp_path, ["true"]), who="auditor")

    assert done.exit_code == 6
    assert "needs one of the groups: ops" in done.stderr


def test_a_closed_output_pipe_causes_no_traceback(cli: Cli, tmp_path: Path) -> None:
    job = cli.json("job", "run", write_spec(tmp_path, ["seq", "20000"]), "--wait")["id"]
    reading, writing = os.pipe()
    os.close(reading)

    with os.fdopen(writing, "wb") as closed:
        command = [sys.executable, "-m", "console.cli", "--profile", "ops", "job", "logs", job]
        done = subprocess.run(command, cwd=ROOT, env=cli.env(), stdout=closed, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
