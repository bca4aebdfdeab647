"""`justenough webhook`: list webhooks and notifications, show failed deliveries, resend them, send a test."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, Limit, path_segment
from console.cli.client.connect import connect_api
from console.cli.completion import complete_items
from console.cli.errors import ExitCode, WrongUsage
from console.cli.json_object import Json
from console.cli.options import command_group, run_for_each
from console.cli.render.output import emit, emit_page, note
from console.presentation.terminal_text import moment

complete_subscription = complete_items("/webhooks", lambda item: f"{item['kind']}, {item['state']}", name="name")
Subscription = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a webhook or notification.", autocompletion=complete_subscription)
]

app = command_group()


@app.list_command("list")
def list_webhooks() -> None:
    """List webhooks and notifications, with their delivery state."""
    emit_page(
        connect_api().get("/webhooks"),
        header=("NAME", "KIND", "STATE", "LAG", "PENDING", "DEAD", "DELIVERED", "LAST", "TO", "ERROR"),
        row=lambda item: (
            *(item["name"], item["kind"], item["state"], f"{item['lag_seconds']} s", item["pending"], item["dead"], item["delivered"]),
            *(moment(item["delivered_at"]), ", ".join(item["to"]), item["why"]),
        ),
        empty="No webhooks or notifications. Add them to triggers.yaml, under webhooks or notify.",
        name="name",
    )


@app.list_command("deliveries")
def deliveries(
    name: Subscription,
    dead: Annotated[bool, typer.Option("--dead", help="Only dead letters: deliveries that are no longer retried.")] = False,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List failed deliveries, newest event first."""
    emit_page(
        connect_api().get_page(f"/webhooks/{path_segment(name)}/deliveries", state="dead" if dead else None, limit=limit, cursor=cursor),
        header=("ID", "STATE", "EVENT", "JOB", "HAPPENED", "ATTEMPTS", "LAST", "NEXT", "ERROR"),
        row=lambda item: (
            *(item["id"], item["state"], item["type"], item["job"], moment(item["at"]), item["attempts"], moment(item["last_at"])),
            *(moment(item["next_at"]), item["why"]),
        ),
        empty="No dead letters." if dead else "No failed deliveries.",
    )


@app.command("resend")
def resend(
    name: Subscription,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of dead letters.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Resend every dead letter of this webhook or notification.")] = False,
) -> None:
    """Resend dead letters as new deliveries.

    Examples:
    justenough webhook resend siem --all

    """
    if bool(ids) is everything:
        hint = f"List them: justenough webhook deliveries {name} --dead"
        raise WrongUsage("give either the ids of dead letters or --all", hint=hint)
    api, path = connect_api(), f"/webhooks/{path_segment(name)}"

    def show(counts: list[Json]) -> None:
        resent = sum(count["resent"] for count in counts)
        text = f"{resent} queued for delivery"
        emit({"subscription": name, "resent": resent}, table=lambda _: terminal.write_line(text), name="subscription")

    run_for_each(
        ids or [name],
        lambda one: api.post(f"{path}/resend" if everything else f"{path}/deliveries/{path_segment(one)}/resend", idempotent=everything),
        show=show,
    )


@app.command("test")
def test(name: Subscription) -> None:
    """Send a test event and show whether it arrived. Exit 1 if it did not."""
    found = connect_api().post(f"/webhooks/{path_segment(name)}/test")
    outcome = f"{found['subscription']}: {'arrived' if found['arrived'] else 'did not arrive'} ({found['detail']})"
    emit(found, table=lambda _: terminal.write_line(outcome), name="subscription")
    if not found["arrived"]:
        note(f"What to check: docs/reference/events.md. Failed deliveries: justenough webhook deliveries {name}")
        raise typer.Exit(ExitCode.FAILURE)
