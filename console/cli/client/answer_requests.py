"""Answering requests: shows what is answered, asks where a person can be asked, signs, sends. One statement per request."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import typer

from console.cli import terminal
from console.cli.arguments import segment
from console.cli.client import profile
from console.cli.client.api import Api
from console.cli.errors import Exit, Failure, NotLoggedIn, Unreachable, as_failure, worst
from console.cli.options import current, show
from console.cli.render.output import emit, note, pairs, rows
from console.presentation.event_text import ancestry, tools_text
from console.presentation.terminal_text import compact
from justenough.domain.approvals import statement_factory
from justenough.domain.approvals.statement_factory import Decision
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.core.errors import InvalidInput, JustEnoughError
from justenough.domain.core.units import duration_text, seconds_of
from justenough.domain.jobs.spec import checked_spec
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Bounds, Tools, written
from justenough.domain.jobs.tool_bounds_syntax import allowed

Json = dict[str, Any]
DOING = {"approve": "Approving", "deny": "Denying", "withdraw": "Taking back the approval of", "break_glass": "BREAKING GLASS for"}


@dataclass(frozen=True, slots=True)
class Saying:
    """What is answered to each request."""

    decision: Decision
    reason: str = ""
    ttl: int | None = None
    """Seconds; None for what was asked."""
    action: Action | None = None
    """None for what was asked."""
    on_behalf_of: str | None = None
    """Login name."""
    tools: tuple[str, ...] = ()
    """Lines of justenough/domain/jobs/tool_bounds_syntax.py; empty for what was asked."""


def seconds(ttl: str | None, *, option: str = "--ttl") -> int | None:
    """Return a duration in seconds. Raises Failure."""
    try:
        return None if ttl is None else seconds_of(ttl)
    except ValueError as error:
        raise Failure(f"{option}: {error}", code=Exit.USAGE) from error


def reason(given: str | None) -> str:
    """Return the reason, asked for where a person can be asked. Raises Failure."""
    if given is None and terminal.is_interactive():
        given = str(typer.prompt("Reason", err=True))
    if not (given or "").strip() or len(given or "") > 1000:
        raise Failure("--reason: required, at most 1,000 characters", code=Exit.USAGE)
    return given or ""


def answer_all(api: Api, requests: Iterable[str], saying: Saying) -> None:
    """Answer each request, whatever becomes of the others, as long as someone answers us; print what they are now; exit with the worst code."""
    answered, codes, several = [], [], list(dict.fromkeys(requests))
    absent = person_named(api, saying.on_behalf_of)["id"] if saying.on_behalf_of else None
    for request in several:
        try:
            answered.append(_answer(api, request, saying, absent=absent))
        except JustEnoughError as error:
            failure = as_failure(error)
            show(failure, about=request if len(several) > 1 else "")
            codes.append(failure.code)
            if isinstance(failure, NotLoggedIn | Unreachable):
                break
    if answered:
        found = answered[0] if len(several) == 1 else {"items": answered, "next": None}
        emit(found, table=lambda _: _short(answered), names=lambda _: (item["id"] for item in answered))
    if codes:
        raise typer.Exit(worst(codes))


def person_named(api: Api, name: str) -> Json:
    """Return the approver of a login name. Raises Failure."""
    return api.get(f"/people/{segment(name)}")


def _answer(api: Api, request: str, saying: Saying, *, absent: str | None) -> Json:
    path = f"/requests/{segment(request)}"
    view = api.get(path)
    if not view["digest"]:
        raise Failure(f"the request is {view['state']}, not pending", code=Exit.CONFLICT)
    tools = _tools(view, saying.tools)
    _describe(api, view, saying, tools)
    if not saying.reason.strip() and needs_reason(saying.decision, view["current_tier"]):
        saying = replace(saying, reason=reason(None))
    _confirm(saying.decision)
    person = api.session.identity().entity
    if saying.decision in {"approve", "break_glass"} and view["lock"]:
        _authorize(api, view)
    statement = statement_factory.answer(
        view,
        saying.decision,
        less=statement_factory.Less(saying.ttl, saying.action, tools),
        reason=saying.reason,
        person=person,
        absent=absent,
        now=datetime.now(UTC),
    )
    body = profile.signed(api.session, statement)
    status, found = api.post(f"{path}/decisions", body, headers={"If-Match": f'"{view["digest"]}"'})
    if status == 202:
        note(f"Your answer is delivered; it counts once a worker has verified it: justenough request show {view['id']}")
    return found


def _authorize(api: Api, view: Json) -> None:
    """Open Vault's own lock as well, as far as this person opens it; the worker counts no approval without."""
    opened = api.session.authorize(view["lock"]["accessor"])
    note("  vault:   " + ("authorized there too; its lock is open" if opened else "authorized there too, if you are one of those it asks"))


