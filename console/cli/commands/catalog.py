"""`justenough catalog`: check a configuration folder, list the console's catalog, review its use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli import terminal
from console.cli.client.api import connect_api
from console.cli.client.config import config_folder
from console.cli.errors import ExitCode
from console.cli.json_object import Json
from console.cli.options import command, command_group
from console.cli.render.output import emit, join_values, note, print_fields, print_table
from console.cli.time_arguments import parse_time_argument
from console.presentation.event_text import duration_label
from console.presentation.terminal_text import moment, plain
from justenough.domain.core.errors import InvalidInput

if TYPE_CHECKING:
    from justenough.adapters.configuration.folder import ConfigSet

Folder = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="The configuration folder; default: JUSTENOUGH_CONFIG.", show_default=False)
]

catalog = command_group("Check, list and review the catalog: what jobs can request.")


@catalog.command("check")
@command
def check_catalog(folder: Folder = None) -> None:
    """Check a configuration folder: catalog, tiers and policies. Exit 2 if it has errors; warn of actions without a review date and of unreviewed tools."""
    from justenough.domain.catalog.access_review import find_undated_actions  # noqa: PLC0415 - loads pydantic's models

    where = folder or config_folder()
    found = load_config(where)
    warnings = find_undated_actions(found.catalog)
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
            *({"where": f"tools.{name}.mcp", "message": why} for name, why in found.catalog.withheld_upstreams.items()),
        ],
    }
    emit(summary, table=_print_summary, names=lambda _: found.catalog.resources)


@catalog.command("list")
@command
def list_catalog() -> None:
    """List what jobs can request, according to the console."""
    emit(connect_api().get("/catalog"), table=_print_catalog, names=lambda found: (resource["name"] for resource in found["resources"]))


@catalog.command("review")
@command
def review_catalog(
    folder: Folder = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Consider use from this time on: an age, a date or a time.")
    ] = "90d",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 if there is something to review.")] = False,
) -> None:
    """List actions of the catalog that are unused, broader than their use, or due for review, with their owners and what to do."""
    from justenough.domain.catalog.access_review import build_access_review  # noqa: PLC0415 - loads pydantic's models
    from justenough.domain.rightsizing.usage import AccessKey, ActionUse  # noqa: PLC0415 - the same

    found, now = load_config(folder or config_folder()), datetime.now(UTC)
    begin = parse_time_argument("--since", since, now=now)
    usage = connect_api().get_all("/catalog/usage", page_size=100, since=begin.isoformat())
    uses = {AccessKey(use["resource"], use["action"]): ActionUse.model_validate(use) for use in usage}
    items = [
        {"id": f"{one.resource}:{one.action}", **one.model_dump(mode="json")}
        for one in build_access_review(found.catalog, uses, now=now, since=begin)
    ]
    emit({"items": items, "next": None}, table=_print_findings, names=lambda _: dict.fromkeys(one["id"] for one in items))
    if not items:
        note("Nothing to review.")
    if items and exit_code:
        raise typer.Exit(ExitCode.FAILURE)


def load_config(folder: Path) -> ConfigSet:
    """Load a configuration folder. Raises InvalidInput with the problems of all its files."""
    from justenough.adapters.configuration.folder import ConfigFolder, check_config_folder  # noqa: PLC0415 - loads the policy engine

    problems = check_config_folder(folder)
    if problems:
        raise InvalidInput(str(folder), problems)
    return ConfigFolder(folder).current()


def _print_summary(summary: Json) -> None:
    print_fields((name.capitalize(), value) for name, value in summary.items() if name != "warnings")
    for warning in summary["warnings"]:
        terminal.write_line(plain(f"warning: {warning['where']}: {warning['message']}"))


def _print_findings(review: Json) -> None:
    header = ("ACTION", "OWNER", "FINDING", "LAST ISSUED", "WHY", "WHAT TO DO")
    lines = [
        (one["id"], one["owner"], one["kind"], moment(one["last_issued"]) or "never", one["why"], one["todo"]) for one in review["items"]
    ]
    if lines:
        print_table(header, lines)


def _print_catalog(found: Json) -> None:
    header = ("RESOURCE", "ACTION", "MAX TTL", "ENVIRONMENT", "SENSITIVITY", "EXTERNAL", "REVOCABLE", "SCOPE", "OWNER", "TITLE")
    print_table(
        header,
        [
            (
                *(resource["name"], action["action"], duration_label(action["max_ttl"]), resource["environment"], resource["sensitivity"]),
                *("yes" if resource["external"] else "no", action["revocable"], join_values(action["data_scope"])),
                *(resource["owner"], resource["title"]),
            )
            for resource in found["resources"]
            for action in resource["actions"]
        ],
    )
    if found.get("tools"):
        terminal.write_line("")
        print_table(
            ("TOOL", "NEEDS", "KIND", "DESCRIPTION"),
            [
                (
                    tool["name"],
                    f"{tool['resource']}:{','.join(tool['actions'])}",
                    f"{tool['kind']} ({tool['upstream']})" if tool.get("upstream") else tool["kind"],
                    tool["description"],
                )
                for tool in found["tools"]
            ],
        )
    for one in found.get("withheld", ()):
        terminal.write_line(plain(f"warning: {one['why']}"))
