"""`justenough request`: show requests for access, and decide them. The person's key signs each decision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console.cli.arguments import DEFAULT_PAGE_SIZE, Cursor, Limit, Reason, Web, parse_duration_option, path_segment, require_reason
from console.cli.client.connect import connect_api, open_page
from console.cli.client.references import id_beginning_with, job_id_of
from console.cli.completion import OfJob, OfResource, complete_request
from console.cli.errors import Failure, WrongUsage
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, command_group, current_options, run_for_each
from console.cli.render.output import count_label, emit, emit_page, emit_requests, join_values, note, print_fields
from console.cli.render.request_table import (
    age,
    by_deadline,
    ceiling_lines,
    decide_by,
    decide_by_text,
    policy_denial,
    reason_lines,
    short_reason_source,
    shown_tier,
    time_left,
    why_not_counted,
)
from console.cli.states import parse_state_option, state_option
from console.presentation.event_text import ancestor_lines, decision_text, duration_label, tools_text
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import moment, to_json_line

if TYPE_CHECKING:
    from console.cli.client.api import ConsoleApiClient
    from justenough.domain.approvals.statements import DecisionKind

RequestIds = Annotated[
    list[str],
    typer.Argument(metavar="ID", help="The ids of one or more requests, or the beginnings of them.", autocompletion=complete_request),
]
Mine = Annotated[bool, typer.Option("--mine", help="Only pending requests that you can decide now.")]
ShorterTtl = Annotated[str | None, typer.Option(metavar="DURATION", help="Grant access for a shorter time than requested.")]


app = command_group()


@app.list_command("list")
def list_requests(
    pending: Annotated[bool, typer.Option("--pending", help="Only pending requests (the default).")] = False,
    mine: Mine = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Requests in every state, not only pending ones. For all pages: --all-pages.")
    ] = False,
    state: Annotated[str | None, state_option("request", "Only requests in this state")] = None,
    job: OfJob = None,
    resource: OfResource = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List requests. A table of pending requests begins with the most urgent one; every other list with the newest.

    Examples:
    justenough request list --mine
    justenough request list --state denied --job refund-triage
    justenough request list --all --job refund-triage --columns id,state,resource,reason

    """
    if pending + mine + everything + (state is not None) > 1:
        raise WrongUsage("--pending, --mine, --all and --state are mutually exclusive; give one of them")
    wanted = "all" if everything else parse_state_option("--state", "request", state) or "pending"
    api = connect_api()
    query: dict[str, Any] = {
        "state": wanted,
        "mine": "true" if mine else None,
        "job": job_id_of(api, job) if job else job,
        "resource": resource,
    }
    now, less_urgent = datetime.now(UTC), 0
    if current_options().output is CliOutputFormat.TABLE and wanted == "pending" and cursor is None:
        # The console lists the newest first, so the most urgent one may be on its last page.
        items = by_deadline(list(api.get_all("/requests", **query)))
        shown = len(items) if current_options().all_pages else limit or DEFAULT_PAGE_SIZE
        found, less_urgent = {"items": items[:shown], "next": None}, max(0, len(items) - shown)
    else:
        found = api.get_page("/requests", **query, limit=limit, cursor=cursor)
    emit_page(
        found,
        header=(
            *("ID", "JOB", "STATE", "TIER", "RESOURCE", "ACTION", "TTL", "REQUESTER"),
            *("AGE", "TIME LEFT", "DECIDE BY", "REASON BY", "REASON"),
        ),
        row=lambda item: (
            *(
                item["id"],
                item["job_name"],
                state_word("request", item["state"]),
                shown_tier(item),
                item["resource"],
                item["action"],
            ),
            *(duration_label(item["ttl"]), item["requester"], age(item, now), time_left(item, now)),
            *(moment(decide_by(item)) if item["state"] == "pending" else "", short_reason_source(item), item["reason"]),
        ),
        optional=("DECIDE BY", "STATE", "REASON BY", "TTL", "REQUESTER", "AGE", "TIER"),
        empty="No pending requests that you can decide." if mine else "No pending requests." if wanted == "pending" else "No requests.",
    )
    if less_urgent:
        note(f"{count_label(less_urgent, 'more pending request')}, less urgent: add --all-pages")
    # Break-glass approvals must not be forgotten: remind those who may read their reviews.
    with contextlib.suppress(Failure):
        if reviews := api.get("/reviews", limit=100)["items"]:
            note(f"{count_label(len(reviews), 'open review')} of break-glass approvals: justenough review list")


