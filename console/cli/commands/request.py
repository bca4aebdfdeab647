"""`justenough request`: what waits for an answer, and answering it with one's own signature."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Literal

import typer

from console.cli.arguments import Cursor, Limit, OfJob, Reason, path_segment
from console.cli.client.api import ConsoleApiClient, connect_api
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.options import command, command_group
from console.cli.render.output import emit, emit_page, note, print_fields, print_table
from console.cli.time_arguments import parse_duration_option
from console.presentation.event_text import ancestor_lines, decision_text, duration_label, tools_text
from console.presentation.terminal_text import moment, to_json_line

RequestIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of requests.", show_default=False)]


class NarrowedAction(StrEnum):
    """What an approval may allow instead."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


app = command_group("See and answer requests for access.")


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
        raise Failure("--pending, --mine and --all: one of them", code=ExitCode.USAGE)
    api = connect_api()
    found = api.get(
        "/requests", state="all" if everything else "pending", mine="true" if mine else None, job=job, limit=limit, cursor=cursor
    )
    emit_page(
        found,
        header=("ID", "STATE", "TIER", "RESOURCE", "ACTION", "TTL", "REQUESTER", "EXPIRES", "REASON"),
        row=lambda item: (
            *(
                item["id"],
                item["state"],
                item["current_tier"] or item["tier"],
                item["resource"],
                item["action"],
                duration_label(item["ttl"]),
            ),
            *(item["requester"], moment(item["expires_at"]), item["reason"]),
        ),
        empty="No requests." if everything else "No request waits for you." if mine else "No request is pending.",
    )
    _note_open_reviews(api)


@app.command("watch")
@command
def watch(
    mine: Annotated[bool, typer.Option("--mine", help="Only those that you can answer now.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also those that policy allows or denies without anybody.")] = False,
) -> None:
    """Show what waits for an answer, and go on showing what becomes of it, until Ctrl-C."""
    if mine and everything:
        raise Failure("--mine and --all: one of them", code=ExitCode.USAGE)
    from console.cli.watch import requests as waiting  # noqa: PLC0415 - only this command goes on

    waiting.watch_requests(connect_api(), mine=mine, everything=everything)


@app.command("show")
@command
def show(request: Annotated[str, typer.Argument(metavar="ID", help="A request's id.")]) -> None:
    """Show a request: who asks for what and why, and the policies that decided."""
    api = connect_api()
    emit(api.get(f"/requests/{path_segment(request)}"), table=lambda found: _print_request(api, found), names=lambda found: (found["id"],))


@app.command("approve")
@command
def approve(
    requests: RequestIds,
    reason: Reason = None,
    ttl: Annotated[str | None, typer.Option(metavar="DURATION", help="Allow less time than was asked for.", show_default=False)] = None,
    action: Annotated[
        NarrowedAction | None, typer.Option(help="Allow less than was asked for: `read` instead of `write`.", show_default=False)
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL[:BOUND]",
            help="Allow only this tool of those that were asked for, within this bound; repeat for more. "
            "Bounds: `calls=3`, `amount<=100`, `amount>=1`, `order_id=4711,4712`, `path^=/in/`.",
            show_default=False,
        ),
    ] = None,
    on_behalf_of: Annotated[
        str | None, typer.Option(metavar="LOGIN", help="Answer for who is away and named you their delegate.", show_default=False)
    ] = None,
) -> None:
    """Approve requests, or less of them: sign exactly what is shown, with your own key. A reason is needed from tier 2 on."""
    _answer_requests(requests, "approve", reason=reason or "", ttl=ttl, action=action, on_behalf_of=on_behalf_of, tools=tool or ())


@app.command("deny")
@command
def deny(requests: RequestIds, reason: Reason = None) -> None:
    """Deny requests: one denial ends a request."""
    _answer_requests(requests, "deny", reason=reason)


@app.command("withdraw")
@command
def withdraw(requests: RequestIds, reason: Reason = None) -> None:
    """Take approvals back: what was issued for them is revoked now; the job goes on without it."""
    _answer_requests(requests, "withdraw", reason=reason)


@app.command("break-glass")
@command
def break_glass(
    requests: RequestIds,
    reason: Reason = None,
    ttl: Annotated[str | None, typer.Option(metavar="DURATION", help="Allow less time than was asked for.", show_default=False)] = None,
) -> None:
    """Pass a tier alone, in an emergency. It is shown to everyone who answers there, and stays open until one of them has reviewed it."""
    _answer_requests(requests, "break_glass", reason=reason, ttl=ttl)


@app.command("claim")
@command
def claim(
    requests: RequestIds,
    time: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long you will look at it.")] = "15m",
) -> None:
    """Tell the others that you look at requests. It bars nobody from answering them."""
    api, body = connect_api(), {"seconds": parse_duration_option("--for", time)}
    _call_for_each(requests, lambda request: api.post(f"/requests/{path_segment(request)}/claim", body)[1])


@app.command("release")
@command
def release(requests: RequestIds) -> None:
    """Tell the others that you no longer look at requests."""
    api = connect_api()
    _call_for_each(requests, lambda request: api.delete(f"/requests/{path_segment(request)}/claim"))


def _note_open_reviews(api: ConsoleApiClient) -> None:
    """Tell whoever may read them that reviews are open: what was passed alone must not be forgotten."""
    with contextlib.suppress(Failure):
        if found := api.get("/reviews", limit=100)["items"]:
            note(
                f"{len(found)} {'review is' if len(found) == 1 else 'reviews are'} open of tiers that somebody passed alone: justenough review list"
            )


