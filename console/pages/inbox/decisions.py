"""POST decisions, claims and reviews from a request's page. They call the same services as the API, so no rule is repeated here.

If a decision is not valid, the page is shown again with the errors and the input, and nothing is submitted. The same happens if an approval
has limits that the sentence on the page did not state, as without JavaScript: the page then states them and asks again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from console.auth.page_sessions import NoSession
from console.http import problems
from console.http.dependencies import TheConsole
from console.pages.inbox import drafts
from console.pages.inbox.drafts import AnswerDraft
from console.pages.inbox.inbox import CardNotice, card_page
from console.pages.inbox.request_detail import RequestCard, card_of
from console.pages.page_user import PageApprover, PageUser, TheForm, ThePageUser
from console.pages.routing import PageRoute
from console.services.claims import claim_request, release_claim
from console.services.console import Console
from console.services.decide_request import BREAK_GLASS, WITHDRAW, require_entitlement, submit_decision, withdraw_unsigned
from console.services.inputs import ClaimBody
from console.services.reviews import submit_review
from justenough.domain.approvals import statements
from justenough.domain.approvals.statements import NO_NARROWING, DecisionKind, Narrowing
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.core.errors import Conflict, Forbidden, InvalidInput, JustEnoughError, NotFound, Problem, RetryLater, Stale
from justenough.domain.core.units import parse_duration
from justenough.domain.core.untrusted_yaml import check_json
from justenough.domain.inbox.diff import differences
from justenough.domain.inbox.pending import needs_care
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds_syntax import parse_tool_bounds
from justenough.domain.readmodel.views import RequestView

DECISIONS = frozenset({"approve", "deny", WITHDRAW, BREAK_GLASS})
VERDICTS = frozenset({"justified", "unjustified"})
MAX_REASON_LENGTH = 1000
STALE_TEXT = "This request changed since you opened it."
MISSING_TEXT = "Fix what is marked."
UNSIGNABLE_TEXT = "Remove the characters that cannot be signed (NUL or lone surrogates)."
FIELD_BY_STATEMENT_PATH = {"statement.ttl": "ttl", "statement.action": "action", "statement.tools": "tools", "statement.reason": "reason"}
"""The form field of each path in a statement."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class FormAnswer:
    decision: DecisionKind
    reason: str
    absent: str | None
    """Entity id of the absent person on whose behalf the decision is made."""
    limits: Narrowing = NO_NARROWING


@router.post("/inbox/{name}/answer")
async def answer(request: Request, console: TheConsole, visitor: ThePageUser, form: TheForm, name: str) -> Response:
    draft = drafts.draft_from_form(form)
    card = await to_thread.run_sync(card_of, console, visitor.caller, name)
    again = partial(_show_again, request, console, visitor, draft)
    if stale := _stale_notice(form, card):
        return await again(card, stale)
    parsed, errors = parse_answer(draft, card.view)
    if errors:
        notice = CardNotice(status=422, errors=errors, problem=MISSING_TEXT)
        try:
            # The request may have been decided or have escalated since the form was opened. Then correcting the marked fields would not help.
            await to_thread.run_sync(require_entitlement, console.deps, visitor.caller, card.view, card.job, parsed.decision)
        except (Forbidden, Conflict) as error:
            notice = _failure_notice(error)
        return await again(card, notice)
    if parsed.decision == "approve" and draft.choices != draft.stated:
        return await again(card, CardNotice(unstated=True))
    if needs_care(parsed.decision, card.view.current_tier) and not visitor.fresh:
        to_login = RedirectResponse(f"/login/fresh?{urlencode({'next': f'/inbox/{name}'})}", status_code=303)
        drafts.save(to_login, console.cookies, draft, visitor, name)
        return to_login
    try:
        await submit_answer(console, visitor, card.view, parsed)
    except (NoSession, NotFound):
        raise
    except JustEnoughError as error:
        return await again(await to_thread.run_sync(card_of, console, visitor.caller, name), _failure_notice(error))
    before = sum(one.approver_id == visitor.caller.person.id for one in card.view.approvals)
    done, before = ("taken", 0) if parsed.decision == WITHDRAW else ("sent", before)
    return _redirect_back(console, name, done, before=before)


@router.post("/inbox/{name}/claim")
def claim(console: TheConsole, visitor: PageApprover, form: TheForm, name: str) -> Response:
    if form.get("release"):
        release_claim(console.deps, visitor.caller, name)
        return _redirect_back(console, name, "released")
    claim_request(console.deps, visitor.caller, name, seconds=ClaimBody().seconds)
    return _redirect_back(console, name, "claimed")


@router.post("/inbox/{name}/review")
async def review(request: Request, console: TheConsole, visitor: PageApprover, form: TheForm, name: str) -> Response:
    draft = drafts.draft_from_form(form)
    card = await to_thread.run_sync(card_of, console, visitor.caller, name)
    again = partial(_show_again, request, console, visitor, draft)
    if stale := _stale_notice(form, card):
        return await again(card, stale)
    errors = reason_errors(draft.reason, required=True, field="review-reason")
    if draft.verdict not in VERDICTS:
        errors["verdict"] = "Choose a verdict."
    if errors:
        return await again(card, CardNotice(status=422, errors=errors, problem=MISSING_TEXT))
    verdict = cast("Literal['justified', 'unjustified']", draft.verdict)
    statement = statements.build_review_statement(
        card.view.model_dump(mode="json"), verdict, reason=draft.reason, person=visitor.caller.person.id, now=console.deps.now()
    )
    body = await visitor.sign(statement)
    try:
        await to_thread.run_sync(submit_review, console.deps, visitor.caller, name, body)
    except (Forbidden, Conflict, Stale, InvalidInput, RetryLater) as error:
        return await again(await to_thread.run_sync(card_of, console, visitor.caller, name), _failure_notice(error))
    return _redirect_back(console, name, "reviewed")


