"""`justenough request`: show requests for access, and decide them with a signature of your own."""

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

RequestIds = Annotated[list[str], typer.Argument(metavar="ID…", help="The ids of one or more requests.", show_default=False)]

ShorterTtl = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Grant a shorter time than the request asks for.", show_default=False)
]


class NarrowedAction(StrEnum):
    """The actions that an approval may be narrowed to."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


app = command_group("Show, approve and deny requests for access.")


@app.command("list")
@command
def list_requests(
    pending: Annotated[bool, typer.Option("--pending", help="Only pending requests (the default).")] = False,
    mine: Annotated[bool, typer.Option("--mine", help="Only pending requests that you can decide now.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Requests in every state.")] = False,
    job: OfJob = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List requests, newest first."""
    if pending + mine + everything > 1:
        raise Failure("--pending, --mine and --all are mutually exclusive; give one of them", code=ExitCode.USAGE)
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
        empty="No requests." if everything else "No pending request that you can decide." if mine else "No pending request.",
    )
    _note_open_reviews(api)


@app.command("watch")
@command
def watch(
    mine: Annotated[bool, typer.Option("--mine", help="Only pending requests that you can decide now.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also show requests that policy allows or denies without an approver.")] = False,
) -> None:
    """Show pending requests and their changes until you press Ctrl-C."""
    if mine and everything:
        raise Failure("--mine and --all are mutually exclusive; give one of them", code=ExitCode.USAGE)
    from console.cli.watch import requests as waiting  # noqa: PLC0415 - only this command keeps running

    waiting.watch_requests(connect_api(), mine=mine, everything=everything)


@app.command("show")
@command
def show(request: Annotated[str, typer.Argument(metavar="ID", help="The id of a request.")]) -> None:
    """Show a request: who asks for what, why, which policies apply and who has decided."""
    api = connect_api()
    emit(api.get(f"/requests/{path_segment(request)}"), table=lambda found: _print_request(api, found), names=lambda found: (found["id"],))


@app.command("approve")
@command
def approve(
    requests: RequestIds,
    reason: Reason = None,
    ttl: ShorterTtl = None,
    action: Annotated[
        NarrowedAction | None, typer.Option(help="Grant less than the request asks for: `read` instead of `write`.", show_default=False)
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL[:BOUND]",
            help="Grant only this tool of the request, within this bound. Repeat it for more tools and bounds. "
            "Bounds: `calls=3`, `amount<=100`, `amount>=1`, `order_id=4711,4712`, `path^=/in/`.",
            show_default=False,
        ),
    ] = None,
    on_behalf_of: Annotated[
        str | None, typer.Option(metavar="LOGIN", help="Decide on behalf of LOGIN, who delegated to you.", show_default=False)
    ] = None,
) -> None:
    """Approve requests, in full or narrowed. Your own key signs exactly what is shown. From tier 2 on, a reason is required."""
    _answer_requests(requests, "approve", reason=reason or "", ttl=ttl, action=action, on_behalf_of=on_behalf_of, tools=tool or ())


@app.command("deny")
@command
def deny(requests: RequestIds, reason: Reason = None) -> None:
    """Deny requests. One denial is final."""
    _answer_requests(requests, "deny", reason=reason)


@app.command("withdraw")
@command
def withdraw(requests: RequestIds, reason: Reason = None) -> None:
    """Withdraw your approvals. Credentials issued under them are revoked now; the job continues without them."""
    _answer_requests(requests, "withdraw", reason=reason)


@app.command("break-glass")
@command
def break_glass(
    requests: RequestIds,
    reason: Reason = None,
    ttl: ShorterTtl = None,
) -> None:
    """Approve alone in an emergency, without the tier's quorum. All its approvers see it, and one of them must review it."""
    _answer_requests(requests, "break_glass", reason=reason, ttl=ttl)


@app.command("claim")
@command
def claim(
    requests: RequestIds,
    time: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long the claim lasts.")] = "15m",
) -> None:
    """Claim requests, to show the other approvers that you are working on them. They can still decide them."""
    api, body = connect_api(), {"seconds": parse_duration_option("--for", time)}
    _call_for_each(requests, lambda request: api.post(f"/requests/{path_segment(request)}/claim", body)[1])


@app.command("release")
@command
def release(requests: RequestIds) -> None:
    """Release your claims on requests."""
    api = connect_api()
    _call_for_each(requests, lambda request: api.delete(f"/requests/{path_segment(request)}/claim"))


