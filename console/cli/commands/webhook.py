"""`justenough webhook`: who is told of events, what could not be delivered, sending it again, trying whether something arrives."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, Limit, path_segment
from console.cli.client.api import connect_api
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.options import command, command_group
from console.cli.render.output import emit, emit_page, note
from console.presentation.terminal_text import moment

Subscription = Annotated[str, typer.Argument(metavar="NAME", help="A webhook's or notification's name.")]

app = command_group("See who is told of events, and send again what could not be delivered.")


@app.command("list")
@command
def list_webhooks() -> None:
    """List webhooks and notifications, and how each stands."""
    emit_page(
        connect_api().get("/webhooks"),
        header=("NAME", "KIND", "STATE", "LAG", "PENDING", "DEAD", "DELIVERED", "LAST", "TO", "WHY NOT"),
        row=lambda item: (
            *(item["name"], item["kind"], item["state"], f"{item['lag_seconds']} s", item["pending"], item["dead"], item["delivered"]),
            *(moment(item["delivered_at"]), ", ".join(item["to"]), item["why"]),
        ),
        empty="Nobody is told of events: triggers.yaml names no webhooks and no notify.",
        name="name",
    )


@app.command("deliveries")
@command
def deliveries(
    name: Subscription,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that are not tried any more.")] = False,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List what could not be delivered until now, the newest event first."""
    emit_page(
        connect_api().get(f"/webhooks/{path_segment(name)}/deliveries", state="dead" if dead else None, limit=limit, cursor=cursor),
        header=("ID", "STATE", "EVENT", "JOB", "HAPPENED", "ATTEMPTS", "LAST", "NEXT", "WHY NOT"),
        row=lambda item: (
            *(item["id"], item["state"], item["type"], item["job"], moment(item["at"]), item["attempts"], moment(item["last_at"])),
            *(moment(item["next_at"]), item["why"]),
        ),
        empty="No dead letters." if dead else "Everything is delivered.",
    )


@app.command("resend")
@command
def resend(
    name: Subscription,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="Ids of dead letters.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of its dead letters.")] = False,
) -> None:
    """Send dead letters again, as if they were new."""
    if bool(ids) is everything:
        raise Failure(
            "name dead letters, or say --all", code=ExitCode.USAGE, hint=f"Which there are: justenough webhook deliveries {name} --dead"
        )
    api, path = connect_api(), f"/webhooks/{path_segment(name)}"
    if everything:
        _, found = api.post(f"{path}/resend", idempotent=True)
    else:
        counts = [api.post(f"{path}/deliveries/{path_segment(one)}/resend")[1]["resent"] for one in ids or ()]
        found = {"subscription": name, "resent": sum(counts)}
    emit(found, table=lambda item: terminal.write_line(f"{item['resent']} on their way again"), names=lambda item: (item["subscription"],))


@app.command("test")
@command
def test(name: Subscription) -> None:
    """Send something that means nothing, and tell what became of it. Exit 1 where it did not arrive."""
    _, found = connect_api().post(f"/webhooks/{path_segment(name)}/test")
    emit(found, table=_print_test_result, names=lambda item: (item["subscription"],))
    if not found["arrived"]:
        note(f"What to look at: docs/reference/events.md; what waits for it: justenough webhook deliveries {name}")
        raise typer.Exit(ExitCode.FAILURE)


def _print_test_result(item: Json) -> None:
    terminal.write_line(f"{item['subscription']}: {'arrived' if item['arrived'] else 'did not arrive'} ({item['detail']})")
