"""Decides requests: shows each request, asks for confirmation on a terminal, signs and sends one statement per request."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import typer

from console.cli import terminal
from console.cli.arguments import path_segment, require_reason
from console.cli.client.api import ConsoleApiClient
from console.cli.errors import ExitCode, Failure, Unreachable, WrongUsage
from console.cli.json_object import Json
from console.cli.options import current_options, run_for_each
from console.cli.render.output import emit_requests, join_pairs, join_values, note
from console.cli.render.request_table import ceiling_lines, counted_approvals, reason_lines
from console.presentation.event_text import ancestor_lines, tools_text
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import to_json_line
from justenough.domain.approvals import statements
from justenough.domain.approvals.statements import DecisionKind
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.units import duration_text
from justenough.domain.jobs.spec import checked_spec
from justenough.domain.jobs.states import BEYOND_TEXTS, Action, RequestState
from justenough.domain.jobs.tool_bounds import BoundedTools, Bounds, tools_to_json
from justenough.domain.jobs.tool_bounds_syntax import parse_tool_bounds

DECISION_VERBS = {
    "approve": "Approving",
    "deny": "Denying",
    "withdraw": "Withdrawing the approval of",
    "break_glass": "BREAK-GLASS approval of",
}
MAX_OTHERS_SHOWN = 3
"""Other pending requests of the job in a hint."""


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """The options of `request approve`, `deny` and similar commands: one decision, applied to each request."""

    decision: DecisionKind
    reason: str = ""
    ttl: int | None = None
    """Seconds; None for the requested ttl."""
    action: Literal["read", "write", "admin"] | None = None
    """None for the requested action."""
    on_behalf_of: str | None = None
    """The login name of the person who delegated."""
    tools: tuple[str, ...] = ()
    """Values in the syntax of justenough/domain/jobs/tool_bounds_syntax.py; empty for the requested tools."""


def answer_all(api: ConsoleApiClient, requests: Sequence[str], options: AnswerOptions) -> None:
    """Decide each request even if another fails, unless the login or the console fails. Print their states and exit with the highest code."""
    absent = api.get(f"/people/{path_segment(options.on_behalf_of)}")["id"] if options.on_behalf_of else None

    def show(answered: list[Json]) -> None:
        emit_requests(answered, title="MISSING", cell=_missing_text, is_list=len(requests) > 1)
        if options.decision != "deny":
            for job in dict.fromkeys(item["job_id"] for item in answered):
                _note_other_requests(api, job, {item["id"] for item in answered})

    run_for_each(requests, lambda request: _answer_request(api, request, options, absent=absent), show=show)


def fetch_request_to_sign(api: ConsoleApiClient, request: str) -> Json:
    """Return a request. Raises Failure if nobody can decide it, or if the console answers with another one, which must not be signed."""
    view = api.get(f"/requests/{path_segment(request)}")
    if view["id"] != request:
        raise Failure(f"the console at {api.address} answered with another request, {view['id']}; nothing was signed")
    if not view["digest"]:
        is_new = view["state"] == RequestState.PENDING
        why = "policy has not decided on the request yet; try again" if is_new else f"the request is {state_word('request', view['state'])}"
        raise Failure(why, code=ExitCode.CONFLICT)
    return view


def _missing_text(item: Json) -> str:
    """Return how many approvals a request lacks; empty if it will get no more."""
    if item["state"] == "pending":
        # At least one: an approval lapses if its person leaves the group.
        return f"{max(1, item['quorum'] - counted_approvals(item))} more"
    return "none" if item["state"] in {RequestState.ALLOWED, RequestState.APPROVED} else ""


def _note_other_requests(api: ConsoleApiClient, job: str, answered: Collection[str]) -> None:
    """Print what else the job waits for. This is only a hint: if it fails, the command does not, because its decisions have been sent."""
    with contextlib.suppress(Failure):
        pending = api.get("/requests", job=job, state="pending", limit=100)["items"]
        others = [item for item in pending if item["quorum"] and item["id"] not in answered]
        if others:
            more = f" and {len(others) - MAX_OTHERS_SHOWN} more" if len(others) > MAX_OTHERS_SHOWN else ""
            shown = [
                f"{item['action']} on {item['resource']}{' (optional)' if item['optional'] else ''}, tier {item['current_tier']} ({item['id']})"
                for item in others[:MAX_OTHERS_SHOWN]
            ]
            note(f"The job still waits for: {'; '.join(shown)}{more}")


def _answer_request(api: ConsoleApiClient, request: str, options: AnswerOptions, *, absent: str | None) -> Json:
    path = f"/requests/{path_segment(request)}"
    view = fetch_request_to_sign(api, request)
    tools: BoundedTools | None = None
    if options.tools:
        requested = None if view["tools"] is None else {name: Bounds.model_validate(bounds) for name, bounds in view["tools"].items()}
        try:
            tools = parse_tool_bounds(options.tools, requested)
        except InvalidInput as error:
            raise WrongUsage("--tool: " + "; ".join(map(str, error.problems))) from error
    _print_answer(api, view, options, tools)
    reason = _reason_for(api, view, options)
    _confirm(options.decision)
    person = api.session.identity_token().entity
    statement = statements.build_decision_statement(
        view,
        options.decision,
        narrowing=statements.Narrowing(options.ttl, Action(options.action) if options.action else None, tools),
        reason=reason,
        person=person,
        on_behalf_of=absent,
        now=datetime.now(UTC),
    )
    try:
        signed = api.session.sign_statement(statement)
    except Unreachable:
        if options.decision != "withdraw":
            raise
        note("Vault does not answer, so the withdrawal is recorded without your signature. Credentials are revoked once Vault answers.")
        return api.post(f"{path}/withdraw", {"reason": reason})
    headers = {"If-Match": f'"{view["digest"]}"'}
    if options.decision in {"approve", "break_glass"} and view["lock"]:
        # The worker counts no approval without Vault's own authorization, which nobody can withdraw.
        api.post(f"{path}/decisions/check", signed, headers=headers)
        is_open = api.session.authorize(view["lock"]["accessor"])
        # Vault's answer is the same whether it counts this person's authorization and needs more, or does not count it.
        note(
            f"  vault:   {'authorized in Vault too; its control group is satisfied' if is_open else 'its control group is not satisfied yet'}"
        )
    status, found = api.post_for_status(f"{path}/decisions", signed, headers=headers)
    if status == 202:
        note(f"Your decision was sent and counts once a worker has verified it. See: justenough request show {view['id']}")
    return found


def _reason_for(api: ConsoleApiClient, view: Json, options: AnswerOptions) -> str:
    """Return the decision's reason; ask for one that is missing only if the person can decide at all. Raises Failure."""
    tier = view["current_tier"]
    if options.reason.strip() or not needs_reason(options.decision, tier):
        return options.reason
    own_decision = options.decision in {"approve", "deny"} and not options.on_behalf_of
    if own_decision and api.get("/whoami")["tier"] < tier:
        allowed = f"{join_values(view['approvers'])}, or those of a higher tier"
        raise Failure(f"the request is at tier {tier}: only its approvers ({allowed}) can decide it", code=ExitCode.DENIED)
    return require_reason(None)


