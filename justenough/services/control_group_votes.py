"""Checks that the people who approve a locked request have also authorized it in Vault's control group. Reads only."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial

from justenough.adapters.vault import control_groups
from justenough.domain.approvals.ladder import ApprovalAnswer
from justenough.domain.approvals.verification import ApprovalVerifier
from justenough.domain.catalog.control_groups import why_not_narrowable
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action
from justenough.services.dependencies import Deps
from justenough.services.verify_order import build_approval_verifier


def build_control_group_verifier(deps: Deps, *, now: datetime) -> ApprovalVerifier:
    """Build the verifier for counting answers: it also checks that locked requests were authorized in Vault."""
    return replace(build_approval_verifier(deps, now=now), further_check=partial(why_not_authorized, deps))


def why_not_authorized(deps: Deps, request: str, answer: ApprovalAnswer) -> Rejection | None:
    """Return why an answer lacks its person's authorization in Vault, or None if it has or needs none. Raises RetryLater."""
    view, catalog = deps.store.requests.get(request), deps.config.current().catalog
    if view is None or answer.decision == "deny":
        return None
    requested = Action(view.action)
    if rejection := why_not_narrowable(catalog, view.resource, requested, Action(answer.action or requested)):
        return rejection
    definition = catalog.action(view.resource, requested)
    if definition is None or not definition.locked:
        return None
    token = deps.store.wrapped_tokens.get(request)
    state = control_groups.read_state(deps.vault, token.accessor) if token else None
    if token is None or state is None:
        return Rejection("control_group_gone", "Vault has no control group request for this access; the wrapping token may have expired")
    if answer.person not in state.authorized:
        message = (
            f"Vault has no authorization by {answer.name} for this request, or does not count it: approve with `justenough request approve`, "
            f"which also authorizes, or run `bao write sys/control-group/authorize accessor={token.accessor}` and approve again"
        )
        return Rejection("control_group_unauthorized", message)
    is_short = answer.decision == "break_glass" and not state.approved
    message = "Vault requires more authorizations for this request, which break-glass cannot replace"
    return Rejection("control_group_waiting", message) if is_short else None
