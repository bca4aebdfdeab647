"""`justenough delegation`: name a delegate who decides requests for you while you are away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from console.cli.arguments import Cursor, Limit, Reason, parse_duration_option, path_segment, require_reason
from console.cli.client.connect import connect_api
from console.cli.completion import MAX_FETCHED, complete_items
from console.cli.json_object import Json
from console.cli.options import command_group
from console.cli.render.output import emit, emit_page, print_fields
from console.presentation.terminal_text import moment

app = command_group()


@app.list_command("list")
def list_delegations(limit: Limit = None, cursor: Cursor = None) -> None:
    """List delegations, newest first."""
    emit_page(
        connect_api().get_page("/delegations", limit=limit, cursor=cursor),
        header=("ID", "AWAY", "DELEGATE", "FROM", "UNTIL", "ENDED", "REASON"),
        row=lambda item: (
            *(item["id"], item["person"], item["delegate"], moment(item["made_at"]), moment(item["until"])),
            *(moment(item["ended_at"]), item["reason"]),
        ),
        empty="No delegations.",
    )


@app.command("create")
def create(
    delegate: Annotated[str, typer.Option("--to", metavar="LOGIN", help="The delegate: an approver of your tier.")],
    time: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long the delegation lasts: 8h, 14d; at most 90d.")],
    reason: Reason = None,
) -> None:
    """Let another approver decide requests for you for a while. Your own key signs the delegation.

    Examples:
    justenough delegation create --to chief2 --for 5d --reason "on holiday"

    """
    from justenough.domain.approvals.statements import DelegationStatement  # noqa: PLC0415 - only this command signs

    why, seconds = require_reason(reason), parse_duration_option("--for", time)
    api, now = connect_api(), datetime.now(UTC)
    statement = DelegationStatement(
        delegate=api.get(f"/people/{path_segment(delegate)}")["id"],
        reason=why,
        person=api.session.identity_token().entity,
        issued_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )
    _print_delegation(api.post("/delegations", api.session.sign_statement(statement)))


complete_delegation = complete_items("/delegations", lambda item: f"{item['person']} to {item['delegate']}", limit=MAX_FETCHED)


@app.command("end")
def end(
    delegation: Annotated[str, typer.Argument(metavar="ID", help="The id of a delegation.", autocompletion=complete_delegation)],
) -> None:
    """End a delegation now."""
    _print_delegation(connect_api().delete(f"/delegations/{path_segment(delegation)}"))


def _print_delegation(item: Json) -> None:
    fields = (("Id", item["id"]), ("Away", item["person"]), ("Delegate", item["delegate"]), ("Until", moment(item["until"])))
    emit(item, table=lambda _: print_fields(*fields, ("Ended", moment(item["ended_at"]))))
