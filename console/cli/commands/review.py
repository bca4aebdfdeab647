"""`justenough review` and `justenough delegation`: what is thought of broken glass, and who answers for whom."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from console.cli.arguments import Cursor, Limit, Reason, path_segment
from console.cli.client.api import connect_api
from console.cli.errors import ExitCode, Failure
from console.cli.options import command, command_group
from console.cli.render.output import emit, emit_page, print_fields
from console.presentation.terminal_text import moment

reviews = command_group("See and answer the reviews of tiers that somebody passed alone.")


@reviews.command("list")
@command
def list_reviews(
    everything: Annotated[bool, typer.Option("--all", help="Those that have been answered, too.")] = False,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List reviews, newest first; those that are open, unless all are wanted."""
    emit_page(
        connect_api().get("/reviews", all="true" if everything else None, limit=limit, cursor=cursor),
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
    from console.cli.client import answer_requests, profile  # noqa: PLC0415 - only answers are signed
    from justenough.domain.approvals import statement_factory  # noqa: PLC0415

    if justified is None:
        raise Failure("say --justified or --unjustified", code=ExitCode.USAGE)
    why, api = answer_requests.require_reason(reason), connect_api()
    view = api.get(f"/requests/{path_segment(request)}")
    statement = statement_factory.build_review_statement(
        view,
        "justified" if justified else "unjustified",
        reason=why,
        person=api.session.identity_token().entity,
        now=datetime.now(UTC),
    )
    _, found = api.post(f"/requests/{path_segment(request)}/review", profile.sign_statement(api.session, statement))
    said = found["review"]
    emit(
        found,
        table=lambda _: print_fields((("Request", found["id"]), ("Review", f"{said['verdict']}, said {said['reviewer']}"))),
        names=lambda _: (found["id"],),
    )
