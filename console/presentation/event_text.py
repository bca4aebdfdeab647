"""What happened, in a sentence: the ledger's entries as people read them. Pure; the entries' names and fields are docs/reference/ledger.md's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.presentation.terminal_text import moment

Json = Mapping[str, Any]

SENTENCES: dict[str, Callable[[Json], str]] = {
    "job.submitted": lambda d: f"{d['requester_name']} ordered it{_parent_suffix(d.get('parent'))}{_reason_suffix(d['reason'])}",
    "job.refused": lambda d: f"its order does not hold: {d['why']}",
    "job.started": lambda d: f"runs on {d['worker']} (sandbox: {d['sandbox']})",
    "job.ended": lambda d: f"{d['state']}{_exit_suffix(d['exit_code'])}{_reason_suffix(informative_reason(d['exit_code'], d['reason']))}",
    "access.requested": lambda d: (
        f"asks for {d['action']} on {d['resource']} for {duration_label(d['ttl'])}{_tools_suffix(d.get('tools'))}{_reason_suffix(d['reason'])}"
    ),
    "access.decided": lambda d: f"{_outcome_text(d)} ({', '.join(d['policies']) or 'no policy allows it'}){_errors_suffix(d['errors'])}",
    "access.withdrawn": lambda d: f"{d['request']} withdrawn: {d['why']}",
    "approval.opened": lambda d: f"waits for tier {d['tier']} ({d['quorum']} needed) until {moment(d['respond_by'])}: {d['request']}",
    "approval.escalated": lambda d: f"climbed to tier {d['tier']} ({d['quorum']} needed), until {moment(d['respond_by'])}: {d['request']}",
    "approval.decided": lambda d: (
        f"{d['name']}{_behalf_suffix(d)} {decision_text(d['decision'])}{_tools_suffix(d.get('tools'))}{_reason_suffix(d['reason'])}; "
        f"the request is {d['verdict']}: {d['request']}"
    ),
    "approval.rejected": lambda d: f"an answer does not count: {d['why']}",
    "lock.opened": lambda d: f"{d['request']} waits in Vault until {d['approvals']} of {_join_values(d['groups'])} authorize it there",
    "approval.withdrawn": lambda d: f"{d['name']} took it back{_reason_suffix(d['reason'])}; the request is {d['verdict']}: {d['request']}",
    "approval.claimed": lambda d: (
        f"{d['name']} looks at it until {moment(d['until'])}: {d['request']}"
        if d["until"]
        else f"{d['name']} no longer looks at {d['request']}"
    ),
    "review.opened": lambda d: f"{d['name']} passed tier {_join_values(d['tiers'])} of {d['request']} alone{_reason_suffix(d['reason'])}",
    "review.answered": lambda d: f"{d['name']} finds it {d['verdict']} that {d['request']} was passed alone{_reason_suffix(d['reason'])}",
    "delegation.made": lambda d: f"{d['delegate_name']} answers for {d['name']} until {moment(d['until'])}{_reason_suffix(d['reason'])}",
    "delegation.ended": lambda d: f"{d['name']} answers for themselves again",
    "approval.expired": lambda d: f"tier {d['tier']} did not answer: {d['request']}",
    "stop.requested": lambda d: f"{d['name']} asks to {d['how']} it",
    "credential.issued": lambda d: f"{d['action']} on {d['resource']} until {moment(d['expires_at'])} ({d['credential']})",
    "credential.refused": lambda d: f"not issued for {d['request']}: {d['why']}",
    "credential.doubted": lambda d: f"{d['credential']} may have been issued ({d['action']} on {d['resource']}); nobody has its handles",
    "credential.renewed": lambda d: f"{d['credential']} until {moment(d['expires_at'])}",
    "access.refused": lambda d: f"asked for {d['asked']}, which is no request: {d['why']}",
    "tool.called": lambda d: f"called {d['tool']} ({d['action']}): {d['outcome']}, {d['duration_ms']} ms",
    "upstream.refused": lambda d: f"nothing of {d['upstream']} is passed on: {d['why']}{_changes_suffix(d['changes'])}",
    "credential.used": lambda d: f"{d['credential']}: {d['what']}",
    "credential.revoked": lambda d: f"{d['credential']} by {d['by']}{_reason_suffix(d['why'])}",
    "credential.confirmed": lambda d: f"{d['credential']} is dead: {d['how']}",
    "credential.expired": lambda d: f"{d['credential']}: {d['why']}",
    "credential.overdue": lambda d: f"{d['credential']} could not be ended (attempt {d['attempt']}): {_join_values(d['failures'])}",
    "identity.issued": lambda d: f"vouched for to {d['audience']} until {moment(d['expires_at'])}",
    "model.used": lambda d: (
        f"{d['calls']} call{'s' if d['calls'] != 1 else ''} of {d['model']} ({d['name']}) {d['outcome']}: "
        f"{d['prompt_tokens']} tokens of prompts, {d['completion_tokens']} of answers"
    ),
    "revocation.requested": lambda d: f"{d['name']} takes {d['credential']} away",
    "revocation.started": lambda d: f"by {d['by']}{_reason_suffix(d['why'])}",
    "revocation.overdue": lambda d: f"could not be completed (attempt {d['attempt']}): {_join_values(d['failures'])}",
    "revocation.confirmed": lambda d: f"nothing of it is alive (seen by {d['by']})",
    "schedule.skipped": lambda d: f"kept {d['schedule']} from launching another at {moment(d['occasion'])}",
    "schedule.paused": lambda d: f"{d['name']} pauses the schedule {d['schedule']}{_reason_suffix(d['reason'])}",
    "schedule.unpaused": lambda d: f"{d['name']} lets the schedule {d['schedule']} go on",
    "sweep.reported": lambda d: f"alive in Vault or a target, of no known job: {_join_values(d['unknown'])}",
}


def event_sentence(kind: str, data: Json) -> str:
    """Return what an entry says; of a kind that this version does not know, nothing."""
    try:
        return SENTENCES[kind](data)
    except (KeyError, TypeError, AttributeError):
        return ""


def duration_label(seconds: object) -> str:
    """Return seconds as people write them: 600 → `10m`."""
    from justenough.domain.core.units import duration_text  # noqa: PLC0415 - loads pydantic, which most commands do without

    return duration_text(seconds) if isinstance(seconds, int) else ""


def decision_text(decision: str) -> str:
    """Return what somebody did who gave this answer."""
    return {"approve": "approved", "deny": "denied", "break_glass": "broke glass"}.get(decision, decision)


def ancestor_lines(item: Json) -> list[tuple[str, str]]:
    """Return a line for each job that launched a job, or a request's job, the nearest first: what it touched counts for this one."""
    return [("Launched by", _ancestor_text(one)) for one in item.get("chain") or ()]