async def submit_answer(console: Console, visitor: PageUser, view: RequestView, answer: FormAnswer) -> tuple[RequestView, bool]:
    """Sign a decision and submit it; return the result of `submit_decision`. If Vault holds the request in a control group, authorize it before submitting.

    While Vault does not answer, a withdrawal is recorded without a signature.
    """
    statement = statements.build_decision_statement(
        view.model_dump(mode="json"),
        answer.decision,
        narrowing=answer.limits,
        reason=answer.reason,
        person=visitor.caller.person.id,
        on_behalf_of=answer.absent,
        now=console.deps.now(),
    )
    # The worker counts no approval without this authorization. Authorize only after the decision has been validated.
    opening = partial(visitor.authorize, view.lock.accessor) if view.lock and answer.decision in {"approve", BREAK_GLASS} else None
    try:
        signed = await visitor.sign(statement)
    except RetryLater:
        if answer.decision != WITHDRAW:
            raise
        return await to_thread.run_sync(withdraw_unsigned, console, visitor.caller, view.id, answer.reason), True
    return await submit_decision(console, visitor.caller, view.id, signed, if_match=view.digest, before_submit=opening)


def parse_answer(draft: AnswerDraft, view: RequestView) -> tuple[FormAnswer, dict[str, str]]:
    """Return the decision in a form, with the errors by field. Raises InvalidInput for an unknown decision."""
    if draft.decision not in DECISIONS:
        raise InvalidInput("form", (Problem("decision", "must be approve, deny, withdraw or break_glass"),))
    decision = cast("DecisionKind", draft.decision)
    errors = reason_errors(draft.reason, required=needs_reason(decision, view.current_tier))
    limits = _parse_limits(draft, view, errors) if decision in {"approve", BREAK_GLASS} else NO_NARROWING
    if needs_care(decision, view.current_tier) and draft.confirm.strip().casefold() != view.job_name:
        errors["confirm"] = f"Enter the job name exactly: {view.job_name}"
    return FormAnswer(decision, draft.reason, draft.absent or None, limits), errors


async def _show_again(
    request: Request, console: Console, visitor: PageUser, draft: AnswerDraft, card: RequestCard, notice: CardNotice
) -> Response:
    """Show the page of a request again, with what was entered and why nothing was submitted."""
    return await to_thread.run_sync(partial(card_page, request, console, visitor, card, draft=draft, notice=notice))


def _stale_notice(form: FormData, card: RequestCard) -> CardNotice | None:
    """Return a notice of the changes since the form was rendered; None if the request is still the same."""
    if form.get("digest") == card.view.digest:
        return None
    # The form contains the facts that the person was shown. They are only used to list the changes.
    try:
        shown: Any = json.loads(str(form.get("shown", "")))
    except (ValueError, RecursionError):
        shown = {}
    facts = {str(key): str(value) for key, value in shown.items()} if isinstance(shown, dict) else {}
    return CardNotice(status=412, changed=differences(facts, card.facts), problem=STALE_TEXT)


def _failure_notice(error: JustEnoughError) -> CardNotice:
    """Return the notice of a decision that was not submitted, with the errors by form field."""
    faults = error.problems if isinstance(error, InvalidInput) else ()
    text = "; ".join(map(str, faults)) or error.for_callers
    errors = {FIELD_BY_STATEMENT_PATH[one.path]: one.message for one in faults if one.path in FIELD_BY_STATEMENT_PATH}
    return CardNotice(status=problems.status_of(error), errors=errors, problem=text[:1].upper() + text[1:])


def reason_errors(reason: str, *, required: bool, field: str = "reason") -> dict[str, str]:
    """Return the error of a reason, by form field; empty if the reason is valid."""
    if required and not reason:
        return {field: "Enter a reason."}
    if len(reason) > MAX_REASON_LENGTH:
        return {field: f"Shorten the reason to {MAX_REASON_LENGTH:,} characters; it has {len(reason):,}."}
    try:
        check_json("form", {"reason": reason})
    except InvalidInput:
        return {field: UNSIGNABLE_TEXT}
    return {}


def _parse_limits(draft: AnswerDraft, view: RequestView, errors: dict[str, str]) -> Narrowing:
    """Return the limits that an approver sets; add the errors by form field."""
    ttl, action, tools = None, None, None
    try:
        ttl = parse_duration(draft.ttl) if draft.ttl else None
    except ValueError as error:
        errors["ttl"] = f"{error}."
    if ttl is not None and ttl > view.ttl:
        errors["ttl"] = "You cannot approve a longer duration than requested."
    if draft.action in set(Action) and Action(draft.action).rank <= Action(view.action).rank:
        action = Action(draft.action)
    elif draft.action:
        errors["action"] = f"Choose {view.action} or a lesser action."
    if lines := [line for line in draft.tools.splitlines() if line.strip()]:
        try:
            tools = parse_tool_bounds(lines, view.tools)
        except InvalidInput as error:
            errors["tools"] = "; ".join(map(str, error.problems)) + "."
    return Narrowing(ttl, action, tools)


def _redirect_back(console: Console, name: str, done: str, *, before: int = 0) -> Response:
    response = RedirectResponse(f"/inbox/{name}?done={done}{f'&before={before}' if before else ''}", status_code=303)
    drafts.delete(response, console.cookies, name)
    return response
