"""What the demo does after its acts if it keeps its servers running: it leaves realistic data behind. None of the data is invented.

Every job really runs, and every decision is made with this program's commands, by the people's own logins. Only the tiers' times are
shortened for a moment, in the demo's own approvals.yaml, because a quarter of an hour is too long to watch a request escalate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx

from console.cli.demo.demo_shop import NORMAL_TIMES, DemoShop
from console.cli.demo.environment import BOLD, PLAIN, DemoEnvironment, DemoFailed, poll_until, say
from console.cli.demo.launches import CASES, EXPIRED, FOR_CHIEFS, LATE, ROUTINE, WAITING, Launch, refund
from console.cli.demo.population import BACKUP_NAME, Population, lock_table
from console.cli.demo.scenario import print_title
from console.cli.json_object import Json
from console.cli.render.revocation import ENDED_JOB_STATES
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.webhook_signature import parse_signing_secret, signed_headers

EXPIRY_TIMES = ("2s", "2s", "2s")
CHIEF_TIMES = ("2s", "2s", "4h")
LATE_TIMES = ("20s", "2m", "4h")
"""A request at tier 1 escalates within the demo.

A request at tier 2 has used more than half its time at the demo's end; a minute later, it escalates, too.
"""
OUTCOME_TIMEOUT_S = 120.0
TRIGGER = "ticket-created"


def populate(demo: DemoEnvironment, shop: DemoShop) -> Population:
    """Launch the further jobs and decide their requests; return what there is to see. Raises DemoFailed."""
    population = Population(demo, shop)
    acts: tuple[Callable[[Population], None], ...] = (
        start_requests_for_chiefs,
        start_late_requests,
        start_agents,
        decide_requests,
        stop_jobs,
        launch_by_event_and_schedule,
        leave_requests_pending,
        finish_agent,
        wait_for_outcomes,
    )
    try:
        for act in acts:
            act(population)
    finally:
        shop.set_times(NORMAL_TIMES)
    say(f"\n{BOLD}{len(population.launched)} more jobs{PLAIN} in {time.monotonic() - population.began:.0f} s.")
    return population


def start_requests_for_chiefs(population: Population) -> None:
    """Start a request that nobody decides, a request that has escalated to the top tier and has one of its two approvals, and an overdue
    revocation.
    """
    print_title("A request that nobody decides, and one that climbs to the chiefs, of whom two must approve")
    say(f"  To make that quick, the tiers' times are shortened for a moment in {population.shop.folder}/approvals.yaml.")
    say(
        f"  Meanwhile, a job's revocation becomes overdue on purpose: a session named {BACKUP_NAME}, whose client is gone, locks its table."
    )
    population.set_times(EXPIRY_TIMES, meanwhile=ROUTINE[0])
    population.launch(EXPIRED, key="expired")
    overdue = population.launch(Launch("ops", "year-report", "the yearly report"), key="overdue")
    population.backup = lock_table(population.demo.stack["shop_dsn"], overdue)
    population.demo.wait_for_state(population.jobs["expired"], *ENDED_JOB_STATES)
    population.set_times(CHIEF_TIMES, meanwhile=ROUTINE[1])
    population.launch(FOR_CHIEFS, key="half approved")
    request = population.wait_for_write_request("half approved")
    population.wait_for_tier(request, 3)
    population.demo.run_as("chief", "request", "approve", request, "--reason", "better than a lawsuit")


def start_late_requests(population: Population) -> None:
    """Start requests that escalate, and one that has used more than half its time."""
    print_title("Requests that nobody decides in time")
    population.set_times(LATE_TIMES, meanwhile=ROUTINE[2])
    for key, launch in LATE:
        population.launch(launch, key=key)
    for key, _ in LATE:
        population.wait_for_write_request(key)
    # They climb by the times that are in force then.
    population.set_times(NORMAL_TIMES, meanwhile=ROUTINE[3])


def start_agents(population: Population) -> None:
    """Start two AI agents, which request tools while other requests are decided."""
    for key in ("agent", "waiting agent"):
        population.launch(Launch("ops", "support-agent", "the tickets of the morning"), key=key)


def decide_requests(population: Population) -> None:
    """Decide requests: approvals, denials, a shortened and a withdrawn approval, a delegate's decision, break-glass with and without a
    review.
    """
    print_title("People approve, deny, shorten, withdraw, delegate and break the glass")
    demo = population.demo
    demo.run_as("lead", "delegation", "create", "--to", "security", "--for", "5d", "--reason", "on holiday from tomorrow")
    for case in CASES:
        population.launch(case.launch, key=case.key)
    for case in CASES:
        job = population.jobs[case.key]
        for answer in case.answers:
            if answer.decision == "withdraw":
                population.wait_for_output(job)
                request = population.requests[case.key]
            else:
                request = demo.wait_for_request(job, answer.resource)["id"]
            demo.run_as(answer.person, "request", answer.decision, request, *answer.options)
            population.requests.setdefault(case.key, request)
    verdict = ("--unjustified", "--reason", "I was there, and nobody called me")
    demo.run_as("lead", "review", "answer", population.requests["break-glass reviewed"], *verdict)


def stop_jobs(population: Population) -> None:
    """Cancel two jobs, kill one, let one time out, and leave two running."""
    print_title("Jobs that are cancelled, killed and timed out, and some that keep running")
    demo = population.demo
    population.launch(Launch("lead", "year-export", "every order, for the auditors"), key="timed out")
    for key in ("running", "running too", "cancelled", "killed"):
        population.launch(Launch("oncall" if key == "running too" else "ops", "stock-watch", f"the {key.split()[0]} shift"), key=key)
    population.launch(refund("ops", 5116, "by mistake"), key="cancelled early")
    for key in ("cancelled", "killed"):
        demo.wait_for_state(population.jobs[key], "running")
    demo.run_as("ops", "job", "cancel", population.jobs["cancelled"])
    demo.run_as("security", "job", "kill", population.jobs["killed"])
    demo.wait_for_state(population.jobs["cancelled early"], "awaiting_approval")
    demo.run_as("ops", "job", "cancel", population.jobs["cancelled early"])


def launch_by_event_and_schedule(population: Population) -> None:
    """Launch a schedule's job and a job by an event of the helpdesk, and pause a schedule."""
    print_title("A schedule, run now and paused; and the helpdesk, which launches a job by a signed event")
    demo = population.demo
    population.launched.append(str(demo.run_as("ops", "schedule", "run", "nightly-reconcile", "--reason", "the night was too short")["id"]))
    demo.run_as("ops", "schedule", "pause", "weekly-figures", "--reason", "the books are being closed")
    population.jobs["by event"] = send_event(population, {"id": 4712})
    population.launched.append(population.jobs["by event"])


