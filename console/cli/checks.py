"""`justenough catalog`: the configuration folder checked here, and the console's catalog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.addresses import config_folder
from console.cli.client import Json, connected
from console.cli.options import command, group
from console.cli.output import emit, fields, joined, rows
from console.cli.telling import duration
from justenough.errors import InvalidInput

if TYPE_CHECKING:
    from activities.config import ConfigSet

Folder = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER]", help="The configuration folder; default: JUSTENOUGH_CONFIG.", show_default=False)
]

catalog = group("What can be asked for.")


@catalog.command("check")
@command
def check_catalog(folder: Folder = None) -> None:
    """Check the configuration folder: every problem of catalog, tiers and policies. Exit 2 where there is one."""
    where = folder or config_folder()
    found = checked(where)
    summary = {
        "folder": str(where),
        "digest": found.digest,
        "resources": len(found.catalog.resources),
        "actions": sum(len(resource.actions) for resource in found.catalog.resources.values()),
        "scopes": len(found.catalog.scopes),
        "tiers": len(found.tiers.tiers),
    }
    emit(summary, table=_summary, names=lambda _: found.catalog.resources)


@catalog.command("list")
@command
def list_catalog() -> None:
    """List what can be asked for, as the console has it."""
    emit(connected().get("/catalog"), table=_catalog, names=lambda found: (resource["name"] for resource in found["resources"]))


def checked(folder: Path) -> ConfigSet:
    """Return what a configuration folder holds; raise InvalidInput with every problem of every file."""
    from activities.config import Config, check  # noqa: PLC0415 - loads the policy engine

    problems = check(folder)
    if problems:
        raise InvalidInput(str(folder), problems)
    return Config(folder).current()


def _summary(summary: Json) -> None:
    shown = {name: joined(value) if isinstance(value, list) else value for name, value in summary.items()}
    fields((name.capitalize(), value) for name, value in shown.items())


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
