"""`justenough catalog`: the configuration folder checked here, and the console's catalog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli import terminal
from console.cli.client.api import Api, Json, connected
from console.cli.client.config import config_folder
from console.cli.errors import Exit
from console.cli.options import command, group
from console.cli.render.output import emit, fields, joined, note, rows
from console.cli.time_arguments import moment_of
from console.presentation.event_text import duration
from console.presentation.terminal_text import moment, plain
from justenough.domain.core.errors import InvalidInput

if TYPE_CHECKING:
    from justenough.adapters.configuration.folder import ConfigSet

Folder = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="The configuration folder; default: JUSTENOUGH_CONFIG.", show_default=False)
]

catalog = group("What can be asked for.")


@catalog.command("check")
@command
def check_catalog(folder: Folder = None) -> None:
    """Check the configuration folder: every problem of catalog, tiers and policies (exit 2); warn of actions without a review date and of unreviewed tools."""
    from justenough.domain.catalog.access_review import undated  # noqa: PLC0415 - loads pydantic's models

    where = folder or config_folder()
    found = checked(where)
    warnings = undated(found.catalog)
    summary = {
        "folder": str(where),
        "digest": found.digest,
        "resources": len(found.catalog.resources),
        "actions": sum(len(resource.actions) for resource in found.catalog.resources.values()),
        "tools": len(found.catalog.callable),
        "scopes": len(found.catalog.scopes),
        "tiers": len(found.tiers.tiers),
        "warnings": [
            *({"where": one.path, "message": one.message} for one in warnings),
            *({"where": f"tools.{name}.mcp", "message": why} for name, why in found.catalog.withheld.items()),
        ],
    }
    emit(summary, table=_summary, names=lambda _: found.catalog.resources)


@catalog.command("list")
@command
def list_catalog() -> None:
    """List what can be asked for, as the console has it."""
    emit(connected().get("/catalog"), table=_catalog, names=lambda found: (resource["name"] for resource in found["resources"]))


@catalog.command("review")
@command
def review_catalog(
    folder: Folder = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Look at use since then: how long ago, or a date or time.")] = "90d",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 where there is something to review.")] = False,
) -> None:
    """List what of the catalog nobody uses, is broader than its use, or is due for review, each with its owner and what to do."""
    from justenough.domain.catalog.access_review import reviewed  # noqa: PLC0415 - loads pydantic's models
    from justenough.domain.rightsizing.usage import ActionUse, Key  # noqa: PLC0415 - the same

    found, now = checked(folder or config_folder()), datetime.now(UTC)
    begin = moment_of("--since", since, now=now)
    uses = {Key(use["resource"], use["action"]): ActionUse.model_validate(use) for use in _uses(connected(), begin)}
    items = [
        {"id": f"{one.resource}:{one.action}", **one.model_dump(mode="json")} for one in reviewed(found.catalog, uses, now=now, since=begin)
    ]
    emit({"items": items, "next": None}, table=_findings, names=lambda _: dict.fromkeys(one["id"] for one in items))
    if not items:
        note("Nothing to review.")
    if items and exit_code:
        raise typer.Exit(Exit.FAILURE)


def checked(folder: Path) -> ConfigSet:
    """Return what a configuration folder holds; raise InvalidInput with every problem of every file."""
    from justenough.adapters.configuration.folder import Config, check  # noqa: PLC0415 - loads the policy engine

    problems = check(folder)
    if problems:
        raise InvalidInput(str(folder), problems)
    return Config(folder).current()


def _summary(summary: Json) -> None:
    fields((name.capitalize(), value) for name, value in summary.items() if name != "warnings")
    for warning in summary["warnings"]:
        terminal.line(plain(f"warning: {warning['where']}: {warning['message']}"))


def _findings(told: Json) -> None:
    header = ("ACTION", "OWNER", "FINDING", "LAST ISSUED", "WHY", "WHAT TO DO")
    lines = [
        (one["id"], one["owner"], one["kind"], moment(one["last_issued"]) or "never", one["why"], one["todo"]) for one in told["items"]
    ]
    if lines:
        rows(header, lines)


def _uses(api: Api, since: datetime) -> Iterator[Json]:
    cursor = None
    while True:
        page = api.get("/catalog/usage", since=since.isoformat(), limit=100, cursor=cursor)
        yield from page["items"]
        cursor = page["next"]
        if cursor is None:
            return


def _catalog(found: Json) -> None:
    header = ("RESOURCE", "ACTION", "MAX TTL", "ENVIRONMENT", "SENSITIVITY", "EXTERNAL", "REVOCABLE", "SCOPE", "OWNER", "TITLE")
    rows(
        header,
        [
            (
                *(resource["name"], action["action"], duration(action["max_ttl"]), resource["environment"], resource["sensitivity"]),
                *("yes" if resource["external"] else "no", action["revocable"], joined(action["data_scope"])),
                *(resource["owner"], resource["title"]),
            )
            for resource in found["resources"]
            for action in resource["actions"]
        ],
    )
    if found.get("tools"):
        terminal.line("")
        rows(
            ("TOOL", "NEEDS", "HOW", "DESCRIPTION"),
            [(one["name"], f"{one['resource']}:{','.join(one['actions'])}", _how(one), one["description"]) for one in found["tools"]],
        )
    for one in found.get("withheld", ()):
        terminal.line(plain(f"warning: {one['why']}"))


def _how(tool: Json) -> str:
    return f"{tool['kind']} ({tool['upstream']})" if tool.get("upstream") else str(tool["kind"])
