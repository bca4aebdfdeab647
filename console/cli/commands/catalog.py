"""`justenough catalog`: check a configuration folder, list the console's catalog, review its use, pin the tools of MCP servers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from console.cli import terminal
from console.cli.arguments import Folder, Web, parse_time_argument, path_segment
from console.cli.client.config import config_folder, load_config
from console.cli.client.connect import connect_api, open_page
from console.cli.completion import complete_resource
from console.cli.errors import ExitCode
from console.cli.json_object import Json
from console.cli.options import command_group
from console.cli.render.output import emit, emit_page, join_values, note, print_fields, print_section, print_table
from console.presentation import policy_text
from console.presentation.event_text import duration_label
from console.presentation.terminal_text import moment, plain
from justenough.domain.core.errors import raise_problems

app = command_group()


@app.command("check")
def check_catalog(folder: Folder = None) -> None:
    """Check a configuration folder: catalog, tiers and policies. Exit 2 if it has errors. Warns of actions without a review date, of unreviewed tools, of user names that hide the job's id and of roles that do not end users as they should.

    Examples:
    justenough catalog check examples/shop

    """
    # These load pydantic's models.
    from justenough.domain.catalog import access_review, gateway_validation, mcp_upstreams, provisioned_sql, target_searches  # noqa: PLC0415
    from justenough.domain.catalog.loader import CATALOG_FILE  # noqa: PLC0415

    where = folder or config_folder()
    config = load_config(where)
    provisioned_sql.reject_unqualified_calls(config.catalog)
    raise_problems(CATALOG_FILE, gateway_validation.expensive_schema_problems(config.catalog))
    warnings = [{"where": warning.path, "message": warning.message} for warning in access_review.find_undated_actions(config.catalog)]
    warnings += [{"where": f"tools.{name}.mcp", "message": why} for name, why in config.catalog.upstreams.withheld.items()]
    warnings += [
        {"where": f"tools.{name}.mcp", "message": f"{listed.name} cannot be called: {why.message}"}
        for name, reviewed in config.catalog.upstreams.reviewed.items()
        for listed in reviewed.tools
        if (why := mcp_upstreams.why_left_out(config.catalog.tools[name], listed)) and why.code == "schema_expensive"
    ]
    # What `provision` does not write may be in Vault anyway; `vault setup` and `doctor` look there.
    searches = target_searches.search_problems(config.catalog, target_searches.provision_reader(config.catalog))
    warnings += [
        {"where": f"provision {found.path}", "message": f"{found.why}. {found.remedy}"} for found in searches if not found.is_missing
    ]
    summary = {
        "folder": str(where),
        "digest": config.digest,
        "resources": len(config.catalog.resources),
        "actions": sum(len(resource.actions) for resource in config.catalog.resources.values()),
        "tools": len(config.catalog.callable),
        "scopes": len(config.catalog.scopes),
        "tiers": len(config.tiers.tiers),
        "warnings": warnings,
    }
    emit(summary, table=_print_summary, names=lambda _: config.catalog.resources)


@app.command("add")
def add_resource(
    kind: Annotated[
        Literal["postgres", "mysql", "redis", "rabbitmq", "kubernetes", "pki", "ssh", "kv", "http"],
        typer.Argument(metavar="KIND", help="postgres, mysql, redis, rabbitmq, kubernetes, pki, ssh, kv or http."),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The resource's name: lower-case letters, digits and -.")],
    url: Annotated[
        str,
        typer.Option(
            "--url",
            metavar="URL",
            help="The resource's address, without a password, such as postgresql://HOST/DATABASE. For other kinds: docs/how-to/add-resource.md.",
        ),
    ],
    *,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="The title that people see; default: the name.")] = None,
    environment: Annotated[str | None, typer.Option("--environment", metavar="NAME", help="Default: the catalog's `defaults`.")] = None,
    sensitivity: Annotated[
        Literal["public", "internal", "confidential", "restricted"] | None,
        typer.Option("--sensitivity", help="Default: the catalog's `defaults`."),
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="GROUP", help="Default: the catalog's `defaults`.")] = None,
    schema: Annotated[str, typer.Option("--schema", metavar="NAME", help="postgres: the schema whose tables jobs use.")] = "public",
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="NAME", help="kubernetes: the namespace in which jobs may work.")
    ] = "default",
    config: Annotated[Path | None, typer.Option("--config", metavar="FOLDER", help="Default: JUSTENOUGH_CONFIG.")] = None,
) -> None:
    """Add a resource to the catalog. Writes its terms, SQL for its database and a policy test, and prints what to do next."""
    from console.cli.commands import catalog_add  # noqa: PLC0415 - loads the policy engine
    from justenough.adapters.configuration.scaffold.new_resource import NewResource  # noqa: PLC0415 - loads jinja2

    new = NewResource(
        kind,
        name,
        url,
        title=title or name,
        environment=environment,
        sensitivity=sensitivity,
        owner=owner,
        schema=schema,
        namespace=namespace,
    )
    catalog_add.add_resource(config or config_folder(), new)


@app.command("list")
def list_catalog() -> None:
    """List what jobs can request, according to the console's catalog."""
    emit(connect_api().get("/catalog"), table=_print_catalog, names=lambda catalog: (resource["name"] for resource in catalog["resources"]))


