"""What the demo shows, in order. Each act ends with the dead credential's login being tried and refused."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime

from console.cli.demo.environment import BOLD, DIM, GREEN, PLAIN, RED, DemoFailed, Json, Stage, say
from console.cli.demo.login_probe import Login
from console.cli.render.output import rows
from console.presentation.terminal_text import moment

ENDED = ("succeeded", "failed", "denied", "cancelled", "timed_out", "killed", "lost")


@dataclass(frozen=True)
class Line:
    """One credential in the closing table."""

    job: Json
    credential: Json
    tried: str
    """What became of its login after the end, in a word or two."""
    dead: bool
    """Whether the witness saw for itself that it is."""

    @property
    def proven(self) -> bool:
        """Whether it was confirmed dead by looking, ours and the witness's own."""
        return self.credential["state"] == "confirmed" and self.dead

    @property
    def stays(self) -> bool:
        """Whether nothing can end it but its owner: a key that is read, and not made for its job."""
        return bool(self.credential["revocable"] == "never")


def tell(stage: Stage) -> int:
    """Play every act; return 0 only if all of it was proven."""
    began = time.monotonic()
    acts = (approvals, failure, kill, terminated, narrowed, locked, agent)
    lines = [line for act in acts for line in act(stage)]
    say(f"\n{BOLD}Every credential of this demo, and how it was shown to be dead{PLAIN}")
    rows(
        ("JOB", "ENDED", "CREDENTIAL", "LIFE", "CONFIRMED AT", "LOGIN", "BY LOOKING"),
        [
            (
                _short(line),
                line.job["state"],
                _what(line),
                _life(line),
                moment(line.credential["confirmed_at"]),
                line.tried,
                line.credential["confirmed_how"] or line.credential["why"],
            )
            for line in lines
        ],
    )
    ledger = stage.act("auditor", "ledger", "verify")
    say(
        f"The ledger's {ledger['entries']} entries in {ledger['jobs']} chains are unbroken."
        if not ledger["problems"]
        else str(ledger["problems"])
    )
    mortal, keys = [line for line in lines if not line.stays], {_what(line) for line in lines if line.stays}
    proven = bool(mortal) and all(line.proven for line in mortal) and not ledger["problems"]
    say(
        f"\n{GREEN if proven else RED}{len(mortal)} credentials, {'all proven dead' if proven else 'NOT all proven dead'}{PLAIN}, in {_took(began)}. "
        f"No job ever saw {', '.join(sorted(keys))}: only the gateway used it."
    )
    return 0 if proven else 1


def approvals(stage: Stage) -> list[Line]:
    """An agent answers a refund ticket: one read by policy, one write by its owner's approval, one wish that is denied."""
    title("A refund: policy allows a read, lead approves a write, security denies the optional admin access")
    job = stage.launch("refund-triage", "ticket=4711")
    waiting = stage.until(job, "awaiting_approval", *ENDED)
    for request in waiting["requests"]:
        tier = f"waits for tier {request['tier']}" if request["state"] == "pending" else request["state"]
        say(f"  {request['action']} on {request['resource']}: {tier}, by {', '.join(request['policies'])}")
    write, admin = (_request(waiting, resource, action) for resource, action in (("refunds-db", "write"), ("orders-db", "admin")))
    stage.act("lead", "request", "approve", write["id"], "--reason", "ticket 4711 is right")
    stage.act("security", "request", "deny", admin["id"], "--reason", "a refund needs no admin access")
    logins = [stage.witness.heard(job), stage.witness.heard(job)]
    seen = _ended(stage, job, "succeeded")
    for line in stage.act("ops", "job", "logs", job).get("items", []):
        say("".join(f"  {DIM}│{PLAIN} {text}\n" for text in line["text"].splitlines()).rstrip())
    return _tried(stage, seen, logins)


def failure(stage: Stage) -> list[Line]:
    """A job that fails."""
    title("A job that fails")
    job = stage.launch("failing")
    login = stage.witness.heard(job)
    return _tried(stage, _ended(stage, job, "failed"), [login])


def kill(stage: Stage) -> list[Line]:
    """A job that somebody kills."""
    title("A job that is killed while it holds a database session open")
    job = stage.launch("long-running", "seconds=300")
    login = stage.witness.heard(job)
    stage.act("ops", "job", "kill", job)
    return _tried(stage, _ended(stage, job, "killed"), [login])


def terminated(stage: Stage) -> list[Line]:
    """A job whose workflow is terminated: no code of it ever runs again, but a person had approved it, so a guard stands beside it."""
    title("A job with approved write access, whose workflow is terminated behind our back")
    job = stage.launch("long-writing", "seconds=300")
    waiting = stage.until(job, "awaiting_approval", *ENDED)
    stage.act("lead", "request", "approve", waiting["requests"][0]["id"], "--reason", "refunds come in today")
    login = stage.witness.heard(job)
    stage.terminate(job)
    return _tried(stage, _ended(stage, job, "lost"), [login])


def narrowed(stage: Stage) -> list[Line]:
    """A write of which only a read is approved, and that is then taken back while its job goes on."""
    title("A write of which lead approves only two minutes of reading, and then takes that back")
    job = stage.launch("long-writing", "seconds=300")
    request = stage.until(job, "awaiting_approval", *ENDED)["requests"][0]["id"]
    stage.act("lead", "request", "approve", request, "--action", "read", "--ttl", "2m")
    login = stage.witness.heard(job)
    refused = stage.witness.refuses_to_write(login)
    if refused is None:
        raise DemoFailed(f"{login.user} was to read only, and can write")
    say(f"  It may look at refunds. Writing one: {refused}")
    stage.act("lead", "request", "withdraw", request, "--reason", "the refunds are for tomorrow")
    say("  Its program finds its session cut, and gives up:")
    return _tried(stage, _ended(stage, job, "failed"), [login])