@app.command("watch")
def watch(
    mine: Mine = False,
    everything: Annotated[bool, typer.Option("--all", help="Include requests that policy allows or denies without an approver.")] = False,
) -> None:
    """Show pending requests and each change until you press Ctrl-C.

    Examples:
    justenough request watch --mine

    """
    if mine and everything:
        raise WrongUsage("--mine and --all are mutually exclusive; give one of them")
    from console.cli.watch.requests import watch_requests  # noqa: PLC0415 - only this command keeps running

    watch_requests(connect_api(), mine=mine, everything=everything)


@app.command("show")
def show(
    request: Annotated[
        str, typer.Argument(metavar="ID", help="The id of a request, or the beginning of it.", autocompletion=complete_request)
    ],
    web: Web = False,
) -> None:
    """Show a request: its access, reason and decisions. Names the policies that apply.

    Examples:
    justenough request show r-dev-01kb3zq0aa-1 --web

    """
    api = connect_api()
    found = api.get(f"/requests/{path_segment(id_beginning_with(api, 'request', request))}")
    if web:
        open_page(api, f"/inbox/{path_segment(found['id'])}")
        return
    emit(found, table=lambda shown: _print_request(api, shown))


@app.command("approve")
def approve(
    requests: RequestIds,
    reason: Reason = None,
    ttl: ShorterTtl = None,
    action: Annotated[
        Literal["read", "write", "admin"] | None, typer.Option(help="Grant a lesser action than requested: read instead of write.")
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL[:BOUND]",
            help="Grant only this tool of the request, within this bound. Repeat the option for more tools and bounds. "
            "Bounds: `calls=3`, `amount<=100`, `amount>=1`, `order_id=4711,4712`, `path^=/in/`.",
        ),
    ] = None,
    on_behalf_of: Annotated[str | None, typer.Option(metavar="LOGIN", help="Decide on behalf of LOGIN, who delegated to you.")] = None,
) -> None:
    """Approve requests, in full or narrowed. Your own key signs exactly what the command shows. From tier 2 on, a reason is required.

    On a terminal the command asks before it signs, unless you give --yes. Without one, as in a script, it signs at once.

    Examples:
    justenough request approve r-dev-01kb3zq0aa-1 --reason "the customer is right"
    justenough request approve r-dev-01kb3zq0aa-1 --ttl 5m --action read --reason "reading is enough"

    """
    _answer_requests(requests, "approve", reason=reason or "", ttl=ttl, action=action, on_behalf_of=on_behalf_of, tools=tuple(tool or ()))


@app.command("deny")
def deny(requests: RequestIds, reason: Reason = None) -> None:
    """Deny requests. One denial is final.

    Examples:
    justenough request deny r-dev-01kb3zq0aa-1 --reason "not during the freeze"

    """
    _answer_requests(requests, "deny", reason=reason)


@app.command("withdraw")
def withdraw(requests: RequestIds, reason: Reason = None) -> None:
    """Withdraw your approvals. Revokes the credentials issued under them at once; the job continues without them."""
    _answer_requests(requests, "withdraw", reason=reason)


@app.command("break-glass")
def break_glass(requests: RequestIds, reason: Reason = None, ttl: ShorterTtl = None) -> None:
    """Approve alone in an emergency. Bypasses the tier that policy requires and each further one up to the current one.

    The approvers of these tiers see it. Another approver of the current tier, or above, must review it.

    On a terminal the command asks before it signs, unless you give --yes. Without one, as in a script, it signs at once.
    """
    _answer_requests(requests, "break_glass", reason=reason, ttl=ttl)


@app.command("claim")
def claim(
    requests: RequestIds,
    time: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long the claim lasts: 30s, 10m, 2h.")] = "15m",
) -> None:
    """Show other approvers that you are reviewing requests. They can still decide the requests."""
    api, body = connect_api(), {"seconds": parse_duration_option("--for", time)}
    _change_claims(_request_ids(api, requests), lambda request: api.post(f"/requests/{path_segment(request)}/claim", body))


@app.command("release")
def release(requests: RequestIds) -> None:
    """Release your claims on requests."""
    api = connect_api()
    _change_claims(_request_ids(api, requests), lambda request: api.delete(f"/requests/{path_segment(request)}/claim"))


def _change_claims(requests: list[str], change: Callable[[str], Json]) -> None:
    run_for_each(requests, change, show=lambda items: emit_requests(items, title="CLAIMED", cell=_claim_text, is_list=len(requests) > 1))


def _claim_text(item: Json) -> str:
    return f"by {item['claim']['by']} until {moment(item['claim']['until'])}" if item["claim"] else ""


