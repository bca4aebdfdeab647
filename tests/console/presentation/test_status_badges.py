"""The badges of states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import pytest

from console.presentation.status_badges import BADGES
from justenough.domain.approvals.statements import DecisionKind
from justenough.domain.jobs.credentials import Decision
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, Revocable, RevocationState, Sensitivity
from justenough.domain.readmodel.attention import AttentionKind


@pytest.mark.parametrize(
    "kind, states",
    [
        ("job", JobState),
        ("request", RequestState),
        ("credential", CredentialState),
        ("revocation", RevocationState),
        ("attention", AttentionKind),
        ("outcome", get_args(Decision.model_fields["outcome"].annotation)),
        # A withdrawn approval is shown as one.
        ("answer", set(get_args(DecisionKind)) - {"withdraw"}),
        ("sensitivity", [level.name.lower() for level in Sensitivity]),
        ("revocable", Revocable),
    ],
)
def test_each_state_has_a_badge(kind: str, states: Iterable[str]) -> None:
    assert {str(state) for state in states} - BADGES[kind].keys() == set()
