"""`justenough request`: what waits for an answer, and answering it with one's own signature."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from console.cli.arguments import Cursor, Limit, OfJob, segment
from console.cli.client import Api, Json, connected
from console.cli.failures import Exit, Failure
from console.cli.options import command, group
from console.cli.output import emit, emit_page, fields
from console.cli.telling import duration
from console.cli.text import moment

RequestIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of requests.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Why; it is part of what you sign.", show_default=False)]

app = group("See and answer requests for access.")


@app.command("list")
@command
def list_requests(
    pending: Annotated[bool, typer.Option("--pending", help="Those that wait for an answer (default).")] = False,
    mine: Annotated[bool, typer.Option("--mine", help="Only those that you can answer now.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="In every state.")] = False,
    job: OfJob = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List requests, newest first."""
    if pending + mine + everything > 1:
        raise Failure("--pending, --mine and --all: one of them", code=Exit.USAGE)
    found = connected().get(
        "/requests", state="all" if everything else "pending", mine="true" if mine else None, job=job, limit=limit, cursor=cursor
    )
    emit_page(
        found,
        header=("ID", "STATE", "TIER", "RESOURCE", "ACTION", "TTL", "REQUESTER", "EXPIRES", "REASON"),
        row=lambda item: (
            *(item["id"], item["state"], item["current_tier"] or item["tier"], item["resource"], item["action"], duration(item["ttl"])),
            *(item["requester"], moment(item["expires_at"]), item["reason"]),
        ),
        empty="No requests." if everything else "No request waits for you." if mine else "No request is pending.",
    )


@app.command("show")
@command
def show(request: Annotated[str, typer.Argument(metavar="ID", help="A request's id.")]) -> None:
    """Show a request: who asks for what and why, and the policies that decided."""
    api = connected()
    emit(api.get(f"/requests/{segment(request)}"), table=lambda found: _whole(api, found), names=lambda found: (found["id"],))


@app.command("approve")
@command
def approve(
    requests: RequestIds,
    reason: Reason = None,
    ttl: Annotated[str | None, typer.Option(metavar="DURATION", help="Allow less time than was asked for.", show_default=False)] = None,
) -> None:
    """Approve requests: sign exactly what is shown, with your own key."""
    _answer(requests, "approve", reason=reason, ttl=ttl)


@app.command("deny")
@command
def deny(requests: RequestIds, reason: Reason = None) -> None:
    """Deny requests: one denial ends a request."""
    _answer(requests, "deny", reason=reason, ttl=None)


def _answer(requests: list[str], decision: Literal["approve", "deny"], *, reason: str | None, ttl: str | None) -> None:
    from console.cli import answering  # noqa: PLC0415 - only answers are signed

    seconds = answering.seconds(ttl)
    why = answering.reason(reason)
    answering.answer_all(connected(), requests, decision, reason=why, ttl=seconds)


def _whole(api: Api, item: Json) -> None:
    from console.cli.answering import order_of  # noqa: PLC0415 - loads what reads specs

    fields(
        (
            ("Id", item["id"]),
            ("Job", f"{item['job_id']} ({item['job_name']})"),
            ("Task", item["task"]),
            ("Requester", item["requester"]),
            *((name.capitalize(), value) for name, value in order_of(api, item["job_id"])),
            ("Asks for", f"{item['action']} on {item['resource']} ({item['title']}, {item['sensitivity']})"),
            ("For", duration(item["ttl"])),
            ("Granted for", duration(item["granted_ttl"])),
            ("Reason", item["reason"]),
            ("Optional", "yes" if item["optional"] else "no"),
            ("Revocable", item["revocable"]),
            ("State", item["state"]),
            ("Tier", _tier(item)),
            ("Until", moment(item["expires_at"])),
            ("Policies", ", ".join(item["policies"])),
            ("Digest", item["digest"]),
        )
    )
    for answer in item["approvals"]:
        said = "approved" if answer["decision"] == "approve" else "denied"
        line = f"{moment(answer['at'])}  {answer['approver']} (tier {answer['tier']}) {said}: {answer['reason']}"
        fields(((said.capitalize(), line),))


def _tier(item: Json) -> str:
    if not item["quorum"]:
        return str(item["tier"])
    return f"{item['tier']} is needed; tier {item['current_tier']} answers now, {item['quorum']} of them"
