"""The acts of the demo, in order. Each act ends with an attempt to log in with its revoked credentials, which must be refused."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime

from console.cli.demo.environment import BOLD, DIM, GREEN, PLAIN, RED, DemoEnvironment, DemoFailed, say
from console.cli.demo.login_probe import ProbedLogin
from console.cli.json_object import Json
from console.cli.render.output import print_table
from console.cli.render.revocation import ENDED_JOB_STATES
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import moment


@dataclass(frozen=True)
class DemoCredential:
    """One credential in the closing table."""

    job: Json
    credential: Json
    login_outcome: str
    """The result of a login with it after the job's end, in a word or two."""
    dead: bool
    """Whether the database refused its login at the end."""

    @property
    def proven(self) -> bool:
        """Whether both JustEnough and the login probe verified that it is dead."""
        return self.credential["state"] == "confirmed" and self.dead

    @property
    def is_irrevocable(self) -> bool:
        """Whether only its owner can revoke it: a static key that was not created for the job."""
        return bool(self.credential["revocable"] == "never")

    @property
    def access(self) -> str:
        return f"{self.credential['resource']}:{self.credential['action']}"

    @property
    def lifetime(self) -> str:
        """The seconds from its issue to the confirmation of its revocation, `-` without one."""
        if not self.credential["confirmed_at"]:
            return "-"
        issued, confirmed = (datetime.fromisoformat(self.credential[name]) for name in ("issued_at", "confirmed_at"))
        return f"{(confirmed - issued).total_seconds():.2f} s"


def run_scenario(demo: DemoEnvironment) -> int:
    """Run every act; return 0 only if every credential was proven dead."""
    began = time.monotonic()
    acts = (show_approvals, show_failure, show_kill, show_terminated_workflow, show_narrowed_approval, show_control_group, show_agent)
    lines = [line for act in acts for line in act(demo)]
    say(f"\n{BOLD}Every credential of this demo, and how it ended{PLAIN}")
    print_table(
        ("JOB", "ENDED", "CREDENTIAL", "LIFETIME", "VERIFIED AT", "LOGIN", "DETAIL"),
        [
            (
                line.job["name"],
                state_word("job", line.job["state"]),
                line.access,
                line.lifetime,
                moment(line.credential["confirmed_at"]),
                line.login_outcome,
                line.credential["confirmed_how"] or line.credential["why"],
            )
            for line in lines
        ],
    )
    ledger = demo.run_as("auditor", "ledger", "verify")
    intact = f"The ledger is intact: {ledger['entries']} entries in {ledger['jobs']} hash chains."
    say(str(ledger["problems"]) if ledger["problems"] else intact)
    revocable, keys = [line for line in lines if not line.is_irrevocable], {line.access for line in lines if line.is_irrevocable}
    proven = bool(revocable) and all(line.proven for line in revocable) and not ledger["problems"]
    verdict = (
        f"{GREEN}{len(revocable)} credentials, all verified as revoked"
        if proven
        else f"{RED}{len(revocable)} credentials, NOT all verified as revoked"
    )
    say(f"\n{verdict}{PLAIN}, in {time.monotonic() - began:.0f} s. No job ever saw {', '.join(sorted(keys))}: only the gateway used it.")
    return 0 if proven else 1


