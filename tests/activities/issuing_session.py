"""A job's session that issues its one request, with the issuer that sessions use."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import pytest

from activities.issuing.issuer import Issuer
from activities.issuing.results import IssuedCredential
from activities.revocation.revoke import RevocationResult, revoke
from justenough.domain.approvals.ladder import ApprovalAnswer
from justenough.domain.contracts.workflow_messages import GrantedRequest, JobInput
from justenough.domain.core.ids import new_job_id, request_id
from justenough.domain.jobs.states import Action
from justenough.services.job_history import read_job_history
from justenough.services.ledger_events import order_events
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.issuing.test_renewal_check import approval_of
from tests.activities.vault_shop import SPEC, Desk
from tests.support.claims import claim_job


class Died(BaseException):
    """Stands for the end of a worker's process."""


@dataclass(frozen=True)
class Session:
    """A job's session that may issue its one request."""

    at: Desk
    job: str
    order: JobInput
    verified: VerifiedOrder
    issuer: Issuer
    granted: GrantedRequest

    def issue(self) -> IssuedCredential:
        return self.issuer.issue(self.granted)

    def die_during(self, issue: Callable[[], object]) -> str:
        """Die after Vault has issued and before the session records it; return the user's name."""
        vault, names = self.at.deps.vault, list[str]()
        call_vault = vault.issue

        def issue_and_die(*arguments: Any) -> NoReturn:
            names.append(call_vault(*arguments).fields["username"].reveal())
            raise Died

        with pytest.MonkeyPatch.context() as dying:
            dying.setattr(vault, "issue", issue_and_die)
            with pytest.raises(Died):
                issue()
        (name,) = names
        return name

    def end(self) -> RevocationResult:
        """Revoke as the session's own exit does."""
        holdings = self.issuer.holdings
        ends = tuple(chain.from_iterable(holdings.unrecorded_ends.values()))
        return revoke(self.at.deps, self.job, by="session", settled=True, why="it ended", known=holdings.alive, before=ends)

    def entry_types(self) -> list[str]:
        return [
            entry.type
            for entry in self.at.deps.store.ledger.entries(job=self.job).items
            if entry.type.startswith(("credential", "revocation"))
        ]

    def credential_state(self) -> str:
        (view,) = self.at.deps.store.credentials.list(job=self.job).items
        return view.state.value


def start_session(at: Desk, access: Mapping[str, Any], *, tier: int = 0, granted: Action | None = None) -> Session:
    """Return the session of a newcomer's job with this one request, approved where a tier asks for it. `granted`: a narrower action."""
    deps, mark = at.deps, secrets.token_hex(4)
    launcher = at.shop.newcomer(f"launcher-{mark}", "ops")
    job = new_job_id("dev", now=deps.now())
    order = launcher.order(job, now=deps.now(), spec={**SPEC, "access": [access]})
    verified = verify_order(deps, order, now=deps.now())
    assert isinstance(verified, VerifiedOrder)
    deps.store.ledger.append(order_events(deps, order, verified))
    assert claim_job(deps.store, job, run="run", owner="owner", now=deps.now())
    issuer = Issuer(deps, order, verified, read_job_history(deps.store.ledger, job), owner="owner")
    answers: tuple[ApprovalAnswer, ...] = ()
    if tier:
        answers = (approval_of(at, job, verified, at.shop.newcomer(f"approver-{mark}", "support-leads"), tier=tier, action=granted),)
    return Session(at, job, order, verified, issuer, GrantedRequest(id=request_id(job, 1), number=1, answers=answers))
