"""The states by which lists are filtered."""

from __future__ import annotations

from typing import get_args

from console.api.routes.requests import Wanted
from console.services.background_reads import RevocationFilter
from justenough.domain.jobs.states import RequestState, RevocationState


def test_lists_are_filtered_by_each_state() -> None:
    assert set(Wanted) == {*RequestState, "all"}
    assert set(get_args(RevocationFilter)) == set(RevocationState) - {RevocationState.NONE}
