"""`justenough review` and `justenough delegation`: what is thought of broken glass, and who answers for whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from console.cli.arguments import Cursor, Limit, segment
from console.cli.client import Json, connected
from console.cli.failures import Exit, Failure
from console.cli.options import command, group
from console.cli.output import emit, emit_page, fields
from console.words.text import moment

Reason = Annotated[str | None, typer.Option(help="Why; it is part of what you sign.", show_default=False)]

reviews = group("See and answer the reviews of tiers that somebody passed alone.")
delegations = group("Name who answers for you while you are away.")


@reviews.command("list")
@command
def list_reviews(
    everything: Annotated[bool, typer.Option("--all", help="Those that have been answered, too.")] = False,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List reviews, newest first; those that are open, unless all are wanted."""
    emit_page(
        connected().get("/reviews", all="true" if everything else None, limit=limit, cursor=cursor),
        header=("REQUEST", "JOB", "RESOURCE", "ACTION", "BY", "SINCE", "REVIEWERS", "REASON", "VERDICT"),
        row=lambda item: (
            *(item["request_id"], item["job_name"], item["resource"], item["action"], item["person"], moment(item["opened_at"])),
            *(", ".join(item["groups"]), item["reason"], item["verdict"] or "open"),
        ),
        empty="No reviews." if everything else "No review is open.",
    )


@reviews.command("answer")
@command
def answer(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The id of the request for which somebody broke glass.")],
    justified: Annotated[bool | None, typer.Option("--justified/--unjustified", help="What you think of it.", show_default=False)] = None,
    reason: Reason = None,
) -> None:
    """Say whether breaking glass was justified; the first answer stands."""
    from console.cli import answering, signing  # noqa: PLC0415 - only answers are signed
    from justenough import stating  # noqa: PLC0415

    if justified is None:
        raise Failure("say --justified or --unjustified", code=Exit.USAGE)
    why, api = answering.reason(reason), connected()
    view = api.get(f"/requests/{segment(request)}")
    statement = stating.review(
        view,
        "justified" if justified else "unjustified",
        reason=why,
        person=api.session.identity().entity,
        now=datetime.now(UTC),
    )
    _, found = api.post(f"/requests/{segment(request)}/review", signing.signed(api.session, statement))
    said = found["review"]
    emit(
        found,
        table=lambda _: fields((("Request", found["id"]), ("Review", f"{said['verdict']}, said {said['reviewer']}"))),
        names=lambda _: (found["id"],),
    )


@delegations.command("list")
@command
def list_delegations(limit: Limit = None, cursor: Cursor = None) -> None:
    """List delegations, newest first."""
    emit_page(
        connected().get("/delegations", limit=limit, cursor=cursor),
        header=("ID", "AWAY", "DELEGATE", "FROM", "UNTIL", "ENDED", "REASON"),
        row=lambda item: (
            *(item["id"], item["person"], item["delegate"], moment(item["made_at"]), moment(item["until"])),
            *(moment(item["ended_at"]), item["reason"]),
        ),
        empty="No delegations.",
    )


@delegations.command("create")
@command
def create(
    delegate: Annotated[str, typer.Option("--to", metavar="LOGIN", help="Who answers for you: someone who answers at your tier.")],
    time: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, at most 90d.")],
    reason: Reason = None,
) -> None:
    """Name a delegate, signed with your own key."""
    from console.cli import answering, signing  # noqa: PLC0415 - only answers are signed
    from justenough import stating  # noqa: PLC0415

    why, seconds, api = answering.reason(reason), answering.seconds(time, option="--for"), connected()
    now = datetime.now(UTC)
    statement = stating.delegation(
        answering.person_named(api, delegate)["id"],
        until=now.replace(microsecond=0) + timedelta(seconds=seconds or 0),
        reason=why,
        person=api.session.identity().entity,
        now=now,
    )
    _shown(api.post("/delegations", signing.signed(api.session, statement))[1])


@delegations.command("end")
@command
def end(delegation: Annotated[str, typer.Argument(metavar="ID", help="A delegation's id.")]) -> None:
    """Answer for yourself again."""
    _shown(connected().delete(f"/delegations/{segment(delegation)}"))


def _shown(item: Json) -> None:
    told = (("Id", item["id"]), ("Away", item["person"]), ("Delegate", item["delegate"]), ("Until", moment(item["until"])))
    emit(item, table=lambda _: fields((*told, ("Ended", moment(item["ended_at"])))), names=lambda _: (item["id"],))