def locked(stage: Stage) -> list[Line]:
    """A write that is locked twice: our worker and Vault each ask people, and each of them asks the same ones."""
    title("A payout behind two locks: without security's word Vault itself gives it to nobody, our worker included")
    job = stage.launch("pay-out", "order=100001", "amount=19.90")
    request = stage.until(job, "awaiting_approval", *ENDED)["requests"][0]
    entries = stage.act("auditor", "job", "timeline", job, quiet=True)["items"]
    lock: Json = next(entry["data"] for entry in entries if entry["type"] == "lock.opened")
    asked = f"{lock['approvals']} of {' or '.join(lock['groups'])}"
    say(f"  {request['action']} on {request['resource']} waits in Vault (accessor {lock['accessor']}) until {asked} authorizes it there.")
    stage.act("security", "request", "approve", request["id"], "--reason", "the customer's account is checked")
    login = stage.witness.heard(job)
    return _tried(stage, _ended(stage, job, "succeeded"), [login])


def agent(stage: Stage) -> list[Line]:
    """An agent that never holds a secret: each call of a tool is decided on its own, made by the gateway, and its credential dead right after."""
    title("An AI agent works a ticket by tools alone: reads freely, asks for a refund and for a customer, and is denied an export")
    job = stage.launch("support-agent", hands_over=False)
    for who, resource, reason in (
        ("lead", "refunds-db", "the ticket is right, and so is the amount"),
        ("security", "customers-db", "this one customer, for this ticket"),
    ):
        request = stage.asked(job, resource)
        call: Json = stage.act(who, "request", "show", request["id"])["call"]
        say(f"  It wants to call {call['tool']}, once, with exactly {json.dumps(call['arguments'])}")
        stage.act(who, "request", "approve", request["id"], "--reason", reason)
    seen = _ended(stage, job, "succeeded")
    entries = stage.act("auditor", "job", "timeline", job)["items"]
    calls = [entry["data"] for entry in entries if entry["type"] == "tool.called"]
    why = {entry["data"]["request"]: entry["data"]["policies"] for entry in entries if entry["type"] == "access.decided"}
    rows(("TOOL", "ACTION", "OUTCOME", "BY", "MS"), [_call(call, why) for call in calls])
    if [call["tool"] for call in calls if call["outcome"] == "denied"] != ["export-customers"]:
        raise DemoFailed("the agent was to be denied the export, and nothing else")
    left = stage.witness.users_of(job)
    say(
        f"  Its logins never left the gateway. Users of it that the database knows: {GREEN}none{PLAIN}"
        if not left
        else f"  {RED}{left}{PLAIN}"
    )
    return [Line(seen, item, "never told", dead=not left) for item in seen["credentials"]]


def title(text: str) -> None:
    """Open an act."""
    say(f"\n{BOLD}── {text}{PLAIN}")


def _ended(stage: Stage, job: str, state: str) -> Json:
    seen = stage.until(job, *ENDED)
    if seen["state"] != state:
        raise DemoFailed(f"{job} ended {seen['state']} ({seen['reason']}), not {state}")
    why = f" ({seen['reason']})" if seen["reason"] else ""
    say(f"  {seen['name']} ended: {state}{why}; revocation {seen['revocation']['state']}")
    stage.act("auditor", "credential", "prove", job)
    return seen


def _tried(stage: Stage, seen: Json, logins: list[Login]) -> list[Line]:
    by_user: dict[str, str | None] = {}
    for login in logins:
        if not login.worked:
            raise DemoFailed(f"{login.user} did not work while its job ran")
        refused = stage.witness.tried(login.user, login.password)
        say(f"  Its login worked while it ran. Now: {GREEN}{refused}{PLAIN}" if refused else f"  {RED}{login.user} STILL WORKS{PLAIN}")
        by_user[login.user] = refused
    return [_line(seen, credential, _refusal(credential, by_user)) for credential in seen["credentials"]]


def _line(job: Json, credential: Json, refused: str | None) -> Line:
    return Line(job, credential, "refused" if refused else "not tried", dead=(refused or "").startswith("FATAL"))


def _call(call: Json, why: dict[str, list[str]]) -> tuple[str, ...]:
    return call["tool"], call["action"], call["outcome"], ", ".join(why.get(call["request"], [])), str(call["duration_ms"])


def _refusal(credential: Json, by_user: dict[str, str | None]) -> str | None:
    # The lease's path ends in the role, and so does the user's name, which may be cut.
    role = str(credential["lease_id"]).split("/")[2]
    return next((refused for user, refused in by_user.items() if role.startswith(user.rpartition(f"{credential['job_id']}-")[2])), None)


def _request(job: Json, resource: str, action: str) -> Json:
    found: Json = next(item for item in job["requests"] if (item["resource"], item["action"]) == (resource, action))
    return found


def _short(line: Line) -> str:
    return str(line.job["name"])


def _what(line: Line) -> str:
    return f"{line.credential['resource']}:{line.credential['action']}"


def _life(line: Line) -> str:
    if not line.credential["confirmed_at"]:
        return "-"
    issued, confirmed = (datetime.fromisoformat(line.credential[name]) for name in ("issued_at", "confirmed_at"))
    return f"{(confirmed - issued).total_seconds():.2f} s"


def _took(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"