def _tools(view: Json, lines: tuple[str, ...]) -> Tools | None:
    """Return what is allowed of a request's tools, None for what was asked. Raises Failure."""
    if not lines:
        return None
    asked = None if view["tools"] is None else {name: Bounds.model_validate(bounds) for name, bounds in view["tools"].items()}
    try:
        return allowed(lines, asked)
    except InvalidInput as error:
        raise Failure("--tool: " + "; ".join(map(str, error.problems)), code=Exit.USAGE) from error


def _describe(api: Api, view: Json, saying: Saying, tools: Tools | None) -> None:
    """Tell on stderr exactly what is answered."""
    time = duration_text(view["ttl"] if saying.ttl is None else min(saying.ttl, view["ttl"]))
    less = f", ALLOWED ONLY AS {saying.action}" if saying.action and saying.action.value != view["action"] else ""
    note(
        f"{DOING[saying.decision]}: {view['requester']} asks for {view['action']} on {view['resource']} "
        f"({view['title']}, {view['sensitivity']}, revocable: {view['revocable']}){less} for {time}, for {view['job_name']}: {view['task']}"
    )
    if call := view["call"]:
        note(f"  call:    {call['tool']}, once, with exactly {compact(call['arguments'])}")
    else:
        note(f"  reason:  {view['reason']}")
    if view["tools"]:
        note(f"  through: {tools_text(view['tools'])}; no credential is handed over")
    if tools is not None:
        note(f"  ALLOWED: only {tools_text(written(tools))}")
    for name, value in (*order_of(api, view["job_id"]), *ancestry(view)):
        note(f"  {name.lower() + ':':<8} {value}")
    note(f"  digest:  {view['digest']}")
    if saying.on_behalf_of:
        note(f"  for:     {saying.on_behalf_of}, who is away")


def order_of(api: Api, job: str) -> list[tuple[str, str]]:
    """Return what of a job's order an approver needs: who acts, on whose data, what runs, why; from the first entry of its ledger."""
    try:
        first = api.get(f"/jobs/{segment(job)}/timeline", limit=1)["items"][0]["data"]
        spec = checked_spec(first["spec"], first["params"])
    except (InvalidInput, LookupError, TypeError):
        return [("command", "not readable from the job's order")]
    agent = (
        " ".join(filter(None, (spec.agent.name, spec.agent.version, spec.agent.model and f"({spec.agent.model})"))) if spec.agent else ""
    )
    told = [("agent", agent), ("data", pairs(dict(spec.data_scope))), ("command", shlex.join(spec.run.command))]
    told += [("files", first["bundle"] or ""), ("ordered", first["reason"])]
    return [(name, value) for name, value in told if value]


def _confirm(decision: Decision) -> None:
    # What takes access away needs no second thought.
    if current().yes or decision in {"deny", "withdraw"} or not terminal.is_interactive():
        return
    question = "Approve this?" if decision == "approve" else "Pass this tier alone? Everyone who answers there will see it and review it."
    if not typer.confirm(question, err=True):
        raise Failure("not approved: you said no")


def _short(answered: list[Json]) -> None:
    lines = [(item["id"], item["resource"], item["action"], item["state"], _missing(item)) for item in answered]
    rows(("ID", "RESOURCE", "ACTION", "STATE", "MISSING"), lines)


def _missing(item: Json) -> str:
    # What was taken back, and what a climb left behind, does not count.
    given = [answer for answer in item["approvals"] if answer["decision"] == "approve" and not answer["withdrawn_at"]]
    left = item["quorum"] - sum(answer["tier"] >= item["current_tier"] for answer in given)
    return f"{left} more" if item["state"] == "pending" and left > 0 else ""