def _print_answer(api: ConsoleApiClient, view: Json, options: AnswerOptions, tools: BoundedTools | None) -> None:
    """Print on stderr exactly what is decided. With --quiet, print it only if a question about it follows."""
    show = terminal.write_message if _asks_about(options.decision) else note

    def print_line(label: str, text: str) -> None:
        show(f"  {label.lower() + ':':<8} {text}")

    time = duration_text(view["ttl"] if options.ttl is None else min(options.ttl, view["ttl"]))
    narrowed = f", GRANTED ONLY AS {options.action}" if options.action and options.action != view["action"] else ""
    show(
        f"{DECISION_VERBS[options.decision]}: {view['requester']} requests {view['action']} on {view['resource']} "
        f"({view['title']}, {view['sensitivity']}, revocable: {view['revocable']}){narrowed} for {time}, for {view['job_name']}: {view['task']}"
    )
    if call := view["call"]:
        print_line("call", f"{call['tool']}, once, with exactly {to_json_line(call['arguments'])}")
    for label, text in (*(() if call else reason_lines(view)), *ceiling_lines(view)):
        print_line(label, text)
    if view["tools"]:
        print_line("through", f"{tools_text(view['tools'])}; the job gets no credential")
    if tools is not None:
        show(f"  GRANTED: only {tools_text(tools_to_json(tools))}")
    for label, text in (*order_facts(api, view["job_id"]), *ancestor_lines(view)):
        print_line(label, text)
    print_line("digest", view["digest"])
    if options.on_behalf_of:
        print_line("for", f"{options.on_behalf_of}, who delegated to you")


def order_facts(api: ConsoleApiClient, job: str) -> list[tuple[str, str]]:
    """Return the facts of a job's order that an approver needs: agent, data scope, command, files, launch reason. They come from the first ledger entry."""
    try:
        first = api.get(f"/jobs/{path_segment(job)}/timeline", limit=1)["items"][0]["data"]
        spec = checked_spec(first["spec"], first["params"])
    except (InvalidInput, LookupError, TypeError):
        return [("command", "cannot be read from the job's order")]
    agent = (
        " ".join(filter(None, (spec.agent.name, spec.agent.version, spec.agent.model and f"({spec.agent.model})"))) if spec.agent else ""
    )
    facts = [
        ("agent", agent),
        ("data", join_pairs(dict(spec.data_scope))),
        ("command", shlex.join(spec.run.command)),
        ("files", first["bundle"] or ""),
        # Orders from before there was `beyond` left everything else to policy.
        ("beyond", BEYOND_TEXTS[first.get("beyond", "policy")]),
        ("launch reason", first["reason"]),
    ]
    return [(name, value) for name, value in facts if value]


def _asks_about(decision: DecisionKind) -> bool:
    # A decision that removes access needs no confirmation.
    return not current_options().yes and decision not in {"deny", "withdraw"} and terminal.is_interactive()


def _confirm(decision: DecisionKind) -> None:
    if not _asks_about(decision):
        return
    question = (
        "Approve this?"
        if decision == "approve"
        else "Approve this alone? The tier's other approvers will see it, and one of them must review it."
    )
    if not typer.confirm(question, err=True):
        raise Failure("not approved, because you did not confirm")