def _ancestor_text(one: Json) -> str:
    touched = f"touched {', '.join(one['touched'])} ({one['sensitivity']})" if one["touched"] else "touched nothing"
    return f"{one['job']} ({one['name']}, by {one['requester']}): {one['task']}; {touched}"


def informative_reason(exit_code: object, reason: str | None) -> str | None:
    """Return a job's reason unless it says no more than its exit code does."""
    return None if reason == f"exit code {exit_code}" else reason


def _outcome_text(data: Json) -> str:
    outcome = f"needs approval at tier {data['tier']}" if data["outcome"] == "needs_approval" else data["outcome"]
    return f"{data['request']} {outcome} at {data['phase']}"


def tools_text(tools: Mapping[str, Any] | None) -> str:
    """Return the tools that access is had through, each with its bounds, on one line; empty for none."""
    from justenough.domain.jobs.tool_bounds_syntax import format_recorded_tools  # noqa: PLC0415 - loads pydantic, which most commands do without

    return format_recorded_tools(tools) if tools else ""


def _tools_suffix(tools: Mapping[str, Any] | None) -> str:
    return f", only through {tools_text(tools)}" if tools else ""


def _parent_suffix(parent: object) -> str:
    return f" from within {parent}" if parent else ""


def _reason_suffix(reason: object) -> str:
    return f": {reason}" if reason else ""


def _exit_suffix(code: object) -> str:
    return "" if code is None else f" (exit code {code})"


def _errors_suffix(errors: object) -> str:
    return f"; errors: {_join_values(errors)}" if errors else ""


def _changes_suffix(changes: object) -> str:
    return f" ({_join_values(changes)})" if changes else ""


def _behalf_suffix(data: Json) -> str:
    return f" (for {data['on_behalf_of_name']})" if data.get("on_behalf_of_name") else ""


def _join_values(values: Any) -> str:
    return "; ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
