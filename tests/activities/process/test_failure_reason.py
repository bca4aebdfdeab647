"""The reason that a job gets when its session fails: a recorded name that does not depend on the name of the class."""

from __future__ import annotations

import pytest

from activities.issuing.results import IssueRefused
from activities.session.session import failure_reason
from justenough.adapters.vault import VaultUnavailable
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.jobs.states import JobState
from tests.activities.revocation.test_hanging_store import session_of
from tests.activities.vault_shop import Desk


@pytest.mark.parametrize(
    "error, reason",
    [
        (IssueRefused("read on orders: no"), "NotIssued: read on orders: no"),
        (VaultUnavailable("Vault did not answer"), "VaultUnavailable: Vault did not answer"),
    ],
)
def test_a_failed_session_names_its_error_by_its_recorded_name(error: JustEnoughError, reason: str) -> None:
    assert failure_reason(error) == reason


@pytest.mark.servers
async def test_a_job_whose_files_the_store_has_lost_fails_with_what_to_do_and_keeps_no_access(at: Desk) -> None:
    session, started = session_of(at, bundle=f"sha256:{'0' * 64}")
    ended = await session.run()
    why = f"NotIssued: bundle sha256:{'0' * 64} is not in the store: launch the job again, so that its files are sent again"
    assert (ended.outcome, ended.reason, ended.clean) == (JobState.FAILED, why, True)
    (issued,) = at.deps.store.credentials.list(job=started.job).items
    assert issued.user is not None
    assert at.shop.users_of(issued.user) == []


@pytest.mark.servers
async def test_a_job_keeps_no_access_whatever_its_session_stumbled_over(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session, started = session_of(at)

    def stumble() -> None:
        raise RuntimeError("a text that nobody may read")

    monkeypatch.setattr(session, "_unpack_bundle", stumble)
    ended = await session.run()
    assert (ended.outcome, ended.reason, ended.clean) == (JobState.FAILED, "unexpected RuntimeError", True)
    (issued,) = at.deps.store.credentials.list(job=started.job).items
    assert issued.user is not None
    assert at.shop.users_of(issued.user) == []
