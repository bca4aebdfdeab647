"""The program's own commands by section: each with its first sentence and its module. Loads none of them.

Help and completion are built from this list, because the commands themselves take time to load. A test compares it with them.
"""

from __future__ import annotations

from dataclasses import dataclass

MODULES = "console.cli.commands"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A command or a group of commands."""

    section: str
    target: str
    """`module:attribute` below console.cli.commands; the attribute is a command's function, or the `app` of a group."""
    summary: str
    """The first sentence of a command's help, or the whole help of a group."""
    docs: str = ""
    """The page of the docs about it."""


JOBS, ACCESS, RECORDS, CONFIGURATION, LOGIN, SERVERS = "Jobs", "Approvals and access", "Records", "Configuration", "Your login", "Servers"
SECTIONS = (JOBS, ACCESS, RECORDS, CONFIGURATION, LOGIN, SERVERS)
"""In the order of the help. Commands of other packages name theirs by `rich_help_panel`."""

COMMANDS: dict[str, IndexEntry] = {
    "job": IndexEntry(JOBS, "job:app", "Launch, show, follow and stop jobs.", "docs/reference/cli.md"),
    "schedule": IndexEntry(
        JOBS, "schedule:app", "Show, pause and run schedules, which launch jobs at set times.", "docs/how-to/triggers.md"
    ),
    "request": IndexEntry(ACCESS, "request:app", "Show, approve and deny requests for access.", "docs/how-to/approve.md"),
    "review": IndexEntry(ACCESS, "review:app", "List and answer the reviews of break-glass approvals.", "docs/how-to/approve.md"),
    "delegation": IndexEntry(
        ACCESS, "delegation:app", "Let a delegate decide requests for you while you are away.", "docs/how-to/approve.md"
    ),
    "credential": IndexEntry(ACCESS, "credential:app", "List, revoke and verify the credentials of jobs.", "docs/how-to/runbook.md"),
    "sweep": IndexEntry(ACCESS, "sweep:sweep", "Revoke leftover credentials now."),
    "find": IndexEntry(RECORDS, "find:find", "Find jobs, credentials, resources, people and more."),
    "ledger": IndexEntry(RECORDS, "ledger:app", "Read, export and verify the ledger.", "docs/reference/ledger.md"),
    "report": IndexEntry(RECORDS, "report:report", "Report on a period of the ledger."),
    "webhook": IndexEntry(
        RECORDS, "webhook:app", "Show webhooks and notifications, and resend failed deliveries.", "docs/how-to/alerts.md"
    ),
    "init": IndexEntry(CONFIGURATION, "init:init", "Write a configuration folder."),
    "catalog": IndexEntry(
        CONFIGURATION, "catalog:app", "Check, list and review the catalog: what jobs can request.", "docs/reference/catalog.md"
    ),
    "policy": IndexEntry(CONFIGURATION, "policy:app", "Check, explain, test and replay policies.", "docs/how-to/policies.md"),
    "login": IndexEntry(LOGIN, "login:login", "Log in to Vault."),
    "logout": IndexEntry(LOGIN, "login:logout", "Revoke your Vault token and delete the login file."),
    "whoami": IndexEntry(LOGIN, "login:whoami", "Show your login: name, groups, roles and approval tier."),
    "profile": IndexEntry(LOGIN, "profile:app", "List the logins on this machine, and choose one.", "docs/reference/cli.md"),
    "api": IndexEntry(RECORDS, "api:api", "Send a request to the REST API, and print its JSON answer."),
    "man": IndexEntry(LOGIN, "man:man", "Print the manual page of a command."),
    "console": IndexEntry(SERVERS, "servers:console", "Run the console."),
    "demo": IndexEntry(SERVERS, "servers:demo", "Run the example shop's jobs on real servers."),
}