def _answer_requests(requests: list[str], decision: DecisionKind, *, reason: str | None, ttl: str | None = None, **narrowing: Any) -> None:
    from console.cli.client import answer_requests  # noqa: PLC0415 - only decisions are signed

    options = answer_requests.AnswerOptions(
        decision=decision,
        reason=reason if decision == "approve" and reason == "" else require_reason(reason),
        ttl=parse_duration_option("--ttl", ttl) if ttl is not None else None,
        **narrowing,
    )
    api = connect_api()
    answer_requests.answer_all(api, _request_ids(api, requests), options)


def _request_ids(api: ConsoleApiClient, texts: list[str]) -> list[str]:
    """Return the ids of the requests that the texts refer to, each once."""
    return list(dict.fromkeys(id_beginning_with(api, "request", text) for text in texts))


def _print_request(api: ConsoleApiClient, item: Json) -> None:
    from console.cli.client.answer_requests import order_facts  # noqa: PLC0415 - loads what reads specs
    from console.presentation.request_text import call_limits  # noqa: PLC0415 - loads pydantic

    call, review = item["call"], item["review"]
    lock = item["lock"] if item["state"] == "pending" else None
    bounds = ""
    if call and call.get("within"):
        limits = call_limits(call)
        bounds = f", within {to_json_line(limits)}" if limits else "; the spec sets no limits on the arguments"
    granted = f"{item['granted_action'] or item['action']} for {duration_label(item['granted_ttl'])}{_only_tools(item['granted_tools'])}"
    print_fields(
        ("Id", item["id"]),
        ("Job", f"{item['job_id']} ({item['job_name']})"),
        ("Task", item["task"]),
        ("Requester", item["requester"]),
        *((name.capitalize(), value) for name, value in order_facts(api, item["job_id"])),
        *ancestor_lines(item),
        ("Asks for", f"{item['action']} on {item['resource']} ({item['title']}, {item['sensitivity']})"),
        ("Ttl", duration_label(item["ttl"])),
        ("Through", f"{tools_text(item['tools'])}; the job gets no credential" if item["tools"] else ""),
        ("Granted", "" if item["granted_ttl"] is None else granted),
        ("Call", f"{call['tool']}, once, with exactly {to_json_line(call['arguments'])}{bounds}" if call else ""),
        *reason_lines(item),
        *ceiling_lines(item),
        ("Optional", "yes" if item["optional"] else "no"),
        ("Revocable", item["revocable"]),
        ("State", state_word("request", item["state"])),
        (
            "Tier",
            f"{item['tier']} required; now at tier {item['current_tier']}, quorum {item['quorum']}"
            if item["quorum"]
            else item["tier"] or "none",
        ),
        ("Approvers", f"{join_values(item['approvers'])}; those of higher tiers can decide, too" if item.get("approvers") else ""),
        ("Decide by", decide_by_text(item)),
        ("Claimed", _claim_text(item)),
        ("Control group", f"waits for authorization until {moment(lock['expires_at'])}; accessor {lock['accessor']}" if lock else ""),
        ("Policies", ", ".join(item["policies"])),
        ("Denied", policy_denial(item)),
        ("Digest", item["digest"]),
    )
    for answer in item["approvals"]:
        verb = decision_text(answer["decision"])
        absent = f" for {answer['on_behalf_of']}" if answer["on_behalf_of"] else ""
        left = f" ({why})" if (why := why_not_counted(answer, item)) else ""
        who = f"{answer['approver']}{absent} (tier {answer['tier']})"
        line = f"{moment(answer['at'])}  {who} {verb}{_narrowing_text(answer, item)}: {answer['reason'] or '-'}{left}"
        print_fields((verb.capitalize(), line))
    if review:
        verdict = f"{review['verdict']}, according to {review['reviewer']}, {moment(review['reviewed_at'])}: {review['review_reason']}"
        reviewer = f"another approver of tier {max(review['tiers'])} or above"
        waiting = f"open since {moment(review['opened_at'])}: {reviewer} must state whether it was justified"
        print_fields(("Review", waiting if review["open"] else verdict))


def _narrowing_text(answer: Json, item: Json) -> str:
    """Describe what an approval grants, if that is less than the request asks for."""
    is_narrowed = answer["ttl"] < item["ttl"] or answer["action"] not in {None, item["action"]} or answer["tools"]
    if answer["decision"] == "deny" or not is_narrowed:
        return ""
    return f" {answer['action']} for {duration_label(answer['ttl'])}{_only_tools(answer['tools'])}"


def _only_tools(tools: Json | None) -> str:
    return f", only through {tools_text(tools)}" if tools else ""