def show_approvals(demo: DemoEnvironment) -> list[DemoCredential]:
    """An agent handles a refund ticket: policy allows a read, the owner approves a write, and an optional request is denied."""
    print_title("A refund: policy allows a read, lead approves a write, security denies the optional admin access")
    job = demo.launch("refund-triage", "ticket=4711")
    waiting = demo.wait_for_state(job, "awaiting_approval", *ENDED_JOB_STATES)
    for request in waiting["requests"]:
        tier = f"pending at tier {request['tier']}" if request["state"] == "pending" else state_word("request", request["state"])
        say(f"  {request['action']} on {request['resource']}: {tier}, by {', '.join(request['policies'])}")
    requests = {(item["resource"], item["action"]): item["id"] for item in waiting["requests"]}
    demo.run_as("lead", "request", "approve", requests["refunds-db", "write"], "--reason", "ticket 4711 is right")
    demo.run_as("security", "request", "deny", requests["orders-db", "admin"], "--reason", "a refund needs no admin access")
    logins = [demo.probe.next_login(job), demo.probe.next_login(job)]
    seen = _wait_for_end(demo, job, "succeeded")
    for line in demo.run_as("ops", "job", "logs", job).get("items", []):
        say("".join(f"  {DIM}│{PLAIN} {text}\n" for text in line["text"].splitlines()).rstrip())
    return _probe_logins(demo, seen, logins)


def show_failure(demo: DemoEnvironment) -> list[DemoCredential]:
    print_title("A job that fails")
    job = demo.launch("failing")
    login = demo.probe.next_login(job)
    return _probe_logins(demo, _wait_for_end(demo, job, "failed"), [login])


def show_kill(demo: DemoEnvironment) -> list[DemoCredential]:
    print_title("A job that is killed while it holds a database session open")
    job = demo.launch("long-running", "seconds=300")
    login = demo.probe.next_login(job)
    demo.run_as("ops", "job", "kill", job)
    return _probe_logins(demo, _wait_for_end(demo, job, "killed"), [login])


def show_terminated_workflow(demo: DemoEnvironment) -> list[DemoCredential]:
    """A job whose workflow is terminated. Its own code never runs again, but because a person had approved its access, a guard workflow revokes it."""
    print_title("A job with approved write access whose workflow an administrator terminates")
    job = demo.launch("long-writing", "seconds=300")
    waiting = demo.wait_for_state(job, "awaiting_approval", *ENDED_JOB_STATES)
    demo.run_as("lead", "request", "approve", waiting["requests"][0]["id"], "--reason", "refunds come in today")
    login = demo.probe.next_login(job)
    demo.terminate(job)
    return _probe_logins(demo, _wait_for_end(demo, job, "lost"), [login])


def show_narrowed_approval(demo: DemoEnvironment) -> list[DemoCredential]:
    """A request for write access that is approved for reading only. The approval is withdrawn while the job runs."""
    print_title("A request to write: lead approves only two minutes of reading, then withdraws the approval")
    job = demo.launch("long-writing", "seconds=300")
    request = demo.wait_for_state(job, "awaiting_approval", *ENDED_JOB_STATES)["requests"][0]["id"]
    demo.run_as("lead", "request", "approve", request, "--action", "read", "--ttl", "2m")
    login = demo.probe.next_login(job)
    error = demo.probe.write_error(login)
    if error is None:
        raise DemoFailed(f"{login.user} can write, but was approved for reading only")
    say(f"  It may read refunds. Writing one: {error}")
    demo.run_as("lead", "request", "withdraw", request, "--reason", "the refunds are for tomorrow")
    say("  Its database session is closed, and its program gives up:")
    return _probe_logins(demo, _wait_for_end(demo, job, "failed"), [login])


def show_control_group(demo: DemoEnvironment) -> list[DemoCredential]:
    """A write behind a control group: JustEnough and Vault each require the approval of the same people."""
    print_title("A payout behind a control group: without security's authorization Vault itself refuses everyone, the worker included")
    job = demo.launch("pay-out", "order=100001", "amount=19.90")
    request = demo.wait_for_state(job, "awaiting_approval", *ENDED_JOB_STATES)["requests"][0]
    entries = demo.run_as("auditor", "job", "timeline", job, quiet=True)["items"]
    lock: Json = next(entry["data"] for entry in entries if entry["type"] == "lock.opened")
    authorizers = f"{lock['approvals']} of {' or '.join(lock['groups'])}"
    say(
        f"  {request['action']} on {request['resource']} waits in Vault (accessor {lock['accessor']}) until {authorizers} authorizes it there."
    )
    demo.run_as("security", "request", "approve", request["id"], "--reason", "the customer's account is checked")
    login = demo.probe.next_login(job)
    return _probe_logins(demo, _wait_for_end(demo, job, "succeeded"), [login])


