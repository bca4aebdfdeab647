"""Ledger entries as one-line sentences. Pure. docs/reference/ledger.md lists the event types and their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from console.presentation.policy_text import denial_text
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import moment
from justenough.domain.approvals.tier_names import tiers_text
from justenough.domain.jobs.result_reasons import result_reason_text
from justenough.domain.jobs.states import reason_source_text
from justenough.domain.ledger.overdue import failures_text

Json = Mapping[str, Any]

LATER_DECISIONS = {
    "narrowed": " on the terms that people approved",
    "granted": ", checked again before its tools are called",
    "issue": ", checked again at issue",
}
"""What is added to the sentence about a later decision on the same request, by phase."""
SENTENCES: dict[str, Callable[[Json], str]] = {
    "job.submitted": lambda d: f"launched by {d['requester_name']}{_suffix(' from job {}', d.get('parent'))}{_suffix(': {}', d['reason'])}",
    "job.refused": lambda d: f"order rejected: {d['why']}",
    "job.started": lambda d: f"started on {d['worker']} (sandbox: {d['sandbox']})",
    "job.ended": lambda d: (
        f"{state_word('job', d['state'])}{_suffix(' (exit code {})', d['exit_code'] is not None and str(d['exit_code']))}"
        f"{_suffix(': {}', informative_reason(d['exit_code'], d['reason']))}"
    ),
    "access.requested": lambda d: (
        f"requests {d['action']} on {d['resource']} for {duration_label(d['ttl'])}{_suffix(', only through {}', tools_text(d.get('tools')))}"
        f": {d['reason']} ({reason_source_text(d.get('reason_by'), has_parent=None)})"
    ),
    "access.decided": lambda d: (
        f"{d['request']} {d['outcome'].replace('_', ' ')}{_suffix(' at tier {}', d['outcome'] == 'needs_approval' and d['tier'])}"
        f"{LATER_DECISIONS.get(d['phase'], ' at ' + str(d['phase']))}{_policies_text(d)}{_suffix('; errors: {}', d['errors'])}"
    ),
    "access.withdrawn": lambda d: f"{d['request']} withdrawn: {d['why']}",
    "approval.opened": lambda d: f"waiting for {_tier_text(d)}",
    "approval.escalated": lambda d: (
        f"escalated to {_tier_text(d)}{_suffix('; the approvals so far are enough, so it is {}', d.get('verdict'))}"
    ),
    "approval.decided": lambda d: (
        f"{d['name']}{_suffix(' (for {})', d.get('on_behalf_of_name'))} {decision_text(d['decision'])}{_suffix(', only through {}', tools_text(d.get('tools')))}{_suffix(': {}', d['reason'])}; "
        f"the request is {d['verdict']}: {d['request']}"
    ),
    "approval.rejected": lambda d: f"decision rejected: {d['why']}",
    "lock.opened": lambda d: f"{d['request']} needs {_approvals_text(d['approvals'])} in Vault by {_join_values(d['groups'])}",
    "approval.withdrawn": lambda d: (
        f"{d['name']} withdrew the approval{_suffix(': {}', d['reason'])}; the request is {d['verdict']}: {d['request']}"
    ),
    "approval.claimed": lambda d: (
        f"{d['name']} claimed {d['request']} until {moment(d['until'])}"
        if d["until"]
        else f"{d['name']} released the claim on {d['request']}"
    ),
    "review.opened": lambda d: (
        f"{d['name']} used break-glass to bypass {tiers_text(d['tiers'], d.get('tier_names', ()))} of {d['request']}{_suffix(': {}', d['reason'])}"
    ),
    "review.answered": lambda d: (
        f"{d['name']} reviewed the break-glass use for {d['request']}: {d['verdict']}{_suffix(': {}', d['reason'])}"
    ),
    "delegation.made": lambda d: f"{d['name']} delegated to {d['delegate_name']} until {moment(d['until'])}{_suffix(': {}', d['reason'])}",
    "delegation.ended": lambda d: f"{d['name']} ended the delegation",
    "attention.acknowledged": lambda d: f"{d['name']} is taking care of {d['item']}{_suffix(': {}', d['note'])}",
    "approval.expired": lambda d: f"tier {d['tier']} did not decide in time: {d['request']}",
    "stop.requested": lambda d: f"{d['name']} requested to {d['how']} the job{_suffix(': {}', d.get('reason'))}",
    "credential.issued": lambda d: f"{d['action']} on {d['resource']} until {moment(d['expires_at'])} ({d['credential']})",
    "credential.refused": lambda d: f"not issued for {d['request']}: {d['why']}",
    "credential.doubted": lambda d: (
        f"{d['credential']} may have been issued ({d['action']} on {d['resource']}); its lease and accessor are unknown"
    ),
    "credential.found": lambda d: f"its user {d['user']} was found in {d['target']}, so not finding it later shows that it is gone",
    "credential.renewed": lambda d: f"the lease of {d['credential']} was renewed; the credential still ends at {moment(d['expires_at'])}",
    "access.refused": lambda d: f"rejected request for {d['asked']}: {d['why']}",
    "tool.called": lambda d: f"called {d['tool']} ({d['action']}): {d['outcome']}, {d['duration_ms']} ms",
    "upstream.refused": lambda d: f"upstream {d['upstream']} is blocked: {d['why']}{_suffix(' ({})', d['changes'])}",
    "credential.used": lambda d: f"{d['credential']}: {d['what']}",
    "credential.revoked": lambda d: (
        f"{d['credential']} revoked {_revoker_text(d['by'])}{_suffix(': {}', result_reason_text(d['why']))}{_done_text(d)}"
    ),
    "credential.confirmed": lambda d: f"{d['credential']} verified as revoked: {d['how']}{_done_text(d)}",
    "credential.residual": lambda d: (
        f"{d['credential']} is still valid{_suffix(' until {}', d['until'] and moment(d['until']))}: {d['why']}"
    ),
    "credential.expired": lambda d: f"{d['credential']} expired: {d['why']}",
    "credential.overdue": lambda d: f"revoking {d['credential']} failed (attempt {d['attempt']}): {failures_text(d['failures'])}",
    "identity.issued": lambda d: f"identity token for {d['audience']} until {moment(d['expires_at'])}",
    "model.used": lambda d: (
        f"{d['calls']} call{'s' if d['calls'] != 1 else ''} to {d['model']} ({d['name']}) {d['outcome']}: "
        f"{d['prompt_tokens']} prompt tokens, {d['completion_tokens']} completion tokens"
    ),
    "revocation.requested": lambda d: f"{d['name']} requested revocation of {d['credential']}",
    "withdrawal.requested": lambda d: f"{d['name']} requested withdrawal of the approval of {d['request']}",
    "revocation.started": lambda d: f"revocation started {_revoker_text(d['by'])}{_suffix(': {}', result_reason_text(d['why']))}",
    "revocation.overdue": lambda d: f"revocation failed (attempt {d['attempt']}): {failures_text(d['failures'])}",
    "revocation.confirmed": lambda d: f"all access that can be revoked is verified as revoked (by {d['by']})",
    "schedule.skipped": lambda d: f"schedule {d['schedule']} skipped its run at {moment(d['occasion'])}",
    "schedule.paused": lambda d: f"{d['name']} paused the schedule {d['schedule']}{_suffix(': {}', d['reason'])}",
    "schedule.unpaused": lambda d: f"{d['name']} unpaused the schedule {d['schedule']}",
    "ledger.checkpointed": lambda d: f"signed checkpoint of the ledger's first {d['entries']} entries",
    "sweep.reported": lambda d: f"active in Vault or a target but not part of any known job: {_join_values(d['unknown'])}",
}


def event_sentence(kind: str, data: Json) -> str:
    """Return an entry as a sentence; empty for an unknown event type or unknown fields."""
    try:
        return SENTENCES[kind](data)
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def duration_label(seconds: object) -> str:
    """Return seconds as a duration label: 600 → `10m`."""
    from justenough.domain.core.units import duration_text  # noqa: PLC0415 - loads pydantic, which most commands do without

    return duration_text(seconds) if isinstance(seconds, int) else ""


def decision_text(decision: str) -> str:
    """Return a decision as a past-tense verb."""
    return {"approve": "approved", "deny": "denied", "break_glass": "used break-glass"}.get(decision, decision)


def ancestor_lines(item: Json) -> list[tuple[str, str]]:
    """Return one labelled line per ancestor of a job or of a request's job, nearest first. What ancestors touched also counts for the job."""
    return [
        (
            "Launched by",
            f"{one['job']} ({one['name']}, by {one['requester']}): {one['task']}; "
            + (f"touched {', '.join(one['touched'])} ({one['sensitivity']})" if one["touched"] else "touched no resource"),
        )
        for one in item.get("chain") or ()
    ]