def send_event(population: Population, data: Json) -> str:
    """Send the event of a new ticket as the helpdesk does, with its secret from Vault; return the id of the job that it launched."""
    stack = population.demo.stack
    # As Vault's administrator, who gives the helpdesk its secret.
    headers = {"X-Vault-Token": Path(stack["admin_token_file"]).read_text().strip()}
    secret = httpx.get(f"{stack['vault']}/v1/{population.shop.signing_secret_of(TRIGGER)}", headers=headers, timeout=60, trust_env=False)
    key = parse_signing_secret(Secret(secret.raise_for_status().json()["data"]["data"]["secret"]))
    event = {"specversion": "1.0", "id": f"ticket-{time.time_ns()}", "source": "/helpdesk", "type": "com.example.ticket.created"}
    body = json.dumps({**event, "data": data}).encode()
    signed = {"Content-Type": "application/cloudevents+json", **signed_headers(event["id"], body, [key], now=datetime.now(UTC))}
    answer = httpx.post(f"{stack['console']}/api/v1/triggers/{TRIGGER}", content=body, headers=signed, timeout=60, trust_env=False)
    if answer.status_code not in {200, 201}:
        raise DemoFailed(f"the event was refused: {answer.status_code} {answer.text}")
    return str(answer.json()["id"])


def leave_requests_pending(population: Population) -> None:
    """Leave requests pending for visitors of the console; lead has claimed one of them."""
    print_title("Requests that are left for you")
    for key, launch in WAITING:
        population.launch(launch, key=key)
    for key, _ in WAITING:
        population.wait_for_write_request(key)
    population.demo.run_as("lead", "request", "claim", population.requests["claimed"], "--for", "1h")


def finish_agent(population: Population) -> None:
    """Deny one agent its refund, its read of a customer and its export; it continues without them.

    The other agent keeps waiting for its refund.
    """
    print_title("An AI agent that is denied three of its calls, and one that is left waiting")
    demo = population.demo
    for who, resource, reason in (
        ("lead", "refunds-db", "this ticket was refunded this morning"),
        ("security", "customers-db", "no refund, no address"),
        ("security", "export-api", "the ticket talks the agent into this"),
    ):
        request = demo.wait_for_request(population.jobs["agent"], resource)
        demo.run_as(who, "request", "deny", request["id"], "--reason", reason)
    population.requests["agent's call"] = demo.wait_for_request(population.jobs["waiting agent"], "refunds-db")["id"]


def wait_for_outcomes(population: Population) -> None:
    """Wait until every job that should end has ended, the revocation is overdue, and the late request has used more than half its time."""
    print_title("Until the last of them has ended")
    demo = population.demo
    left = {
        population.jobs[key] for key in ("running", "running too", "shortened", "waiting agent", "overdue", "by event", "half approved")
    }
    left |= {population.jobs[key] for key, _ in (*LATE, *WAITING)}
    for job in population.launched:
        if job not in left:
            demo.wait_for_state(job, *ENDED_JOB_STATES)
    for key in ("escalated", "escalated too"):
        population.wait_for_tier(population.requests[key], 2)

    def is_everything_there() -> Json | None:
        report = demo.run_as("auditor", "job", "show", population.jobs["overdue"], quiet=True)
        late = demo.run_as("auditor", "request", "show", population.requests["late"], quiet=True)
        opened, until = (datetime.fromisoformat(late[name]) for name in ("created_at", "expires_at"))
        # On a slow machine it may have escalated already.
        is_late = datetime.now(UTC) - opened > (until - opened) / 2 or late["current_tier"] > late["tier"]
        return report if report["revocation"]["state"] == "overdue" and is_late else None

    if poll_until(is_everything_there, within_s=OUTCOME_TIMEOUT_S) is None:
        raise DemoFailed("no revocation is overdue, or no request is late")
