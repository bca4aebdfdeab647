"""Statements that callers sent signed: read, their caller's own, whole, and signed with their own key. Blocking, for a thread. Records nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from console.auth.authorization import Caller
from console.services.inputs import SignedBody
from justenough.domain.approvals.statements import DecisionStatement, DelegationStatement, ReviewStatement, why_not_valid_now
from justenough.domain.approvals.verification import read_statement
from justenough.domain.core.errors import Forbidden, InvalidInput, Problem
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.untrusted_yaml import to_yaml_path
from justenough.services.dependencies import Deps
from justenough.services.verify_order import build_approval_verifier

S = TypeVar("S", DecisionStatement, DelegationStatement, ReviewStatement)
D = TypeVar("D", DelegationStatement, ReviewStatement)

StatementChecks = Mapping[str, tuple[bool, str]]
"""What may be wrong with a statement, by key: whether it is, and the sentence that says so."""


def parse_own_statement(model: type[S], body: SignedBody, caller: Caller) -> S:
    """Return the statement as typed; raise InvalidInput by path, Forbidden where it is another person's."""
    kind = statement_type(model)
    try:
        statement = model.model_validate(body.statement)
    except ValidationError as error:
        raise InvalidInput(kind, statement_problems(error)) from error
    if statement.person != caller.person.id:
        raise Forbidden(f"the {kind}'s statement is another person's than the token's")
    return statement


def validate_statement(deps: Deps, statement: D, body: SignedBody, checks: StatementChecks) -> None:
    """Raise InvalidInput with everything that is wrong with a statement by path, Forbidden where its signature does not hold."""
    kind, late = statement_type(type(statement)), why_not_valid_now(statement, now=deps.now())
    require_checks(
        kind, {**checks, "reason": (not statement.reason.strip(), "a reason is required"), "expires_at": (late is not None, str(late))}
    )
    seen = read_statement(type(statement), body.to_signed())
    signer = (
        seen
        if isinstance(seen, Rejection)
        else build_approval_verifier(deps, now=deps.now()).verify_signer(statement.person, body.to_signed())
    )
    if isinstance(signer, Rejection):
        raise Forbidden(f"the {kind} does not hold: {signer}")


def require_checks(kind: str, checks: StatementChecks) -> None:
    """Raise InvalidInput with each key of a statement that is wrong."""
    problems = tuple(Problem(f"statement.{name}", message) for name, (is_wrong, message) in checks.items() if is_wrong)
    if problems:
        raise InvalidInput(kind, problems)


def statement_problems(error: ValidationError) -> tuple[Problem, ...]:
    """Return what is wrong with a statement, by path."""
    return tuple(
        Problem(to_yaml_path(("statement", *item["loc"])), item["msg"]) for item in error.errors(include_url=False, include_input=False)
    )


def statement_type(model: type[DecisionStatement | DelegationStatement | ReviewStatement]) -> str:
    """Return what a statement calls itself."""
    return str(model.model_fields["type"].default)
