"""How tests lose a credential, and revoke: as the job's own session does, or from outside, as for a job that has no session."""

from __future__ import annotations

from activities.revocation.revoke import RevocationResult, revoke
from justenough.domain.jobs.states import RevocationState
from tests.activities.vault_shop import Desk, Held, issue_decision


def lose_an_issue(at: Desk) -> tuple[str, Held]:
    """A job whose session died after Vault had issued, and before it recorded the credential."""
    job = at.job()
    at.deps.store.ledger.append([issue_decision(job, 1, at.clock.now())])
    return job, at.issue(job, record=False)


def revoke_by_session(at: Desk, job: str, *held: Held) -> RevocationResult:
    return revoke(at.deps, job, by="session", settled=True, why="it ended", known=tuple(item.credential for item in held))


def revoke_from_outside(at: Desk, job: str) -> RevocationResult:
    return revoke(at.deps, job, by="compensation", settled=False, why="its worker died")


def revocation_state(at: Desk, job: str) -> RevocationState:
    view = at.deps.store.jobs.get(job)
    assert view is not None
    return view.revocation.state
