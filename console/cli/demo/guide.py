"""Prints what the demo has left behind, and the page of the console that shows each part of it."""

from __future__ import annotations

from console.cli.demo.environment import BOLD, DIM, PLAIN, say
from console.cli.demo.population import BACKUP_NAME, Population


def guide_lines(population: Population) -> tuple[tuple[str, str, str], ...]:
    """Return for each page that is worth visiting: who sees it best, its path, and what it shows."""
    jobs, requests = population.jobs, population.requests
    return (
        ("lead", "/now", "the dashboard: what needs attention, first what is overdue"),
        ("lead", "/wall", "the same for a screen on the wall"),
        ("lead", "/inbox", "requests that wait for lead: three of them alike, one of them claimed; a break-glass review"),
        ("security", "/inbox", "requests that wait for security: two escalated from tier 1, one past half its time"),
        ("lead", f"/inbox/{requests['claimed']}", "the claimed request"),
        ("security", f"/inbox/{requests['tier 2']}", "a payout, with what differs from the last one"),
        ("chief2", f"/inbox/{requests['half approved']}", "a request that escalated twice: chief has approved it, chief2 has not"),
        ("lead", f"/inbox/{requests['break-glass open']}", "break-glass by oncall, not reviewed yet"),
        ("security", "/delegations", "the delegation from lead to security"),
        ("lead", "/jobs", "every job; try the filters, the columns and the export"),
        ("lead", "/jobs?state=failed", "the failed jobs"),
        ("lead", f"/jobs/{jobs['overdue']}", "the overdue revocation"),
        ("lead", f"/jobs/{jobs['agent']}", "an agent that was denied three of its calls"),
        ("lead", f"/jobs/{jobs['waiting agent']}", "an agent that waits for its refund"),
        ("lead", f"/jobs/{jobs['shortened']}", "a running job whose access was shortened to four minutes"),
        ("lead", f"/jobs/{jobs['withdrawn']}", "a job whose approval was withdrawn while it ran"),
        ("lead", "/jobs/by-name/refund-globex", "every run of one job"),
        ("lead", "/resources/refunds-db", "who has, had and requested access to one resource"),
        ("lead", "/people/oncall", "what one person launched and decided"),
        ("lead", "/agents/support-agent", "the tool calls, tokens and denials of one agent"),
        ("lead", "/credentials", "what is active now"),
        ("lead", "/search?q=100291", "what the search finds for an order; try a person, a reason or a resource, too"),
        ("ops", "/operations/schedules", "a schedule that was run, and one that is paused"),
        ("lead", "/operations/deliveries", "a webhook whose deliveries fail"),
        ("auditor", "/report", "the evidence report"),
    )


def print_guide(population: Population) -> None:
    """Print the guide, and how to end the problems that the demo has caused on purpose."""
    console = population.demo.stack["console"]
    say(f"\n{BOLD}What there is to see{PLAIN}, and as whom")
    # Not as a table, which would shorten the addresses to fit a terminal.
    for person, path, text in guide_lines(population):
        say(f"{person:<9}{text}\n         {DIM}{console}{path}{PLAIN}")
    say(
        f"\nOne revocation is overdue on purpose: a database session named {BACKUP_NAME} locks a table in the job's space."
        f"\nEnd that session, and the revocation is verified within a minute:  kill {population.backup}"
    )