@app.command("show")
def show_resource(
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="The name of a resource.", autocompletion=complete_resource)],
    web: Web = False,
) -> None:
    """Show a resource, its actions, and who can approve them. Shows what current policy decides on each action.

    Examples:
    justenough catalog show refunds-db

    """
    api = connect_api()
    name = resource.partition(":")[0]
    if web:
        open_page(api, f"/resources/{path_segment(name)}")
        return
    emit(api.get(f"/resources/{path_segment(name)}"), table=_print_resource, name="name")


@app.list_command("review")
def review_catalog(
    folder: Folder = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Count only use from this time on: an age (24h, 7d), a date or a time.")
    ] = "90d",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 if anything is due for review.")] = False,
) -> None:
    """List actions that are unused, too broad or due for review. Shows their owners and what to do."""
    from justenough.domain.catalog.access_review import build_access_review  # noqa: PLC0415 - loads pydantic's models
    from justenough.domain.rightsizing.usage import AccessKey, ActionUse  # noqa: PLC0415 - the same

    config, now = load_config(folder or config_folder()), datetime.now(UTC)
    begin = parse_time_argument("--since", since, now=now)
    usage = connect_api().get_all("/catalog/usage", page_size=100, since=begin.isoformat())
    uses = {AccessKey(use["resource"], use["action"]): ActionUse.model_validate(use) for use in usage}
    findings = build_access_review(config.catalog, uses, now=now, since=begin)
    items = [{"id": f"{finding.resource}:{finding.action}", **finding.model_dump(mode="json")} for finding in findings]
    emit_page(
        {"items": items, "next": None},
        header=("ACTION", "OWNER", "FINDING", "LAST ISSUED", "WHY", "WHAT TO DO"),
        row=lambda item: (item["id"], item["owner"], item["kind"], moment(item["last_issued"]) or "never", item["why"], item["todo"]),
        empty="Nothing to review.",
    )
    if items and exit_code:
        raise typer.Exit(ExitCode.FAILURE)


@app.command("tools")
def tools(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the MCP server under `tools` in the catalog.")],
    folder: Folder = None,
    credential: Annotated[
        Path | None,
        typer.Option("--credential", metavar="FILE", help="A JSON object with the fields that the server's headers need; - for stdin."),
    ] = None,
    shown: Annotated[
        Path | None,
        typer.Option("--shown", metavar="FILE", help='Read the list, {"tools": […]}, from this file, not from the server; - for stdin.'),
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Pin the list: write tools/NAME.json, and its digest into catalog.yaml.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 if the list differs from the pinned one.")] = False,
) -> None:
    """Review and pin the tools of an MCP server. Shows each tool, the action that it needs, and what has changed since the review."""
    from console.cli.commands import catalog_tools  # noqa: PLC0415 - loads MCP's whole SDK

    catalog_tools.compare_tool_list(name, folder or config_folder(), credential=credential, shown=shown, pin=pin, exit_code=exit_code)


def _print_summary(summary: Json) -> None:
    print_fields(*((name.capitalize(), value) for name, value in summary.items() if name != "warnings"))
    for warning in summary["warnings"]:
        terminal.write_line(plain(f"warning: {warning['where']}: {warning['message']}"))


def _print_resource(resource: Json) -> None:
    print_fields(
        ("Resource", f"{resource['name']} ({resource['title']})"),
        ("Environment", resource["environment"]),
        ("Sensitivity", resource["sensitivity"]),
        ("External", "yes" if resource["external"] else "no"),
        ("Owner", resource["owner"]),
    )
    terminal.write_line("")
    print_table(
        ("ACTION", "CURRENT POLICY", "MAX TTL", "REVOCABLE", "DECIDED BY"),
        [
            (
                *(action["action"], policy_text.outcome(action), duration_label(action["max_ttl"])),
                *(action["revocable"], join_values(action["policies"])),
            )
            for action in resource["actions"]
        ],
    )
    print_section(
        ("TIER", "APPROVALS", "WHO CAN APPROVE"),
        [
            (
                f"{tier['tier']} ({tier['name']})",
                tier["quorum"],
                join_values(f"{one['group']} ({join_values(one['names'])})" if one["names"] else one["group"] for one in tier["groups"]),
            )
            for tier in resource["deciders"]
        ],
    )
    note("Approvers of a higher tier can approve at a lower one, too. The reasons of a decision: justenough policy explain RESOURCE:ACTION")


def _print_catalog(catalog: Json) -> None:
    header = ("RESOURCE", "ACTION", "MAX TTL", "ENVIRONMENT", "SENSITIVITY", "EXTERNAL", "REVOCABLE", "SCOPE", "OWNER", "TITLE")
    print_table(
        header,
        [
            (
                *(resource["name"], action["action"], duration_label(action["max_ttl"]), resource["environment"], resource["sensitivity"]),
                *("yes" if resource["external"] else "no", action["revocable"], join_values(action["data_scope"])),
                *(resource["owner"], resource["title"]),
            )
            for resource in catalog["resources"]
            for action in resource["actions"]
        ],
    )
    print_section(
        ("TOOL", "NEEDS", "KIND", "DESCRIPTION"),
        [
            (
                tool["name"],
                f"{tool['resource']}:{','.join(tool['actions'])}",
                f"{tool['kind']} ({tool['upstream']})" if tool.get("upstream") else tool["kind"],
                tool["description"],
            )
            for tool in catalog.get("tools") or ()
        ],
    )
    for upstream in catalog.get("withheld", ()):
        terminal.write_line(plain(f"warning: {upstream['why']}"))