def informative_reason(exit_code: object, reason: str | None) -> str:
    """Return the reason of a job's result in words; empty if it only repeats the exit code."""
    return "" if reason == f"exit code {exit_code}" else result_reason_text(reason)


def tools_text(tools: Mapping[str, Any] | None) -> str:
    """Return the tools that access is limited to, each with its bounds, on one line; empty for none."""
    from justenough.domain.jobs.tool_bounds_syntax import format_recorded_tools  # noqa: PLC0415 - loads pydantic, which most commands do without

    return format_recorded_tools(tools) if tools else ""


def _policies_text(data: Json) -> str:
    """Return the policies that decided, as text. `policy_reasons`: the policies' sentences, which no entry contains but a caller may add."""
    if data["outcome"] == "denied":
        return f": {denial_text(data['policies'], data.get('policy_reasons') or {})}"
    return f" ({', '.join(data['policies'])})"


def _tier_text(data: Json) -> str:
    return f"tier {data['tier']} ({_approvals_text(data['quorum'])}) until {moment(data['respond_by'])}: {data['request']}"


def _approvals_text(count: int) -> str:
    return f"{count} approval{'s' if count != 1 else ''}"


def _done_text(data: Json) -> str:
    return f" (found dead at {moment(data['done_at'])}, recorded later)" if "done_at" in data else ""


def _suffix(form: str, values: object) -> str:
    return form.format(_join_values(values)) if values else ""


def _join_values(values: Any) -> str:
    return "; ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)


def _revoker_text(by: str) -> str:
    return "at a person's request" if by == "person" else f"by {by}"
