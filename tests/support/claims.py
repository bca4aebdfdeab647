"""Claims of jobs, for tests that need no session."""

from __future__ import annotations

from datetime import datetime

from justenough.adapters.store import ClaimResult, Store


def claim_job(store: Store, job: str, *, run: str, owner: str, now: datetime) -> bool:
    """Claim a job as a session does, in the only place of an account of its own. Return whether it was claimed."""
    return store.claims.claim(job, run=run, owner=owner, launcher=job, places=1, now=now) is ClaimResult.CLAIMED
