"""Prints what the demo has left behind, and the page of the console that shows each part of it."""

from __future__ import annotations

from dataclasses import dataclass

from console.cli.demo.environment import BOLD, DIM, PLAIN, say
from console.cli.demo.population import BACKUP_NAME, Population


@dataclass(frozen=True)
class GuideLine:
    """A page that is worth visiting."""

    person: str
    """Who sees it best."""
    path: str
    text: str


def guide_lines(population: Population) -> tuple[GuideLine, ...]:
    jobs, requests = population.jobs, population.requests
    return (
        GuideLine("lead", "/now", "the dashboard: what needs attention, first what is overdue"),
        GuideLine("lead", "/wall", "the same for a screen on the wall"),
        GuideLine("lead", "/inbox", "requests that wait for lead: three of them alike, one of them claimed; a break-glass review"),
        GuideLine("security", "/inbox", "requests that wait for security: two escalated from tier 1, one past half its time"),
        GuideLine("lead", f"/inbox/{requests['claimed']}", "the claimed request"),
        GuideLine("security", f"/inbox/{requests['tier 2']}", "a payout, with what differs from the last one"),
        GuideLine("chief2", f"/inbox/{requests['half approved']}", "a request that escalated twice: chief has approved it, chief2 has not"),
        GuideLine("lead", f"/inbox/{requests['break-glass open']}", "break-glass by oncall, not reviewed yet"),
        GuideLine("security", "/delegations", "the delegation from lead to security"),
        GuideLine("lead", "/jobs", "every job; try the filters, the columns and the export"),
        GuideLine("lead", "/jobs?state=failed", "the failed jobs"),
        GuideLine("lead", f"/jobs/{jobs['overdue']}", "the overdue revocation"),
        GuideLine("lead", f"/jobs/{jobs['agent']}", "an agent that was denied three of its calls"),
        GuideLine("lead", f"/jobs/{jobs['waiting agent']}", "an agent that waits for its refund"),
        GuideLine("lead", f"/jobs/{jobs['shortened']}", "a running job whose access was shortened to four minutes"),
        GuideLine("lead", f"/jobs/{jobs['withdrawn']}", "a job whose approval was withdrawn while it ran"),
        GuideLine("lead", "/jobs/by-name/refund-globex", "every run of one job"),
        GuideLine("lead", "/resources/refunds-db", "who has, had and requested access to one resource"),
        GuideLine("lead", "/people/oncall", "what one person launched and decided"),
        GuideLine("lead", "/agents/support-agent", "the tool calls, tokens and denials of one agent"),
        GuideLine("lead", "/credentials", "what is active now"),
        GuideLine("lead", "/search?q=100291", "what the search finds for an order; try a person, a reason or a resource, too"),
        GuideLine("ops", "/operations/schedules", "a schedule that was run, and one that is paused"),
        GuideLine("lead", "/operations/deliveries", "a webhook whose deliveries fail"),
        GuideLine("auditor", "/report", "the evidence report"),
    )


def print_guide(population: Population) -> None:
    """Print the guide, and how to end the problems that the demo has caused on purpose."""
    console = population.demo.stack["console"]
    say(f"\n{BOLD}What there is to see{PLAIN}, and as whom")
    # Not as a table, which would shorten the addresses to fit a terminal.
    for line in guide_lines(population):
        say(f"{line.person:<9}{line.text}\n         {DIM}{console}{line.path}{PLAIN}")
    say(
        f"\nOne revocation is overdue on purpose: a database session named {BACKUP_NAME} locks a table in the job's space."
        f"\nEnd that session, and the revocation is verified within a minute:  kill {population.backup}"
    )
