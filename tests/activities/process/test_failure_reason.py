"""The reason that a job gets when its session fails: a name that records keep, whatever the class is called."""

from __future__ import annotations

import pytest

from activities.issuing.results import IssueRefused
from activities.session.session import failure_reason
from justenough.adapters.vault import VaultUnavailable
from justenough.domain.core.errors import JustEnoughError


@pytest.mark.parametrize(
    "error, reason",
    [
        (IssueRefused("read on orders: no"), "NotIssued: read on orders: no"),
        (VaultUnavailable("Vault did not answer"), "VaultUnavailable: Vault did not answer"),
    ],
)
def test_a_failed_session_names_its_error_by_its_recorded_name(error: JustEnoughError, reason: str) -> None:
    assert failure_reason(error) == reason
