"""Statements that callers sent signed: read, their caller's own, whole, and signed with their own key. Blocking, for a thread. Records nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from console.auth.authorization import Caller
from console.services.inputs import SignedBody
from justenough.domain.approvals.statements import DecisionStatement, DelegationStatement, ReviewStatement, why_not_current
from justenough.domain.approvals.verification import Refused, read
from justenough.domain.core.errors import Forbidden, InvalidInput, Problem
from justenough.domain.core.untrusted_yaml import path_of
from justenough.services.dependencies import Deps
from justenough.services.verify_order import table

S = TypeVar("S", DecisionStatement, DelegationStatement, ReviewStatement)
D = TypeVar("D", DelegationStatement, ReviewStatement)

Wrong = Mapping[str, tuple[bool, str]]
"""What may be wrong with a statement, by key: whether it is, and the sentence that says so."""


def own(model: type[S], body: SignedBody, caller: Caller) -> S:
    """Return the statement as typed; raise InvalidInput by path, Forbidden where it is another person's."""
    kind = kind_of(model)
    try:
        statement = model.model_validate(body.statement)
    except ValidationError as error:
        raise InvalidInput(kind, statement_problems(error)) from error
    if statement.person != caller.person.id:
        raise Forbidden(f"the {kind}'s statement is another person's than the token's")
    return statement


def must_be_whole(deps: Deps, statement: D, body: SignedBody, wrong: Wrong) -> None:
    """Raise InvalidInput with everything that is wrong with a statement by path, Forbidden where its signature does not hold."""
    kind, late = kind_of(type(statement)), why_not_current(statement, now=deps.now())
    refuse_wrong(kind, {**wrong, "reason": (not statement.reason.strip(), "a reason is required"), "expires_at": (bool(late), late or "")})
    seen = read(type(statement), body.signed())
    signer = seen if isinstance(seen, Refused) else table(deps, now=deps.now()).signer(statement.person, body.signed())
    if isinstance(signer, Refused):
        raise Forbidden(f"the {kind} does not hold: {signer.why}")


def refuse_wrong(kind: str, wrong: Wrong) -> None:
    """Raise InvalidInput with each key of a statement that is wrong."""
    problems = tuple(Problem(f"statement.{name}", message) for name, (is_wrong, message) in wrong.items() if is_wrong)
    if problems:
        raise InvalidInput(kind, problems)


def statement_problems(error: ValidationError) -> tuple[Problem, ...]:
    """Return what is wrong with a statement, by path."""
    return tuple(
        Problem(path_of(("statement", *item["loc"])), item["msg"]) for item in error.errors(include_url=False, include_input=False)
    )


def kind_of(model: type[DecisionStatement | DelegationStatement | ReviewStatement]) -> str:
    """Return what a statement calls itself."""
    return str(model.model_fields["type"].default)