def show_agent(demo: DemoEnvironment) -> list[DemoCredential]:
    """An agent that never gets a secret: each tool call is decided separately and made by the gateway, and its credential is revoked right after."""
    print_title(
        "An AI agent handles a ticket with tools only: policy allows reads, people approve a refund and a customer lookup, an export is denied"
    )
    job = demo.launch("support-agent", hands_over=False)
    for who, resource, reason in (
        ("lead", "refunds-db", "the ticket is right, and so is the amount"),
        ("security", "customers-db", "this one customer, for this ticket"),
    ):
        request = demo.wait_for_request(job, resource)
        call: Json = demo.run_as(who, "request", "show", request["id"])["call"]
        say(f"  It requests to call {call['tool']}, once, with exactly {json.dumps(call['arguments'])}")
        demo.run_as(who, "request", "approve", request["id"], "--reason", reason)
    seen = _wait_for_end(demo, job, "succeeded")
    entries = demo.run_as("auditor", "job", "timeline", job)["items"]
    calls = [entry["data"] for entry in entries if entry["type"] == "tool.called"]
    why = {entry["data"]["request"]: entry["data"]["policies"] for entry in entries if entry["type"] == "access.decided"}
    print_table(
        ("TOOL", "ACTION", "OUTCOME", "BY", "MS"),
        [(call["tool"], call["action"], call["outcome"], ", ".join(why.get(call["request"], [])), call["duration_ms"]) for call in calls],
    )
    if [call["tool"] for call in calls if call["outcome"] == "denied"] != ["export-customers"]:
        raise DemoFailed("exactly one call, the export, should have been denied")
    left = demo.probe.users_of(job)
    say(f"  Its logins never left the gateway. Its remaining database users: {GREEN}none{PLAIN}" if not left else f"  {RED}{left}{PLAIN}")
    return [DemoCredential(seen, item, "not disclosed", dead=not left) for item in seen["credentials"]]


def print_title(text: str) -> None:
    say(f"\n{BOLD}── {text}{PLAIN}")


def _wait_for_end(demo: DemoEnvironment, job: str, state: str) -> Json:
    seen = demo.wait_for_state(job, *ENDED_JOB_STATES)
    if seen["state"] != state:
        raise DemoFailed(f"{job} ended {seen['state']} ({seen['reason']}), not {state}")
    why = f" ({seen['reason']})" if seen["reason"] else ""
    say(f"  {seen['name']} ended: {state_word('job', state)}{why}; revocation: {state_word('revocation', seen['revocation']['state'])}")
    demo.run_as("auditor", "credential", "prove", job)
    return seen


def _probe_logins(demo: DemoEnvironment, job: Json, logins: list[ProbedLogin]) -> list[DemoCredential]:
    by_user: dict[str, str | None] = {}
    for login in logins:
        if not login.worked:
            raise DemoFailed(f"the login {login.user} did not work while its job ran")
        error = demo.probe.login_error(login.user, login.password)
        say(f"  Its login worked while the job ran. Now: {GREEN}{error}{PLAIN}" if error else f"  {RED}{login.user} STILL WORKS{PLAIN}")
        by_user[login.user] = error
    outcomes = []
    for credential in job["credentials"]:
        # The lease's path ends with the role, and so does the user's name, which may be truncated.
        role = str(credential["lease_id"]).split("/")[2]
        error = next((error for user, error in by_user.items() if role.startswith(user.rpartition(f"{credential['job_id']}-")[2])), None)
        outcomes.append(DemoCredential(job, credential, "refused" if error else "not tried", dead=(error or "").startswith("FATAL")))
    return outcomes
