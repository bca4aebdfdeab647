"""Requests from the command line: seen, approved and denied with one's own signature, in one short command."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console.cli.render.request_table import decide_by
from tests.console.cli.conftest import Cli, run_on_terminal, write_spec
from tests.support.canned_server import serve_canned_answers
from tests.support.people import Human
from tests.support.shop import Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers

WRITE = {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Write a refund"}
ADMIN = {"resource": "orders-db", "action": "admin", "ttl": "5m", "reason": "Repair an order", "optional": True}


class PendingJob:
    """A job that waits for answers, and its requests in order."""

    def __init__(self, cli: Cli, ops: Human, folder: Path, access: list[dict[str, Any]]) -> None:
        self.id = cli.json("job", "run", write_spec(folder, ["echo", "a b"], access=access, data_scope={"tenant": "acme"}))["id"]
        ops.until(self.id, "awaiting_approval")
        self.requests = [request["id"] for request in ops.job(self.id)["requests"]]


@pytest.fixture
def waiting(cli: Cli, ops: Human, tmp_path: Path) -> Iterator[PendingJob]:
    job = PendingJob(cli, ops, tmp_path, [WRITE])
    yield job
    cli.run("job", "cancel", job.id)


def test_a_short_table_of_pending_requests_begins_with_the_most_urgent_one_of_all(
    cli: Cli, ops: Human, waiting: PendingJob, tmp_path: Path
) -> None:
    (tmp_path / "later").mkdir()
    later = PendingJob(cli, ops, tmp_path / "later", [WRITE])
    most_urgent = min(cli.json("request", "list", "--all-pages", who="lead")["items"], key=lambda item: decide_by(item) or "~")["id"]

    shown = cli.run("request", "list", "--limit", "1", "--columns", "id", who="lead")
    cli.run("job", "cancel", later.id)

    assert shown.stdout.split() == ["ID", most_urgent]
    assert re.search(r"^\d+ more pending requests?, less urgent: add --all-pages$", shown.stderr, re.MULTILINE), shown.stderr


def test_one_command_approves_a_request_and_the_job_continues(cli: Cli, ops: Human, waiting: PendingJob) -> None:
    answered = cli.json("request", "approve", waiting.requests[0], "--reason", "the customer is right", who="lead")

    assert answered["state"] == "approved"
    assert [(answer["approver"], answer["reason"]) for answer in answered["approvals"]] == [("lead", "the customer is right")]
    assert ops.until(waiting.id)["state"] == "succeeded"
    assert "lead approved (the customer is right)" in cli.run("job", "show", waiting.id).stdout


def test_an_approver_sees_what_will_run_and_its_digest(cli: Cli, lead: Human, waiting: PendingJob) -> None:
    digest = lead.api.get(f"requests/{waiting.requests[0]}").json()["digest"]

    told = cli.run("request", "approve", waiting.requests[0], "--reason", "yes", "--ttl", "2m", who="lead").stderr

    assert "ops requests write on refunds-db" in told
    assert "for 2m, for from-the-cli: Show what the command line does" in told
    assert "command: echo 'a b'" in told
    assert f"digest:  {digest}" in told


def test_request_show_prints_what_will_run_and_on_whose_data(cli: Cli, waiting: PendingJob) -> None:
    shown = cli.run("request", "show", waiting.requests[0], who="lead").stdout

    assert "\nCommand:   echo 'a b'\n" in shown
    assert "\nData:      tenant=acme\n" in shown


def test_the_approver_of_a_child_job_sees_its_parent_and_what_the_parent_touched(
    cli: Cli, ops: Human, waiting: PendingJob, tmp_path: Path
) -> None:
    inside = {"JUSTENOUGH_JOB_ID": waiting.id}
    (tmp_path / "child").mkdir()
    file = write_spec(tmp_path / "child", ["true"], access=[WRITE], data_scope={"tenant": "acme"})
    cli.json("request", "approve", waiting.requests[0], "--reason", "yes", who="lead")
    assert ops.until(waiting.id)["state"] == "succeeded"

    child, alone = (cli.json("job", "run", file, "--parent", parent, env=inside)["id"] for parent in (waiting.id[:20], ""))
    within = cli.json("job", "run", file, env=inside)["id"]
    (request,) = ops.until(within, "awaiting_approval")["requests"]

    line = f"{waiting.id} (from-the-cli, by ops): Show what the command line does; touched refunds-db (confidential)"
    assert f"\nLaunched by: {line}\n" in re.sub(r" +", " ", cli.run("request", "show", request["id"], who="lead").stdout)
    assert f"launched by: {line}" in cli.run("request", "approve", request["id"], "--reason", "yes", who="lead").stderr
    assert line in cli.run("job", "show", within).stdout
    assert f"from job {waiting.id}" in cli.run("job", "timeline", within).stdout
    assert sorted(cli.run("job", "list", "--parent", waiting.id[:20], "-o", "name").stdout.split()) == sorted([child, within])
    assert [cli.json("job", "show", job)["parent"] for job in (child, alone)] == [waiting.id, None]
    for job in (child, alone):
        cli.run("job", "cancel", job)
    refused = cli.run("job", "run", file, "--parent", "j-dev-00000000000000000000000000")
    assert (refused.exit_code, "statement.parent: there is no job j-dev-00000000000000000000000000" in refused.stderr) == (2, True)


def test_a_shorter_time_given_by_an_approver_is_granted(cli: Cli, ops: Human, waiting: PendingJob) -> None:
    cli.json("request", "approve", waiting.requests[0], "--reason", "yes", "--ttl", "2m", who="lead")

    assert ops.job(waiting.id)["requests"][0]["granted_ttl"] == 120


def test_a_narrowed_approval_and_its_withdrawal_take_one_command_each(cli: Cli, ops: Human, tmp_path: Path) -> None:
    access = [WRITE]
    job = cli.json("job", "run", write_spec(tmp_path, ["sleep", "300"], access=access, data_scope={"tenant": "acme"}))["id"]
    request = ops.until(job, "awaiting_approval")["requests"][0]["id"]

    done = cli.run("request", "approve", request, "--action", "read", "--ttl", "2m", "-o", "json", who="lead")
    assert "GRANTED ONLY AS read for 2m" in done.stderr
    ops.until(job, "running")
    assert "lead approved (" not in cli.run("job", "show", job).stdout, "no reason was given"
    shown = cli.run("request", "show", request, who="lead").stdout
    cli.json("request", "withdraw", request, "--reason", "no longer needed", who="lead")

    assert "Granted:   read for 2m" in shown
    assert "(tier 1) approved read for 2m: -" in shown
    until(lambda: cli.json("request", "show", request, who="lead")["state"] == "withdrawn", "a worker has verified the withdrawal")
    assert "lead withdrew the approval: no longer needed; the request is withdrawn" in cli.run("job", "timeline", job).stdout
    assert "lead approved, then withdrew it" in cli.run("job", "show", job).stdout
    assert cli.run("request", "withdraw", request, "--reason", "again", who="lead").exit_code == 8
    cli.run("job", "kill", job, "--yes")


def test_access_through_tools_can_be_approved_for_fewer_calls_than_requested(cli: Cli, ops: Human, tmp_path: Path) -> None:
    tools = {"refund-order": {"calls": 3, "arguments": {"amount": {"maximum": 100}}, "other_arguments": "any"}}
    access = [{"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Pay back", "tools": tools}]
    job = cli.json("job", "run", write_spec(tmp_path, ["sleep", "300"], access=access, data_scope={"tenant": "acme"}))["id"]
    request = ops.until(job, "awaiting_approval")["requests"][0]["id"]
    asked, less = "refund-order:calls=3, refund-order:amount<=100", "refund-order:calls=2, refund-order:amount<=50"
    assert f"Through:   {asked}; the job gets no credential" in cli.run("request", "show", request, who="lead").stdout
    for wrong, why in (("find-order", "was not requested; requested: refund-order"), ("refund-order:amount<=much", "<= needs a number")):
        refused = cli.run("request", "approve", request, "--tool", wrong, who="lead")
        assert (refused.exit_code, why in refused.stderr) == (2, True), refused.stderr

    bounds = ("--tool", "refund-order:amount<=50", "--tool", "refund-order:calls=2")
    done = cli.run("request", "approve", request, *bounds, "-o", "json", who="lead")
    assert f"GRANTED: only {less}" in done.stderr
    ops.until(job, "running")
    shown = cli.run("request", "show", request, who="lead").stdout

    assert f"Granted:   write for 5m, only through {less}" in shown
    assert f"(tier 1) approved write for 5m, only through {less}: -" in shown
    assert f"through {less}" in " ".join(cli.run("job", "show", job).stdout.split())
    assert f"lead approved, only through {less}; the request is approved" in cli.run("job", "timeline", job).stdout
    cli.run("job", "kill", job, "--yes")


def test_a_break_glass_approval_is_mentioned_in_lists_until_it_is_reviewed(cli: Cli, ops: Human, waiting: PendingJob) -> None:
    request = waiting.requests[0]
    assert cli.run("request", "break-glass", request, "--reason", "x", who="lead").exit_code == 6

    done = cli.run("request", "break-glass", request, "--reason", "the shop is down", "--yes", who="oncall")
    assert (done.exit_code, "BREAK-GLASS approval of: ops requests write on refunds-db" in done.stderr) == (0, True)
    assert ops.until(waiting.id)["state"] == "succeeded"
    assert "of break-glass approvals: justenough review list" in cli.run("request", "list", who="security").stderr
    assert request in [item["request_id"] for item in cli.json("review", "list", who="auditor")["items"]]
    assert " tier 1 or above " in next(line for line in cli.run("review", "list", who="auditor").stdout.splitlines() if request in line)
    # If several tiers were bypassed, the lower ones cannot review.
    shown = cli.run("request", "show", request, who="auditor").stdout
    assert ": another approver of tier 1 or above must state whether it was justified" in shown
    assert cli.run("review", "answer", request, "--reason", "fine", who="lead").exit_code == 2

    # Use the short id that a terminal shows.
    short = f"{request[:20]}-{request.rpartition('-')[2]}"
    cli.json("review", "answer", short, "--justified", "--reason", "it was down", who="lead")
    assert request not in [item["request_id"] for item in cli.json("review", "list", who="auditor")["items"]]
    assert "Review: justified, according to lead" in cli.run("request", "show", request, who="auditor").stdout


def test_a_delegate_decides_for_the_person_who_named_them(cli: Cli, waiting: PendingJob) -> None:
    request = waiting.requests[0]
    assert cli.run("delegation", "create", "--to", "nobody", "--for", "1h", "--reason", "away", who="lead").exit_code == 5
    assert cli.run("delegation", "create", "--to", "security", "--for", "long", "--reason", "away", who="lead").exit_code == 2
    made = cli.json("delegation", "create", "--to", "security", "--for", "1h", "--reason", "away", who="lead")
    claimed = cli.run("request", "claim", "r-dev-none-1", request, "--for", "10m", "-o", "name", who="security")
    assert (claimed.exit_code, claimed.stdout.split()) == (5, [request])
    assert "r-dev-none-1: there is no request" in claimed.stderr
    assert "Claimed:   by security until" in cli.run("request", "show", request, who="lead").stdout
    cli.json("request", "release", request, who="security")

    told = cli.run("request", "approve", request, "--on-behalf-of", "lead", who="security")
    assert (told.exit_code, "for:     lead, who delegated to you" in told.stderr) == (0, True)
    assert "security for lead (tier 2) approved" in cli.run("request", "show", request, who="lead").stdout
    assert made["id"] in [item["id"] for item in cli.json("delegation", "list", who="auditor")["items"]]
    assert cli.json("delegation", "end", made["id"], who="lead")["ended_at"]


def test_from_the_second_tier_on_an_approval_needs_a_reason(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = PendingJob(cli, ops, tmp_path, [{**ADMIN, "optional": False}])
    done = cli.run("request", "approve", job.requests[0], who="security")
    assert (done.exit_code, "--reason is required" in done.stderr) == (2, True)
    cli.run("request", "deny", job.requests[0], "--reason", "no", who="security")


def test_a_denial_ends_the_job_and_its_launchers_wait_exits_with_6(cli: Cli, waiting: PendingJob) -> None:
    denied = cli.run("request", "deny", waiting.requests[0], "--reason", "not now", "-o", "name", who="lead")

    assert (denied.exit_code, denied.stdout) == (0, f"{waiting.requests[0]}\n")
    assert cli.run("job", "watch", waiting.id).exit_code == 6


def test_people_cannot_approve_their_own_job(cli: Cli, waiting: PendingJob) -> None:
    done = cli.run("request", "approve", waiting.requests[0], "--reason", "mine")

    assert done.exit_code == 6
    assert "people cannot decide on a job that they launched" in done.stderr


def test_a_person_in_no_group_that_can_decide_is_told_which_groups_can(cli: Cli, waiting: PendingJob) -> None:
    done = cli.run("request", "approve", waiting.requests[0], "--reason", "x", who="auditor")

    assert done.exit_code == 6
    assert "support-leads" in done.stderr


def test_deciding_twice_is_a_conflict(cli: Cli, waiting: PendingJob) -> None:
    cli.json("request", "approve", waiting.requests[0], "--reason", "yes", who="lead")

    again = cli.run("request", "approve", waiting.requests[0], "--reason", "yes", who="lead")

    assert (again.exit_code, again.stdout) == (8, "")


def test_more_time_than_requested_is_refused_by_its_path(cli: Cli, waiting: PendingJob) -> None:
    done = cli.run("request", "approve", waiting.requests[0], "--reason", "yes", "--ttl", "1h", who="lead")

    assert done.exit_code == 2
    assert "statement.ttl: must be between 1 and 300 seconds" in done.stderr


def test_several_requests_are_decided_one_by_one_and_the_worst_exit_code_counts(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = PendingJob(cli, ops, tmp_path, [WRITE, ADMIN])

    done = cli.run("request", "approve", *job.requests, "r-dev-none-1", "--reason", "both", "-o", "json", who="security")

    assert done.exit_code == 5
    assert [item["id"] for item in json.loads(done.stdout)["items"]] == job.requests
    assert "r-dev-none-1: there is no request" in done.stderr
    assert ops.until(job.id)["state"] == "succeeded"


def test_request_lists_show_what_is_pending_for_whom(cli: Cli, waiting: PendingJob) -> None:
    request = waiting.requests[0]

    def listed(who: str, *flags: str) -> bool:
        return request in [item["id"] for item in cli.json("request", "list", "--job", waiting.id, *flags, who=who)["items"]]

    assert [listed("lead"), listed("lead", "--pending"), listed("lead", "--mine"), listed("ops"), listed("ops", "--mine")] == [True] * 4 + [
        False
    ]
    cli.json("request", "deny", request, "--reason", "no", who="lead")
    assert [listed("lead"), listed("lead", "--all")] == [False, True]
    assert [listed("lead", "--state", "denied"), listed("lead", "--state", "approved")] == [True, False]
    assert cli.run("request", "list", "--all", "--mine", who="lead").exit_code == 2
    assert cli.run("request", "list", "--state", "denied", "--mine", who="lead").exit_code == 2


def test_a_request_is_shown_with_the_policies_that_decided(cli: Cli, lead: Human, waiting: PendingJob) -> None:
    shown = cli.run("request", "show", waiting.requests[0], who="lead")

    assert "Policies:  write-at-tier-1" in shown.stdout
    assert cli.json("request", "show", waiting.requests[0], who="lead") == lead.api.get(f"requests/{waiting.requests[0]}").json()


@pytest.mark.parametrize("command", ["withdraw", "break-glass", "deny"])
def test_a_decision_without_a_required_reason_is_a_usage_error(cli: Cli, command: str) -> None:
    for arguments in ((), ("--reason", " ")):
        done = cli.run("request", command, "r-dev-none-1", *arguments, who="lead")
        assert done.exit_code == 2
        assert "--reason is required" in done.stderr


@pytest.mark.parametrize("typed,code,state", [("n\n", 1, "pending"), ("y\n", 0, "approved")])
def test_on_a_terminal_an_approval_asks_first(cli: Cli, ops: Human, waiting: PendingJob, typed: str, code: int, state: str) -> None:
    with run_on_terminal(cli, "request", "approve", waiting.requests[0], "--reason", "yes", who="lead") as (process, terminal):
        assert "Approve this?" in terminal.read_until(b"Approve this?")
        terminal.write(typed.encode())
        process.wait(30)

    assert process.returncode == code
    assert ops.job(waiting.id)["requests"][0]["state"] == state


def test_a_question_shows_what_it_asks_about_although_nothing_else_is_printed(cli: Cli, waiting: PendingJob) -> None:
    with run_on_terminal(cli, "request", "approve", waiting.requests[0], "--reason", "yes", "-q", who="lead") as (process, terminal):
        shown = terminal.read_until(b"Approve this?")
        terminal.write(b"n\n")
        process.wait(30)

    assert "Approving: ops requests write on refunds-db" in shown
    assert "digest:  sha256:" in shown


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C until the program ends: one that comes just before Python reads is noticed only after the next key."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def test_ctrl_c_at_a_question_leaves_what_was_answered_before_and_says_so(
    cli: Cli, ops: Human, waiting: PendingJob, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    second = PendingJob(cli, ops, tmp_path / "second", [WRITE])
    names = (waiting.requests[0], second.requests[0])
    with run_on_terminal(cli, "request", "approve", *names, "--reason", "yes", "-o", "name", who="lead") as (process, terminal):
        terminal.read_until(b"Approve this?")
        terminal.write(b"y\n")
        terminal.read_until(b"Approve this?")
        interrupt(process)
        assert process.stdout
        assert process.stdout.read().decode().split() == [names[0]]
        told = terminal.read_until(b"\0")
        process.wait(30)

    states = [ops.job(job.id)["requests"][0]["state"] for job in (waiting, second)]
    cli.run("job", "cancel", second.id)
    assert (process.returncode, states) == (130, ["approved", "pending"])
    assert f"{names[1]}: not decided, and neither were those after it: you did not answer the question" in told
    assert "nothing was done" not in told


@pytest.mark.parametrize("how,code", [("interrupt", 130), ("end", 1)])
def test_a_question_that_is_not_answered_ends_the_command(waiting: PendingJob, cli: Cli, how: str, code: int) -> None:
    with run_on_terminal(cli, "request", "deny", waiting.requests[0], who="lead") as (process, terminal):
        terminal.read_until(b"Reason:")
        if how == "interrupt":
            interrupt(process)
        else:
            terminal.write(b"\x04")
        told = terminal.read_until(b"\0")
        process.wait(30)

    assert (process.returncode, "nothing was done: the question was not answered" in told) == (code, True)


@pytest.mark.parametrize("command", [("request", "approve"), ("review", "answer", "--justified")], ids=" ".join)
def test_nothing_is_signed_about_another_request_than_the_named_one(cli: Cli, waiting: PendingJob, command: tuple[str, ...]) -> None:
    pending = waiting.requests[0]
    view = cli.json("request", "show", pending, who="lead")
    named = f"{pending.rpartition('-')[0]}-7"
    with serve_canned_answers() as console:
        console.routes = {f"/{named}": (200, view), "/decisions": (200, view), "/review": (409, {"title": "no"})}
        done = cli.run(*command, named, "--reason", "the customer is right", "--console-url", console.address, who="lead")

    assert [one.path for one in console.requests if b"signature" in one.body] == []
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"answered with another request, {pending}; nothing was signed" in done.stderr


def test_a_decision_that_no_worker_has_verified_yet_says_so_and_what_is_missing(cli: Cli, waiting: PendingJob) -> None:
    pending = waiting.requests[0]
    view = {**cli.json("request", "show", pending, who="lead"), "quorum": 3}
    with serve_canned_answers() as console:
        console.routes = {f"/{pending}": (200, view), "/decisions": (202, view)}
        done = cli.run("request", "approve", pending, "--reason", "yes", "--console-url", console.address, who="lead")

    assert done.exit_code == 0, done.stderr
    assert f"Your decision was sent and counts once a worker has verified it. See: justenough request show {pending}\n" in done.stderr
    assert "command: cannot be read from the job's order\n" in done.stderr, "this console returns no ledger entry"
    assert done.stdout.splitlines()[1].split() == [pending, "refunds-db", "write", "pending", "3", "more"]


@pytest.mark.parametrize(
    "state,says", [("pending", "policy has not decided on the request yet; try again"), ("withdrawn", "the request is withdrawn")]
)
def test_a_request_on_which_policy_has_not_decided_cannot_be_approved(cli: Cli, waiting: PendingJob, state: str, says: str) -> None:
    pending = waiting.requests[0]
    view = {**cli.json("request", "show", pending, who="lead"), "state": state, "digest": ""}
    with serve_canned_answers() as console:
        console.routes = {f"/{pending}": (200, view)}
        done = cli.run("request", "approve", pending, "--reason", "x", "--console-url", console.address, who="lead")

    assert (done.exit_code, done.stderr) == (8, f"error: {says}\n")
    assert [one.method for one in console.requests] == ["GET"]


@pytest.mark.parametrize("decision", ["approve", "deny", "withdraw"])
def test_while_vault_is_away_only_a_withdrawal_is_sent_without_a_signature(
    cli: Cli, lead: Human, waiting: PendingJob, tmp_path: Path, decision: str
) -> None:
    """The worker would count no other decision without a signature."""
    away, there = "http://127.0.0.1:1", replace(cli, logins=tmp_path)
    cli.run("whoami", who="lead")
    there.login_file("lead").parent.mkdir()
    login = json.loads(cli.login_file("lead").read_text())
    moved = {**login, "seen": {**login["seen"], "vault": away}, "pinned": {**login["pinned"], "vault": away}}
    for file, content in (
        (there.login_file("lead"), json.dumps(moved)),
        (there.login_file("lead").with_suffix(".identity.json"), cli.login_file("lead").with_suffix(".identity.json").read_text()),
    ):
        file.write_text(content)
        file.chmod(0o600)
    view = cli.json("request", "show", waiting.requests[0], who="lead")
    with serve_canned_answers() as console:
        console.routes = {f"/{waiting.requests[0]}": (200, view), "/withdraw": (200, view)}
        done = there.run("request", decision, waiting.requests[0], "--reason", "x", "--console-url", console.address, who="lead")
        sent = [(one.path.rpartition("/")[2], json.loads(one.body)) for one in console.requests if one.method == "POST"]

    assert sent == ([("withdraw", {"reason": "x"})] if decision == "withdraw" else [])
    assert done.exit_code == (0 if decision == "withdraw" else 1)
    assert ("recorded without your signature" if decision == "withdraw" else f"Vault at {away} does not answer") in done.stderr


def test_with_yes_a_terminal_is_not_asked(cli: Cli, ops: Human, waiting: PendingJob) -> None:
    arguments = ("--yes", "request", "approve", waiting.requests[0], "--reason", "yes")
    with run_on_terminal(cli, *arguments, who="lead") as (process, terminal):
        terminal.read_until(b"Approve this?")
        process.wait(30)

    assert process.returncode == 0
    assert ops.job(waiting.id)["requests"][0]["state"] == "approved"


def test_one_command_approves_a_locked_request_and_authorizes_it_in_vault(cli: Cli, ops: Human, auditor: Human, tmp_path: Path) -> None:
    payout = {"resource": "payouts-db", "action": "write", "ttl": "5m", "reason": "Pay it out"}
    job = PendingJob(cli, ops, tmp_path, [payout])
    request = job.requests[0]
    shown = cli.run("request", "show", request, who="security").stdout
    assert f"accessor {ops.job(job.id)['requests'][0]['lock']['accessor']}" in shown

    outside = cli.run("request", "approve", request, "--reason", "let me try", who="lead")
    assert "vault:" not in outside.stderr
    assert "needs one of the groups: chiefs, security" in outside.stderr

    # An authorization in Vault cannot be withdrawn: there is none for a decision that the console refuses.
    less = cli.run("request", "approve", request, "--action", "read", "--reason", "only read", who="security")
    assert "vault:" not in less.stderr
    assert "the decision is not valid" in less.stderr

    done = cli.run("request", "approve", request, "--reason", "the customer waits", who="security")

    assert done.exit_code == 0, done.stderr
    assert "vault:   authorized in Vault too; its control group is satisfied" in done.stderr
    assert ops.until(job.id)["state"] == "succeeded"
    assert [entry["data"]["resource"] for entry in auditor.ledger(job.id) if entry["type"] == "credential.issued"] == ["payouts-db"]
    assert cli.json("credential", "prove", job.id, who="auditor")["dead"]


def test_a_request_whose_lock_is_already_authorized_can_still_be_approved(cli: Cli, ops: Human, security: Human, tmp_path: Path) -> None:
    job = PendingJob(cli, ops, tmp_path, [{"resource": "payouts-db", "action": "write", "ttl": "5m", "reason": "Pay it out"}])
    security.authorize(ops.job(job.id)["requests"][0]).raise_for_status()
    assert cli.json("request", "approve", job.requests[0], "--reason", "yes", who="security")["state"] == "approved"
    assert ops.until(job.id)["state"] == "succeeded"


def test_a_request_that_is_no_longer_pending_cannot_be_approved(cli: Cli, ops: Human, shop: Shop, tmp_path: Path) -> None:
    job = PendingJob(cli, ops, tmp_path, [{"resource": "payouts-db", "action": "write", "ttl": "5m", "reason": "Pay it out"}])
    with shop.admin() as vault:
        accessor = ops.job(job.id)["requests"][0]["lock"]["accessor"]
        vault.post("auth/token/revoke-accessor", json={"accessor": accessor}).raise_for_status()
    refused = cli.run("request", "approve", job.requests[0], "--reason", "yes", who="security")
    assert refused.exit_code == 8
    assert "Vault no longer has this request to authorize" in refused.stderr
    cli.run("job", "cancel", job.id)


def test_an_approval_says_what_the_job_still_waits_for(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = PendingJob(cli, ops, tmp_path, [WRITE, ADMIN])
    write, admin = job.requests

    first = cli.run("request", "approve", write, "--reason", "yes", who="security")
    last = cli.run("request", "approve", admin, "--reason", "yes", who="security")

    assert f"The job still waits for: admin on orders-db (optional), tier 2 ({admin})\n" in first.stderr
    assert "still waits" not in last.stderr
    assert [done.stdout.splitlines()[1].split() for done in (first, last)] == [
        [write, "refunds-db", "write", "approved", "none"],
        [admin, "orders-db", "admin", "approved", "none"],
    ]
    assert ops.until(job.id)["state"] == "succeeded"


def test_lists_show_no_tier_for_what_needs_no_approval_and_the_source_of_the_reason_in_a_word(
    cli: Cli, ops: Human, waiting: PendingJob, tmp_path: Path
) -> None:
    read = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look an order up"}
    file = write_spec(tmp_path, ["true"], access=[read, WRITE], data_scope={"tenant": "acme"})
    job = cli.json("job", "run", file)["id"]
    ops.until(job, "awaiting_approval")

    listed = cli.run("request", "list", "--all", "--job", job, "--columns", "action,tier,reason-by", "--sort", "action")
    shown = cli.run("request", "show", f"{job.replace('j-', 'r-')}-1")
    tried = cli.run("job", "run", file, "--dry-run")
    cli.run("job", "cancel", job)

    assert [line.split() for line in listed.stdout.splitlines()[1:]] == [["read", "–", "spec"], ["write", "1", "spec"]]
    assert re.search(r"^Tier: +none$", shown.stdout, re.MULTILINE)
    assert re.search(r"^orders-db +read +start +5m +allowed +– ", tried.stdout, re.MULTILINE)
    assert re.search(r"^refunds-db +write +start +5m +needs approval +1 ", tried.stdout, re.MULTILINE)


def test_a_person_whose_tier_is_too_low_is_told_so_before_a_reason_is_asked_for(cli: Cli, ops: Human, tmp_path: Path) -> None:
    job = PendingJob(cli, ops, tmp_path, [ADMIN])
    refused = cli.run("request", "approve", job.requests[0], who="lead")
    assert refused.exit_code == 6
    assert "the request is at tier 2: only its approvers (security, or those of a higher tier) can decide it" in refused.stderr
    silent = cli.run("request", "approve", job.requests[0], who="security")
    assert (silent.exit_code, "--reason is required" in silent.stderr) == (2, True)
    cli.run("job", "cancel", job.id)