def _call_for_each(requests: list[str], call: Callable[[str], Json]) -> None:
    found = [call(request) for request in dict.fromkeys(requests)]
    shown = found[0] if len(found) == 1 else {"items": found, "next": None}
    emit(
        shown,
        table=lambda _: print_table(("ID", "RESOURCE", "ACTION", "STATE", "LOOKED AT"), [_claim_row(item) for item in found]),
        names=lambda _: (item["id"] for item in found),
    )


def _claim_row(item: Json) -> tuple[str, str, str, str, str]:
    return item["id"], item["resource"], item["action"], item["state"], _claim_text(item)


def _claim_text(item: Json) -> str:
    return f"by {item['claim']['by']} until {moment(item['claim']['until'])}" if item["claim"] else ""


def _answer_requests(
    requests: list[str],
    decision: Literal["approve", "deny", "withdraw", "break_glass"],
    *,
    reason: str | None,
    ttl: str | None = None,
    action: NarrowedAction | None = None,
    on_behalf_of: str | None = None,
    tools: Sequence[str] = (),
) -> None:
    from console.cli.client import answer_requests  # noqa: PLC0415 - only answers are signed
    from justenough.domain.jobs.states import Action  # noqa: PLC0415

    saying = answer_requests.AnswerOptions(
        decision=decision,
        reason=reason if decision == "approve" and reason == "" else answer_requests.require_reason(reason),
        ttl=parse_duration_option("--ttl", ttl) if ttl is not None else None,
        action=Action(action.value) if action else None,
        on_behalf_of=on_behalf_of,
        tools=tuple(tools),
    )
    answer_requests.answer_all(connect_api(), requests, saying)


def _print_request(api: ConsoleApiClient, item: Json) -> None:
    from console.cli.client.answer_requests import order_facts  # noqa: PLC0415 - loads what reads specs

    print_fields(
        (
            ("Id", item["id"]),
            ("Job", f"{item['job_id']} ({item['job_name']})"),
            ("Task", item["task"]),
            ("Requester", item["requester"]),
            *((name.capitalize(), value) for name, value in order_facts(api, item["job_id"])),
            *ancestor_lines(item),
            ("Asks for", f"{item['action']} on {item['resource']} ({item['title']}, {item['sensitivity']})"),
            ("For", duration_label(item["ttl"])),
            ("Through", _tools_text(item)),
            ("Granted", _grant_text(item)),
            ("Call", _call_text(item)),
            ("Reason", item["reason"]),
            ("Optional", "yes" if item["optional"] else "no"),
            ("Revocable", item["revocable"]),
            ("State", item["state"]),
            ("Tier", _tier_text(item)),
            ("Until", moment(item["expires_at"])),
            ("Looked at", _claim_text(item)),
            ("Vault's lock", _control_group_text(item)),
            ("Policies", ", ".join(item["policies"])),
            ("Digest", item["digest"]),
        )
    )
    for answer in item["approvals"]:
        verb = decision_text(answer["decision"])
        less = (
            f" {answer['action']} for {duration_label(answer['ttl'])}{_only_tools(answer['tools'])}"
            if answer["decision"] != "deny" and _is_narrowed(answer, item)
            else ""
        )
        absent = f" for {answer['on_behalf_of']}" if answer["on_behalf_of"] else ""
        back = f" (taken back {moment(answer['withdrawn_at'])})" if answer["withdrawn_at"] else ""
        line = f"{moment(answer['at'])}  {answer['approver']}{absent} (tier {answer['tier']}) {verb}{less}: {answer['reason'] or '-'}{back}"
        print_fields(((verb.capitalize(), line),))
    if item["review"]:
        print_fields((("Review", _review_text(item["review"])),))


def _is_narrowed(answer: Json, item: Json) -> bool:
    return answer["ttl"] < item["ttl"] or answer["action"] not in {None, item["action"]} or bool(answer["tools"])


def _tools_text(item: Json) -> str:
    return f"{tools_text(item['tools'])}; no credential is handed over" if item["tools"] else ""


def _only_tools(tools: Json | None) -> str:
    return f", only through {tools_text(tools)}" if tools else ""


def _call_text(item: Json) -> str:
    call = item["call"]
    return f"{call['tool']}, once, with exactly {to_json_line(call['arguments'])}{_bounds_text(call)}" if call else ""


def _bounds_text(call: Json) -> str:
    return f", within {to_json_line(call['within'])}" if call.get("within") else ""


def _grant_text(item: Json) -> str:
    if item["granted_ttl"] is None:
        return ""
    return f"{item['granted_action'] or item['action']} for {duration_label(item['granted_ttl'])}{_only_tools(item['granted_tools'])}"


def _review_text(review: Json) -> str:
    if review["open"]:
        return f"open since {moment(review['opened_at'])}: one of {', '.join(review['groups'])} is to say whether it was justified"
    return f"{review['verdict']}, said {review['reviewer']} {moment(review['reviewed_at'])}: {review['review_reason']}"


def _tier_text(item: Json) -> str:
    if not item["quorum"]:
        return str(item["tier"])
    return f"{item['tier']} is needed; tier {item['current_tier']} answers now, {item['quorum']} of them"


def _control_group_text(item: Json) -> str:
    lock = item["lock"]
    return f"waits until {moment(lock['expires_at'])}; accessor {lock['accessor']}" if lock else ""
