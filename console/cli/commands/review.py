"""`justenough review`: list and answer the reviews of break-glass approvals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from console.cli.arguments import Cursor, Limit, Reason, path_segment, require_reason
from console.cli.client.connect import connect_api
from console.cli.client.references import id_beginning_with
from console.cli.errors import WrongUsage
from console.cli.options import command_group
from console.cli.render.output import emit, emit_page, print_fields
from console.presentation.terminal_text import moment

app = command_group()


@app.list_command("list")
def list_reviews(
    everything: Annotated[bool, typer.Option("--all", help="Include answered reviews. For all pages: --all-pages.")] = False,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List open reviews, newest first."""
    emit_page(
        connect_api().get_page("/reviews", all="true" if everything else None, limit=limit, cursor=cursor),
        header=("REQUEST", "JOB", "RESOURCE", "ACTION", "BY", "SINCE", "REVIEWERS", "REASON", "VERDICT"),
        row=lambda item: (
            *(item["request_id"], item["job_name"], item["resource"], item["action"], item["person"], moment(item["opened_at"])),
            *(f"tier {max(item['tiers'])} or above", item["reason"], item["verdict"] or "open"),
        ),
        empty="No reviews." if everything else "No open reviews.",
    )


@app.command("answer")
def answer(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="The id of the request that was approved by break-glass, or the beginning of it.")
    ],
    justified: Annotated[bool | None, typer.Option("--justified/--unjustified", help="Your verdict.")] = None,
    reason: Reason = None,
) -> None:
    """State whether a break-glass approval was justified. The first answer is final."""
    from console.cli.client import answer_requests  # noqa: PLC0415 - only this command signs
    from justenough.domain.approvals import statements  # noqa: PLC0415

    if justified is None:
        raise WrongUsage("the verdict is missing; give --justified or --unjustified")
    why, api = require_reason(reason), connect_api()
    view = answer_requests.fetch_request_to_sign(api, id_beginning_with(api, "request", request))
    person = api.session.identity_token().entity
    verdict: Literal["justified", "unjustified"] = "justified" if justified else "unjustified"
    statement = statements.build_review_statement(view, verdict, reason=why, person=person, now=datetime.now(UTC))
    found = api.post(f"/requests/{path_segment(view['id'])}/review", api.session.sign_statement(statement))
    review = found["review"]
    emit(
        found,
        table=lambda _: print_fields(("Request", found["id"]), ("Review", f"{review['verdict']}, according to {review['reviewer']}")),
    )