def _note_open_reviews(api: ConsoleApiClient) -> None:
    """Remind those who may read reviews of the open ones: break-glass approvals must not be forgotten."""
    with contextlib.suppress(Failure):
        if found := api.get("/reviews", limit=100)["items"]:
            note(f"{len(found)} open review{'' if len(found) == 1 else 's'} of break-glass approvals: justenough review list")


def _call_for_each(requests: list[str], call: Callable[[str], Json]) -> None:
    found = [call(request) for request in dict.fromkeys(requests)]
    shown = found[0] if len(found) == 1 else {"items": found, "next": None}
    emit(
        shown,
        table=lambda _: print_table(
            ("ID", "RESOURCE", "ACTION", "STATE", "CLAIMED"),
            [(item["id"], item["resource"], item["action"], item["state"], _claim_text(item)) for item in found],
        ),
        names=lambda _: (item["id"] for item in found),
    )


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
    from console.cli.client import answer_requests  # noqa: PLC0415 - only decisions are signed
    from justenough.domain.jobs.states import Action  # noqa: PLC0415

    options = answer_requests.AnswerOptions(
        decision=decision,
        reason=reason if decision == "approve" and reason == "" else answer_requests.require_reason(reason),
        ttl=parse_duration_option("--ttl", ttl) if ttl is not None else None,
        action=Action(action.value) if action else None,
        on_behalf_of=on_behalf_of,
        tools=tuple(tools),
    )
    answer_requests.answer_all(connect_api(), requests, options)


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
            ("Ttl", duration_label(item["ttl"])),
            ("Through", f"{tools_text(item['tools'])}; no credential is handed over" if item["tools"] else ""),
            ("Granted", _grant_text(item)),
            ("Call", _call_text(item)),
            ("Reason", item["reason"]),
            ("Optional", "yes" if item["optional"] else "no"),
            ("Revocable", item["revocable"]),
            ("State", item["state"]),
            ("Tier", _tier_text(item)),
            ("Expires", moment(item["expires_at"])),
            ("Claimed", _claim_text(item)),
            ("Control group", _control_group_text(item)),
            ("Policies", ", ".join(item["policies"])),
            ("Digest", item["digest"]),
        )
    )
    for answer in item["approvals"]:
        verb = decision_text(answer["decision"])
        absent = f" for {answer['on_behalf_of']}" if answer["on_behalf_of"] else ""
        withdrawn = f" (withdrawn {moment(answer['withdrawn_at'])})" if answer["withdrawn_at"] else ""
        who = f"{answer['approver']}{absent} (tier {answer['tier']})"
        line = f"{moment(answer['at'])}  {who} {verb}{_narrowing_text(answer, item)}: {answer['reason'] or '-'}{withdrawn}"
        print_fields(((verb.capitalize(), line),))
    if item["review"]:
        print_fields((("Review", _review_text(item["review"])),))


def _narrowing_text(answer: Json, item: Json) -> str:
    """Return what an approval grants, if that is less than the request asks for."""
    is_narrowed = answer["ttl"] < item["ttl"] or answer["action"] not in {None, item["action"]} or answer["tools"]
    if answer["decision"] == "deny" or not is_narrowed:
        return ""
    return f" {answer['action']} for {duration_label(answer['ttl'])}{_only_tools(answer['tools'])}"


def _only_tools(tools: Json | None) -> str:
    return f", only through {tools_text(tools)}" if tools else ""


def _call_text(item: Json) -> str:
    call = item["call"]
    if not call:
        return ""
    bounds = f", within {to_json_line(call['within'])}" if call.get("within") else ""
    return f"{call['tool']}, once, with exactly {to_json_line(call['arguments'])}{bounds}"


def _grant_text(item: Json) -> str:
    if item["granted_ttl"] is None:
        return ""
    return f"{item['granted_action'] or item['action']} for {duration_label(item['granted_ttl'])}{_only_tools(item['granted_tools'])}"


def _review_text(review: Json) -> str:
    if review["open"]:
        return f"open since {moment(review['opened_at'])}: a member of {', '.join(review['groups'])} must say whether it was justified"
    return f"{review['verdict']}, according to {review['reviewer']}, {moment(review['reviewed_at'])}: {review['review_reason']}"


def _tier_text(item: Json) -> str:
    if not item["quorum"]:
        return str(item["tier"])
    return f"{item['tier']} required; now at tier {item['current_tier']}, quorum {item['quorum']}"


def _control_group_text(item: Json) -> str:
    lock = item["lock"]
    return f"waits for authorization until {moment(lock['expires_at'])}; accessor {lock['accessor']}" if lock else ""
