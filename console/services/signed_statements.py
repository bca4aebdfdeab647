"""Validates signed statements: well-formed, complete, made by the caller, valid now, and signed with the caller's key. Records nothing.

Blocking, for a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from console.auth.authorization import Caller
from console.services.inputs import SignedBody
from justenough.domain.approvals.statements import DecisionStatement, DelegationStatement, ReviewStatement, why_not_valid_now
from justenough.domain.approvals.verification import read_statement
from justenough.domain.core.errors import Forbidden, Problem, raise_problems
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.untrusted_yaml import validate_model
from justenough.services.dependencies import Deps
from justenough.services.verify_order import build_approval_verifier

S = TypeVar("S", DecisionStatement, DelegationStatement, ReviewStatement)
D = TypeVar("D", DelegationStatement, ReviewStatement)

StatementChecks = Mapping[str, tuple[bool, str]]
"""By key of a statement: whether its value is wrong, and the message for that case."""


def parse_own_statement(model: type[S], body: SignedBody, caller: Caller) -> S:
    """Return the parsed statement. Raises InvalidInput with every problem by path, Forbidden if it names a person other than the caller."""
    kind = str(model.model_fields["type"].default)
    statement = validate_model(kind, model, body.statement, within=("statement",))
    if statement.person != caller.person.id:
        raise Forbidden(f"the {kind} is another person's: its statement names a different person than the token")
    return statement


def validate_statement(deps: Deps, statement: D, body: SignedBody, checks: StatementChecks) -> None:
    """Raise InvalidInput with every problem of a statement by path, Forbidden if its signature is not valid."""
    kind, late = statement.type, why_not_valid_now(statement, now=deps.now())
    require_checks(
        kind, {**checks, "reason": (not statement.reason.strip(), "a reason is required"), "expires_at": (late is not None, str(late))}
    )
    signed, verifier = body.to_signed(), build_approval_verifier(deps, now=deps.now())
    reread = read_statement(type(statement), signed)
    signer = reread if isinstance(reread, Rejection) else verifier.verify_signer(statement.person, signed)
    if isinstance(signer, Rejection):
        raise Forbidden(f"the {kind} is not valid: {signer}")


def require_checks(kind: str, checks: StatementChecks) -> None:
    """Raise InvalidInput with a problem for each wrong key of a statement."""
    raise_problems(kind, (Problem(f"statement.{name}", message) for name, (is_wrong, message) in checks.items() if is_wrong))
