"""Checks that the people who approve a locked request have also authorized it in Vault's control group. Reads only."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial

from justenough.adapters.vault import control_groups
from justenough.domain.approvals.ladder import ApprovalAnswer
from justenough.domain.approvals.verification import ApprovalVerifier
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action
from justenough.services.dependencies import Deps
from justenough.services.verify_order import build_approval_verifier


def build_control_group_verifier(deps: Deps, *, now: datetime) -> ApprovalVerifier:
    """Build the verifier for counting answers: it also checks that locked requests were authorized in Vault."""
    return replace(build_approval_verifier(deps, now=now), further_check=partial(why_not_authorized, deps))


def why_not_authorized(deps: Deps, request: str, answer: ApprovalAnswer) -> Rejection | None:
    """Return why an answer does not count because its person has not authorized the request in Vault, or None if they have or need not.

    Raises RetryLater if Vault does not answer.
    """
    view, catalog = deps.store.requests.get(request), deps.config.current().catalog
    if view is None or answer.decision == "deny":
        return None
    asked, allowed = (catalog.action(view.resource, Action(action)) for action in (view.action, answer.action or view.action))
    if not any(action is not None and action.locked for action in (asked, allowed)):
        return None
    if asked is not allowed:
        message = f"Vault locks {view.action} on {view.resource} or what is allowed instead: it is allowed as it was asked for, or denied"
        return Rejection("locked_action_narrowed", message)
    return _why_control_group_closed(deps, request, answer)


def _why_control_group_closed(deps: Deps, request: str, answer: ApprovalAnswer) -> Rejection | None:
    kept = deps.store.wrapped_tokens.get(request)
    state = control_groups.read_state(deps.vault, kept.accessor) if kept else None
    if kept is None or state is None:
        return Rejection("control_group_gone", "nothing waits in Vault to be authorized for it (any more)")
    if answer.person not in state.authorized:
        return Rejection(
            "control_group_unauthorized",
            f"Vault has no authorization of {answer.name}'s for it, or counts none: approve with `justenough request approve`, which "
            f"authorizes too, or run `bao write sys/control-group/authorize accessor={kept.accessor}` and approve again",
        )
    if answer.decision == "break_glass" and not state.approved:
        return Rejection("control_group_waiting", "Vault wants more people than one for it, and breaking glass does not open its lock")
    return None
